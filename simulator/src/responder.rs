//! A CoAP server that does nothing: the other end for tests of the generator, and the measure of
//! what the generator and the loopback interface can do at most.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType};

use crate::socket::{FleetSocket, Outbox};

/// How long the thread sleeps at most before it looks whether it is to end.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, as if the request or its answer had been lost.
    Silence,
    /// The code in the acknowledgement; to a non-confirmable request in a message of its own.
    Piggybacked(Code),
    /// An empty acknowledgement, and the code in a confirmable message of its own (RFC 7252
    /// §5.2.2).
    Separate(Code),
    /// A reset.
    Reset,
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Responder {
    address: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
}

impl Responder {
    /// Binds `address` (port 0 takes a free one) and answers each request as `handler` says, on a
    /// thread of its own. Malformed datagrams are passed over.
    ///
    /// # Errors
    /// Where the address cannot be bound or no thread can be had.
    pub fn start(
        address: SocketAddrV4,
        handler: impl FnMut(SocketAddrV4, &MessageRef<'_>) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        let socket = FleetSocket::bind(address)?;
        let address = SocketAddrV4::new(*address.ip(), socket.local_port()?);
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("responder".to_owned())
            .spawn(move || serve(socket, &seen, handler))?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Requests that arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the handler has been shown by its own thread.
            let _ = thread.join();
        }
    }
}

fn serve(
    mut socket: FleetSocket,
    shared: &Shared,
    mut handler: impl FnMut(SocketAddrV4, &MessageRef<'_>) -> Answer,
) -> io::Result<()> {
    let mut outbox = Outbox::default();
    let mut next_id = MessageId(0);
    while !shared.stop.load(Ordering::Relaxed) {
        let mut requests = 0;
        let arrived = socket.receive(|arrival| {
            let Ok(request) = MessageRef::parse(arrival.bytes) else { return };
            if request.code.is_request() {
                requests += 1;
                let answer = handler(arrival.from, &request);
                next_id.0 = next_id.0.wrapping_add(1);
                write_answer(answer, &request, next_id, |write| {
                    outbox.push(arrival.to, arrival.from, write);
                });
            }
        })?;
        shared.requests.fetch_add(requests, Ordering::Relaxed);
        socket.send(&mut outbox)?;
        if arrived == 0 {
            socket.wait(STOP_LOOK)?;
        }
    }
    Ok(())
}

/// Writes the answer to `request`, as one message or two, each handed to `push`. `own_id` is the
/// message id of an answer that needs one of its own.
pub(crate) fn write_answer(
    answer: Answer,
    request: &MessageRef<'_>,
    own_id: MessageId,
    mut push: impl FnMut(&dyn Fn(&mut Vec<u8>)),
) {
    let confirmable = request.message_type == MessageType::Confirmable;
    let full = |kind, code, id, bytes: &mut Vec<u8>| {
        // Without an option there is none that could be too long.
        let _ = Encoder::new(bytes, kind, code, id, request.token).finish();
    };
    match answer {
        Answer::Silence => {}
        Answer::Reset => {
            push(&|bytes| Encoder::empty(bytes, MessageType::Reset, request.id));
        }
        Answer::Piggybacked(code) if confirmable => {
            push(&|bytes| full(MessageType::Acknowledgement, code, request.id, bytes));
        }
        Answer::Separate(code) if confirmable => {
            push(&|bytes| Encoder::empty(bytes, MessageType::Acknowledgement, request.id));
            push(&|bytes| full(MessageType::Confirmable, code, own_id, bytes));
        }
        Answer::Piggybacked(code) | Answer::Separate(code) => {
            push(&|bytes| full(MessageType::NonConfirmable, code, own_id, bytes));
        }
    }
}
