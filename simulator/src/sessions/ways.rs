//! Members that turn from one server to another, as a bootstrap server tells them to, and that move
//! from one address to another.

use std::net::SocketAddrV4;
use std::time::Instant;

use dtls::client::ClientConfig;
use dtls::{Psk, SetUpError};

use super::{Phase, Sessions};
use crate::socket::Outbox;

/// How a member gets its sessions: with whom, and by which identity and key.
#[derive(Clone)]
pub(crate) struct Way {
    config: ClientConfig,
    target: SocketAddrV4,
}

impl Sessions {
    /// A member has another address from now on, as behind a NAT that forgot it.
    pub(crate) fn change_address(&mut self, member: u32) {
        let state = &mut self.members[member as usize];
        state.address_changes = state.address_changes.wrapping_add(1);
        state.address = self.fleet.nat_address(state.device, state.address_changes);
        state.answers_at_address = 0;
        self.tally.counts.address_changes += 1;
    }

    /// The member of a device of the fleet, if it has a key.
    pub(crate) fn member(&self, device: u32) -> Option<u32> {
        self.member_of.get(device as usize).copied().flatten()
    }

    /// Whether a member has a session.
    pub(crate) fn is_open(&self, member: u32) -> bool {
        self.members[member as usize].phase == Phase::Open
    }

    /// Whom a member has its sessions with.
    pub(crate) fn target(&self, member: u32) -> SocketAddrV4 {
        self.members[member as usize].target
    }

    /// What a member makes its sessions with: for coming back to it after
    /// [`Sessions::turn_to`] another server.
    pub(crate) fn way(&self, member: u32) -> Way {
        let member = &self.members[member as usize];
        Way { config: member.config.clone(), target: member.target }
    }

    /// The way to `target` with an identity and a key.
    pub(crate) fn new_way(
        &self,
        target: SocketAddrV4,
        identity: &[u8],
        key: &Psk,
    ) -> Result<Way, SetUpError> {
        let cid = self.security.connection_id.then_some([].as_slice());
        let config = ClientConfig::new(identity, key, &self.security.suites(), cid)?;
        Ok(Way { config, target })
    }

    /// A member says close_notify and has its next sessions another way.
    pub(crate) fn turn_to(&mut self, now: Instant, member: u32, way: Way, outbox: &mut Outbox) {
        let index = member as usize;
        match self.members[index].phase {
            Phase::Open => self.close(now, index, outbox),
            Phase::Handshaking { .. } => self.handshaking = self.handshaking.saturating_sub(1),
            Phase::Idle | Phase::BackOff => {}
        }
        let state = &mut self.members[index];
        state.forget();
        // What the server before still says of its session is nothing to the next.
        state.awaits_farewell = false;
        state.failures = 0;
        state.waiting.clear();
        state.unanswered.clear();
        state.resumption = None;
        state.config = way.config;
        state.target = way.target;
    }
}
