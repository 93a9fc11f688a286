//! Running a program on a payload.
//!
//! First the instructions decide which value each slot gets, and check that the payload has it;
//! nothing is read twice and nothing is written. Then one walk over the layout writes the JSON.

use serde_json::Value as Json;

use crate::field::{Field, Reading};
use crate::layout::{Piece, write_hex, write_text};
use crate::moment;
use crate::number::Number;
use crate::payload_error::PayloadError;
use crate::program::{Case, Details, Instruction, LatLon, Operand, Program, Value};
use crate::selector::{Constant, JsonField};
use crate::template::Axis;
use crate::{FUEL_STEPS, OPERATIONS_MAX, OUTPUT_BYTES_MAX, SEGMENTS_MAX};

/// Slots of a small template. Clearing 512 would cost more than translating three.
const SMALL_SLOTS: usize = 32;
/// Bytes read that count as one step: about what copying them costs beside an instruction.
const BYTES_PER_STEP: usize = 64;
/// The longest JSON of one number: a sign, 17 digits, a point, `e+308`, and zeros up to 21 digits.
const NUMBER_BYTES_MAX: usize = 32;
/// Braces that may still follow a value: one for each object around it.
const BRACES_MAX: usize = SEGMENTS_MAX + 2;
/// The most JSON bytes that one payload byte can become: `\u0000`.
const BYTES_PER_TEXT_BYTE: usize = 6;

impl Program {
    /// Translates a payload into `out`, whose former content is dropped. Allocates nothing where
    /// `out` has room, unless the template reads JSON or the payload's text is not UTF-8.
    pub fn run_into(&self, payload: &[u8], out: &mut String) -> Result<Details, PayloadError> {
        out.clear();
        if usize::from(self.layout.slots) <= SMALL_SLOTS {
            self.run_with(payload, &mut [0; SMALL_SLOTS], out)
        } else {
            self.run_with(payload, &mut [0; OPERATIONS_MAX], out)
        }
        .inspect_err(|_| out.clear())
    }

    fn run_with(
        &self,
        payload: &[u8],
        slots: &mut [u16],
        out: &mut String,
    ) -> Result<Details, PayloadError> {
        let mut run = Run::new(self, payload);
        run.decide(slots)?;
        run.write(slots, out)?;
        Ok(Details { position: run.position(), at_unix_micros: run.moment() })
    }

    /// Whether [`Program::run`] would succeed, without the work of writing the JSON.
    pub fn check(&self, payload: &[u8]) -> Result<(), PayloadError> {
        if usize::from(self.layout.slots) <= SMALL_SLOTS {
            self.check_with(payload, &mut [0; SMALL_SLOTS])
        } else {
            self.check_with(payload, &mut [0; OPERATIONS_MAX])
        }
    }

    fn check_with(&self, payload: &[u8], slots: &mut [u16]) -> Result<(), PayloadError> {
        let mut run = Run::new(self, payload);
        run.decide(slots)?;
        if run.longest_json(slots) <= OUTPUT_BYTES_MAX - BRACES_MAX {
            return Ok(());
        }
        run.write(slots, &mut String::new())
    }
}

/// One run.
struct Run<'a> {
    program: &'a Program,
    payload: &'a [u8],
    fuel: u32,
    /// The payload as JSON, once a selector asked for it.
    document: Option<Json>,
    latitude: Option<u16>,
    longitude: Option<u16>,
    at: Option<u16>,
}

impl<'a> Run<'a> {
    fn new(program: &'a Program, payload: &'a [u8]) -> Self {
        Self {
            program,
            payload,
            fuel: FUEL_STEPS,
            document: None,
            latitude: None,
            longitude: None,
            at: None,
        }
    }

