//! Reading statements: from the template's JSON to a checked tree.

use serde_json::{Map, Value};

use crate::compile_error::{CompileError, CompileReason, Place};
use crate::selector::{Constant, Selector, text_field};
use crate::{ASSET_BYTES_MAX, DEPTH_MAX, OPERATIONS_MAX, SEGMENTS_MAX, SOURCE_BYTES_MAX};

/// One statement, or a nested block of them.
#[derive(Debug)]
pub(crate) enum Statement {
    Mapping(Mapping),
    Switch(Switch),
    Block(Vec<Statement>),
}

/// Writes values to assets.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The asset as it was written.
    pub(crate) asset: String,
    pub(crate) target: Target,
    pub(crate) at: Option<Selector>,
}

/// What a mapping writes.
#[derive(Debug)]
pub(crate) enum Target {
    One {
        selector: Selector,
        axis: Option<Axis>,
    },
    /// An object of several values.
    Composite(Vec<Member>),
}

/// One value of a composite.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) selector: Selector,
    pub(crate) axis: Option<Axis>,
}

/// Which half of a position a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Latitude,
    Longitude,
}

/// Chooses a block.
#[derive(Debug)]
pub(crate) struct Switch {
    /// Its place in the template, for messages.
    pub(crate) place: String,
    /// `None` is the payload's length.
    pub(crate) subject: Option<Selector>,
    pub(crate) cases: Vec<(Constant, Vec<Statement>)>,
    pub(crate) default: Vec<Statement>,
}

/// Fields that any object may carry: the documents show them, without a meaning for us.
const TOLERATED: [&str; 4] = ["comment", "name", "version", "signed"];
/// The composite values of the larger language: fields, and how many of them are required.
const COMPOSITES: [(&[&str], usize); 2] =
    [(&["latitude", "longitude", "altitude", "accuracy"], 2), (&["x", "y", "z"], 3)];

/// Reads a whole template.
pub(crate) fn read(source: &str) -> Result<Vec<Statement>, CompileError> {
    let root = Place::Root;
    root.limit("source length in bytes", source.len(), SOURCE_BYTES_MAX)?;
    // The parser's own limit of 128 levels bounds the recursion over hostile nesting.
    let value: Value = serde_json::from_str(source)
        .map_err(|error| root.error(CompileReason::Syntax { message: error.to_string() }))?;
    let Value::Object(object) = &value else {
        return Err(root.kind_error(&value, "an object with the field sense"));
    };
    check_fields(object, &["sense", "actuate"], &root)?;
    let sense = object.get("sense").ok_or(CompileReason::Missing { field: "sense" });
    let sense = sense.map_err(|reason| root.error(reason))?;
    Reader { operations: 0 }.block(sense, &root.key("sense"), 1)
}

/// Refuses fields that are neither `allowed` nor tolerated everywhere.
pub(crate) fn check_fields(
    object: &Map<String, Value>,
    allowed: &[&str],
    place: &Place<'_>,
) -> Result<(), CompileError> {
    let known = |key: &str| allowed.contains(&key) || TOLERATED.contains(&key);
    match object.keys().find(|key| !known(key)) {
        None => Ok(()),
        Some(unknown) => {
            let allowed = format!("{}, comment", allowed.join(", "));
            Err(place.key(unknown).error(CompileReason::UnknownField { allowed }))
        }
    }
}

struct Reader {
    /// Operations so far.
    operations: usize,
}

impl Reader {
    fn block(
        &mut self,
        value: &Value,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Vec<Statement>, CompileError> {
        let Value::Array(list) = value else {
            return Err(place.kind_error(value, "a list of statements"));
        };
        place.limit("depth", depth, DEPTH_MAX)?;
        let mut statements = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let place = place.index(index);
            match value {
                Value::Array(_) => {
                    statements.push(Statement::Block(self.block(value, &place, depth + 1)?));
                }
                Value::Object(object) => {
                    statements.extend(self.statement(object, &place, depth)?);
                }
                other => return Err(place.kind_error(other, "a statement or a list of them")),
            }
        }
        Ok(statements)
    }

