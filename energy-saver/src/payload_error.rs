//! Why a payload does not fit a template.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The statement that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadPlace {
    /// The asset of a mapping.
    Asset(Arc<str>),
    /// A `switch`, by its path in the template, e.g. `sense[1].switch`.
    Switch(Arc<str>),
}

/// Why a payload gives no JSON: the device sent other bytes than the template expects.
///
/// The text is the description of the documented administration log entry. A mapping
/// is named `Asset path:<asset>`, the documented form; a `switch` is named `Switch path:<path in
/// the template>`, of which the documents show no sample.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// A selector reaches beyond the payload.
    #[error("{place}, Error: can't extract [{from}:{to}] from {bytes} bytes")]
    Extract {
        /// The statement.
        place: PayloadPlace,
        /// First byte wanted; negative where counting from the end led before the beginning.
        from: i64,
        /// The byte after the last one wanted.
        to: i64,
        /// Length of the payload.
        bytes: usize,
    },
    /// A range with `byte` and `endbyte` has a length that its type cannot have.
    #[error("{place}, Error: can't read {kind} from {bytes} bytes, allowed: {allowed}")]
    Length {
        /// The statement.
        place: PayloadPlace,
        /// The type.
        kind: &'static str,
        /// Bytes in the range.
        bytes: usize,
        /// The lengths that the type can have.
        allowed: &'static str,
    },
    /// A `json` selector, and the payload is not JSON.
    #[error("{place}, Error: can't read the payload of {bytes} bytes as JSON")]
    NotJson {
        /// The statement.
        place: PayloadPlace,
        /// Length of the payload.
        bytes: usize,
    },
    /// A `json` selector leads nowhere.
    #[error("{place}, Error: can't find {path:?} in the JSON payload")]
    JsonPath {
        /// The statement.
        place: PayloadPlace,
        /// The path of the selector.
        path: Arc<str>,
    },
    /// A calculation over a JSON value that is no number.
    #[error("{place}, Error: can't calculate with {path:?}, it is not a number")]
    NotNumber {
        /// The statement.
        place: PayloadPlace,
        /// The path of the selector.
        path: Arc<str>,
    },
    /// The run took more steps than allowed.
    #[error("{place}, Error: template takes more than {limit} steps for {bytes} bytes")]
    Fuel {
        /// The statement at which the steps ran out.
        place: PayloadPlace,
        /// [`crate::FUEL_STEPS`].
        limit: u32,
        /// Length of the payload.
        bytes: usize,
    },
    /// The JSON became longer than allowed.
    #[error("{place}, Error: JSON exceeds the limit of {limit} bytes")]
    Output {
        /// The statement that exceeded it.
        place: PayloadPlace,
        /// [`crate::OUTPUT_BYTES_MAX`].
        limit: usize,
    },
}

impl PayloadError {
    /// Whether the template used up its budget, rather than the payload being of the wrong form.
    pub const fn is_over_budget(&self) -> bool {
        matches!(self, Self::Fuel { .. } | Self::Output { .. })
    }
}

impl fmt::Display for PayloadPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asset(asset) => write!(formatter, "Asset path:{asset}"),
            Self::Switch(path) => write!(formatter, "Switch path:{path}"),
        }
    }
}
