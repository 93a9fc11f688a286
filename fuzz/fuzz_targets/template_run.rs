//! A template and a payload, divided by the first zero byte: a run gives valid JSON within the
//! limit or an error, and `check` agrees with it.

#![no_main]

use energy_saver::{OUTPUT_BYTES_MAX, Program};
use libfuzzer_sys::fuzz_target;

/// Every construct of the language, for inputs whose own template does not compile.
const TEMPLATE: &str = r#"{"sense":[
    {"asset":"whole","value":{"byte":0,"endbyte":0,"type":"string"}},
    {"switch":{"byte":0},"on":[
        {"case":1,"do":[
            {"asset":"a.single","value":{"byte":1,"bytelength":4,"type":"float"}},
            {"asset":"a.double","value":{"endbyte":-8,"bytelength":8,"type":"float"},
             "at":{"byte":1,"endbyte":-3,"type":"string"}}]},
        {"case":2,"do":[{"asset":"place","value":{
            "latitude":{"byte":1,"bytelength":4,"type":"int","calculation":"val / 10000"},
            "longitude":{"byte":5,"bytelength":4,"type":"int","calculation":"val / 10000"}}}]},
        {"case":123,"do":[{"asset":"whole","value":{"json":"a"},"at":{"json":"a"}}]},
        {"case":"$default","do":[
            {"switch":"$payloadLength","on":[
                {"case":8,"do":[{"asset":"n","value":{"byte":0,"endbyte":0,"type":"int"}}]}]},
            {"asset":"bit","value":{"byte":1,"bit":3,"type":"boolean"}},
            {"asset":"hex","value":{"byte":1,"endbyte":-1,"type":"hex"}}]}]}]}"#;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let source = parts.next().unwrap_or_default();
    let own = std::str::from_utf8(source).ok().and_then(|text| Program::compile(text).ok());
    match (own, Program::compile(TEMPLATE)) {
        (Some(program), _) => run(&program, parts.next().unwrap_or_default()),
        (None, Ok(program)) => run(&program, data),
        (None, Err(error)) => panic!("{error}"),
    }
});

fn run(program: &Program, payload: &[u8]) {
    let result = program.run(payload);
    assert_eq!(program.check(payload).is_ok(), result.is_ok());
    match result {
        Ok(translated) => {
            assert!(translated.json.len() <= OUTPUT_BYTES_MAX);
            let value: Result<serde_json::Value, _> = serde_json::from_str(&translated.json);
            assert!(value.is_ok_and(|value| value.is_object()), "{}", translated.json);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
