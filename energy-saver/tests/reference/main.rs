//! Random templates and payloads: the program gives what a plain interpreter gives, and nothing
//! panics.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

mod interpreter;

use energy_saver::{LatLon, Program};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use interpreter::CALCULATIONS;

fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn constant() -> BoxedStrategy<Value> {
    prop_oneof![
        (-2..40_i64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |n| n.is_finite())
            .prop_map(Value::from),
        "[a-c\"\\\\\u{0}ü]{0,3}".prop_map(Value::from),
        "[0-9a-f]{2}".prop_map(Value::from),
    ]
    .boxed()
}

fn calculation() -> impl Strategy<Value = Option<Value>> {
    let text = select(CALCULATIONS.map(|(text, _)| text).to_vec());
    proptest::option::weighted(0.2, text.prop_map(Value::from))
}

/// Offsets: from the start, from the end, or both; with a length where that is allowed.
fn extent(sizes: &'static [u64]) -> impl Strategy<Value = [(&'static str, Option<Value>); 3]> {
    (0..3, 0..14_i64, -10..=0_i64, select(sizes)).prop_map(|(form, byte, endbyte, size)| {
        // The default of one byte is sometimes left out.
        let size = (form != 2 && (size != 1 || byte % 2 == 0)).then(|| json!(size));
        [
            ("byte", (form != 1).then(|| json!(byte))),
            ("endbyte", (form != 0).then(|| json!(endbyte))),
            ("bytelength", size),
        ]
    })
}

fn field() -> BoxedStrategy<Value> {
    let order = || select(vec![None, Some(json!("big")), Some(json!("little"))]);
    let integer = select(vec![None, Some("int"), Some("uint"), Some("integer")]);
    let integers = (extent(&[1, 2, 4, 8]), integer, order(), any::<bool>(), calculation())
        .prop_map(|(extent, name, order, signed, calculation)| {
            object(extent.into_iter().chain([
                ("type", name.map(Value::from)),
                ("byteorder", order),
                ("signed", signed.then_some(json!(true))),
                ("calculation", calculation),
            ]))
        });
    let floats = (extent(&[4, 8]), select(vec!["float", "number"]), order(), calculation())
        .prop_map(|(extent, name, order, calculation)| {
            object(extent.into_iter().chain([
                ("type", Some(json!(name))),
                ("byteorder", order),
                ("calculation", calculation),
            ]))
        });
    let others = (extent(&[1, 2, 3, 5]), select(vec!["boolean", "string", "hex", "hexstring"]))
        .prop_map(|(extent, name)| object(extent.into_iter().chain([("type", Some(json!(name)))])));
    let bits = (extent(&[1]), 0..8, select(vec!["boolean", "int", "uint"])).prop_map(
        |(extent, bit, name)| {
            object(
                extent.into_iter().chain([("type", Some(json!(name))), ("bit", Some(json!(bit)))]),
            )
        },
    );
    prop_oneof![4 => integers, 2 => floats, 3 => others, 1 => bits].boxed()
}

fn json_field() -> BoxedStrategy<Value> {
    let path = select(vec!["a", "b", "a.b", "a[0]", "a.1", "b.a[1].c", "b[0][1]"]);
    (path, calculation())
        .prop_map(|(path, calculation)| {
            object([("json", Some(json!(path))), ("calculation", calculation)])
        })
        .boxed()
}

fn selector() -> BoxedStrategy<Value> {
    prop_oneof![3 => constant(), 8 => field(), 1 => json_field()].boxed()
}

fn composite() -> BoxedStrategy<Value> {
    let optional = || proptest::option::of(selector());
    prop_oneof![
        (selector(), selector(), optional(), optional()).prop_map(|(lat, lon, alt, acc)| object([
            ("latitude", Some(lat)),
            ("longitude", Some(lon)),
            ("altitude", alt),
            ("accuracy", acc),
        ])),
        (selector(), selector(), selector()).prop_map(|(x, y, z)| object([
            ("x", Some(x)),
            ("y", Some(y)),
            ("z", Some(z))
        ])),
    ]
    .boxed()
}

fn asset() -> BoxedStrategy<Value> {
    vec(select(vec!["a", "b", "latitude", "c\"ü"]), 1..4)
        .prop_map(|segments| Value::from(segments.join(".")))
        .boxed()
}

