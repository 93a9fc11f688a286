//! Bodies that are used while they still arrive, by a thread that may block.
//!
//! The two meet in a short queue, so that a body of half a gigabyte takes no more memory than a
//! small one.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;
use crate::extract::{BODY_TIMEOUT, body_overdue, too_large};

/// Pieces of a body that wait for their reader; each has at most some 64 kB.
pub(crate) const QUEUED_PIECES_MAX: usize = 16;

/// A piece of the body. A body that ends without [`Piece::End`] broke off.
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

/// How much a body may be, and how long all of it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimits {
    pub(crate) bytes_max: u64,
    pub(crate) time_max: Duration,
}

/// Hands the body over, piece by piece.
pub(crate) async fn feed(
    body: Body,
    queue: mpsc::Sender<Piece>,
    limits: UploadLimits,
) -> Result<(), ApiError> {
    let deadline = Instant::now() + limits.time_max;
    let feed = hand_over(body, queue, limits.bytes_max);
    timeout_at(deadline, feed).await.unwrap_or_else(|_| Err(body_overdue()))
}

async fn hand_over(body: Body, queue: mpsc::Sender<Piece>, bytes_max: u64) -> Result<(), ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    // Each piece has as long as a whole ordinary body.
    while let Some(chunk) =
        timeout(BODY_TIMEOUT, chunks.next()).await.map_err(|_| body_overdue())?
    {
        let chunk =
            chunk.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        bytes += chunk.len() as u64;
        if bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        if queue.send(Piece::Data(chunk)).await.is_err() {
            // Its reader ended early, and says why.
            return Ok(());
        }
    }
    let _ = queue.send(Piece::End).await;
    Ok(())
}
