//! A customer's webhook: an HTTP server on loopback that counts what it gets, keeps some of it, and
//! fails as it is told. With or without TLS; with TLS by HTTP/1.1 or HTTP/2.

mod behaviour;
mod events;
mod identity;
mod serve;
mod tally;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::HeaderMap;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use behaviour::Behaviour;
pub use events::ContentError;
pub use identity::{IdentityError, ServerIdentity};
pub use tally::Tally;

use behaviour::Script;
use tally::Pages;

/// The longest body taken, in bytes, as it comes and inflated; a longer one is answered 413.
/// Webhooks get 100 KB for an event at most, and 100 events of usual size are less than that.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as it came, possibly compressed.
    pub body: Bytes,
    /// What it was answered with; of [`Behaviour::Fail`] what came of it.
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
    /// With it the receiver speaks TLS.
    pub identity: Option<ServerIdentity>,
    /// Which requests [`Behaviour::Fail`] lets fail.
    pub seed: u64,
    /// Keeps the ids of events, for [`Receiver::tallies`]: about 30 bytes for each and path.
    pub ledger: bool,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ReceiverCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read completely.
    pub requests: u64,
    /// Of these, those to be answered with 2xx.
    pub successes: u64,
    /// Bytes of the requests' bodies, as they came.
    pub body_bytes: u64,
    /// Events in the bodies of the requests that were to be answered with 2xx: a body is one JSON
    /// object or an array of them.
    pub events: u64,
    /// Of the same requests those whose body is neither.
    pub unreadable: u64,
}

/// A running receiver; dropping it closes all its connections.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    keep: usize,
    on_delivery: Option<OnDelivery>,
    script: Mutex<Script>,
    kept: Mutex<Vec<Delivery>>,
    pages: Option<Mutex<Pages>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    successes: AtomicU64,
    body_bytes: AtomicU64,
    events: AtomicU64,
    unreadable: AtomicU64,
}

impl Default for ReceiverOptions {
    /// A free loopback port, 1,000 deliveries kept, 200 to everything; no TLS, no ledger.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keep: 1_000,
            behaviour: Behaviour::Answer(200),
            on_delivery: None,
            identity: None,
            seed: 0,
            ledger: false,
        }
    }
}

impl Receiver {
    /// Starts a receiver on a thread of its own.
    ///
    /// # Errors
    /// Where the address cannot be bound or no thread can be had.
    pub fn start(options: ReceiverOptions) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind(options.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let tls = options.identity.as_ref().map(ServerIdentity::acceptor);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared::new(options)?);
        let (stop, mut stopped) = watch::channel(false);
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve::accept(listener, served, tls) => {}
                    // An error is as good: the receiver itself is gone.
                    _ = stopped.changed() => {}
                }
            });
        })?;
        Ok(Self { address, scheme, shared, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for an integration, with a path.
    pub fn url(&self) -> String {
        format!("{}://{}/webhook", self.scheme, self.address)
    }

    /// What was counted.
    pub fn counts(&self) -> ReceiverCounts {
        let Counters { connections, requests, successes, body_bytes, events, unreadable } =
            &self.shared.counters;
        // First: who reads this number of requests reads what they brought.
        let requests = requests.load(Ordering::Acquire);
        ReceiverCounts {
            connections: connections.load(Ordering::Relaxed),
            requests,
            successes: successes.load(Ordering::Relaxed),
            body_bytes: body_bytes.load(Ordering::Relaxed),
            events: events.load(Ordering::Relaxed),
            unreadable: unreadable.load(Ordering::Relaxed),
        }
    }

    /// What the ledger says, by the path of requests without their query; nothing where there is
    /// no ledger. Paths beyond the first 128 share one entry, `*`.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.shared.pages.as_ref().map(|pages| lock(pages).tallies()).unwrap_or_default()
    }

    /// From now on the latencies of [`Receiver::tallies`] are those of events that arrive after
    /// this.
    pub fn restart_latencies(&self) {
        if let Some(pages) = &self.shared.pages {
            lock(pages).restart_latencies();
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
        lock(&self.shared.script).append(next);
    }

    /// What to do from now on with requests that no script speaks of.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.shared.script).otherwise(behaviour);
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

impl Delivery {
    /// The body as it was before it was compressed.
    ///
    /// # Errors
    /// Where it is not what its `content-encoding` says, or longer than 4 MiB.
    pub fn content(&self) -> Result<Bytes, ContentError> {
        events::content(&self.headers, &self.body, BODY_BYTES_MAX)
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
    fn new(options: ReceiverOptions) -> io::Result<Self> {
        let pages = options.ledger.then(Pages::new).transpose().map_err(io::Error::other)?;
        Ok(Self {
            keep: options.keep,
            on_delivery: options.on_delivery,
            script: Mutex::new(Script::new(options.behaviour, options.seed)),
            kept: Mutex::default(),
            pages: pages.map(Mutex::new),
            counters: Counters::default(),
        })
    }

    fn note_connection(&self) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and keeps a request, and tells what to do with it.
    fn note(&self, path: &str, headers: HeaderMap, body: Bytes) -> Behaviour {
        let behaviour = lock(&self.script).next();
        self.counters.body_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        if behaviour.is_success() {
            self.counters.successes.fetch_add(1, Ordering::Relaxed);
            self.note_events(path, &headers, &body);
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
        self.counters.requests.fetch_add(1, Ordering::Release);
        behaviour
    }

    fn note_events(&self, path: &str, headers: &HeaderMap, body: &Bytes) {
        let content = events::content(headers, body, BODY_BYTES_MAX).ok();
        let Some(events) = content.as_deref().and_then(|content| events::read(content).ok()) else {
            self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        if let Some(pages) = &self.pages {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            lock(pages).note(path, &events, now_ms);
        }
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
        let expected = ReceiverCounts {
            connections: 1,
            requests: 3,
            successes: 3,
            body_bytes: 11,
            events: 0,
            unreadable: 3,
        };
        assert_eq!(counts, expected);
        assert!(receiver.tallies().is_empty());
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
    fn events_of_requests_that_succeed_are_counted_and_stand_in_the_ledger() {
        let options = ReceiverOptions { ledger: true, ..ReceiverOptions::default() };
        let receiver = Receiver::start(options).unwrap();
        receiver.script([Behaviour::Answer(500)]);
        let mut stream = connect(&receiver);
        let batch = r#"[{"id":"a","received":"1"},{"id":"b","received":"1"}]"#;
        assert_eq!(post(&mut stream, "/hook", batch), "HTTP/1.1 500 Internal Server Error");
        assert_eq!(receiver.counts().events, 0);
        for body in [batch, r#"{"id":"a"}"#, "[", r#"{"id":"c"}"#] {
            assert_eq!(post(&mut stream, "/hook", body), "HTTP/1.1 200 OK");
        }
        let counts = receiver.counts();
        assert_eq!((counts.requests, counts.events, counts.unreadable), (5, 4, 1));
        let tally = receiver.tallies().remove("/hook").unwrap();
        assert_eq!((tally.events, tally.distinct, tally.duplicates, tally.timed), (4, 3, 1, 2));
        receiver.restart_latencies();
        assert_eq!(receiver.tallies()["/hook"].timed, 0);
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
