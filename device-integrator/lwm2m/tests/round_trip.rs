//! What is written in a format reads as what it was, for every resource of the built-in model.

use std::sync::LazyLock;

use lwm2m::codec::{decode, decode_paths, encode, encode_paths};
use lwm2m::{ContentFormat, Model, Path, Record, ResourceType, Value};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

static MODEL: LazyLock<Model> = LazyLock::new(Model::builtin);

/// Resources that hold values: object, resource, type, whether it has instances.
static RESOURCES: LazyLock<Vec<(u16, u16, ResourceType, bool)>> = LazyLock::new(|| {
    let objects = MODEL.objects().iter();
    let resources = objects.flat_map(|object| {
        object.resources.iter().filter_map(|resource| {
            Some((object.id, resource.id, resource.kind?, resource.multiple))
        })
    });
    resources.collect()
});

fn value(kind: ResourceType) -> BoxedStrategy<Value> {
    let float = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    match kind {
        ResourceType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        ResourceType::Integer => any::<i64>().prop_map(Value::Integer).boxed(),
        ResourceType::Unsigned => any::<u64>().prop_map(Value::Unsigned).boxed(),
        ResourceType::Float => float.prop_map(Value::Float).boxed(),
        ResourceType::String => any::<String>().prop_map(Value::String).boxed(),
        ResourceType::Opaque => vec(any::<u8>(), 0..300).prop_map(Value::Opaque).boxed(),
        ResourceType::Time => any::<i64>().prop_map(Value::Time).boxed(),
        ResourceType::CoreLink => any::<String>().prop_map(Value::CoreLink).boxed(),
        ResourceType::ObjectLink => any::<(u16, u16)>()
            .prop_map(|(object, instance)| Value::ObjectLink { object, instance })
            .boxed(),
    }
}

/// A value of any resource; the ids of instances are small and large.
fn record() -> impl Strategy<Value = Record> {
    let id = || prop_oneof![0..3_u16, 250..260_u16, 65_530..65_535_u16];
    (0..RESOURCES.len(), id(), id()).prop_flat_map(|(index, instance, resource_instance)| {
        let (object, resource, kind, multiple) = RESOURCES[index];
        let path = Path::resource(object, instance, resource);
        let deep = Path::resource_instance(object, instance, resource, resource_instance);
        let path = if multiple { deep } else { path };
        value(kind).prop_map(move |value| Record::new(path, value))
    })
}

fn time() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        (268_435_456..4_000_000_000_u32).prop_map(|seconds| Some(f64::from(seconds))),
        (268_435_456.0..4e9_f64).prop_map(Some),
    ]
}

fn reads_back(format: ContentFormat, base: &Path, records: &[Record]) {
    let bytes = encode(format, base, records).expect("the format holds them");
    let read = decode(format, base, &bytes, &MODEL, 1e9);
    assert_eq!(read.as_deref(), Ok(records), "{}", bytes.escape_ascii());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn one_value_reads_back_in_every_format(record in record()) {
        let base = record.path;
        let records = [record];
        for format in [
            ContentFormat::TEXT_PLAIN,
            ContentFormat::CBOR,
            ContentFormat::SENML_JSON,
            ContentFormat::SENML_CBOR,
            ContentFormat::LWM2M_JSON,
            ContentFormat::LWM2M_TLV,
        ] {
            reads_back(format, &base, &records);
        }
        if matches!(records[0].value, Value::Opaque(_)) {
            reads_back(ContentFormat::OCTET_STREAM, &base, &records);
        }
    }

    #[test]
    fn records_read_back_with_their_times(
        records in vec((record(), time()), 0..20),
        shared in time(),
        share in any::<bool>(),
    ) {
        let records: Vec<Record> = records
            .into_iter()
            .map(|(record, time)| Record { time: if share { shared } else { time }, ..record })
            .collect();
        let formats =
            [ContentFormat::SENML_JSON, ContentFormat::SENML_CBOR, ContentFormat::LWM2M_JSON];
        for format in formats {
            reads_back(format, &Path::ROOT, &records);
        }
    }

    #[test]
    fn an_object_reads_back_in_tlv(mut records in vec(record(), 1..40)) {
        let object = records[0].path.ids()[0];
        records.retain(|record| record.path.ids()[0] == object);
        records.sort_by_key(|record| record.path);
        records.dedup_by_key(|record| record.path);
        reads_back(ContentFormat::LWM2M_TLV, &Path::object(object), &records);
        let instance = records[0].path.ids()[1];
        records.retain(|record| record.path.ids()[1] == instance);
        reads_back(ContentFormat::LWM2M_TLV, &Path::instance(object, instance), &records);
    }

    #[test]
    fn paths_read_back(ids in btree_set(vec(0..65_535_u16, 0..5), 0..20)) {
        let path = |ids: Vec<u16>| {
            ids.iter().fold(Path::ROOT, |path, id| path.child(*id).expect("an id"))
        };
        let paths: Vec<Path> = ids.into_iter().map(path).collect();
        for format in [ContentFormat::SENML_JSON, ContentFormat::SENML_CBOR] {
            let bytes = encode_paths(format, &paths).expect("the format holds them");
            prop_assert_eq!(decode_paths(format, &bytes), Ok(paths.clone()));
        }
    }
}
