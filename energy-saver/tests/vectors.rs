//! The examples that 1NCE OS documents: templates, payloads, errors and the conversion test.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "singles are what is tested")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use energy_saver::{LatLon, Program, Translated};

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn run(template: &str, payload: &[u8]) -> Translated {
    let program = Program::compile(template).unwrap();
    assert_eq!(program.check(payload), Ok(()));
    program.run(payload).unwrap()
}

fn error(template: &str, payload: &[u8]) -> String {
    let program = Program::compile(template).unwrap();
    let error = program.run(payload).unwrap_err();
    assert_eq!(program.check(payload), Err(error.clone()));
    error.to_string()
}

const SWITCH: &str = r#"{"sense":[{"switch":{"byte":0,"bytelength":1,"type":"int"},"on":[
    {"case":0,"do":[{"asset":"gps.lat","value":{"byte":1,"bytelength":4,"type":"float"}},
        {"asset":"gps.lon","value":{"byte":5,"bytelength":4,"type":"float"}},
        {"asset":"speed","value":{"byte":9,"bytelength":2,"type":"int"}}]},
    {"default":true,"do":[{"asset":"error","value":"unknown payload"}]}]}]}"#;

const FULL: &str = r#"{"sense":[
 {"asset":"message_code","value":{"byte":0,"bytelength":1,"type":"uint"}},
 {"switch":{"byte":0,"bytelength":1,"type":"int"},"on":[
  {"case":0,"comment":"Positional data","do":[{"asset":"data_type","value":"Position"},
    {"asset":"gps.lat","value":{"byte":1,"bytelength":4,"type":"float"}},
    {"asset":"gps.lon","value":{"byte":4,"bytelength":4,"type":"float"}},
    {"asset":"speed","value":{"byte":8,"bytelength":2,"type":"int"}}]},
  {"case":1,"comment":"Maintenance data","do":[{"asset":"data_type","value":"Maintenance"},
    {"asset":"on","value":{"byte":1,"type":"boolean"}},
    {"asset":"fuel","value":{"byte":2,"bytelength":4,"type":"uint"}},
    {"asset":"driver","value":{"byte":6,"bytelength":4,"type":"string"}},
    {"asset":"driver_hex","value":{"byte":6,"bytelength":4,"type":"hex"}}]},
  {"default":true,"do":[{"asset":"data_type","value":"Unsupported type"}]}]},
 {"asset":"full_payload","value":{"byte":0,"endbyte":0,"type":"hex"}}]}"#;

const LOCATION: &str = r#"{"sense":[
    {"asset":"longitude","custom_type":"location_long",
     "value":{"byte":0,"bytelength":8,"byteorder":"little","type":"float"}},
    {"asset":"latitude","custom_type":"location_lat",
     "value":{"byte":8,"bytelength":8,"byteorder":"little","type":"float"}}]}"#;

