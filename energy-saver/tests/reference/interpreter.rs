//! The language once more, as plainly as possible: walks the template's JSON and builds the result
//! as a tree. Slow and obviously right; for valid templates only.

use serde_json::{Map, Value, json};

/// What a run gives: the object with all numbers as doubles, and the two halves of a position.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) object: Map<String, Value>,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
}

/// What a calculation does to `val`.
type Meaning = fn(f64) -> f64;

/// Calculations that the generator of templates uses, with their meaning.
pub(crate) const CALCULATIONS: [(&str, Meaning); 5] = [
    ("val", |val| val),
    ("val / 10", |val| val / 10.0),
    ("(val - 3) * -2", |val| (val - 3.0) * -2.0),
    ("1 / (val - 1) / 2", |val| 1.0 / (val - 1.0) / 2.0),
    ("val*val - 2*val + .5", |val| val * val - 2.0 * val + 0.5),
];

/// Runs a template; the error is the text that the administration log would show.
pub(crate) fn run(template: &Value, payload: &[u8]) -> Result<Output, String> {
    let mut output = Output::default();
    block(&template["sense"], "sense", payload, &mut output)?;
    Ok(output)
}

fn block(block: &Value, path: &str, payload: &[u8], output: &mut Output) -> Result<(), String> {
    for (index, statement) in block.as_array().unwrap().iter().enumerate() {
        let path = format!("{path}[{index}]");
        if statement.is_array() {
            self::block(statement, &path, payload, output)?;
        } else if statement.get("asset").is_some() {
            mapping(statement, payload, output)?;
        } else if statement.get("switch").is_some() {
            switch(statement, &path, payload, output)?;
        }
    }
    Ok(())
}

fn mapping(statement: &Value, payload: &[u8], output: &mut Output) -> Result<(), String> {
    let asset = statement["asset"].as_str().unwrap();
    let place = format!("Asset path:{asset}");
    let value = &statement["value"];
    if value.get("latitude").is_some() || value.get("x").is_some() {
        insert(&mut output.object, asset, json!({}));
        for name in ["latitude", "longitude", "altitude", "accuracy", "x", "y", "z"] {
            let Some(member) = value.get(name) else { continue };
            let value = selector(member, &format!("{place}.{name}"), payload)?;
            locate(name, &value, output);
            insert(&mut output.object, &format!("{asset}.{name}"), value);
        }
    } else {
        let result = selector(value, &place, payload)?;
        locate(statement["custom_type"].as_str().unwrap_or(""), &result, output);
        insert(&mut output.object, asset, result);
    }
    if let Some(at) = statement.get("at") {
        selector(at, &place, payload)?;
    }
    Ok(())
}

fn locate(name: &str, value: &Value, output: &mut Output) {
    // What is no number, or not finite and therefore null here, is no half of a position.
    let number = Some(value.as_f64().unwrap_or(f64::NAN));
    match name {
        "latitude" | "location_lat" => output.latitude = number,
        "longitude" | "location_long" => output.longitude = number,
        _ => {}
    }
}

fn insert(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let child = object.entry(head).or_insert(Value::Null);
            if !child.is_object() {
                *child = json!({});
            }
            insert(child.as_object_mut().unwrap(), rest, value);
        }
    }
}

fn switch(
    statement: &Value,
    path: &str,
    payload: &[u8],
    output: &mut Output,
) -> Result<(), String> {
    let subject = if statement["switch"] == "$payloadLength" {
        json!(payload.len() as f64)
    } else {
        selector(&statement["switch"], &format!("Switch path:{path}.switch"), payload)?
    };
    let entries: Vec<_> = statement["on"].as_array().unwrap().iter().enumerate().collect();
    let is_default = |entry: &Value| entry.get("default").is_some() || entry["case"] == "$default";
    let equals = |entry: &Value| {
        !is_default(entry) && entry.get("case").is_some_and(|case| doubles(case.clone()) == subject)
    };
    let chosen = entries.iter().find(|(_, entry)| equals(entry));
    let chosen = chosen.or_else(|| entries.iter().find(|(_, entry)| is_default(entry)));
    match chosen {
        Some((index, entry)) => {
            block(&entry["do"], &format!("{path}.on[{index}].do"), payload, output)
        }
        None => Ok(()),
    }
}