    /// Notes in `slots`, which start as zeros, the value of each slot, counted from 1.
    fn decide(&mut self, slots: &mut [u16]) -> Result<(), PayloadError> {
        let program = self.program;
        let mut next = 0;
        while let Some(instruction) = program.instructions.get(next) {
            next += 1;
            match instruction {
                Instruction::Store { slot, value } => {
                    self.verify(*value)?;
                    slots[usize::from(*slot)] = value + 1;
                }
                Instruction::Clear { slots: range } => {
                    slots[usize::from(range.start)..usize::from(range.end)].fill(0);
                }
                Instruction::Locate { axis: Axis::Latitude, value } => {
                    self.latitude = Some(*value);
                }
                Instruction::Locate { axis: Axis::Longitude, value } => {
                    self.longitude = Some(*value);
                }
                Instruction::At { value } => {
                    self.verify(*value)?;
                    self.at = Some(*value);
                }
                Instruction::Switch { value, cases, otherwise } => {
                    self.verify(*value)?;
                    let cases = &program.cases[usize::from(cases.start)..usize::from(cases.end)];
                    next = self.choose(*value, cases)?.unwrap_or(*otherwise) as usize;
                }
                Instruction::Jump { target } => next = *target as usize,
            }
        }
        Ok(())
    }

    /// Checks that the payload has a value, and counts the steps of reading it.
    #[inline]
    fn verify(&mut self, value: u16) -> Result<(), PayloadError> {
        let value = &self.program.values[usize::from(value)];
        match &value.operand {
            Operand::Constant { .. } | Operand::PayloadLength => self.spend(1, value),
            Operand::Field(field) => {
                let bytes = self.bytes(field, value)?.len();
                // A message has at most 64 KiB: the sum does not overflow.
                let steps = 1 + u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(FUEL_STEPS);
                let calculation = field.calculation.as_ref();
                self.spend(steps + calculation.map_or(0, |calculation| calculation.steps()), value)
            }
            Operand::Json(field) => self.verify_json(field, value),
        }
    }

    #[cold]
    fn verify_json(&mut self, field: &JsonField, value: &Value) -> Result<(), PayloadError> {
        let place = || value.place.clone();
        let bytes = self.payload.len();
        if self.document.is_none() {
            let steps = u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(FUEL_STEPS);
            self.spend(steps.min(FUEL_STEPS), value)?;
            self.document = serde_json::from_slice(self.payload).ok();
        }
        self.spend(1, value)?;
        let document = self
            .document
            .as_ref()
            .ok_or_else(|| PayloadError::NotJson { place: place(), bytes })?;
        let path = || field.path.text().clone();
        let found = field
            .path
            .find(document)
            .ok_or_else(|| PayloadError::JsonPath { place: place(), path: path() })?;
        if field.calculation.is_some() && !found.is_number() {
            return Err(PayloadError::NotNumber { place: place(), path: path() });
        }
        Ok(())
    }

    #[inline]
    fn spend(&mut self, steps: u32, value: &Value) -> Result<(), PayloadError> {
        match self.fuel.checked_sub(steps) {
            Some(fuel) => {
                self.fuel = fuel;
                Ok(())
            }
            None => {
                let (place, bytes) = (value.place.clone(), self.payload.len());
                Err(PayloadError::Fuel { place, limit: FUEL_STEPS, bytes })
            }
        }
    }

