//! The packet core of a driving fleet: it tells by RADIUS which device holds which address, and in
//! which cell each is.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use radius::{AccountingRequest, Secret, StatusType, UserLocation, verify_response};
use vocabulary::{CellTower, Timestamp};

use crate::drive::Drive;
use crate::fleet::Fleet;

/// How long an answer is waited for, and how often a packet is sent.
const ANSWER_TIME: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 6;
/// How often cells are looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells until it is stopped.
pub(crate) struct PacketCore {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<CoreCounts>>,
}

/// What was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CoreCounts {
    /// Packets answered.
    pub answered: u64,
    /// Packets that nobody answered.
    pub unanswered: u64,
    /// Devices that went into another cell.
    pub cells_changed: u64,
}

struct Core {
    socket: UdpSocket,
    secret: Secret,
    fleet: Fleet,
    drive: Drive,
    identifier: u8,
    counts: CoreCounts,
}

impl PacketCore {
    /// Begins the sessions of all devices, and then tells of their cells; `sent` is the number of
    /// messages that the fleet has sent.
    pub(crate) fn start(
        (to, secret): (SocketAddr, Secret),
        (fleet, drive): (Fleet, Drive),
        sent: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(ANSWER_TIME))?;
        let counts = CoreCounts::default();
        let mut core = Core { socket, secret, fleet, drive, identifier: 0, counts };
        let mut cells = Vec::new();
        for device in 0..core.fleet.devices() {
            let cell = core.drive.cell(device, 0);
            core.tell(StatusType::Start, device, cell)?;
            cells.push(cell);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("packet-core".to_owned());
        let thread = thread.spawn(move || core.follow(cells, &sent, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends all sessions.
    pub(crate) fn stop(self) -> io::Result<CoreCounts> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Core {
    fn follow(
        mut self,
        mut cells: Vec<CellTower>,
        sent: &AtomicU64,
        stop: &AtomicBool,
    ) -> io::Result<CoreCounts> {
        while !stop.load(Ordering::Relaxed) {
            let step = sent.load(Ordering::Relaxed) / u64::from(self.fleet.devices());
            for (device, known) in (0..).zip(&mut cells) {
                let cell = self.drive.cell(device, step);
                if cell != *known {
                    *known = cell;
                    self.counts.cells_changed += 1;
                    self.tell(StatusType::InterimUpdate, device, cell)?;
                }
            }
            std::thread::sleep(PAUSE);
        }
        for (device, cell) in (0..).zip(cells) {
            self.tell(StatusType::Stop, device, cell)?;
        }
        Ok(self.counts)
    }

    fn tell(&mut self, status: StatusType, device: u32, cell: CellTower) -> io::Result<()> {
        let request = AccountingRequest {
            nas_identifier: Some("simulated-core".to_owned()),
            ipv4: Some(self.fleet.address(device)),
            imsi: self.fleet.imsi(device),
            access: Some(cell.access),
            location: Some(UserLocation::Lte {
                plmn: cell.plmn,
                area: cell.area.and_then(|area| u16::try_from(area).ok()),
                cell: cell.cell.and_then(|cell| u32::try_from(cell).ok()),
            }),
            happened_at: Some(Timestamp::from(SystemTime::now())),
            has_message_authenticator: true,
            ..AccountingRequest::new(status, &format!("drive-{device}"))
        };
        self.identifier = self.identifier.wrapping_add(1);
        let packet = request.encode(self.identifier, &self.secret);
        let mut answer = [0; 4_096];
        for _ in 0..ATTEMPTS {
            self.socket.send(&packet)?;
            // A server that is not there yet answers by ICMP, as good as not at all.
            let Ok(length) = self.socket.recv(&mut answer) else { continue };
            let bytes = answer.get(..length).unwrap_or_default();
            if verify_response(bytes, &packet, &self.secret).is_ok() {
                self.counts.answered += 1;
                return Ok(());
            }
        }
        self.counts.unanswered += 1;
        Ok(())
    }
}