    /// A statement; `None` for a comment.
    fn statement(
        &mut self,
        object: &Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Option<Statement>, CompileError> {
        let has = |field: &str| object.contains_key(field);
        if has("asset") || has("value") {
            check_fields(object, &["asset", "value", "custom_type", "at"], place)?;
            return self.mapping(object, place).map(Statement::Mapping).map(Some);
        }
        if has("switch") || has("on") {
            check_fields(object, &["switch", "on"], place)?;
            return self.switch(object, place, depth).map(Statement::Switch).map(Some);
        }
        check_fields(object, &["asset", "value", "switch", "on"], place)?;
        if has("comment") {
            return Ok(None);
        }
        let rule = "statement needs asset and value, or switch and on, or only a comment";
        Err(place.error(CompileReason::Combination { rule }))
    }

    fn mapping(
        &mut self,
        object: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<Mapping, CompileError> {
        let asset = text_field(object, "asset", place)?;
        check_asset(asset, &place.key("asset"))?;
        let value = object.get("value");
        let value = value.ok_or_else(|| place.error(CompileReason::Missing { field: "value" }))?;
        let target = self.target(object, value, place)?;
        let at = match object.get("at") {
            None => None,
            Some(value) => {
                let place = place.key("at");
                self.count(&place)?;
                let expected = "an object that selects bytes or a json path";
                Some(Selector::read_from_payload(value, &place, expected)?)
            }
        };
        Ok(Mapping { asset: asset.to_owned(), target, at })
    }

    fn target(
        &mut self,
        object: &Map<String, Value>,
        value: &Value,
        place: &Place<'_>,
    ) -> Result<Target, CompileError> {
        let axis = read_axis(object, place)?;
        let value_place = place.key("value");
        if let Value::Object(fields) = value
            && let Some((names, required)) = composite_of(fields)
        {
            if axis.is_some() {
                let rule = "custom_type goes with a single value only";
                return Err(place.key("custom_type").error(CompileReason::Combination { rule }));
            }
            return self.composite(fields, (names, required), &value_place);
        }
        self.count(&value_place)?;
        let selector = Selector::read(value, &value_place)?;
        if axis.is_some() && !selector.is_double() {
            let rule = "custom_type needs a double: type float of bytelength 8, or a calculation";
            return Err(place.key("custom_type").error(CompileReason::Combination { rule }));
        }
        Ok(Target::One { selector, axis })
    }

    fn composite(
        &mut self,
        object: &Map<String, Value>,
        (names, required): (&'static [&'static str], usize),
        place: &Place<'_>,
    ) -> Result<Target, CompileError> {
        check_fields(object, names, place)?;
        let mut members = Vec::new();
        for (position, name) in names.iter().copied().enumerate() {
            let Some(value) = object.get(name) else {
                if position < required {
                    return Err(place.error(CompileReason::Missing { field: name }));
                }
                continue;
            };
            let place = place.key(name);
            self.count(&place)?;
            let axis = match name {
                "latitude" => Some(Axis::Latitude),
                "longitude" => Some(Axis::Longitude),
                _ => None,
            };
            members.push(Member { name, selector: Selector::read(value, &place)?, axis });
        }
        Ok(Target::Composite(members))
    }

    fn switch(
        &mut self,
        object: &Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Switch, CompileError> {
        self.count(place)?;
        let missing = |field| place.error(CompileReason::Missing { field });
        let switch_place = place.key("switch");
        let subject = match object.get("switch").ok_or_else(|| missing("switch"))? {
            Value::String(text) if text == "$payloadLength" => None,
            value => {
                let expected = "an object that selects bytes or a json path, or \"$payloadLength\"";
                Some(Selector::read_from_payload(value, &switch_place, expected)?)
            }
        };
        let on_place = place.key("on");
        let on = object.get("on").ok_or_else(|| missing("on"))?;
        let Value::Array(entries) = on else {
            return Err(on_place.kind_error(on, "a list of cases"));
        };
        let mut cases = Vec::new();
        let mut default = None;
        for (index, entry) in entries.iter().enumerate() {
            let place = on_place.index(index);
            let Value::Object(entry) = entry else {
                return Err(place.kind_error(entry, "an object with case and do"));
            };
            match self.case(entry, &place, depth)? {
                None => {}
                Some((Some(constant), block)) => cases.push((constant, block)),
                Some((None, block)) if default.is_none() => default = Some(block),
                Some((None, _)) => {
                    let rule = "a switch has at most one default";
                    return Err(place.error(CompileReason::Combination { rule }));
                }
            }
        }
        let default = default.unwrap_or_default();
        Ok(Switch { place: switch_place.to_string(), subject, cases, default })
    }

    /// An entry of `on`: its case, or none for the default, and its block. `None` for a comment.
    #[expect(clippy::type_complexity, reason = "read once, one line above")]
    fn case(
        &mut self,
        object: &Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Option<(Option<Constant>, Vec<Statement>)>, CompileError> {
        check_fields(object, &["case", "default", "do"], place)?;
        if object.keys().all(|key| key == "comment") && !object.is_empty() {
            return Ok(None);
        }
        self.count(place)?;
        let default = match object.get("default") {
            None => false,
            Some(Value::Bool(default)) => *default,
            Some(other) => return Err(place.key("default").kind_error(other, "true")),
        };
        let constant = match object.get("case") {
            Some(Value::String(text)) if text == "$default" => None,
            Some(_) if default => {
                let rule = "an entry has either a case or default, not both";
                return Err(place.error(CompileReason::Combination { rule }));
            }
            Some(value) => Some(Constant::read(value, &place.key("case"))?),
            None if default => None,
            None => {
                let rule = "an entry needs a case, or default set to true";
                return Err(place.error(CompileReason::Combination { rule }));
            }
        };
        let block = object.get("do");
        let block = block.ok_or_else(|| place.error(CompileReason::Missing { field: "do" }))?;
        Ok(Some((constant, self.block(block, &place.key("do"), depth + 1)?)))
    }

    fn count(&mut self, place: &Place<'_>) -> Result<(), CompileError> {
        self.operations += 1;
        place.limit("number of operations", self.operations, OPERATIONS_MAX)
    }
}

fn read_axis(object: &Map<String, Value>, place: &Place<'_>) -> Result<Option<Axis>, CompileError> {
    if !object.contains_key("custom_type") {
        return Ok(None);
    }
    match text_field(object, "custom_type", place)? {
        "location_lat" => Ok(Some(Axis::Latitude)),
        "location_long" => Ok(Some(Axis::Longitude)),
        other => {
            let place = place.key("custom_type");
            Err(place.value_error(&format!("{other:?}"), "location_lat, location_long"))
        }
    }
}

/// The composite that an object is meant to be, if any of its fields belongs to one.
fn composite_of(object: &Map<String, Value>) -> Option<(&'static [&'static str], usize)> {
    COMPOSITES.into_iter().find(|(names, _)| names.iter().any(|name| object.contains_key(*name)))
}

fn check_asset(asset: &str, place: &Place<'_>) -> Result<(), CompileError> {
    place.limit("asset path length in bytes", asset.len(), ASSET_BYTES_MAX)?;
    place.limit("number of asset path segments", asset.split('.').count(), SEGMENTS_MAX)?;
    if asset.split('.').any(str::is_empty) {
        return Err(place.value_error(&format!("{asset:?}"), "names joined by dots, none empty"));
    }
    Ok(())
}
