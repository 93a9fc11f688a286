//! Translations per second on one core, into a buffer that is reused.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use energy_saver::Program;

fn main() {
    divan::main();
}

const THREE: &str = r#"{"sense":[
    {"asset":"Temperature","value":{"byte":0,"bytelength":2,"type":"int"}},
    {"asset":"Humidity","value":{"byte":2,"bytelength":2,"type":"int"}},
    {"asset":"Switch","value":{"byte":4,"bytelength":1,"type":"boolean"}}]}"#;

const SWITCH: &str = r#"{"sense":[{"switch":{"byte":0,"bytelength":1,"type":"int"},"on":[
    {"case":0,"do":[{"asset":"gps.lat","value":{"byte":1,"bytelength":4,"type":"float"}},
        {"asset":"gps.lon","value":{"byte":5,"bytelength":4,"type":"float"}},
        {"asset":"speed","value":{"byte":9,"bytelength":2,"type":"int"}}]},
    {"default":true,"do":[{"asset":"error","value":"unknown payload"}]}]}]}"#;

/// The official GPS template of 1NCE OS.
const GPS: &str = include_str!("../tests/gps.json");

fn program(source: &str) -> Program {
    match Program::compile(source) {
        Ok(program) => program,
        Err(error) => panic!("{error}"),
    }
}

fn gps_payload() -> Vec<u8> {
    let mut payload = b"T2020-07-31 15:41:40".to_vec();
    payload.extend_from_slice(&56.92137111_f64.to_le_bytes());
    payload.extend_from_slice(&24.09641595_f64.to_le_bytes());
    payload.extend_from_slice(&6_u16.to_le_bytes());
    for single in [42.937_f32, 0.0, 0.871] {
        payload.extend_from_slice(&single.to_le_bytes());
    }
    for short in [162_u16, 30, 30] {
        payload.extend_from_slice(&short.to_le_bytes());
    }
    payload.extend_from_slice(b"20200731-184140GPS Logger: 20200731-184140");
    payload
}

fn translate(bencher: Bencher<'_, '_>, source: &str, payload: &[u8]) {
    let program = program(source);
    let mut out = String::new();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let details = program.run_into(black_box(payload), &mut out);
        black_box((details.is_ok(), out.len()))
    });
}

#[divan::bench]
fn three_fields(bencher: Bencher<'_, '_>) {
    translate(bencher, THREE, &[0x00, 0x1a, 0x00, 0x37, 0x00]);
}

#[divan::bench]
fn three_fields_in_a_switch(bencher: Bencher<'_, '_>) {
    translate(bencher, SWITCH, &[0x00, 0x42, 0x4b, 0xbc, 0xf9, 0x40, 0xde, 0x98, 0x1c, 0x00, 0x78]);
}

#[divan::bench]
fn official_gps(bencher: Bencher<'_, '_>) {
    translate(bencher, GPS, &gps_payload());
}

#[divan::bench]
fn check_three_fields(bencher: Bencher<'_, '_>) {
    let program = program(THREE);
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| program.check(black_box(&[0x00, 0x1a, 0x00, 0x37, 0x00])).is_ok());
}

#[divan::bench]
fn compile_official_gps(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| program(black_box(GPS)));
}

/// The most that one run can be made to do: every step spent on comparing zeros.
#[divan::bench]
fn hostile_booleans(bencher: Bencher<'_, '_>) {
    let mapping = r#"{"asset":"v","value":{"byte":0,"endbyte":0,"type":"boolean"}}"#;
    let source = format!(r#"{{"sense":[{}]}}"#, [mapping; 9].join(","));
    translate(bencher, &source, &vec![0; 64 * 1024]);
}

/// The most JSON values that a payload of 64 KiB can hold.
#[divan::bench]
fn hostile_json(bencher: Bencher<'_, '_>) {
    let payload = format!("[{}0]", "0,".repeat(32 * 1024 - 2));
    let source = r#"{"sense":[{"asset":"v","value":{"json":"1"}}]}"#;
    translate(bencher, source, payload.as_bytes());
}
