//! The same as [`crate::Responder`] over DTLS: the other end for tests of the generator, and the
//! measure of what it can do at most.

use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coap::wire::{MessageId, MessageRef};
use dtls::{Counters, Engine, Event, Output, Psk};

use crate::random::Random;
use crate::responder::{Answer, write_answer};
use crate::socket::{FleetSocket, Outbox};

/// How long the thread sleeps at most before it looks whether it is to end.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct SecureResponderOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddrV4,
    /// The sessions.
    pub dtls: dtls::Config,
    /// The key of every identity.
    pub key: Psk,
    /// Of a thousand datagrams in either direction, so many are lost.
    pub lost_per_mille: usize,
}

/// A running server; dropping it ends it.
pub struct SecureResponder {
    address: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    counters: Mutex<Counters>,
}

impl SecureResponder {
    /// Answers each request as `handler` says, on a thread of its own; `handler` is also told the
    /// address of the session. What is malformed is passed over.
    ///
    /// # Errors
    /// Where the address cannot be bound, no thread can be had, or the sessions cannot be set up.
    pub fn start(
        options: SecureResponderOptions,
        handler: impl FnMut(SocketAddr, &MessageRef<'_>) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        let SecureResponderOptions { address, dtls, key, lost_per_mille } = options;
        let socket = FleetSocket::bind(address)?;
        let address = SocketAddrV4::new(*address.ip(), socket.local_port()?);
        let engine = Engine::new(dtls, Instant::now(), move |_: &[u8]| Some(key.clone()))
            .map_err(io::Error::other)?;
        let shared = Arc::new(Shared::default());
        let server = Server {
            engine,
            outbox: Outbox::default(),
            next_id: MessageId(0),
            random: Random::new(1),
            lost_per_mille,
            address,
            handler,
        };
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("secure-responder".to_owned())
            .spawn(move || server.serve(socket, &seen))?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// What the sessions counted, as of a moment ago.
    pub fn counters(&self) -> Counters {
        *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SecureResponder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the handler has been shown by its own thread.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SecureResponder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecureResponder").field("address", &self.address).finish()
    }
}

struct Server<H> {
    engine: Engine,
    outbox: Outbox,
    next_id: MessageId,
    random: Random,
    lost_per_mille: usize,
    /// Where answers come from.
    address: SocketAddrV4,
    handler: H,
}

impl<H: FnMut(SocketAddr, &MessageRef<'_>) -> Answer> Server<H> {
    fn serve(mut self, mut socket: FleetSocket, shared: &Shared) -> io::Result<()> {
        while !shared.stop.load(Ordering::Relaxed) {
            let arrived = socket.receive(|arrival| {
                if !self.is_lost() {
                    let now = Instant::now();
                    self.engine.handle_datagram(now, arrival.from.into(), arrival.bytes);
                    self.drain();
                }
            })?;
            self.engine.handle_timeout(Instant::now());
            self.drain();
            socket.send(&mut self.outbox)?;
            *shared.counters.lock().unwrap_or_else(PoisonError::into_inner) =
                self.engine.counters();
            if arrived == 0 {
                socket.wait(STOP_LOOK)?;
            }
        }
        Ok(())
    }

    fn is_lost(&mut self) -> bool {
        self.random.below(1_000) < self.lost_per_mille
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { peer: SocketAddr::V4(peer), bytes } => {
                    if !self.is_lost() {
                        let own = *self.address.ip();
                        self.outbox.push(own, peer, |out| out.extend_from_slice(&bytes));
                    }
                }
                Output::Event(Event::Received { session, peer, bytes, .. }) => {
                    self.answer(session, peer, &bytes);
                }
                Output::Transmit { .. } | Output::Event(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    fn answer(&mut self, session: dtls::SessionId, peer: SocketAddr, bytes: &[u8]) {
        let Ok(request) = MessageRef::parse(bytes) else { return };
        if !request.code.is_request() {
            return;
        }
        let answer = (self.handler)(peer, &request);
        self.next_id.0 = self.next_id.0.wrapping_add(1);
        let mut messages = Vec::new();
        write_answer(answer, &request, self.next_id, |write| {
            let mut message = Vec::new();
            write(&mut message);
            messages.push(message);
        });
        for message in messages {
            // The session may be gone, as its peer will notice.
            let _ = self.engine.send(session, &message);
        }
    }
}
