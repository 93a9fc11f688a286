//! Why a payload cannot be read or written.

use crate::excerpt::Excerpt;
use crate::limits::{DEPTH_MAX, INPUT_BYTES_MAX, NODES_MAX};
use crate::path::{Path, PathError};
use crate::value::{ResourceType, ValueError};

/// Why a payload was refused; the fault of the device that wrote it, unless the model is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No decoder reads this content format.
    #[error("content format {0} is not supported")]
    Format(u16),
    /// The payload is too long.
    #[error("payload of {bytes} bytes exceeds the limit of {INPUT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Containers are nested too deeply.
    #[error("containers nested {depth} deep exceed the limit of {DEPTH_MAX}")]
    TooDeep {
        /// The depth at which reading stopped.
        depth: usize,
    },
    /// There are too many values, arrays, maps and entries.
    #[error("{nodes} nodes exceed the limit of {NODES_MAX}")]
    TooManyNodes {
        /// The number at which reading stopped.
        nodes: usize,
    },
    /// The bytes are not of the format.
    #[error("malformed at byte {at}: {what}")]
    Syntax {
        /// Where.
        at: usize,
        /// What was wrong or expected.
        what: &'static str,
    },
    /// A field that must be understood (RFC 8428 §4.4) is not.
    #[error("field {0} must be understood and is not")]
    MustUnderstand(Excerpt),
    /// The pack is of a newer version of SenML (RFC 8428 §4.4).
    #[error("SenML version {version} exceeds the version 10 that is supported")]
    Version {
        /// The version.
        version: i64,
    },
    /// A name is not a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A value lies elsewhere than asked.
    #[error("path {path} does not lie within {base}")]
    Outside {
        /// Where it lies.
        path: Path,
        /// What was asked for.
        base: Path,
    },
    /// A value at a path that holds none.
    #[error("path {0} names no resource and cannot hold a value")]
    NotAValue(Path),
    /// A record without a value.
    #[error("record of {0} holds no value")]
    NoValue(Path),
    /// A record that has a value where only paths are expected.
    #[error("record of {0} holds a value where only a path is expected")]
    Valued(Path),
    /// A value of another type than the model says, or outside of its range.
    #[error("{path} is of type {wanted}, found: {found}")]
    Type {
        /// Where.
        path: Path,
        /// The type of the model.
        wanted: ResourceType,
        /// What stands there.
        found: &'static str,
    },
    /// A text that is not a value of the type that the model says.
    #[error("{path}: {error}")]
    Text {
        /// Where.
        path: Path,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A TLV entry where the nesting rules allow none of its kind (LwM2M Core 1.1 §7.4.3).
    #[error("TLV entry at byte {at}: {what}")]
    Nesting {
        /// Where.
        at: usize,
        /// What it is.
        what: &'static str,
    },
}

/// Why values cannot be written; the fault of the caller.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// No encoder writes this content format.
    #[error("content format {0} is not supported")]
    Format(u16),
    /// A path that holds no value.
    #[error("path {0} names no resource and cannot hold a value")]
    NotAValue(Path),
    /// A value does not lie where the request goes.
    #[error("path {path} does not lie within {base}")]
    Outside {
        /// Where it lies.
        path: Path,
        /// What the request names.
        base: Path,
    },
    /// The format holds exactly one value.
    #[error("the format holds one value, given: {records}")]
    Single {
        /// How many there are.
        records: usize,
    },
    /// The value is longer than the format can say.
    #[error("value of {path} has {bytes} bytes, TLV can say 16777215")]
    TooLong {
        /// Where.
        path: Path,
        /// Its length.
        bytes: usize,
    },
    /// The format cannot hold two values of one path.
    #[error("path {0} has two values")]
    Twice(Path),
    /// The format cannot hold a value of this type.
    #[error("the format cannot hold the value of {path}, which is of type {kind}")]
    Type {
        /// Where.
        path: Path,
        /// The type of the value.
        kind: ResourceType,
    },
    /// The format has no NaN and no infinity.
    #[error("the format cannot hold the number of {0}, which is not finite")]
    NotFinite(Path),
    /// The time would be read as a relative one (RFC 8428 §4.5.3), or is not finite.
    #[error("time {seconds} s of {path} is not an absolute time of SenML")]
    Time {
        /// Where.
        path: Path,
        /// The time.
        seconds: f64,
    },
}
