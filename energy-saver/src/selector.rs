//! Reading selectors: what a mapping, an `at` or a `switch` takes its value from.

use serde_json::{Map, Value};

use crate::OFFSET_MAX;
use crate::calculation::Calculation;
use crate::compile_error::{CompileError, CompileReason, Place};
use crate::field::{Extent, Field, Kind, Order};
use crate::json_path::JsonPath;
use crate::template::check_fields;

/// A constant of a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    Text(Box<str>),
    Number(f64),
    Boolean(bool),
}

/// A value of a JSON payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonField {
    pub(crate) path: JsonPath,
    pub(crate) calculation: Option<Calculation>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selector {
    Constant(Constant),
    Field(Field),
    Json(JsonField),
}

/// The fields of a selector of bytes, in the order in which messages name them.
const FIELDS: [&str; 8] =
    ["byte", "endbyte", "bytelength", "byteorder", "type", "bit", "calculation", "signed"];
const JSON_FIELDS: [&str; 3] = ["json", "type", "calculation"];
const TYPES: &str = "int, uint, float, boolean, string, hex, integer, number, hexstring";

impl Selector {
    /// Any selector: a constant, or an object that names bytes or a JSON path.
    pub(crate) fn read(value: &Value, place: &Place<'_>) -> Result<Self, CompileError> {
        match value {
            Value::Object(object) => Self::read_object(object, place),
            constant => Constant::read(constant, place).map(Self::Constant),
        }
    }

    /// A selector that depends on the payload.
    pub(crate) fn read_from_payload(
        value: &Value,
        place: &Place<'_>,
        expected: &'static str,
    ) -> Result<Self, CompileError> {
        match value {
            Value::Object(object) => Self::read_object(object, place),
            other => Err(place.kind_error(other, expected)),
        }
    }

    fn read_object(object: &Map<String, Value>, place: &Place<'_>) -> Result<Self, CompileError> {
        if object.contains_key("json") {
            return JsonField::read(object, place).map(Self::Json);
        }
        read_field(object, place).map(Self::Field)
    }

    /// Whether the value is a double, as `custom_type` asks.
    pub(crate) fn is_double(&self) -> bool {
        match self {
            Self::Constant(constant) => matches!(constant, Constant::Number(_)),
            Self::Field(field) => {
                let eight = match field.extent {
                    Extent::FromStart { length, .. } | Extent::FromEnd { length, .. } => {
                        length == 8
                    }
                    Extent::Range { .. } => true,
                };
                field.calculation.is_some() || (matches!(field.kind, Kind::Float(_)) && eight)
            }
            Self::Json(_) => true,
        }
    }
}

impl Constant {
    /// A string, number or boolean.
    pub(crate) fn read(value: &Value, place: &Place<'_>) -> Result<Self, CompileError> {
        match value {
            Value::String(text) => Ok(Self::Text(text.as_str().into())),
            Value::Bool(boolean) => Ok(Self::Boolean(*boolean)),
            // Without arbitrary precision every number is a double or fits one.
            Value::Number(number) => Ok(Self::Number(number.as_f64().unwrap_or(f64::NAN))),
            other => {
                Err(place.kind_error(other, "a string, a number, a boolean or a selector object"))
            }
        }
    }
}

impl JsonField {
    fn read(object: &Map<String, Value>, place: &Place<'_>) -> Result<Self, CompileError> {
        check_fields(object, &JSON_FIELDS, place)?;
        let path = JsonPath::parse(text_field(object, "json", place)?, &place.key("json"))?;
        if object.contains_key("type") {
            // The value keeps the type it has in the payload.
            type_name(object, place)?;
        }
        Ok(Self { path, calculation: read_calculation(object, place)? })
    }
}

fn read_field(object: &Map<String, Value>, place: &Place<'_>) -> Result<Field, CompileError> {
    check_fields(object, &FIELDS, place)?;
    let kind = read_kind(object, place)?;
    let extent = read_extent(object, place)?;
    if let Extent::FromStart { length, .. } | Extent::FromEnd { length, .. } = extent
        && !kind.fits(length as usize)
    {
        let (_, allowed) = kind.describe();
        return Err(place.key("bytelength").value_error(&length.to_string(), allowed));
    }
    let calculation = read_calculation(object, place)?;
    if calculation.is_some() && !kind.is_number() {
        let rule = "calculation needs a number: type int, uint, float, integer or number";
        return Err(place.key("calculation").error(CompileReason::Combination { rule }));
    }
    Ok(Field { extent, kind, calculation })
}

