//! Records of SIM vendors' event streams, as session reports.
//!
//! emnify and 1NCE (whose streams have the same form) post arrays of JSON records: events of the
//! network, of the account and of SIMs, and usage. Of these the creation, the change and the
//! deletion of a PDP context say who holds which address, and usage of data what a SIM has carried;
//! all others are counted and left. A record that lacks something is left too: a whole array that
//! is refused would come again for ever.
//!
//! Records are looked at one after the other, each as its text, so that a body takes little more
//! memory than its bytes, whatever stands in it.
//!
//! No HTTP, no secret, no clock.

mod body;
mod record;

use thiserror::Error;
use vocabulary::{SessionReport, Timestamp};

use record::Meaning;

/// Records of one body at most: the largest that the vendors send.
pub const RECORDS_MAX: usize = 3_000;
/// Bytes of a body at most; a record has below 3 KB.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a record at most: as values it takes up to thirty times as much memory. Twenty times
/// what the vendors send.
const RECORD_BYTES_MAX: usize = 64 << 10;

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
    // A name with a byte that is no UTF-8 must not keep the other records back.
    let body = String::from_utf8_lossy(body);
    let records = body::records(&body)?;
    let mut parsed = Parsed { records: records.len(), ..Parsed::default() };
    for record in records {
        let meaning = match serde_json::from_str(record.get()) {
            _ if record.get().len() > RECORD_BYTES_MAX => Meaning::Lacks("at most 64 KiB"),
            Ok(value) => record::read(feed, &value, arrived),
            // Syntax was looked at before.
            Err(_) => Meaning::Lacks("values within their ranges"),
        };
        match meaning {
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
