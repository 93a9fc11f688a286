//! Templates: a compact binary payload becomes JSON.
//!
//! A template is a JSON text in the conversion language of 1NCE OS with the constructs of its
//! larger relative (docs/templates.md describes both). [`Program::compile`] checks it once and
//! turns it into a flat list of instructions; [`Program::run`] applies that to a payload.
//! Everything is a pure function: no I/O, no clock, no state between two runs.
//!
//! Where the documents leave a choice, this crate chooses:
//!
//! * **All or nothing.** A payload that one selector cannot read gives an error and no JSON.
//! * **Keys** stand in the order in which the template first names them. A later write of an asset
//!   replaces an earlier one; a value replaces an object of the same name and the other way round.
//! * **Numbers** are JavaScript's: integers are exact within ±2^53 and beyond are printed as the
//!   nearest double; a 4-byte float is printed in its own shortest form (`50.934544`); exponents
//!   look like `7.490929188596135e+247`; NaN and infinities become `null`, minus zero becomes `0`.
//! * **Strings** are UTF-8; what is not, becomes U+FFFD, as JavaScript does (the raw payload stays
//!   stored anyway). NUL bytes at the end are kept.
//! * **`bit` 0** is the lowest bit of its byte.
//! * **`int` is signed, `uint` is not**, whatever `signed` says; `integer` (also the default where
//!   `type` is absent) is unsigned unless `signed` is true or `"true"`.
//! * **`json`** takes the value as it is in the payload; a `type` beside it is accepted and
//!   changes nothing. A whole object or list is taken too; the order of an object's keys may
//!   change.
//! * **`case`** matches by type and value; all numbers are doubles, so `1` and `1.0` are equal.
//! * **`actuate`** (the other direction) is accepted and ignored.
//! * **`at`** gives [`Details::at_unix_micros`] and does not appear in the JSON.

mod calculation;
mod compile;
mod compile_error;
mod energy;
mod field;
mod json_path;
mod layout;
mod moment;
mod number;
mod payload_error;
mod program;
mod run;
mod selector;
mod template;

pub use compile_error::{CompileError, CompileReason};
pub use energy::{Reduction, reduction};
pub use payload_error::{PayloadError, PayloadPlace};
pub use program::{Details, LatLon, Program, Translated};

/// Longest template in bytes: the documented limit of a request's body.
pub const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// Most operations of a template: each selector, each `switch` and each entry of `on` is one.
/// An estimate: far above what a payload of a few hundred bytes has use for.
pub const OPERATIONS_MAX: usize = 512;
/// Deepest nesting of statement blocks, `sense` being the first: an
/// estimate, and little enough for a recursive reader.
pub const DEPTH_MAX: usize = 8;
/// Longest asset path in bytes: several times the longest one in known templates.
pub const ASSET_BYTES_MAX: usize = 256;
/// Most segments of an asset path or a `json` path: the deepest known example has three.
pub const SEGMENTS_MAX: usize = 16;
/// Longest `calculation` in bytes; the longest known one has 8.
pub const CALCULATION_BYTES_MAX: usize = 256;
/// Greatest offset and length in bytes: one more than the length field of a UDP datagram can say.
pub const OFFSET_MAX: u32 = 65_536;
/// Steps that one run may take: one for each operation and one for each 64 bytes read.
/// The largest template on a small payload takes a twentieth of it; one that reads a large payload
/// again and again ends here.
pub const FUEL_STEPS: u32 = 10_000;
/// Longest JSON of one run in bytes: so that no small payload becomes
/// a large event.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
