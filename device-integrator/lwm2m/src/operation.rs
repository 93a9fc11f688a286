//! What can be asked of a device (OMA LwM2M Core 1.1 §6.3 and §6.4).

use coap::wire::ContentFormat;

use crate::path::Path;
use crate::record::Record;

/// One operation on a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Reads a resource, an object instance or an object.
    Read {
        /// What.
        path: Path,
        /// The format wanted; `None`: what suits the device.
        accept: Option<ContentFormat>,
    },
    /// Writes a resource or an object instance.
    Write {
        /// Where.
        path: Path,
        /// What.
        content: WriteContent,
        /// What becomes of the rest of an instance.
        mode: WriteMode,
    },
    /// Executes a resource.
    Execute {
        /// Which.
        path: Path,
        /// Arguments as LwM2M Core 1.1 §6.3.5 writes them, empty for none.
        arguments: String,
    },
    /// Creates an object instance.
    Create {
        /// The object, or the instance if its id is chosen here.
        path: Path,
        /// Its resources.
        records: Vec<Record>,
    },
    /// Deletes an object instance.
    Delete {
        /// Which.
        path: Path,
    },
    /// Asks for the links and attributes below a path.
    Discover {
        /// Where.
        path: Path,
    },
    /// Sets notification attributes.
    WriteAttributes {
        /// Of what.
        path: Path,
        /// Such as `pmin=10`; each becomes a part of the query.
        attributes: Vec<String>,
    },
    /// Begins an observation.
    Observe {
        /// Of what.
        path: Path,
        /// The format wanted; `None`: what suits the device.
        accept: Option<ContentFormat>,
    },
    /// Ends an observation of exactly this path, or one of several paths that has it.
    CancelObservation {
        /// Of what.
        path: Path,
    },
    /// Reads several paths at once (LwM2M 1.1).
    ReadComposite {
        /// Which.
        paths: Vec<Path>,
    },
    /// Observes several paths at once (LwM2M 1.1).
    ObserveComposite {
        /// Which.
        paths: Vec<Path>,
    },
    /// Writes several paths at once (LwM2M 1.1).
    WriteComposite {
        /// What.
        records: Vec<Record>,
    },
    /// Writes bytes in a given format, such as a firmware image, in blocks if they are many.
    WriteRaw {
        /// Where.
        path: Path,
        /// In which format they are.
        format: ContentFormat,
        /// The bytes.
        payload: Vec<u8>,
    },
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteContent {
    /// The value of one resource as an operator writes it; the model says which type it has.
    Text(String),
    /// Values at or below the path.
    Records(Vec<Record>),
}

/// What a write does to the rest of an object instance (LwM2M Core 1.1 §6.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Replaces the instance or resource: PUT.
    #[default]
    Replace,
    /// Leaves alone what is not named: POST.
    Update,
}
