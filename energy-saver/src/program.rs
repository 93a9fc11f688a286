//! A compiled template.

use std::ops::Range;

use crate::compile_error::CompileError;
use crate::field::Field;
use crate::layout::Layout;
use crate::payload_error::{PayloadError, PayloadPlace};
use crate::selector::{Constant, JsonField};
use crate::template::Axis;
use crate::{compile, template};

/// A compiled template: immutable, to be shared between threads.
#[derive(Debug)]
pub struct Program {
    pub(crate) instructions: Box<[Instruction]>,
    pub(crate) cases: Box<[Case]>,
    pub(crate) values: Box<[Value]>,
    pub(crate) layout: Layout,
}

/// The JSON of one payload, and what it says besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// Compact JSON, an object.
    pub json: String,
    /// The device's position, see [`Details::position`].
    pub position: Option<LatLon>,
    /// The moment that the payload names, see [`Details::at_unix_micros`].
    pub at_unix_micros: Option<i64>,
}

/// What a payload says besides its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Details {
    /// The position, where the template marks both a latitude and a longitude (`custom_type`, or a
    /// composite value) and both are finite. Of several, the last one written.
    pub position: Option<LatLon>,
    /// The moment of the last mapping with `at`, in microseconds since 1970. A number below 1e11
    /// is taken as seconds, a greater one as milliseconds, a text as RFC 3339; `None` where the
    /// value is none of these.
    pub at_unix_micros: Option<i64>,
}

/// A position (WGS 84) as the payload says it: perhaps off the globe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatLon {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

/// One step of a run. Indices point into the program's own tables; targets only lead forward, so
/// that a run ends.
#[derive(Debug, Clone)]
pub(crate) enum Instruction {
    /// Checks that the payload has the value and notes it for the slot.
    Store { slot: u16, value: u16 },
    /// Forgets what these slots had.
    Clear { slots: Range<u16> },
    /// Notes one half of the position.
    Locate { axis: Axis, value: u16 },
    /// Checks that the payload has the value and notes it as the moment.
    At { value: u16 },
    /// Goes on at the target of the first case that equals the value.
    Switch { value: u16, cases: Range<u16>, otherwise: u32 },
    /// Goes on elsewhere.
    Jump { target: u32 },
}

/// One case of a switch.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) constant: Constant,
    pub(crate) target: u32,
}

/// A value with the statement it belongs to.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) operand: Operand,
    pub(crate) place: PayloadPlace,
}

/// Where a value comes from.
#[derive(Debug)]
pub(crate) enum Operand {
    /// A constant with its JSON form.
    Constant {
        constant: Constant,
        json: Box<str>,
    },
    Field(Field),
    Json(JsonField),
    /// `$payloadLength`.
    PayloadLength,
}

impl Program {
    /// Compiles a template.
    ///
    /// The error names the first thing that is wrong, or the limit that is exceeded
    /// ([`crate::SOURCE_BYTES_MAX`], [`crate::OPERATIONS_MAX`], [`crate::DEPTH_MAX`] and others).
    pub fn compile(source: &str) -> Result<Self, CompileError> {
        Ok(compile::assemble(&template::read(source)?))
    }

    /// Translates a payload.
    pub fn run(&self, payload: &[u8]) -> Result<Translated, PayloadError> {
        let mut json = String::new();
        let Details { position, at_unix_micros } = self.run_into(payload, &mut json)?;
        Ok(Translated { json, position, at_unix_micros })
    }
}
