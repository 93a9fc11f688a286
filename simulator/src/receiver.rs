//! A customer's webhook: an HTTP server on loopback that counts what it gets, keeps some of it, and
//! fails as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The longest body taken, in bytes; a longer one is answered 413. Webhooks get 64 KB at most.
const BODY_BYTES_MAX: usize = 4 << 20;

/// What the receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with this status.
    Answer(u16),
    /// Answers with this status after this time.
    AnswerAfter(u16, Duration),
    /// Closes the connection without an answer, after having read the request.
    Drop,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What it was answered with.
    pub behaviour: Behaviour,
}

/// Is told of each request before it is answered, on the receiver's only thread.
pub type OnDelivery = Box<dyn Fn(&Delivery) + Send + Sync>;

/// How a receiver starts.
pub struct ReceiverOptions {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// How many deliveries are kept; later ones are counted only.
    pub keep: usize,
    /// What is done with each request that no script speaks of.
    pub behaviour: Behaviour,
    /// Is told of each request.
    pub on_delivery: Option<OnDelivery>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read completely.
    pub requests: u64,
    /// Of these, those to be answered with 2xx.
    pub successes: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

/// A running receiver; dropping it closes all its connections.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    keep: usize,
    on_delivery: Option<OnDelivery>,
    script: Mutex<Script>,
    kept: Mutex<Vec<Delivery>>,
    connections: AtomicU64,
    requests: AtomicU64,
    successes: AtomicU64,
    body_bytes: AtomicU64,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Behaviour>,
    otherwise: Behaviour,
}

impl Default for ReceiverOptions {
    /// A free loopback port, 1,000 deliveries kept, 200 to everything.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keep: 1_000,
            behaviour: Behaviour::Answer(200),
            on_delivery: None,
        }
    }
}

impl Receiver {
    /// Starts a receiver on a thread of its own.
    ///
    /// # Errors
    /// Where the address cannot be bound or no thread can be had.
    pub fn start(options: ReceiverOptions) -> io::Result<Self> {
        let ReceiverOptions { address, keep, behaviour, on_delivery } = options;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            keep,
            on_delivery,
            script: Mutex::new(Script { next: VecDeque::new(), otherwise: behaviour }),
            kept: Mutex::default(),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
        });
        let (stop, mut stopped) = watch::channel(false);
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, served) => {}
                    // An error is as good: the receiver itself is gone.
                    _ = stopped.changed() => {}
                }
            });
        })?;
        Ok(Self { address, shared, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for an integration, with a path.
    pub fn url(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    /// What was counted.
    pub fn counts(&self) -> ReceiverCounts {
        ReceiverCounts {
            connections: self.shared.connections.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Acquire),
            successes: self.shared.successes.load(Ordering::Relaxed),
            body_bytes: self.shared.body_bytes.load(Ordering::Relaxed),
        }
    }

    /// The deliveries kept so far, in the order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.shared.kept).clone()
    }

    /// The deliveries kept so far, which are kept no longer: room for as many again.
    pub fn take_deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut *lock(&self.shared.kept))
    }

    /// What to do with the next requests, in this order, behind what was scripted before.
    pub fn script(&self, next: impl IntoIterator<Item = Behaviour>) {
        lock(&self.shared.script).next.extend(next);
    }

    /// What to do from now on with requests that no script speaks of.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared.script).otherwise = behaviour;
    }

    /// Waits until so many requests have arrived; tells whether they did within `limit`.
    pub fn wait_for(&self, requests: u64, limit: Duration) -> bool {
        let end = std::time::Instant::now() + limit;
        while self.counts().requests < requests {
            if std::time::Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the callback has been shown by its own thread.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("script", &self.script).finish_non_exhaustive()
    }
}

impl Shared {
    /// Counts and keeps a request, and tells what to do with it.
    fn note(&self, path: &str, headers: HeaderMap, body: Bytes) -> Behaviour {
        let behaviour = {
            let mut script = lock(&self.script);
            script.next.pop_front().unwrap_or(script.otherwise)
        };
        self.body_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        if behaviour.is_success() {
            self.successes.fetch_add(1, Ordering::Relaxed);
        }
        let has_room = self.keep > 0 && lock(&self.kept).len() < self.keep;
        if has_room || self.on_delivery.is_some() {
            let delivery = Delivery { path: path.to_owned(), headers, body, behaviour };
            if let Some(tell) = &self.on_delivery {
                tell(&delivery);
            }
            if has_room {
                lock(&self.kept).push(delivery);
            }
        }
        // Last, so that who waits for the count finds what was kept.
        self.requests.fetch_add(1, Ordering::Release);
        behaviour
    }
}

impl Behaviour {
    const fn is_success(self) -> bool {
        matches!(self, Self::Answer(200..=299) | Self::AnswerAfter(200..=299, _))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends all connections together with the receiver.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            // Out of file descriptors, most likely: some will be free soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Answers are small; without this the kernel would hold them back for 40 ms at times.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, &shared));
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    // A connection that breaks, or is dropped on purpose, is the client's to notice.
    let _ = connection.await;
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("dropped by the script")
    }
}

