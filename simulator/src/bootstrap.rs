//! How simulated devices get their keys: each asks `GET /bootstrap` by plain CoAP, as real devices
//! do, and is known by nothing but its source address.
//!
//! The answer is one line, `<ICCID>,<key>` or `<ICCID>,<key>,<url>`; the ICCID is the identity, and
//! the characters of the key are its bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coap::wire::{Code, EncodeError, MessageRef, MessageType};
use dtls::{IDENTITY_BYTES_MAX, Psk};
use serde::Serialize;
use thiserror::Error;

use crate::exchanges::{Exchange, Exchanges, Expiry, Outcome, Rules};
use crate::fleet::Fleet;
use crate::plan::{Method, Plan, Protocol};
use crate::random::Random;
use crate::report::{rate, row};
use crate::request::{RequestForm, write_acknowledgement};
use crate::socket::{Arrival, FleetSocket, Outbox};
use crate::timers::TICK;

/// Devices that ask at the same time: enough to keep a server busy, few enough to lose nothing in
/// its receive buffer.
const AT_ONCE: usize = 64;

/// Characters shown of a diagnostic payload.
const DIAGNOSTIC_CHARS_MAX: usize = 120;

/// How the devices got their keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BootstrapReport {
    /// Devices that asked.
    pub asked: u64,
    /// Devices that were told a key.
    pub told: u64,
    /// Devices that were not and take no part in the run, by what they were answered: a code,
    /// `reset`, `no answer`, or `malformed`.
    pub failed: BTreeMap<String, u64>,
    /// The first of these: its address, the code and the diagnostic payload.
    pub first_failure: Option<String>,
    /// Repeats sent.
    pub retransmitted: u64,
    /// How long all this took.
    pub seconds: f64,
    /// Devices that were told a key, divided by these seconds.
    pub told_per_second: f64,
}

/// Why no device has a key.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] EncodeError),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// Nobody was told a key.
    #[error("none of {devices} devices was told a key by {server}; {first}")]
    Nobody {
        /// Who was asked.
        server: SocketAddrV4,
        /// Devices that should have been told.
        devices: u32,
        /// The first failure.
        first: String,
    },
}

/// What a device was told.
pub(crate) struct Credentials {
    /// The identity of its handshakes.
    pub(crate) identity: Vec<u8>,
    /// Its key.
    pub(crate) key: Psk,
}

/// Lets all devices of `fleet` ask `server`. Gives what each was told, by device.
///
/// Ends when all were answered or given up, when `stop` is set, or when nobody has been answered
/// for so long that a third repeat would be due: a silent server is not waited for by each device.
pub(crate) fn fetch_keys(
    plan: &Plan,
    fleet: Fleet,
    server: SocketAddrV4,
    stop: &AtomicBool,
) -> Result<(Vec<Option<Credentials>>, BootstrapReport), BootstrapError> {
    let mut devices = Devices::new(plan, fleet, server)?;
    let mut socket = FleetSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, plan.source_port))?;
    let started = Instant::now();
    let patience = plan.retransmission.ack_timeout.mul_f64(plan.retransmission.ack_random_factor);
    let mut outbox = Outbox::default();
    loop {
        let now = started.elapsed();
        devices.begin(now, &mut outbox);
        devices.handle_timeout(now, &mut outbox);
        let is_busy = outbox.len() > 0;
        socket.send(&mut outbox)?;
        let arrived =
            socket.receive(|arrival| devices.handle_arrival(now, arrival, &mut outbox))?;
        // 1 + 2 + 4 time-outs (RFC 7252 §4.2).
        let is_silent = now >= devices.last_heard + patience * 7;
        if devices.are_done() || is_silent || stop.load(Ordering::Relaxed) {
            socket.send(&mut outbox)?;
            return devices.finish(now);
        }
        if !is_busy && arrived == 0 {
            socket.wait(TICK)?;
        }
    }
}

struct Devices {
    fleet: Fleet,
    server: SocketAddrV4,
    form: RequestForm,
    exchanges: Exchanges,
    begun: u32,
    keys: Vec<Option<Credentials>>,
    report: BootstrapReport,
    last_heard: Duration,
}

impl Devices {
    fn new(plan: &Plan, fleet: Fleet, server: SocketAddrV4) -> Result<Self, EncodeError> {
        let request = Plan {
            protocol: Protocol::CoapCon,
            method: Method::Get,
            path: "/bootstrap".to_owned(),
            topic: None,
            ..plan.clone()
        };
        let mut random = Random::new(plan.seed ^ 0x6b65_7973);
        let rules = Rules {
            devices: fleet.devices(),
            confirmable: true,
            retransmission: plan.retransmission,
            patience: plan.patience,
            token_mask: random.next(),
            token_bytes: plan.token_bytes,
        };
        Ok(Self {
            fleet,
            server,
            form: RequestForm::new(&request)?,
            exchanges: Exchanges::new(rules, random),
            begun: 0,
            keys: (0..fleet.devices()).map(|_| None).collect(),
            report: BootstrapReport {
                asked: 0,
                told: 0,
                failed: BTreeMap::new(),
                first_failure: None,
                retransmitted: 0,
                seconds: 0.0,
                told_per_second: 0.0,
            },
            last_heard: Duration::ZERO,
        })
    }

