//! What ten values cost: read in each format, written in each, and as JSON for the customer.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use lwm2m::codec::{decode, encode, link_format};
use lwm2m::{ContentFormat, Model, Path, Record, Value, flat_json};

fn main() {
    divan::main();
}

/// Ten values of an object: numbers, texts, a time.
fn records() -> Vec<Record> {
    let text = |text: &str| Value::String(text.to_owned());
    [
        (0, text("Open Mobile Alliance")),
        (1, text("Lightweight M2M Client")),
        (2, text("345000123")),
        (3, text("1.0")),
        (9, Value::Integer(95)),
        (10, Value::Integer(15)),
        (13, Value::Time(1_700_000_000)),
        (14, text("+02:00")),
        (20, Value::Integer(0)),
        (21, Value::Integer(128)),
    ]
    .map(|(resource, value)| Record::new(Path::resource(3, 0, resource), value))
    .to_vec()
}

/// Ten measurements of different sensors.
fn measurements() -> Vec<Record> {
    (0..10_u16)
        .map(|sensor| {
            let path = Path::resource(3303, sensor, 5700);
            Record::new(path, Value::Float(f64::from(sensor) + 20.5))
        })
        .collect()
}

const FORMATS: [u16; 4] = [110, 112, 11_542, 11_543];

#[divan::bench(args = FORMATS)]
fn decode_device(bencher: Bencher<'_, '_>, format: u16) {
    let (model, base, format) = (Model::builtin(), Path::object(3), ContentFormat(format));
    let bytes = encode(format, &base, &records()).unwrap_or_default();
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| {
        decode(format, &base, black_box(&bytes), &model, 0.0).map_or(0, |records| records.len())
    });
}

#[divan::bench(args = FORMATS)]
fn decode_measurements(bencher: Bencher<'_, '_>, format: u16) {
    let (model, base, format) = (Model::builtin(), Path::object(3303), ContentFormat(format));
    let bytes = encode(format, &base, &measurements()).unwrap_or_default();
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| {
        decode(format, &base, black_box(&bytes), &model, 0.0).map_or(0, |records| records.len())
    });
}

#[divan::bench(args = FORMATS)]
fn encode_device(bencher: Bencher<'_, '_>, format: u16) {
    let (base, records) = (Path::object(3), records());
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| {
        encode(ContentFormat(format), &base, black_box(&records)).map_or(0, |bytes| bytes.len())
    });
}

#[divan::bench]
fn flat_json_of_measurements(bencher: Bencher<'_, '_>) {
    let records = measurements();
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| flat_json(black_box(&records)).len());
}

#[divan::bench]
fn registration(bencher: Bencher<'_, '_>) {
    let links = b"</>;rt=\"oma.lwm2m\";ct=\"60 110 112 11542 11543\",</1/0>,</2>,</3/0>,</4/0>,\
                  </5/0>,</6/0>,</3303/0>,</3303/1>,</3311/0>";
    bencher.bench_local(|| link_format::parse(black_box(links)).map_or(0, |it| it.objects.len()));
}
