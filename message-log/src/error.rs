//! What can go wrong, one enum per operation.

use std::path::PathBuf;

use thiserror::Error;

use crate::types::Offset;

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("message log {dir} is in use by another process")]
    InUse {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Written by a newer release.
    #[error("message log of format {found}, this release knows up to {known}")]
    Newer {
        /// The format on disk.
        found: u32,
        /// The newest format that this release knows.
        known: u32,
    },
    /// The file system refused.
    #[error("message log {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The storage engine refused.
    #[error("message log {path}: {reason}")]
    Storage {
        /// The folder of the log.
        path: PathBuf,
        /// What the storage engine said.
        reason: String,
    },
    /// An option has a value that cannot work.
    #[error("message log option {name} is {value}, at least {least} is needed")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least value.
        least: u64,
    },
}

/// Why records were not appended. Nothing of the call is stored, except after
/// [`AppendError::Failed`], when that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The queue is full: shed load, try later.
    #[error("{queued} records are queued, the limit is {limit}")]
    Full {
        /// Records waiting.
        queued: usize,
        /// The limit; of records, or of records that fit the limit of bytes.
        limit: usize,
    },
    /// A body exceeds the limit.
    #[error("body of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes of the body.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk is full; the log recovers by itself when there is space.
    #[error("the disk is full")]
    NoSpace,
    /// The records waited too long in the queue.
    #[error("waited {waited_ms} ms in the queue, the limit is {limit_ms} ms")]
    Overdue {
        /// Milliseconds waited.
        waited_ms: u64,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The storage failed: the process should end with code 74 and start again.
    #[error("the storage failed")]
    Failed,
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// What was asked for has been deleted by retention.
    #[error("the oldest record kept is {oldest}")]
    Overtaken {
        /// The oldest place that can be read.
        oldest: Offset,
    },
    /// The storage refused.
    #[error("reading the log: {0}")]
    Storage(String),
    /// The read took too long; ask for less.
    #[error("the read did not end within {limit_ms} ms")]
    TimedOut {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
}