    /// The bytes of a field, if the payload has them and the type can have so many.
    #[inline]
    fn bytes(&self, field: &Field, value: &Value) -> Result<&'a [u8], PayloadError> {
        match field.extent.slice(self.payload) {
            Some(bytes) if field.kind.fits(bytes.len()) => Ok(bytes),
            other => Err(self.unreadable(field, value, other.map(<[u8]>::len))),
        }
    }

    #[cold]
    fn unreadable(&self, field: &Field, value: &Value, found: Option<usize>) -> PayloadError {
        let place = value.place.clone();
        match found {
            Some(bytes) => {
                let (kind, allowed) = field.kind.describe();
                PayloadError::Length { place, kind, bytes, allowed }
            }
            None => {
                let (from, to) = field.extent.bounds(self.payload.len());
                PayloadError::Extract { place, from, to, bytes: self.payload.len() }
            }
        }
    }

    /// The target of the first case that equals the value. Every case counts as a step.
    fn choose(&mut self, value: u16, cases: &[Case]) -> Result<Option<u32>, PayloadError> {
        let value = &self.program.values[usize::from(value)];
        self.spend(u32::try_from(cases.len()).unwrap_or(FUEL_STEPS), value)?;
        let subject = self.subject(value)?;
        Ok(cases.iter().find(|case| equals(&subject, &case.constant)).map(|case| case.target))
    }

    fn subject(&self, value: &'a Value) -> Result<Reading<'_>, PayloadError> {
        match &value.operand {
            Operand::PayloadLength => {
                Ok(Reading::Number(Number::Unsigned(self.payload.len() as u64)))
            }
            Operand::Field(field) => Ok(field.read(self.bytes(field, value)?)),
            Operand::Constant { constant, .. } => Ok(match constant {
                Constant::Text(text) => Reading::Text(text.as_bytes()),
                Constant::Number(number) => Reading::Number(Number::Double(*number)),
                Constant::Boolean(boolean) => Reading::Boolean(*boolean),
            }),
            Operand::Json(field) => Ok(match self.find(field) {
                Json::String(text) => Reading::Text(text.as_bytes()),
                Json::Bool(boolean) => Reading::Boolean(*boolean),
                Json::Number(_) => Reading::Number(self.json_number(field)),
                // Equal to no case, as NaN is to no number.
                _ => Reading::Number(Number::Double(f64::NAN)),
            }),
        }
    }

    /// The value of a JSON selector that has been verified.
    fn find(&self, field: &JsonField) -> &Json {
        const NOTHING: &Json = &Json::Null;
        self.document.as_ref().and_then(|document| field.path.find(document)).unwrap_or(NOTHING)
    }

    fn json_number(&self, field: &JsonField) -> Number {
        let number = self.find(field);
        let number = match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => Number::Signed(signed),
            (None, Some(unsigned)) => Number::Unsigned(unsigned),
            (None, None) => Number::Double(number.as_f64().unwrap_or(f64::NAN)),
        };
        match &field.calculation {
            Some(calculation) => Number::Double(calculation.apply(number.as_f64())),
            None => number,
        }
    }

    /// An upper bound of the JSON's length, from lengths alone.
    fn longest_json(&self, slots: &[u16]) -> usize {
        let mut bytes = 2 + self.program.layout.text.len() + 4 * self.program.layout.pieces.len();
        for value in slots.iter().filter_map(|slot| slot.checked_sub(1)) {
            bytes += match &self.program.values[usize::from(value)].operand {
                Operand::Constant { json, .. } => json.len(),
                Operand::Field(field) => {
                    let read = field.extent.slice(self.payload).map_or(0, <[u8]>::len);
                    NUMBER_BYTES_MAX.max(2 + BYTES_PER_TEXT_BYTE * read)
                }
                // Numbers can grow by being written out: `1e20`.
                Operand::Json(_) => NUMBER_BYTES_MAX * (1 + self.payload.len()),
                Operand::PayloadLength => NUMBER_BYTES_MAX,
            };
        }
        bytes
    }

    /// Appends the JSON.
    fn write(&self, slots: &[u16], out: &mut String) -> Result<(), PayloadError> {
        let layout = &self.program.layout;
        let mut next = 0;
        out.push('{');
        while let Some(piece) = layout.pieces.get(next) {
            next += 1;
            let key = match piece {
                Piece::Leaf { slot, .. } if slots[usize::from(*slot)] == 0 => continue,
                Piece::Enter { slots: below, skip, .. }
                    if slots[usize::from(below.start)..usize::from(below.end)]
                        .iter()
                        .all(|slot| *slot == 0) =>
                {
                    next = *skip as usize;
                    continue;
                }
                Piece::Leave => {
                    out.push('}');
                    continue;
                }
                Piece::Leaf { key, .. } | Piece::Enter { key, .. } => key,
            };
            if !out.ends_with('{') {
                out.push(',');
            }
            out.push_str(&layout.text[key.start as usize..key.end as usize]);
            match piece {
                Piece::Leaf { slot, .. } => {
                    let value = slots[usize::from(*slot)] - 1;
                    self.write_value(&self.program.values[usize::from(value)], out)?;
                }
                _ => out.push('{'),
            }
        }
        out.push('}');
        Ok(())
    }

    #[inline]
    fn write_value(&self, value: &Value, out: &mut String) -> Result<(), PayloadError> {
        match &value.operand {
            Operand::Constant { json, .. } => out.push_str(json),
            Operand::Field(field) => match field.read(self.bytes(field, value)?) {
                Reading::Number(number) => number.write(out),
                Reading::Boolean(boolean) => out.push_str(if boolean { "true" } else { "false" }),
                Reading::Text(text) => write_text(&String::from_utf8_lossy(text), out),
                Reading::Hex(bytes) => {
                    out.push('"');
                    write_hex(bytes, out);
                    out.push('"');
                }
            },
            Operand::Json(field) if field.calculation.is_some() => {
                self.json_number(field).write(out);
            }
            Operand::Json(field) => write_json(self.find(field), out),
            Operand::PayloadLength => Number::Unsigned(self.payload.len() as u64).write(out),
        }
        if out.len() > OUTPUT_BYTES_MAX - BRACES_MAX {
            let place = value.place.clone();
            return Err(PayloadError::Output { place, limit: OUTPUT_BYTES_MAX });
        }
        Ok(())
    }

    fn position(&self) -> Option<LatLon> {
        let latitude = self.number(self.latitude?)?;
        let longitude = self.number(self.longitude?)?;
        let is_told = latitude.is_finite() && longitude.is_finite();
        is_told.then_some(LatLon { latitude, longitude })
    }

    fn moment(&self) -> Option<i64> {
        let value = &self.program.values[usize::from(self.at?)];
        match self.subject(value).ok()? {
            Reading::Number(number) => moment::from_number(number.as_f64()),
            Reading::Text(text) => moment::from_text(&String::from_utf8_lossy(text)),
            Reading::Boolean(_) | Reading::Hex(_) => None,
        }
    }

    fn number(&self, value: u16) -> Option<f64> {
        match self.subject(&self.program.values[usize::from(value)]).ok()? {
            Reading::Number(number) => Some(number.as_f64()),
            _ => None,
        }
    }
}