fn mapping() -> BoxedStrategy<Value> {
    let double = |(extent, order): ([(&'static str, Option<Value>); 3], &'static str)| {
        object(
            extent
                .into_iter()
                .chain([("type", Some(json!("float"))), ("byteorder", Some(json!(order)))]),
        )
    };
    let located = (extent(&[8]), select(vec!["big", "little"])).prop_map(double);
    let axis = select(vec!["location_lat", "location_long"]);
    let from_payload = || proptest::option::weighted(0.1, field());
    prop_oneof![
        8 => (asset(), selector(), from_payload()).prop_map(|(asset, value, at)| object([
            ("asset", Some(asset)),
            ("value", Some(value)),
            ("at", at),
        ])),
        1 => (asset(), composite())
            .prop_map(|(asset, value)| json!({"asset": asset, "value": value})),
        1 => (asset(), located, axis)
            .prop_map(|(asset, value, axis)| {
                json!({"asset": asset, "value": value, "custom_type": axis})
            }),
    ]
    .boxed()
}

fn block() -> BoxedStrategy<Value> {
    let statement = prop_oneof![9 => mapping(), 1 => Just(json!({"comment": "c"}))];
    let flat = vec(statement, 0..5).prop_map(Value::from);
    flat.prop_recursive(3, 40, 4, |inner| {
        let subject =
            prop_oneof![8 => field(), 1 => json_field(), 1 => Just(json!("$payloadLength"))];
        let cases = vec((constant(), inner.clone()), 0..4);
        let default = proptest::option::of((any::<bool>(), inner.clone()));
        let switch = (subject, cases, default).prop_map(|(subject, cases, default)| {
            let mut on: Vec<_> =
                cases.into_iter().map(|(case, block)| json!({"case": case, "do": block})).collect();
            if let Some((words, block)) = default {
                // The default need not stand last.
                let entry = if words {
                    json!({"default": true, "do": block})
                } else {
                    json!({"case": "$default", "do": block})
                };
                on.insert(on.len() / 2, entry);
            }
            json!({"switch": subject, "on": on})
        });
        vec(prop_oneof![2 => mapping(), 2 => switch.boxed(), 1 => inner], 0..5)
            .prop_map(Value::from)
    })
    .boxed()
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..12),
        4 => vec(any::<u8>(), 20..48),
        // Small numbers meet cases more often.
        3 => vec(0..4_u8, 16..40),
        1 => select(vec![
            r#"{"a":[1,"x",{"c":null}],"b":{"a":[0,{"c":2.50}]}}"#,
            r#"{"a":{"b":-7,"1":true},"b":[[1,18446744073709551615]]}"#,
        ]).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_program_gives_what_the_interpreter_gives(sense in block(), payload in payload()) {
        let template = json!({ "sense": sense });
        let program = Program::compile(&template.to_string()).unwrap();
        let result = program.run(&payload);
        prop_assert_eq!(program.check(&payload), result.clone().map(drop));
        match (result, interpreter::run(&template, &payload)) {
            (Ok(translated), Ok(expected)) => {
                let json: Value = serde_json::from_str(&translated.json).unwrap();
                prop_assert_eq!(interpreter::doubles(json), Value::Object(expected.object));
                let position = expected.latitude.zip(expected.longitude).and_then(
                    |(latitude, longitude)| {
                        let is_told = latitude.is_finite() && longitude.is_finite();
                        is_told.then_some(LatLon { latitude, longitude })
                    },
                );
                prop_assert_eq!(
                    translated.position.map(|at| (at.latitude as f32, at.longitude as f32)),
                    position.map(|at| (at.latitude as f32, at.longitude as f32))
                );
            }
            (Err(error), Err(expected)) => prop_assert_eq!(error.to_string(), expected),
            (result, expected) => prop_assert!(false, "{result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_the_template(order in Just(["d", "b", "a", "c"]).prop_shuffle()) {
        let sense: Vec<_> = order.iter().map(|key| json!({"asset": key, "value": 1})).collect();
        let program = Program::compile(&json!({ "sense": sense }).to_string()).unwrap();
        let members: Vec<_> = order.iter().map(|key| format!("\"{key}\":1")).collect();
        prop_assert_eq!(program.run(&[]).unwrap().json, format!("{{{}}}", members.join(",")));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = Program::compile(&text);
    }

    /// A valid template with one part replaced by something that may be wrong there.
    #[test]
    fn no_json_panics(sense in block(), part in any::<prop::sample::Index>(), other in selector()) {
        let template = json!({ "sense": sense }).to_string();
        let colons: Vec<_> = template.match_indices(':').map(|(at, _)| at).collect();
        let at = colons[part.index(colons.len())];
        let behind = &template[at + 1..];
        let rest = behind.find([',', '}', ']']).map_or("", |end| &behind[end..]);
        if let Ok(program) = Program::compile(&format!("{}:{other}{rest}", &template[..at])) {
            let _ = program.run(&[1, 2, 3]);
        }
        let _ = Program::compile(&json!({ "sense": [{"asset": "a", "value": other}] }).to_string());
        let _ = Program::compile(&json!({ "sense": [{"switch": other, "on": []}] }).to_string());
    }
}
