//! Records of SIM vendors' event streams, as session reports.
//!
//! emnify and 1NCE (whose streams have the same form) post arrays of JSON records: events of the
//! network, of the account and of SIMs, and usage. Of these the creation, the change and the
//! deletion of a PDP context say who holds which address, and usage of data what a SIM has carried;
//! all others are counted and left. A record that lacks something is left too: a whole array that
//! is refused would come again for ever.
//!
//! No HTTP, no secret, no clock.

mod record;

use serde_json::Value;
use thiserror::Error;
use vocabulary::{SessionReport, Timestamp};

use record::Meaning;

/// Records of one body at most: the largest that the vendors send.
pub const RECORDS_MAX: usize = 3_000;
/// Bytes of a body at most; a record has below 3 KB.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// What a body says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Records in it.
    pub records: usize,
    /// What they say of sessions.
    pub reports: Vec<SessionReport>,
    /// Records of other kinds.
    pub ignored: usize,
    /// Records of sessions that lack something.
    pub incomplete: usize,
    /// What the first of them lacks.
    pub first_lack: Option<&'static str>,
}

/// Why a body is not read at all.
#[derive(Debug, Error)]
pub enum BodyError {
    /// No JSON.
    #[error("the body is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Something else.
    #[error("the body is {0}, allowed: an object or an array of objects")]
    Form(&'static str),
    /// Too many.
    #[error("the body has {0} records, allowed: {RECORDS_MAX}")]
    TooMany(usize),
}

/// Reads a body of the feed `feed` that arrived at `arrived`.
pub fn parse(feed: &str, body: &[u8], arrived: Timestamp) -> Result<Parsed, BodyError> {
    let records = match serde_json::from_slice(body)? {
        Value::Array(records) => records,
        Value::Object(one) => vec![Value::Object(one)],
        Value::Null => return Err(BodyError::Form("null")),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(BodyError::Form("a single value"));
        }
    };
    if records.len() > RECORDS_MAX {
        return Err(BodyError::TooMany(records.len()));
    }
    let mut parsed = Parsed { records: records.len(), ..Parsed::default() };
    for record in &records {
        match record::read(feed, record, arrived) {
            Meaning::Report(report) => parsed.reports.push(*report),
            Meaning::Other => parsed.ignored += 1,
            Meaning::Lacks(what) => {
                parsed.incomplete += 1;
                parsed.first_lack.get_or_insert(what);
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests;