fn read_extent(object: &Map<String, Value>, place: &Place<'_>) -> Result<Extent, CompileError> {
    let from = offset(object, "byte", 1, place)?;
    let back = offset(object, "endbyte", -1, place)?;
    let length = offset(object, "bytelength", 1, place)?;
    if length == Some(0) {
        let allowed = "1 to 65536";
        return Err(place.key("bytelength").value_error("0", allowed));
    }
    match (from, back) {
        (Some(_), Some(_)) if length.is_some() => {
            let rule = "byte with endbyte is a range, which has no bytelength";
            Err(place.key("bytelength").error(CompileReason::Combination { rule }))
        }
        (Some(from), Some(back)) => Ok(Extent::Range { from, back }),
        (Some(from), None) => Ok(Extent::FromStart { from, length: length.unwrap_or(1) }),
        (None, Some(back)) => Ok(Extent::FromEnd { back, length: length.unwrap_or(1) }),
        (None, None) => Err(place.error(CompileReason::Missing { field: "byte" })),
    }
}

/// A whole number of bytes; with `sign` -1 it is written as zero or less.
fn offset(
    object: &Map<String, Value>,
    field: &str,
    sign: i64,
    place: &Place<'_>,
) -> Result<Option<u32>, CompileError> {
    let Some(value) = object.get(field) else { return Ok(None) };
    let place = place.key(field);
    let allowed = if sign < 0 { "-65536 to 0" } else { "0 to 65536" };
    let Value::Number(number) = value else {
        return Err(place.kind_error(value, "a whole number"));
    };
    number
        .as_i64()
        .and_then(|number| number.checked_mul(sign))
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= OFFSET_MAX)
        .map(Some)
        .ok_or_else(|| place.value_error(&number.to_string(), allowed))
}

fn read_kind(object: &Map<String, Value>, place: &Place<'_>) -> Result<Kind, CompileError> {
    let order = read_order(object, place)?;
    let name = if object.contains_key("type") { type_name(object, place)? } else { "integer" };
    if let Some(value) = object.get("bit") {
        return read_bit(value, name, place);
    }
    let signed = match object.get("signed") {
        Some(Value::Bool(signed)) => *signed,
        Some(Value::String(text)) => text == "true",
        None => false,
        Some(other) => {
            return Err(place.key("signed").kind_error(other, "true or false"));
        }
    };
    Ok(match name {
        "int" => Kind::Signed(order),
        "integer" if signed => Kind::Signed(order),
        "uint" | "integer" => Kind::Unsigned(order),
        "float" | "number" => Kind::Float(order),
        "boolean" => Kind::Boolean,
        "string" => Kind::Text,
        _ => Kind::Hex,
    })
}

fn read_bit(value: &Value, name: &str, place: &Place<'_>) -> Result<Kind, CompileError> {
    let place = place.key("bit");
    let Value::Number(number) = value else {
        return Err(place.kind_error(value, "a whole number"));
    };
    let bit = number.as_u64().and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 8);
    let bit = bit.ok_or_else(|| place.value_error(&number.to_string(), "0 to 7"))?;
    match name {
        "boolean" => Ok(Kind::BitFlag(bit)),
        "int" | "uint" | "integer" => Ok(Kind::BitNumber(bit)),
        _ => {
            let rule = "bit goes with type boolean, int, uint or integer only";
            Err(place.error(CompileReason::Combination { rule }))
        }
    }
}

/// A `type` that the language knows.
fn type_name<'o>(
    object: &'o Map<String, Value>,
    place: &Place<'_>,
) -> Result<&'o str, CompileError> {
    let name = text_field(object, "type", place)?;
    if TYPES.split(", ").any(|known| known == name) {
        return Ok(name);
    }
    Err(place.key("type").value_error(&format!("{name:?}"), TYPES))
}

fn read_order(object: &Map<String, Value>, place: &Place<'_>) -> Result<Order, CompileError> {
    if !object.contains_key("byteorder") {
        return Ok(Order::Big);
    }
    match text_field(object, "byteorder", place)? {
        "big" => Ok(Order::Big),
        // One vendor's templates say "small".
        "little" | "small" => Ok(Order::Little),
        other => Err(place.key("byteorder").value_error(&format!("{other:?}"), "big, little")),
    }
}