fn selector(selector: &Value, place: &str, payload: &[u8]) -> Result<Value, String> {
    if !selector.is_object() {
        return Ok(doubles(selector.clone()));
    }
    if let Some(path) = selector.get("json") {
        return json_selector(selector, path.as_str().unwrap(), place, payload);
    }
    let length = payload.len() as i64;
    let size = selector.get("bytelength").map_or(1, |size| size.as_i64().unwrap());
    let byte = selector.get("byte").map(|byte| byte.as_i64().unwrap());
    let end = selector.get("endbyte").map(|end| end.as_i64().unwrap());
    let (from, to) = match (byte, end) {
        (Some(from), Some(end)) => (from, length + end),
        (Some(from), None) => (from, from + size),
        (None, end) => (length + end.unwrap(), length + end.unwrap() + size),
    };
    if from < 0 || to > length || from > to {
        return Err(format!("{place}, Error: can't extract [{from}:{to}] from {length} bytes"));
    }
    read(selector, &payload[from as usize..to as usize], place)
}

fn read(selector: &Value, bytes: &[u8], place: &str) -> Result<Value, String> {
    let name = selector.get("type").map_or("integer", |name| name.as_str().unwrap());
    let mut ordered = bytes.to_vec();
    if selector["byteorder"] == "little" {
        ordered.reverse();
    }
    let wrong = |kind: &str, allowed: &str| {
        let length = bytes.len();
        Err(format!("{place}, Error: can't read {kind} from {length} bytes, allowed: {allowed}"))
    };
    if let Some(bit) = selector.get("bit") {
        if bytes.len() != 1 {
            return wrong("a bit", "1");
        }
        let set = bytes[0] >> bit.as_u64().unwrap() & 1 == 1;
        let number = calculated(selector, f64::from(u8::from(set)));
        return Ok(if name == "boolean" { json!(set) } else { number });
    }
    Ok(match (name, ordered.len()) {
        ("boolean", 0) => return wrong("boolean", "at least 1"),
        ("boolean", _) => json!(bytes.iter().any(|byte| *byte != 0)),
        ("string", _) => json!(String::from_utf8_lossy(bytes)),
        ("hex" | "hexstring", _) => {
            json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        ("float" | "number", 4) => {
            let single = f32::from_be_bytes(ordered.try_into().unwrap());
            let wide = f64::from(single);
            // A plain single is printed in its own shortest form, a calculated one is a double.
            let plain = selector.get("calculation").is_none() && single.is_finite();
            let wide = if plain { single.to_string().parse().unwrap() } else { wide };
            calculated(selector, wide)
        }
        ("float" | "number", 8) => {
            calculated(selector, f64::from_be_bytes(ordered.try_into().unwrap()))
        }
        ("float" | "number", _) => return wrong("float", "4, 8"),
        (_, size) => {
            let signed = name == "int" || (name == "integer" && selector["signed"] == true);
            if !matches!(size, 1 | 2 | 4 | 8) {
                return wrong(if signed { "int" } else { "uint" }, "1, 2, 4, 8");
            }
            let magnitude = ordered.iter().fold(0_i128, |sum, byte| sum << 8 | i128::from(*byte));
            let wraps = signed && ordered[0] & 0x80 != 0;
            let number = if wraps { magnitude - (1 << (8 * size)) } else { magnitude };
            calculated(selector, number as f64)
        }
    })
}

fn calculated(selector: &Value, number: f64) -> Value {
    let number = match selector.get("calculation") {
        None => number,
        Some(text) => {
            let known = CALCULATIONS.iter().find(|(known, _)| text == known);
            known.unwrap().1(number)
        }
    };
    json!(number)
}

fn json_selector(
    selector: &Value,
    path: &str,
    place: &str,
    payload: &[u8],
) -> Result<Value, String> {
    let document: Value = serde_json::from_slice(payload).map_err(|_| {
        format!("{place}, Error: can't read the payload of {} bytes as JSON", payload.len())
    })?;
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    let found = document.pointer(&pointer);
    let found =
        found.ok_or_else(|| format!("{place}, Error: can't find {path:?} in the JSON payload"))?;
    if selector.get("calculation").is_none() {
        return Ok(doubles(found.clone()));
    }
    let number = found.as_f64();
    number
        .map(|number| calculated(selector, number))
        .ok_or_else(|| format!("{place}, Error: can't calculate with {path:?}, it is not a number"))
}

/// Every number as a double.
pub(crate) fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap()),
        Value::Array(list) => list.into_iter().map(doubles).collect(),
        Value::Object(object) => {
            object.into_iter().map(|(key, value)| (key, doubles(value))).collect()
        }
        other => other,
    }
}