    fn are_done(&self) -> bool {
        self.begun == self.fleet.devices() && self.exchanges.outstanding() == 0
    }

    /// The devices take turns, so each of the first exchanges is that of another device.
    fn begin(&mut self, now: Duration, outbox: &mut Outbox) {
        while self.begun < self.fleet.devices() && self.exchanges.outstanding() < AT_ONCE {
            let Some(exchange) = self.exchanges.begin(now, now) else { break };
            self.begun += 1;
            self.report.asked += 1;
            self.write(&exchange, outbox);
        }
    }

    fn write(&self, exchange: &Exchange, outbox: &mut Outbox) {
        let token = self.exchanges.token(exchange.number);
        outbox.push(self.fleet.address(exchange.device), self.server, |bytes| {
            self.form.write(exchange, token, bytes, |_| {});
        });
    }

    fn handle_timeout(&mut self, now: Duration, outbox: &mut Outbox) {
        let (mut repeats, mut lost) = (Vec::new(), Vec::new());
        self.exchanges.handle_timeout(now, |expiry| match expiry {
            Expiry::Retransmit(exchange) => repeats.push(exchange),
            Expiry::Lost(exchange) => lost.push(exchange),
        });
        self.report.retransmitted += repeats.len() as u64;
        repeats.iter().for_each(|exchange| self.write(exchange, outbox));
        lost.iter().for_each(|exchange| self.fail(exchange.device, "no answer", ""));
    }

    fn handle_arrival(&mut self, now: Duration, arrival: Arrival<'_>, outbox: &mut Outbox) {
        if arrival.from != self.server {
            return;
        }
        let Some(device) = self.fleet.index(arrival.to) else { return };
        let (Some(reply), Ok(message)) =
            (self.form.read(arrival.bytes), MessageRef::parse(arrival.bytes))
        else {
            return;
        };
        match self.exchanges.handle_reply(now, device, reply) {
            Outcome::Answered(_, Code::CONTENT) => {
                self.last_heard = now;
                self.note(device, message.payload);
            }
            Outcome::Answered(_, code) => {
                self.last_heard = now;
                let diagnostic = String::from_utf8_lossy(message.payload);
                self.fail(device, &code.to_string(), &diagnostic);
            }
            Outcome::Reset(_) => {
                self.last_heard = now;
                self.fail(device, "reset", "");
            }
            Outcome::Later | Outcome::Unexpected => {}
        }
        if reply.kind == MessageType::Confirmable && reply.code.is_response() {
            outbox.push(arrival.to, self.server, |bytes| {
                write_acknowledgement(reply.message_id, bytes);
            });
        }
    }

    fn note(&mut self, device: u32, line: &[u8]) {
        match credentials(line) {
            Some(told) => {
                self.report.told += 1;
                self.keys[device as usize] = Some(told);
            }
            // What was told is not shown: it may hold a key.
            None => {
                self.fail(device, "malformed", "not an identity and a key with a comma between")
            }
        }
    }

    fn fail(&mut self, device: u32, answer: &str, diagnostic: &str) {
        *self.report.failed.entry(answer.to_owned()).or_default() += 1;
        let address = self.fleet.address(device);
        self.report.first_failure.get_or_insert_with(|| {
            let shown: String = diagnostic.chars().take(DIAGNOSTIC_CHARS_MAX).collect();
            format!("{address}: {answer} {}", shown.replace(char::is_control, " "))
                .trim()
                .to_owned()
        });
    }

    fn finish(
        mut self,
        now: Duration,
    ) -> Result<(Vec<Option<Credentials>>, BootstrapReport), BootstrapError> {
        let failed: u64 = self.report.failed.values().sum();
        let devices = self.fleet.devices();
        let silent = u64::from(devices).saturating_sub(self.report.told + failed);
        if silent > 0 {
            *self.report.failed.entry("no answer".to_owned()).or_default() += silent;
            self.report.first_failure.get_or_insert_with(|| "no answer".to_owned());
        }
        self.report.seconds = now.as_secs_f64();
        self.report.told_per_second = rate(self.report.told, now);
        if self.report.told == 0 {
            let first = self.report.first_failure.unwrap_or_default();
            return Err(BootstrapError::Nobody { server: self.server, devices, first });
        }
        Ok((self.keys, self.report))
    }
}

impl BootstrapReport {
    /// Writes the rows of a table for people.
    pub(crate) fn write_rows(&self, output: &mut dyn Write) -> io::Result<()> {
        row(output, "asked for a key", self.asked.to_string())?;
        row(output, "told a key", self.told.to_string())?;
        row(output, "told/s", format!("{:.0}", self.told_per_second))?;
        for (answer, count) in &self.failed {
            row(output, &format!("no key: {answer}"), count.to_string())?;
        }
        match &self.first_failure {
            Some(first) => writeln!(output, "first without a key: {first}"),
            None => Ok(()),
        }
    }
}

