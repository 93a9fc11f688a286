//! Rules of the language that no documented example shows, and its limits.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use energy_saver::{
    CompileReason, DEPTH_MAX, FUEL_STEPS, LatLon, OPERATIONS_MAX, OUTPUT_BYTES_MAX, PayloadError,
    Program, SOURCE_BYTES_MAX, Translated,
};
use serde_json::{Value, json};

fn run(sense: Value, payload: &[u8]) -> Result<Translated, PayloadError> {
    let program = Program::compile(&json!({"sense": sense}).to_string()).unwrap();
    let result = program.run(payload);
    assert_eq!(program.check(payload), result.clone().map(drop));
    result
}

fn output(sense: Value, payload: &[u8]) -> String {
    run(sense, payload).unwrap().json
}

fn one(value: Value, payload: &[u8]) -> String {
    output(json!([{"asset": "v", "value": value}]), payload)
}

fn refusal(sense: Value) -> String {
    Program::compile(&json!({"sense": sense}).to_string()).unwrap_err().to_string()
}

#[test]
fn offsets_count_from_both_ends() {
    let payload = b"abcdef";
    let text = |mut selector: Value| {
        selector["type"] = "string".into();
        run(json!([{"asset": "v", "value": selector}]), payload)
            .map(|translated| translated.json)
            .unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(text(json!({"byte": 1, "bytelength": 2})), r#"{"v":"bc"}"#);
    assert_eq!(text(json!({"byte": 0, "endbyte": 0})), r#"{"v":"abcdef"}"#);
    assert_eq!(text(json!({"byte": 0, "endbyte": -1})), r#"{"v":"abcde"}"#);
    assert_eq!(text(json!({"byte": 6, "endbyte": 0})), r#"{"v":""}"#);
    assert_eq!(text(json!({"endbyte": -4, "bytelength": 4})), r#"{"v":"cdef"}"#);
    assert_eq!(text(json!({"endbyte": -1})), r#"{"v":"f"}"#);
    let outside = "Asset path:v, Error: can't extract ";
    assert_eq!(text(json!({"endbyte": 0})), format!("{outside}[6:7] from 6 bytes"));
    assert_eq!(text(json!({"endbyte": -7})), format!("{outside}[-1:0] from 6 bytes"));
    assert_eq!(text(json!({"byte": 4, "endbyte": -3})), format!("{outside}[4:3] from 6 bytes"));
    assert_eq!(text(json!({"byte": 7, "endbyte": 0})), format!("{outside}[7:6] from 6 bytes"));
}

#[test]
fn a_range_must_have_a_length_that_its_type_can_have() {
    let range = |kind: &str| json!({"byte": 0, "endbyte": 0, "type": kind});
    assert_eq!(one(range("uint"), &[1, 0]), r#"{"v":256}"#);
    let error = |kind: &str, payload: &[u8]| {
        run(json!([{"asset": "v", "value": range(kind)}]), payload).unwrap_err().to_string()
    };
    assert_eq!(
        error("uint", &[0; 3]),
        "Asset path:v, Error: can't read uint from 3 bytes, allowed: 1, 2, 4, 8"
    );
    assert_eq!(
        error("boolean", &[]),
        "Asset path:v, Error: can't read boolean from 0 bytes, allowed: at least 1"
    );
}

#[test]
fn later_writes_replace_earlier_ones() {
    let write = |asset: &str, value: u8| json!({"asset": asset, "value": value});
    let sense = json!([write("a", 1), write("b", 2), write("a", 3)]);
    assert_eq!(output(sense, &[]), r#"{"a":3,"b":2}"#);
    let sense = json!([write("a", 1), write("a.b", 2)]);
    assert_eq!(output(sense, &[]), r#"{"a":{"b":2}}"#);
    let sense = json!([write("a.b", 1), write("a.c", 1), write("a", 2)]);
    assert_eq!(output(sense, &[]), r#"{"a":2}"#);
    let sense = json!([write("a.b.c", 1), write("a", 2), write("a.b.d", 3)]);
    assert_eq!(output(sense, &[]), r#"{"a":{"b":{"d":3}}}"#);
    // A replaced value is still extracted: a short payload is an error.
    let short = json!([{"asset": "a", "value": {"byte": 5}}, write("a", 1)]);
    assert!(run(short, &[]).is_err());
}

#[test]
fn nested_blocks_and_comments_change_nothing() {
    let sense = json!([
        {"comment": "nothing"},
        [],
        [[{"asset": "a", "value": "x", "comment": "y"}], {"comment": "z"}],
        {"switch": {"byte": 0}, "comment": "c", "on": [
            {"comment": "only"},
            {"case": 1, "comment": "d", "do": [[{"asset": "b", "value": "y"}]]}]}]);
    assert_eq!(output(sense, &[1]), r#"{"a":"x","b":"y"}"#);
}

#[test]
fn the_first_case_that_matches_in_type_and_value_wins() {
    let sense = |selector: Value| {
        json!([{"switch": selector, "on": [
            {"case": "1", "do": [{"asset": "v", "value": "text"}]},
            {"case": true, "do": [{"asset": "v", "value": "boolean"}]},
            {"default": true, "do": [{"asset": "v", "value": "default"}]},
            {"case": 1.0, "do": [{"asset": "v", "value": "number"}]},
            {"case": 1, "do": [{"asset": "v", "value": "second"}]},
            {"case": "0a", "do": [{"asset": "v", "value": "hex"}]}]}])
    };
    assert_eq!(output(sense(json!({"byte": 0})), &[1]), r#"{"v":"number"}"#);
    let text = json!({"byte": 0, "type": "string"});
    assert_eq!(output(sense(text), b"1"), r#"{"v":"text"}"#);
    let boolean = json!({"byte": 0, "type": "boolean"});
    assert_eq!(output(sense(boolean), &[7]), r#"{"v":"boolean"}"#);
    let hex = json!({"byte": 0, "type": "hex"});
    assert_eq!(output(sense(hex.clone()), &[10]), r#"{"v":"hex"}"#);
    assert_eq!(output(sense(hex), &[11]), r#"{"v":"default"}"#);
}

#[test]
fn switches_nest_and_know_the_length() {
    let sense = json!([{"switch": "$payloadLength", "on": [
        {"case": 2, "do": [{"switch": {"byte": 1}, "on": [
            {"case": 5, "do": [{"asset": "inner", "value": 5}]},
            {"case": "$default", "do": [{"asset": "inner", "value": {"byte": 1}}]}]}]},
        {"case": "$default", "do": [{"asset": "outer", "value": true}]}]}]);
    assert_eq!(output(sense.clone(), &[0, 5]), r#"{"inner":5}"#);
    assert_eq!(output(sense.clone(), &[0, 6]), r#"{"inner":6}"#);
    assert_eq!(output(sense, &[0]), r#"{"outer":true}"#);
}

#[test]
fn bits_and_calculations() {
    assert_eq!(one(json!({"byte": 0, "bit": 0}), &[1]), r#"{"v":1}"#);
    let flag = json!({"byte": 0, "bit": 7, "type": "boolean"});
    assert_eq!(one(flag, &[0x80]), r#"{"v":true}"#);
    let tenth = json!({"byte": 0, "bytelength": 2, "type": "int", "calculation": "val / 10"});
    assert_eq!(one(tenth, &[0xff, 0xf6]), r#"{"v":-1}"#);
    let hundredth = json!({"byte": 0, "calculation": "(val - 40) / 100"});
    assert_eq!(one(hundredth, &[65]), r#"{"v":0.25}"#);
    let zero = json!({"byte": 0, "calculation": "1 / val"});
    assert_eq!(one(zero, &[0]), r#"{"v":null}"#);
}

#[test]
fn strings_that_are_no_utf_8_keep_what_is() {
    let text = json!({"byte": 0, "endbyte": 0, "type": "string"});
    assert_eq!(one(text.clone(), b"a\xffb"), "{\"v\":\"a\u{fffd}b\"}");
    assert_eq!(one(text, b"q\"\\\n\x01"), r#"{"v":"q\"\\\n\u0001"}"#);
}

#[test]
fn json_payloads_are_read_by_path() {
    let payload =
        br#"{"a":{"list":[1,2.50,"x"],"big":12345678901234567890},"t":"2020-07-31T15:41:40Z"}"#;
    assert_eq!(one(json!({"json": "a.list[1]"}), payload), r#"{"v":2.5}"#);
    assert_eq!(one(json!({"json": "a.list.2"}), payload), r#"{"v":"x"}"#);
    assert_eq!(one(json!({"json": "a.list"}), payload), r#"{"v":[1,2.5,"x"]}"#);
    assert_eq!(one(json!({"json": "a.big"}), payload), r#"{"v":12345678901234567000}"#);
    let double = json!({"json": "a.list[0]", "calculation": "val * 2", "type": "number"});
    assert_eq!(one(double, payload), r#"{"v":2}"#);
    let sense = json!([{"asset": "v", "value": {"json": "t"}, "at": {"json": "t"}}]);
    let translated = run(sense, payload).unwrap();
    assert_eq!(translated.at_unix_micros, Some(1_596_210_100_000_000));
    let by_text = json!([{"switch": {"json": "a.list[2]"}, "on": [
        {"case": "x", "do": [{"asset": "v", "value": 1}]}]}]);
    assert_eq!(output(by_text, payload), r#"{"v":1}"#);
}

#[test]
fn json_payloads_that_do_not_fit_are_errors() {
    let error = |value: Value, payload: &[u8]| {
        run(json!([{"asset": "v", "value": value}]), payload).unwrap_err().to_string()
    };
    assert_eq!(
        error(json!({"json": "a.b"}), br#"{"a":1}"#),
        r#"Asset path:v, Error: can't find "a.b" in the JSON payload"#
    );
    assert_eq!(
        error(json!({"json": "a"}), b"{"),
        "Asset path:v, Error: can't read the payload of 1 bytes as JSON"
    );
    assert_eq!(
        error(json!({"json": "a", "calculation": "val"}), br#"{"a":"1"}"#),
        r#"Asset path:v, Error: can't calculate with "a", it is not a number"#
    );
}

#[test]
fn composites_write_an_object_and_a_position() {
    let location = json!([
        {"asset": "place.old", "value": 1},
        {"asset": "place", "value": {
            "latitude": {"byte": 0, "bytelength": 4, "type": "int", "calculation": "val / 1000"},
            "longitude": {"byte": 4, "bytelength": 4, "type": "float"},
            "altitude": 12}}]);
    let mut payload = 48_137_i32.to_be_bytes().to_vec();
    payload.extend_from_slice(&11.5_f32.to_be_bytes());
    let translated = run(location, &payload).unwrap();
    let expected = r#"{"place":{"latitude":48.137,"longitude":11.5,"altitude":12}}"#;
    assert_eq!(translated.json, expected);
    assert_eq!(translated.position, Some(LatLon { latitude: 48.137, longitude: 11.5 }));
    let axes = json!({"x": {"byte": 0}, "y": {"byte": 1}, "z": {"byte": 9}});
    let error = run(json!([{"asset": "a", "value": axes}]), &[1, 2]).unwrap_err();
    assert_eq!(error.to_string(), "Asset path:a.z, Error: can't extract [9:10] from 2 bytes");
}

#[test]
fn half_a_position_is_none() {
    let sense = json!([{"asset": "lat", "custom_type": "location_lat",
        "value": {"byte": 0, "bytelength": 8, "type": "float"}}]);
    assert_eq!(run(sense, &[0; 8]).unwrap().position, None);
}

#[test]
fn refusals_name_the_place() {
    let entry = |entry: Value| json!([{"switch": {"byte": 0}, "on": [entry]}]);
    let cases = [
        (json!({}), "sense: found an object, expected a list of statements"),
        (json!([1]), "sense[0]: found a number, expected a statement or a list of them"),
        (
            json!([{}]),
            "sense[0]: statement needs asset and value, or switch and on, or only a comment",
        ),
        (json!([{"asset": "a"}]), "sense[0]: field \"value\" is missing"),
        (
            json!([{"asset": "a..b", "value": 1}]),
            "sense[0].asset: \"a..b\" is not allowed, allowed: names joined by dots, none empty",
        ),
        (
            json!([{"asset": "a", "value": 1, "on": []}]),
            "sense[0].on: field is not known, allowed: asset, value, custom_type, at, comment",
        ),
        (entry(json!({"do": []})), "sense[0].on[0]: an entry needs a case, or default set to true"),
        (entry(json!({"case": 1})), "sense[0].on[0]: field \"do\" is missing"),
        (
            entry(json!({"case": 1, "default": true, "do": []})),
            "sense[0].on[0]: an entry has either a case or default, not both",
        ),
        (
            entry(json!({"case": 1, "do": [[{"asset": "a", "value": {"byte": 0, "type": 4}}]]})),
            "sense[0].on[0].do[0][0].value.type: found a number, expected a string",
        ),
        (
            json!([{"switch": "foo", "on": []}]),
            "sense[0].switch: found a string, expected an object that selects bytes or a json \
             path, or \"$payloadLength\"",
        ),
        (
            json!([{"asset": "a", "custom_type": "location_lat", "value": {"byte": 0}}]),
            "sense[0].custom_type: custom_type needs a double: type float of bytelength 8, or a \
             calculation",
        ),
        (
            json!([{"asset": "a", "value": {"latitude": 1}}]),
            "sense[0].value: field \"longitude\" is missing",
        ),
        (
            json!([{"asset": "a", "value": {"byte": 0, "calculation": "val +"}}]),
            "sense[0].value.calculation: the end at position 6 of the calculation, expected val, \
             a number or (",
        ),
    ];
    for (sense, expected) in cases {
        assert_eq!(refusal(sense), expected);
    }
    let compile = |text: &str| Program::compile(text).unwrap_err().to_string();
    assert_eq!(compile("[]"), "template: found a list, expected an object with the field sense");
    assert_eq!(compile("{}"), "template: field \"sense\" is missing");
    assert!(compile("{").starts_with("template: not valid JSON: EOF"));
    assert!(compile(r#"{"sense":[],"sens":1}"#).starts_with("sens: field is not known"));
    assert!(Program::compile(r#"{"sense":[],"actuate":[1],"name":"n","version":"1"}"#).is_ok());
}

#[test]
fn a_template_has_limits() {
    let source = format!(r#"{{"sense":[],"comment":"{}"}}"#, "x".repeat(SOURCE_BYTES_MAX));
    let error = Program::compile(&source).unwrap_err();
    assert!(matches!(error.reason, CompileReason::Limit { limit: SOURCE_BYTES_MAX, .. }));
    let statement = json!({"asset": "a", "value": 1});
    let most = vec![statement.clone(); OPERATIONS_MAX];
    assert_eq!(output(json!(most), &[]), r#"{"a":1}"#);
    let more = vec![statement; OPERATIONS_MAX + 1];
    assert_eq!(
        refusal(json!(more)),
        "sense[512].value: number of operations of 513 exceeds the limit of 512"
    );
    let nested = |depth: usize| (1..depth).fold(json!([]), |inner, _| json!([inner]));
    assert_eq!(output(nested(DEPTH_MAX), &[]), "{}");
    assert!(refusal(nested(DEPTH_MAX + 1)).ends_with("depth of 9 exceeds the limit of 8"));
    let deep = format!(r#"{{"sense":{}"#, "[".repeat(10_000));
    assert!(Program::compile(&deep).unwrap_err().to_string().contains("recursion limit"));
    let long = json!([{"asset": "x".repeat(257), "value": 1}]);
    assert!(refusal(long).contains("asset path length in bytes of 257 exceeds the limit of 256"));
    let many = json!([{"asset": vec!["x"; 17].join("."), "value": 1}]);
    assert!(refusal(many).contains("asset path segments of 17 exceeds the limit of 16"));
}

#[test]
fn as_many_assets_as_operations_work() {
    let sense: Vec<_> =
        (0..OPERATIONS_MAX).map(|n| json!({"asset": format!("a{n}"), "value": n})).collect();
    let json: Value = serde_json::from_str(&output(json!(sense), &[])).unwrap();
    assert_eq!(json.as_object().unwrap().len(), OPERATIONS_MAX);
    assert_eq!(json["a511"], 511);
}

#[test]
fn a_run_that_takes_too_many_steps_is_stopped() {
    let whole = json!({"byte": 0, "endbyte": 0, "type": "string"});
    let sense = vec![json!({"switch": whole, "on": []}); 20];
    let payload = vec![b'x'; 60_000];
    let error = run(json!(sense), &payload).unwrap_err();
    assert!(error.is_over_budget());
    let expected = "Switch path:sense[10].switch, Error: template takes more than 10000 steps for \
                    60000 bytes";
    assert_eq!(error.to_string(), expected);
    let PayloadError::Fuel { limit: FUEL_STEPS, .. } = error else { panic!("{error}") };
    assert_eq!(output(json!(sense), b"x"), "{}");
}

#[test]
fn the_longest_output_is_exactly_the_limit() {
    let sense = json!([
        {"asset": "a.b", "value": {"byte": 0, "endbyte": 0, "type": "hex"}},
        {"asset": "a.c", "value": {"byte": 0, "endbyte": 0, "type": "hex"}}]);
    let longest = (16_300..16_400)
        .rev()
        .find_map(|length| run(sense.clone(), &vec![0; length]).ok())
        .map(|translated| translated.json.len())
        .unwrap();
    assert!((OUTPUT_BYTES_MAX - 32..=OUTPUT_BYTES_MAX).contains(&longest), "{longest}");
    let error = run(sense, &vec![0; 20_000]).unwrap_err();
    assert!(error.is_over_budget());
    assert_eq!(error.to_string(), "Asset path:a.c, Error: JSON exceeds the limit of 65536 bytes");
}

#[test]
fn a_buffer_is_reused_and_left_empty_after_an_error() {
    let program = Program::compile(r#"{"sense":[{"asset":"v","value":{"byte":0}}]}"#).unwrap();
    let mut out = "something else".to_owned();
    program.run_into(&[1], &mut out).unwrap();
    assert_eq!(out, r#"{"v":1}"#);
    program.run_into(&[], &mut out).unwrap_err();
    assert_eq!(out, "");
}