/// Equality of type and value.
fn equals(subject: &Reading<'_>, constant: &Constant) -> bool {
    match (subject, constant) {
        (Reading::Number(number), Constant::Number(constant)) => number.as_f64() == *constant,
        (Reading::Boolean(boolean), Constant::Boolean(constant)) => boolean == constant,
        (Reading::Text(text), Constant::Text(constant)) => is_text_of(constant, text),
        (Reading::Hex(bytes), Constant::Text(constant)) => is_hex_of(constant, bytes),
        _ => false,
    }
}

/// Whether the text is what the bytes decode to. Decoding never shortens, so that bytes are decoded
/// at most as often as the constants of a template are long, together 64 KiB.
fn is_text_of(text: &str, bytes: &[u8]) -> bool {
    bytes.len() <= text.len() && String::from_utf8_lossy(bytes) == *text
}

/// Whether the text is what [`write_hex`] writes for the bytes.
fn is_hex_of(text: &str, bytes: &[u8]) -> bool {
    let digit = |digit: u32| char::from_digit(digit, 16);
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(u32::from(byte >> 4)), digit(u32::from(byte & 15))])
        .flatten();
    text.chars().eq(digits)
}

/// Appends a value of the payload's JSON; as deep as the parser reads, 128 levels.
fn write_json(value: &Json, out: &mut String) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => Number::Signed(signed).write(out),
            (None, Some(unsigned)) => Number::Unsigned(unsigned).write(out),
            (None, None) => Number::Double(number.as_f64().unwrap_or(f64::NAN)).write(out),
        },
        Json::String(text) => write_text(text, out),
        Json::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Json::Object(object) => {
            out.push('{');
            for (index, (key, item)) in object.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write_json(item, out);
            }
            out.push('}');
        }
    }
}
