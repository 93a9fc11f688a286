//! Importing SIMs from CSV while the body still arrives.
//!
//! The registry reads from a thread of its own.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use bytes::{Buf as _, Bytes};
use connectivity::{ImportError, ImportReport};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{media_type, unsupported_type};
use crate::sims::now;
use crate::upload::{Piece, QUEUED_PIECES_MAX, UploadLimits, feed};

/// The longest file: four million SIMs, which is what the registry takes at once, of 128 bytes.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// The longest import: a file of full length over a line of one megabit a second.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(4_500);

/// What an import did. `read` is the sum of the four counts below it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimImport {
    /// Lines read, without the header and blank lines.
    read: u64,
    /// SIMs that are new.
    created: u64,
    /// SIMs that were known and changed.
    updated: u64,
    /// SIMs that were known just so.
    unchanged: u64,
    /// Lines that were not taken.
    rejected: u64,
    /// The first 1,000 of these lines.
    rejections: Vec<SimRejection>,
}

/// A line that was not taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimRejection {
    /// The number of the line; the header is line 1.
    line: u64,
    /// Why.
    #[schema(example = "imsi has 14 digits, allowed: 15")]
    reason: String,
}

impl From<ImportReport> for SimImport {
    fn from(report: ImportReport) -> Self {
        let rejections = report.rejections.into_iter();
        Self {
            read: report.read,
            created: report.created,
            updated: report.updated,
            unchanged: report.unchanged,
            rejected: report.rejected,
            rejections: rejections
                .map(|error| SimRejection { line: error.line, reason: error.reason.to_string() })
                .collect(),
        }
    }
}

/// What the registry reads from. Where a body broke off, its last line may be half a line.
struct Pieces {
    queue: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.queue.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Import SIMs from CSV.
///
/// The first line names the columns: `iccid`, and any of `imsi`, `msisdn`, `imei`, `ip`, `label`,
/// `status`. Good lines are taken, bad ones reported; importing a file twice changes nothing.
#[utoipa::path(
    post, path = "/simgate/v1/sims/import",
    operation_id = "importSims", tag = "simgate",
    request_body(content = String, content_type = "text/csv",
        description = "At most 512 MB and 4,000,000 lines."),
    responses(
        (status = 200, description = "What the import did.", body = SimImport),
        (status = 409, description = "Another import is running.", body = ErrorBody),
    )
)]
pub(crate) async fn import(
    State(api): State<ManagementApi>,
    request: Request,
) -> Result<Json<SimImport>, ApiError> {
    if media_type(request.headers()).as_deref() != Some("text/csv") {
        return Err(unsupported_type(request.headers(), "text/csv"));
    }
    // An import takes up to 140 MB and writes all the time, so there is one at a time.
    let running = api
        .imports()
        .try_acquire_owned()
        .map_err(|_| ApiError::conflict("another import is running"))?;
    let (sender, queue) = mpsc::channel(QUEUED_PIECES_MAX);
    let registry = Arc::clone(&api.services().registry);
    let importing = tokio::spawn(blocking("importing sims", move || {
        let _running = running;
        let pieces = Pieces { queue, current: Bytes::new(), ended: false };
        registry.import(pieces, now(), |_| {})
    }));
    let limits = UploadLimits { bytes_max: FILE_BYTES_MAX, time_max: IMPORT_TIMEOUT };
    let fed = feed(request.into_body(), sender, limits).await;
    let report = importing.await.map_err(|error| ApiError::internal("importing sims", error))??;
    // A body that went wrong is the cause of whatever the import says.
    fed?;
    report.map(|report| Json(report.into())).map_err(import_error)
}

fn import_error(error: ImportError) -> ApiError {
    match error {
        ImportError::Header(_) | ImportError::TooManyLines | ImportError::Read { .. } => {
            ApiError::bad_request(error.to_string())
        }
        ImportError::Store(error) => ApiError::internal("importing sims", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_breaks_off_is_an_error_and_not_an_end() {
        let (sender, queue) = mpsc::channel(4);
        let mut pieces = Pieces { queue, current: Bytes::new(), ended: false };
        sender.blocking_send(Piece::Data(Bytes::from_static(b"half a li"))).unwrap();
        drop(sender);
        let mut text = String::new();
        let error = pieces.read_to_string(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn pieces_become_one_text() {
        let (sender, queue) = mpsc::channel(4);
        let mut pieces = Pieces { queue, current: Bytes::new(), ended: false };
        for piece in [&b"ic"[..], b"", b"cid\n"] {
            sender.blocking_send(Piece::Data(Bytes::from_static(piece))).unwrap();
        }
        sender.blocking_send(Piece::End).unwrap();
        let mut text = String::new();
        pieces.read_to_string(&mut text).unwrap();
        assert_eq!(text, "iccid\n");
    }
}