#[test]
fn vector_1_a_boolean() {
    let template =
        r#"{"sense":[{"asset":"motion","value":{"byte":0,"bytelength":1,"type":"boolean"}}]}"#;
    assert_eq!(run(template, &[1]).json, r#"{"motion":true}"#);
    assert_eq!(run(template, &[0]).json, r#"{"motion":false}"#);
}

#[test]
fn vector_2_a_constant() {
    let template = r#"{"sense":[{"asset":"sensor","value":"motion"}]}"#;
    assert_eq!(run(template, &[]).json, r#"{"sensor":"motion"}"#);
    assert_eq!(run(template, &[1, 2, 3]).json, r#"{"sensor":"motion"}"#);
}

#[test]
fn vector_3_a_float_in_its_shortest_form() {
    let template = r#"{"sense":[{"asset":"longitude",
        "value":{"byte":0,"bytelength":4,"byteorder":"big","type":"float"}}]}"#;
    let json = run(template, &hex("424bbcf9")).json;
    // The documents print the first; a service that widens to double would print the second.
    assert_eq!(json, r#"{"longitude":50.934544}"#);
    let widened: f64 = "50.93454360961914".parse().unwrap();
    let printed: f64 = "50.934544".parse().unwrap();
    assert_eq!(printed as f32, widened as f32);
}

#[test]
fn vectors_4_and_5_a_switch() {
    let json = run(SWITCH, &hex("00424bbcf940de981c0078")).json;
    assert_eq!(json, r#"{"gps":{"lat":50.934544,"lon":6.956068},"speed":120}"#);
    assert_eq!(run(SWITCH, &hex("01ffffff")).json, r#"{"error":"unknown payload"}"#);
}

#[test]
fn vector_6_the_full_example() {
    let json = run(FULL, &hex("01010000058c6f6c6567")).json;
    let expected = concat!(
        r#"{"message_code":1,"data_type":"Maintenance","on":true,"fuel":1420,"driver":"oleg","#,
        r#""driver_hex":"6f6c6567","full_payload":"01010000058c6f6c6567"}"#
    );
    assert_eq!(json, expected);
    let json = run(FULL, &hex("07")).json;
    assert_eq!(json, r#"{"message_code":7,"data_type":"Unsupported type","full_payload":"07"}"#);
}

#[test]
fn vector_7_environment() {
    let template = r#"{"sense":[
        {"asset":"Temperature","value":{"byte":0,"bytelength":2,"type":"int","signed":true}},
        {"asset":"Humidity","value":{"byte":2,"bytelength":2,"type":"int"}},
        {"asset":"Switch","value":{"byte":4,"bytelength":1,"type":"boolean"}}]}"#;
    let json = run(template, &hex("001a003700")).json;
    assert_eq!(json, r#"{"Temperature":26,"Humidity":55,"Switch":false}"#);
    assert_eq!(json.len(), 47);
}

#[test]
fn vector_8_a_location() {
    let payload = BASE64_STANDARD.decode("codNZOYaOEAC2evdH3lMQA==").unwrap();
    let translated = run(LOCATION, &payload);
    assert_eq!(translated.json, r#"{"longitude":24.105078,"latitude":56.946285}"#);
    let position = LatLon { latitude: 56.946285, longitude: 24.105078 };
    assert_eq!(translated.position, Some(position));
}

#[test]
fn vector_9_deep_json() {
    let template = r#"{"sense":[
        {"asset":"car.running","value":{"byte":0,"type":"boolean"}},
        {"asset":"car.fuel","value":{"byte":1,"bytelength":4,"type":"uint"}},
        {"asset":"car.driver","value":{"byte":5,"bytelength":4,"type":"string"}}]}"#;
    let json = run(template, &hex("010000058c6f6c6567")).json;
    assert_eq!(json, r#"{"car":{"running":true,"fuel":1420,"driver":"oleg"}}"#);
}

#[test]
fn the_switch_without_a_default_gives_an_empty_object() {
    let template = r#"{"sense":[{"switch":{"byte":0,"type":"int"},"on":[
        {"case":0,"do":[{"asset":"data_type","value":"environment"},
            {"asset":"temperature","value":{"byte":1,"bytelength":4,"type":"float"}}]},
        {"case":1,"do":[{"asset":"data_type","value":"device"},
            {"asset":"on","value":{"byte":1,"type":"boolean"}}]}]}]}"#;
    assert_eq!(run(template, &[2]).json, "{}");
    assert_eq!(run(template, &[1, 1]).json, r#"{"data_type":"device","on":true}"#);
    assert_eq!(
        run(template, &hex("0041ac0000")).json,
        r#"{"data_type":"environment","temperature":21.5}"#
    );
}

#[test]
fn the_documented_error_texts() {
    let template = r#"{"sense":[{"asset":"Temperature","value":{"byte":200,"type":"int"}}]}"#;
    let expected = "Asset path:Temperature, Error: can't extract [200:201] from 2 bytes";
    assert_eq!(error(template, &[1, 2]), expected);
    let expected = "Asset path:longitude, Error: can't extract [0:8] from 1 bytes";
    assert_eq!(error(LOCATION, &[1]), expected);
    let expected = "Switch path:sense[0].switch, Error: can't extract [0:1] from 0 bytes";
    assert_eq!(error(SWITCH, &[]), expected);
    let expected = "Asset path:gps.lon, Error: can't extract [5:9] from 6 bytes";
    assert_eq!(error(SWITCH, &hex("00424bbcf940")), expected);
}

#[test]
fn the_captured_double_in_the_wrong_order() {
    let template = r#"{"sense":[{"asset":"latitude","custom_type":"location_lat",
        "value":{"byte":0,"bytelength":8,"type":"float"}},
        {"asset":"longitude","custom_type":"location_long","value":{"byte":0,"bytelength":8,
        "type":"float"}}]}"#;
    let payload = 7.490929188596135e247_f64.to_be_bytes();
    let translated = run(template, &payload);
    let expected = r#"{"latitude":7.490929188596135e+247,"longitude":7.490929188596135e+247}"#;
    assert_eq!(translated.json, expected);
    // It is told as it is: that it is no place on the globe is for others to say.
    assert!(translated.position.is_some_and(|place| place.latitude > 90.0));
}