fn credentials(line: &[u8]) -> Option<Credentials> {
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b',');
    let identity = fields.next().filter(|id| (1..=IDENTITY_BYTES_MAX).contains(&id.len()))?;
    let key = Psk::new(fields.next()?.to_vec()).ok()?;
    Some(Credentials { identity: identity.to_vec(), key })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::thread;

    use coap::wire::Encoder;

    use super::*;
    use crate::plan::Retransmission;

    type Script = Box<dyn FnMut(Ipv4Addr) -> Option<(Code, &'static [u8])> + Send>;

    /// Answers each request for a key as the script says, until nobody has asked for a while.
    fn answerer(mut script: Script) -> SocketAddrV4 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                let request = MessageRef::parse(&bytes[..length]).unwrap();
                assert_eq!((request.code, request.payload), (Code::GET, b"".as_slice()));
                let path: Vec<_> = request.options().map(|option| option.value).collect();
                assert_eq!(path, [b"bootstrap"]);
                let std::net::IpAddr::V4(ip) = peer.ip() else { unreachable!() };
                if let Some((code, payload)) = script(ip) {
                    let mut answer = Vec::new();
                    let kind = MessageType::Acknowledgement;
                    let encoder = Encoder::new(&mut answer, kind, code, request.id, request.token);
                    encoder.payload(payload).unwrap();
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn fetch(
        devices: u32,
        server: SocketAddrV4,
    ) -> Result<(Vec<Option<Credentials>>, BootstrapReport), BootstrapError> {
        let retransmission = Retransmission {
            ack_timeout: Duration::from_millis(30),
            max_retransmit: 2,
            ..Retransmission::default()
        };
        let plan = Plan { devices, retransmission, ..Plan::default() };
        fetch_keys(&plan, plan.fleet().unwrap(), server, &AtomicBool::new(false))
    }

    const LINE: &[u8] = b"8988299000000000007,0123456789abcdef,coaps://127.0.0.1:5684";

    #[test]
    fn devices_ask_from_their_own_addresses_and_repeat_what_was_lost() {
        let seen = Arc::new(std::sync::Mutex::new(BTreeMap::<Ipv4Addr, u32>::new()));
        let sight = Arc::clone(&seen);
        let server = answerer(Box::new(move |ip| {
            let mut seen = sight.lock().unwrap();
            let times = seen.entry(ip).or_default();
            *times += 1;
            // Every third device has to ask twice.
            (ip.octets()[3] % 3 != 0 || *times > 1).then_some((Code::CONTENT, LINE))
        }));
        let (keys, report) = fetch(600, server).unwrap();
        assert_eq!((report.asked, report.told), (600, 600));
        assert!(report.retransmitted >= 199, "{report:?}");
        assert!(keys.iter().flatten().all(|told| told.identity == LINE[..19]));
        assert_eq!((keys.len(), seen.lock().unwrap().len()), (600, 600));
    }

    #[test]
    fn refusals_are_counted_and_the_first_is_named() {
        let refusal = (Code::UNAUTHORIZED, b"{\"statusText\":\"Unauthorized\"}".as_slice());
        let server = answerer(Box::new(move |ip| {
            Some(match ip.octets()[3] % 3 {
                0 => refusal,
                1 => (Code::CONTENT, b"no comma".as_slice()),
                _ => (Code::CONTENT, LINE),
            })
        }));
        let (keys, report) = fetch(30, server).unwrap();
        assert_eq!(report.told, 10);
        assert_eq!(keys.iter().flatten().count(), 10);
        assert_eq!((report.failed["4.01"], report.failed["malformed"]), (10, 10));
        let all_refuse = answerer(Box::new(move |_| Some(refusal)));
        let error = fetch(5, all_refuse).err().unwrap().to_string();
        assert!(error.contains("none of 5 devices was told a key by 127.0.0.1:"), "{error}");
        assert!(error.contains(": 4.01 {\"statusText\":\"Unauthorized\"}"), "{error}");
    }

    #[test]
    fn a_silent_server_is_not_waited_for_by_each_device() {
        let server = answerer(Box::new(|_| None));
        let started = Instant::now();
        let error = fetch(5_000, server).err().unwrap().to_string();
        assert!(error.contains("none of 5000 devices"), "{error}");
        assert!(error.ends_with("no answer"), "{error}");
        // 7 times 45 ms; eighty rounds of 64 devices would take eighty times as long.
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_line_has_an_identity_and_a_key() {
        let told = credentials(b"89,key\n").unwrap();
        assert_eq!(told.identity, b"89");
        for line in [b"".as_slice(), b"89", b"89,", b",key", &[b'9'; 200]] {
            assert!(credentials(line).is_none(), "{line:?}");
        }
    }
}