fn read_calculation(
    object: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<Option<Calculation>, CompileError> {
    if !object.contains_key("calculation") {
        return Ok(None);
    }
    let text = text_field(object, "calculation", place)?;
    Calculation::compile(text, &place.key("calculation")).map(Some)
}

/// A required string field.
pub(crate) fn text_field<'o>(
    object: &'o Map<String, Value>,
    field: &'static str,
    place: &Place<'_>,
) -> Result<&'o str, CompileError> {
    match object.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(place.key(field).kind_error(other, "a string")),
        None => Err(place.error(CompileReason::Missing { field })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Selector, String> {
        Selector::read(&value, &Place::Root.key("value")).map_err(|error| error.to_string())
    }

    fn kind(value: Value) -> Kind {
        match read(value) {
            Ok(Selector::Field(field)) => field.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bare_selector_is_an_unsigned_byte() {
        assert_eq!(kind(json!({"byte": 0})), Kind::Unsigned(Order::Big));
        assert_eq!(kind(json!({"byte": 0, "signed": true})), Kind::Signed(Order::Big));
        assert_eq!(kind(json!({"byte": 0, "signed": "false"})), Kind::Unsigned(Order::Big));
        let named = json!({"byte": 0, "type": "int", "signed": false});
        assert_eq!(kind(named), Kind::Signed(Order::Big));
    }

    #[test]
    fn names_of_both_languages_mean_the_same() {
        let float = json!({"byte": 0, "bytelength": 4, "type": "number", "byteorder": "small"});
        assert_eq!(kind(float), Kind::Float(Order::Little));
        assert_eq!(kind(json!({"byte": 0, "type": "hexstring"})), Kind::Hex);
        assert_eq!(kind(json!({"byte": 0, "bit": 3})), Kind::BitNumber(3));
        assert_eq!(kind(json!({"byte": 0, "bit": 7, "type": "boolean"})), Kind::BitFlag(7));
    }

    #[test]
    fn refusals_name_the_place_and_what_is_allowed() {
        let cases = [
            (
                json!({"byte": 0, "bytelength": 3, "type": "int"}),
                "value.bytelength: 3 is not allowed, allowed: 1, 2, 4, 8",
            ),
            (
                json!({"byte": 0, "type": "float"}),
                "value.bytelength: 1 is not allowed, allowed: 4, 8",
            ),
            (
                json!({"byte": -1, "type": "hex"}),
                "value.byte: -1 is not allowed, allowed: 0 to 65536",
            ),
            (
                json!({"endbyte": 1, "type": "hex"}),
                "value.endbyte: 1 is not allowed, allowed: -65536 to 0",
            ),
            (
                json!({"byte": 0, "bytelength": 0, "type": "hex"}),
                "value.bytelength: 0 is not allowed, allowed: 1 to 65536",
            ),
            (
                json!({"byte": 0, "endbyte": 0, "bytelength": 1, "type": "hex"}),
                "value.bytelength: byte with endbyte is a range, which has no bytelength",
            ),
            (json!({"type": "hex"}), "value: field \"byte\" is missing"),
            (json!({"byte": 0, "bit": 8}), "value.bit: 8 is not allowed, allowed: 0 to 7"),
            (
                json!({"byte": 0, "byteorder": "middle"}),
                "value.byteorder: \"middle\" is not allowed, allowed: big, little",
            ),
            (json!({"byte": "0"}), "value.byte: found a string, expected a whole number"),
            (
                json!({"byte": 0, "lenght": 2}),
                "value.lenght: field is not known, allowed: byte, endbyte, bytelength, byteorder, \
                 type, bit, calculation, signed, comment",
            ),
            (
                json!({"byte": 0, "type": "string", "calculation": "val"}),
                "value.calculation: calculation needs a number: type int, uint, float, integer or \
                 number",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(read(value).unwrap_err(), expected);
        }
        assert!(read(json!(null)).unwrap_err().contains("found null"));
        assert!(read(json!({"byte": 1.5})).is_err());
        assert!(read(json!({"byte": 0, "type": "double"})).unwrap_err().contains("hexstring"));
    }
}
