//! One HTTP connection, from its first byte to its last.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tower::Service as _;
use tracing::debug;

/// The head of a request must be there by then, or a client that sends a byte now and then would
/// hold its connection for ever. hyper applies it only when it has a timer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request in progress is closed after this long: it also ends those who
/// never send a first request and those who never read the last answer. With the check and the
/// farewell below it stays under 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const IDLE_CHECK: Duration = Duration::from_secs(2);
/// What a connection has to say goodbye after it was told to close.
const FAREWELL: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection: what one client has a use for, an estimate.
const STREAMS_MAX: u32 = 64;
/// Streams that a client may reset before they were looked at, the budget against reset storms.
const RESETS_MAX: usize = 32;
/// All headers of a request together; ours are far below, the largest is a token of 300 bytes.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// hyper's buffer for HTTP/1.1 holds a head and the start of a body.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Which HTTP the client chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// The other end of a connection, for handlers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// Whether the connection is TLS.
    pub(crate) secure: bool,
}

/// Serves one connection to its end, or until `stopping` turns true and its requests are done.
pub(crate) async fn serve<I>(
    stream: I,
    router: Router,
    version: Version,
    (peer, stopping): (Peer, watch::Receiver<bool>),
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let service = service_fn({
        let activity = Arc::clone(&activity);
        move |request: Request<Incoming>| answer(request, router.clone(), peer, activity.begin())
    });
    let builder = match version {
        Version::Http1 => http1(),
        Version::Http2 => http2(),
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(std::pin::pin!(connection), &activity, stopping).await;
}

async fn answer(
    request: Request<Incoming>,
    mut router: Router,
    peer: Peer,
    _in_progress: InProgress,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    router.call(request).await
}

fn http1() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
}

fn http2() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(IDLE_TIMEOUT)
        .keep_alive_timeout(HEAD_TIMEOUT);
    builder
}

async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    activity: &Activity,
    mut stopping: watch::Receiver<bool>,
) where
    C::Error: std::fmt::Debug,
{
    let mut check = interval(IDLE_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let idle = loop {
        tokio::select! {
            end = connection.as_mut() => {
                if let Err(error) = end {
                    debug!(?error, "connection ended");
                }
                return;
            }
            _ = stopping.wait_for(|stop| *stop) => break false,
            _ = check.tick() => if activity.idle_for() >= IDLE_TIMEOUT { break true },
        }
    };
    connection.as_mut().graceful_shutdown();
    if idle {
        // Whoever did not react for so long does not get much more.
        let _ = timeout(FAREWELL, connection).await;
    } else {
        // The server ends the task when its own deadline comes.
        let _ = connection.await;
    }
}

/// Requests in progress on one connection, and when the last one ended.
struct Activity {
    in_progress: AtomicUsize,
    last_ms: AtomicU64,
}

/// A request in progress; ends when dropped.
struct InProgress(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self { in_progress: AtomicUsize::new(0), last_ms: AtomicU64::new(clock_ms()) }
    }

    fn begin(self: &Arc<Self>) -> InProgress {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(self))
    }

    fn idle_for(&self) -> Duration {
        if self.in_progress.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let last = self.last_ms.load(Ordering::Relaxed);
        Duration::from_millis(clock_ms().saturating_sub(last))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.last_ms.store(clock_ms(), Ordering::Relaxed);
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Milliseconds since the first call: an [`Instant`] that fits an atomic.
fn clock_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_only_without_requests() {
        let activity = Arc::new(Activity::new());
        let first = activity.begin();
        let second = activity.begin();
        std::thread::sleep(Duration::from_millis(5));
        drop(first);
        assert_eq!(activity.idle_for(), Duration::ZERO);
        drop(second);
        std::thread::sleep(Duration::from_millis(5));
        assert!(activity.idle_for() >= Duration::from_millis(4));
    }
}
