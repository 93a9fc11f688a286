//! The other side: a DTLS client, sans-IO, for tests and for simulated devices.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::EPOCH_MS;
use crate::ffi::{self, Host, Io, Resumption, Step};
use crate::limits::Suite;
use crate::psk::Psk;
use crate::{RECORD_BYTES_MAX, SetUpError};

/// Intervals of a client's retransmissions, in milliseconds (RFC 6347 §4.2.4.1: 1 s, doubled).
const RETRANSMIT_MS: (u32, u32) = (1000, 8000);

/// Steps over one datagram: a record has at least 13 bytes, a datagram at most 65,507.
const STEPS_MAX: usize = 5_100;

/// What clients of one identity share.
#[derive(Clone)]
pub struct ClientConfig {
    context: Arc<ffi::Context>,
    cid: Option<Vec<u8>>,
}

/// A session of before, for an abbreviated handshake.
#[derive(Clone)]
pub struct ClientResumption(Resumption);

/// What a client wants from its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send this datagram.
    Transmit(Vec<u8>),
    /// The handshake has ended well.
    Established,
    /// Bytes of one record.
    Received(Vec<u8>),
    /// The session is over: 0 if the server said so, otherwise the number that Mbed TLS gives.
    Closed(i32),
    /// Nothing more; call [`Client::handle_timeout`] at this time, if there is one.
    Timeout(Option<Instant>),
}

impl ClientConfig {
    /// A client with these suites; with `cid` it offers this connection ID of its own, up to
    /// eight bytes and often empty, and so asks for one of the server's.
    pub fn new(
        identity: &[u8],
        key: &Psk,
        suites: &[Suite],
        cid: Option<&[u8]>,
    ) -> Result<Self, SetUpError> {
        let suites: Vec<u16> = suites.iter().map(|suite| suite.number()).collect();
        let setup = ffi::Setup {
            suites: &suites,
            cid_length: cid.map_or(0, <[u8]>::len),
            retransmit_ms: RETRANSMIT_MS,
            client: Some((identity, key.as_bytes())),
        };
        let refused = SetUpError::Suites { suites: suites.len() };
        let context = ffi::Context::new(&setup).ok_or(refused)?;
        Ok(Self { context, cid: cid.map(<[u8]>::to_vec) })
    }
}

struct Sending<'a>(&'a mut VecDeque<ClientOutput>);

impl Host for Sending<'_> {
    fn key(&mut self, _: &[u8], _: &mut [u8]) -> usize {
        0
    }

    fn recall(&mut self, _: &[u8]) -> Option<Resumption> {
        None
    }

    fn remember(&mut self, _: &Resumption) {}

    fn send(&mut self, bytes: &[u8]) {
        self.0.push_back(ClientOutput::Transmit(bytes.to_vec()));
    }
}

/// One DTLS client session.
pub struct Client {
    session: ffi::Session,
    outputs: VecDeque<ClientOutput>,
    /// The id of the session that the handshake started from.
    offered_id: Option<[u8; 32]>,
    epoch: Instant,
    now_ms: u64,
    is_over: bool,
}

impl Client {
    /// A client that begins its handshake now. `None`: out of memory.
    pub fn new(
        config: &ClientConfig,
        now: Instant,
        resume: Option<&ClientResumption>,
    ) -> Option<Self> {
        let mut session = ffi::Session::new(&config.context, config.cid.as_deref())?;
        if let Some(resume) = resume {
            session.resume(&resume.0);
        }
        let mut client = Self {
            session,
            outputs: VecDeque::new(),
            offered_id: resume.map(|resume| resume.0.id),
            epoch: now,
            now_ms: EPOCH_MS,
            is_over: false,
        };
        client.drive(&[]);
        Some(client)
    }

    /// Takes a datagram from the server.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        self.advance(now);
        self.drive(datagram);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.drive(&[]);
    }

    /// Sends one record; `false`: there is no session, or the bytes do not fit.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        if self.is_over || !self.session.is_established() {
            return false;
        }
        let mut host = Sending(&mut self.outputs);
        let mut io = Io { datagram: &[], host: &mut host };
        self.session.write(&mut io, self.now_ms, bytes).is_ok()
    }

    /// Says close_notify.
    pub fn close(&mut self) {
        let mut host = Sending(&mut self.outputs);
        self.session.close(&mut Io { datagram: &[], host: &mut host }, self.now_ms);
        self.is_over = true;
    }

    /// The next thing to do; poll until [`ClientOutput::Timeout`].
    pub fn poll_output(&mut self) -> ClientOutput {
        match self.outputs.pop_front() {
            Some(output) => output,
            None => ClientOutput::Timeout(
                self.session
                    .timer_ms()
                    .filter(|_| !self.is_over)
                    .map(|at| self.epoch + Duration::from_millis(at.saturating_sub(EPOCH_MS))),
            ),
        }
    }

    /// Whether the handshake has ended well.
    pub fn is_established(&self) -> bool {
        self.session.is_established() && !self.is_over
    }

    /// Whether the handshake was abbreviated: the server took the session id that it was offered
    /// (RFC 5246 §7.4.1.3).
    pub fn is_resumed(&self) -> bool {
        self.offered_id.is_some_and(|offered| {
            self.session.resumption().is_some_and(|resumption| resumption.id == offered)
        })
    }

    /// Whether the records sent carry a connection ID that the server gave.
    pub fn has_connection_id(&self) -> bool {
        self.session.save().is_some_and(|snapshot| snapshot.out_cid_length > 0)
    }

    /// What the next handshake can start from.
    pub fn resumption(&self) -> Option<ClientResumption> {
        self.session.resumption().map(ClientResumption)
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.epoch).as_millis();
        let elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.now_ms = self.now_ms.max(elapsed_ms.saturating_add(EPOCH_MS));
    }

    fn drive(&mut self, datagram: &[u8]) {
        let mut datagram = datagram;
        let mut scratch = [0; RECORD_BYTES_MAX];
        for _ in 0..STEPS_MAX {
            if self.is_over {
                return;
            }
            let mut host = Sending(&mut self.outputs);
            let mut io = Io { datagram, host: &mut host };
            let step = self.session.step(&mut io, self.now_ms, &mut scratch);
            datagram = io.datagram;
            match step {
                Step::Wait if !datagram.is_empty() => {}
                Step::Wait => return,
                Step::Established => self.outputs.push_back(ClientOutput::Established),
                Step::Received(length) => {
                    self.outputs.push_back(ClientOutput::Received(scratch[..length].to_vec()));
                }
                Step::Closed => self.end(0),
                Step::Failed(code) => self.end(code),
            }
        }
    }

    fn end(&mut self, code: i32) {
        self.is_over = true;
        self.outputs.push_back(ClientOutput::Closed(code));
    }
}
