//! Devices that send while a test does something to their gateway.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use simulator::{Ledger, Payload, Plan, Protocol, Report, Retransmission};

use super::{PATIENCE, random};

/// A simulated fleet that sends on a thread of its own and remembers what was acknowledged.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Ledger, Report)>>,
}

/// One more device, which asks whether the gateway acknowledges.
pub(crate) struct Probe {
    socket: UdpSocket,
    to: SocketAddr,
    asked: u16,
    /// The numbers of the payloads that were acknowledged.
    pub(crate) acknowledged: Vec<u64>,
}

/// Numbers from here on are those of probes.
pub(crate) const PROBED: u64 = 1 << 48;

/// Confirmable messages to `target` until the load is stopped. Devices repeat soon, so that a
/// restart holds them up for a moment only, and long enough to outlive it.
pub(crate) fn plan(target: SocketAddr, devices: u32, load: simulator::Load) -> Plan {
    let SocketAddr::V4(target) = target else { panic!("{target} is no address of the simulator") };
    Plan {
        target,
        devices,
        protocol: Protocol::CoapCon,
        load,
        duration: None,
        payload: Payload::Counter { bytes: 24 },
        retransmission: Retransmission {
            ack_timeout: Duration::from_millis(200),
            ack_random_factor: 1.5,
            // 0.2 s * (2^8 - 1): given up after 51 s.
            max_retransmit: 7,
        },
        drain: PATIENCE,
        seed: random(1, u64::MAX),
        ..Plan::default()
    }
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            let report = simulator::run_recorded(&plan, &mut ledger, |_| {}, &stopped).unwrap();
            (ledger, report)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Sends no more, and waits for the answers that are still out.
    pub(crate) fn stop(mut self) -> (Ledger, Report) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Probe {
    /// A device with a SIM of its own at `address`.
    pub(crate) fn new(address: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Self { socket, to, asked: 0, acknowledged: Vec::new() }
    }

    /// Sends one message after the other until one is acknowledged.
    pub(crate) fn until_acknowledged(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.ask().is_none_or(|answer| answer[1] != 0x44) {
            assert!(Instant::now() < deadline, "nothing was acknowledged within {PATIENCE:?}");
        }
        self.acknowledged.push(PROBED + u64::from(self.asked));
    }

    /// Sends one new message; the answer to it if there soon is one.
    pub(crate) fn ask(&mut self) -> Option<Vec<u8>> {
        self.asked += 1;
        let id = self.asked.to_be_bytes();
        let mut request = vec![0x42, 0x02, id[0], id[1], id[1], id[0], 0xff];
        request.extend_from_slice(&(PROBED + u64::from(self.asked)).to_be_bytes());
        // Refused where nobody listens.
        self.socket.send_to(&request, self.to).ok()?;
        let mut answer = [0; 1_500];
        let deadline = Instant::now() + Duration::from_millis(20);
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut answer) else { continue };
            // An answer to an earlier question may come late.
            if answer[2..4] == id {
                return Some(answer[..length].to_vec());
            }
        }
        None
    }
}