/// The official GPS template of 1NCE OS.
const GPS: &str = include_str!("gps.json");

#[test]
fn the_official_gps_template() {
    let mut payload = Vec::new();
    payload.extend_from_slice(b"T2020-07-31 15:41:40");
    payload.extend_from_slice(&56.92137111_f64.to_le_bytes());
    payload.extend_from_slice(&24.09641595_f64.to_le_bytes());
    payload.extend_from_slice(&6_u16.to_le_bytes());
    payload.extend_from_slice(&42.937_f32.to_le_bytes());
    payload.extend_from_slice(&0_f32.to_le_bytes());
    payload.extend_from_slice(&0.871_f32.to_le_bytes());
    payload.extend_from_slice(&162_i16.to_le_bytes());
    payload.extend_from_slice(&30_u16.to_le_bytes());
    payload.extend_from_slice(&30_u16.to_le_bytes());
    payload.extend_from_slice(b"20200731-184140");
    payload.extend_from_slice(b"GPS Logger: 20200731-184140");
    assert_eq!(payload.len(), 98);
    let expected = concat!(
        r#"{"type":"T","data_type":"track","date_time":"2020-07-31 15:41:40","#,
        r#""gps":{"latitude":56.92137111,"longitude":24.09641595,"accuracy":6,"#,
        r#""altitude":42.937,"geoid_height":0,"speed":0.871,"bearing":162,"sat_used":30,"#,
        r#""sat_inview":30},"name":"20200731-184140","desc":"GPS Logger: 20200731-184140"}"#
    );
    assert_eq!(run(GPS, &payload).json, expected);
    let mut named = b"Sshort".to_vec();
    named.resize(37, 0);
    let json = run(GPS, &named).json;
    // Padding with NUL is kept.
    assert_eq!(json, format!(r#"{{"type":"S","name":"short{}"}}"#, r"\u0000".repeat(31)));
}

#[test]
fn the_official_environment_template() {
    let template = r#"{"sense":[{"asset":"data_type","value":"environment"},
        {"asset":"temperature","value":{"byte":0,"bytelength":4,"type":"float"}},
        {"asset":"humidity","value":{"byte":4,"bytelength":4,"type":"float"}},
        {"asset":"brightness","value":{"byte":8,"bytelength":4,"type":"float"}},
        {"asset":"battery_charge","value":{"byte":12,"bytelength":4,"type":"float"}},
        {"asset":"maintenance_needed","value":{"byte":16,"type":"boolean"}}]}"#;
    let mut payload = Vec::new();
    for value in [21.5_f32, 48.25, 812.0, 97.3] {
        payload.extend_from_slice(&value.to_be_bytes());
    }
    let expected = "Asset path:maintenance_needed, Error: can't extract [16:17] from 16 bytes";
    assert_eq!(error(template, &payload), expected);
    payload.push(0);
    let expected = concat!(
        r#"{"data_type":"environment","temperature":21.5,"humidity":48.25,"brightness":812,"#,
        r#""battery_charge":97.3,"maintenance_needed":false}"#
    );
    assert_eq!(run(template, &payload).json, expected);
}

#[test]
fn packets_of_the_device_sdk() {
    let template = r#"{"sense":[{"switch":{"byte":0,"type":"int"},"on":[
        {"case":1,"do":[{"asset":"data_type","value":"Energy_Saver"},
            {"asset":"battery_level","value":{"byte":1,"type":"uint"}},
            {"asset":"signal_strength","value":{"byte":2,"type":"uint"}},
            {"asset":"software_version","value":{"byte":3,"bytelength":5,"type":"string"}}]},
        {"case":2,"do":[{"asset":"temperature","value":
            {"byte":1,"bytelength":4,"type":"float","byteorder":"little"}}]},
        {"case":3,"do":[{"asset":"count","value":
            {"byte":1,"bytelength":4,"type":"int","byteorder":"little"}}]},
        {"case":44,"do":[{"asset":"selector","value":"cut to its low byte"}]}]}]}"#;
    let expected = concat!(
        r#"{"data_type":"Energy_Saver","battery_level":99,"signal_strength":84,"#,
        r#""software_version":"2.2.1"}"#
    );
    assert_eq!(run(template, &hex("016354322e322e31")).json, expected);
    assert_eq!(run(template, &hex("020000ac41")).json, r#"{"temperature":21.5}"#);
    assert_eq!(run(template, &hex("0364000000")).json, r#"{"count":100}"#);
    // Selector 300 goes out as its low byte.
    assert_eq!(run(template, &hex("2c")).json, r#"{"selector":"cut to its low byte"}"#);
}
