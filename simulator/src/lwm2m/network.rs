//! How the devices' datagrams come and go: from which port and address, over DTLS or not, and what
//! is lost on the way. Has no socket.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Instant;

use hashbrown::HashMap;

use crate::fleet::Fleet;
use crate::lwm2m::leg::Leg;
use crate::random::Random;
use crate::sessions::{Event, Sessions, Way};
use crate::socket::{Arrival, Outbox};

/// Datagrams of one device that wait for its session; more come again by their own repetition.
const WAITING_MAX: usize = 8;

/// Any token: what waits for a session is kept here, not there.
const TOKEN: u64 = 0;

/// The network of a run.
pub(crate) struct Network {
    fleet: Fleet,
    sessions: Option<Sessions>,
    /// The bootstrap server's way, which a device comes back to.
    homes: HashMap<u32, Way>,
    /// One for each port that the devices speak from.
    outboxes: Vec<Outbox>,
    waiting: HashMap<u32, Vec<Vec<u8>>>,
    /// What came out of the sessions: members and bytes.
    arrived: VecDeque<(u32, Vec<u8>)>,
    random: Random,
    lost_per_mille: usize,
    /// Datagrams lost on purpose.
    pub(crate) lost: u64,
    /// Datagrams for a device without a session, or for nobody.
    pub(crate) stray: u64,
}

impl Network {
    pub(crate) fn new(
        fleet: Fleet,
        sessions: Option<Sessions>,
        ports: usize,
        (lost_per_mille, random): (usize, Random),
    ) -> Self {
        Self {
            fleet,
            sessions,
            homes: HashMap::new(),
            outboxes: (0..ports).map(|_| Outbox::default()).collect(),
            waiting: HashMap::new(),
            arrived: VecDeque::new(),
            random,
            lost_per_mille,
            lost: 0,
            stray: 0,
        }
    }

    /// What waits to be sent from each port.
    pub(crate) fn outboxes(&mut self) -> &mut [Outbox] {
        &mut self.outboxes
    }

    /// The sessions, if there are some.
    pub(crate) const fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_ref()
    }

    /// Sends a message of a device from one of its ports.
    pub(crate) fn transmit(&mut self, now: Instant, leg: Leg, port: u8, bytes: &[u8]) {
        if leg.is_secure {
            return self.transmit_securely(now, leg, bytes);
        }
        if self.loses() {
            return;
        }
        let source = self.fleet.address(leg.device);
        let count = self.outboxes.len();
        let outbox = &mut self.outboxes[usize::from(port) % count];
        outbox.push(source, leg.server, |out| out.extend_from_slice(bytes));
    }

    fn transmit_securely(&mut self, now: Instant, leg: Leg, bytes: &[u8]) {
        let Self { sessions: Some(sessions), outboxes, .. } = self else { return };
        let Some(member) = sessions.member(leg.device) else { return };
        if sessions.target(member) != leg.server {
            // An answer to a server that the device has turned away from.
            self.stray += 1;
            return;
        }
        let outbox = &mut outboxes[0];
        if sessions.is_open(member) {
            // Lost as a whole record, so that handshakes are tried by losses as well.
            if self.random.below(1_000) < self.lost_per_mille {
                self.lost += 1;
                return;
            }
            return sessions.send_once(now, member, outbox, |out| out.extend_from_slice(bytes));
        }
        let waiting = self.waiting.entry(member).or_default();
        if waiting.len() < WAITING_MAX && !waiting.iter().any(|one| one == bytes) {
            waiting.push(bytes.to_vec());
        }
        sessions.send(now, (member, TOKEN), outbox, |_| {});
    }

    /// Takes a datagram; hands over the message of a plain one.
    pub(crate) fn handle_arrival<'b>(
        &mut self,
        now: Instant,
        arrival: Arrival<'b>,
    ) -> Option<(Leg, &'b [u8])> {
        if self.loses() {
            return None;
        }
        let Some(device) = self.fleet.owner(arrival.to) else {
            self.stray += 1;
            return None;
        };
        let Self { sessions, outboxes, .. } = self;
        let member = sessions.as_ref().and_then(|sessions| sessions.member(device));
        if let Some((sessions, member)) = sessions.as_mut().zip(member)
            && sessions.target(member) == arrival.from
        {
            sessions.handle_datagram(now, arrival.to, arrival.bytes, &mut outboxes[0]);
            self.handle_events(now);
            return None;
        }
        let leg = Leg { device, server: arrival.from, is_secure: false };
        Some((leg, arrival.bytes))
    }

    /// Does what is due of the sessions.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(sessions) = &mut self.sessions {
            sessions.handle_timeout(now, &mut self.outboxes[0]);
            self.handle_events(now);
        }
    }

    fn handle_events(&mut self, now: Instant) {
        let Self { sessions: Some(sessions), outboxes, waiting, arrived, .. } = self else {
            return;
        };
        while let Some(event) = sessions.next_event() {
            match event {
                Event::Received(member, bytes) => arrived.push_back((member, bytes)),
                Event::Opened(member) => {
                    sessions.take_waiting(member);
                    for bytes in waiting.remove(&member).unwrap_or_default() {
                        let write = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
                        sessions.send_once(now, member, &mut outboxes[0], write);
                    }
                }
            }
        }
    }

    /// The next message that came over a session.
    pub(crate) fn next_arrived(&mut self) -> Option<(Leg, Vec<u8>)> {
        let (member, bytes) = self.arrived.pop_front()?;
        let sessions = self.sessions.as_ref()?;
        let server = sessions.target(member);
        Some((Leg { device: sessions.device(member), server, is_secure: true }, bytes))
    }

    /// A device takes its session for dead.
    pub(crate) fn give_up_session(&mut self, device: u32) {
        if let Some(sessions) = &mut self.sessions
            && let Some(member) = sessions.member(device)
        {
            sessions.give_up(member);
        }
    }

    /// A device has another address (over DTLS) from now on.
    pub(crate) fn change_address(&mut self, device: u32) {
        if let Some(sessions) = &mut self.sessions
            && let Some(member) = sessions.member(device)
        {
            sessions.change_address(member);
        }
    }

    /// A device turns to the server that its bootstrap server told it. `false` where the key or
    /// the identity cannot be used.
    pub(crate) fn turn_to_server(
        &mut self,
        now: Instant,
        device: u32,
        server: SocketAddrV4,
        (identity, key): (&[u8], &[u8]),
    ) -> bool {
        let Self { sessions: Some(sessions), homes, outboxes, waiting, .. } = self else {
            return false;
        };
        let Some(member) = sessions.member(device) else { return false };
        let Ok(key) = dtls::Psk::new(key.to_vec()) else { return false };
        let Ok(way) = sessions.new_way(server, identity, &key) else { return false };
        homes.entry(device).or_insert_with(|| sessions.way(member));
        waiting.remove(&member);
        sessions.turn_to(now, member, way, &mut outboxes[0]);
        true
    }

    /// A device comes back to its bootstrap server.
    pub(crate) fn turn_home(&mut self, now: Instant, device: u32) {
        let Self { sessions: Some(sessions), homes, outboxes, waiting, .. } = self else { return };
        let Some(member) = sessions.member(device) else { return };
        if let Some(way) = homes.remove(&device) {
            waiting.remove(&member);
            sessions.turn_to(now, member, way, &mut outboxes[0]);
        }
    }

    fn loses(&mut self) -> bool {
        let is_lost = self.lost_per_mille > 0 && self.random.below(1_000) < self.lost_per_mille;
        self.lost += u64::from(is_lost);
        is_lost
    }
}