impl std::error::Error for Dropped {}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Empty>, Dropped> {
    let (head, body) = request.into_parts();
    let body = match read_body(body).await {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE.as_u16())),
        Err(_) => return Err(Dropped),
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    match shared.note(path, head.headers, body) {
        Behaviour::Answer(status) => Ok(respond(status)),
        Behaviour::AnswerAfter(status, delay) => {
            tokio::time::sleep(delay).await;
            Ok(respond(status))
        }
        Behaviour::Drop => Err(Dropped),
    }
}

fn respond(status: u16) -> Response<Empty> {
    let mut response = Response::new(Empty);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The whole body; `None` where it is too long.
async fn read_body(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + whole.len() + data.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        // A body that came in one piece is not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&data);
    }
    Ok(Some(if whole.is_empty() { first } else { whole.freeze() }))
}

/// A body of nothing.
struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(0)
    }
}

/// What is behind the lock stays usable when a callback of a test panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Sends a POST and tells the first line of the answer; empty where there was none.
    fn post(stream: &mut std::net::TcpStream, path: &str, body: &str) -> String {
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
    }

    fn connect(receiver: &Receiver) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(receiver.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    #[test]
    fn deliveries_are_counted_and_kept_up_to_the_limit() {
        let options = ReceiverOptions { keep: 2, ..ReceiverOptions::default() };
        let receiver = Receiver::start(options).unwrap();
        let mut stream = connect(&receiver);
        for body in ["one", "two", "three"] {
            assert_eq!(post(&mut stream, "/hook?a=1", body), "HTTP/1.1 200 OK");
        }
        let counts = receiver.counts();
        let expected = ReceiverCounts { connections: 1, requests: 3, successes: 3, body_bytes: 11 };
        assert_eq!(counts, expected);
        let kept = receiver.take_deliveries();
        assert_eq!(kept.len(), 2);
        assert_eq!((&*kept[1].path, &*kept[1].body), ("/hook?a=1", &b"two"[..]));
        assert_eq!(kept[0].headers["host"], "h");
        assert!(receiver.deliveries().is_empty());
        assert!(receiver.wait_for(3, Duration::ZERO) && !receiver.wait_for(4, Duration::ZERO));
    }

    #[test]
    fn a_script_fails_in_its_order_and_then_all_is_well_again() {
        let receiver = Receiver::start(ReceiverOptions::default()).unwrap();
        let pause = Duration::from_millis(60);
        receiver.script([
            Behaviour::Answer(503),
            Behaviour::AnswerAfter(429, pause),
            Behaviour::Drop,
        ]);
        let mut stream = connect(&receiver);
        assert_eq!(post(&mut stream, "/", "x"), "HTTP/1.1 503 Service Unavailable");
        let asked = std::time::Instant::now();
        assert_eq!(post(&mut stream, "/", "x"), "HTTP/1.1 429 Too Many Requests");
        assert!(asked.elapsed() >= pause);
        assert_eq!(post(&mut stream, "/", "x"), "");
        let mut stream = connect(&receiver);
        assert_eq!(post(&mut stream, "/", "x"), "HTTP/1.1 200 OK");
        receiver.behave(Behaviour::Answer(410));
        assert_eq!(post(&mut stream, "/", "x"), "HTTP/1.1 410 Gone");
        let counts = receiver.counts();
        assert_eq!((counts.requests, counts.successes, counts.connections), (5, 1, 2));
    }

    #[test]
    fn the_callback_sees_each_delivery_and_long_bodies_arrive_whole() {
        let (tell, told) = std::sync::mpsc::channel();
        let on_delivery: OnDelivery = Box::new(move |delivery| {
            tell.send(delivery.body.len()).unwrap();
        });
        let receiver = Receiver::start(ReceiverOptions {
            keep: 0,
            on_delivery: Some(on_delivery),
            ..ReceiverOptions::default()
        })
        .unwrap();
        let mut stream = connect(&receiver);
        let body = "y".repeat(300_000);
        assert_eq!(post(&mut stream, "/", &body), "HTTP/1.1 200 OK");
        assert_eq!(told.recv().unwrap(), 300_000);
        let body = "y".repeat(BODY_BYTES_MAX + 1);
        assert_eq!(post(&mut stream, "/", &body), "HTTP/1.1 413 Payload Too Large");
    }

    #[test]
    fn a_dropped_receiver_frees_its_port() {
        let receiver = Receiver::start(ReceiverOptions::default()).unwrap();
        let mut stream = connect(&receiver);
        post(&mut stream, "/", "x");
        let address = receiver.address();
        drop(receiver);
        assert!(std::net::TcpStream::connect(address).is_err());
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
}
