//! What one handshake under way does with the records from its address.
//!
//! Whoever knows that address can send records of its own. So nothing ends a handshake that need
//! not: unprotected alerts are ignored, and a protected record reaches the library only after its
//! tag was found right, or when nothing better has come for a while.
//!
//! What remains, because nothing protects it (RFC 6347 has no remedy either): a forged handshake
//! message in the place of the client's key exchange, in the time between our ServerHello and that
//! message, spoils a handshake; and a forged ChangeCipherSpec behind the key exchange, with more
//! than [`FORGED_MAX`] forged records before the client's Finished, delays it until the device
//! begins anew.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::RECORD_BYTES_MAX;
use crate::ffi::{self, Check};
use crate::records::{Record, Records, TYPE_ALERT, TYPE_APPLICATION_DATA};

use super::host::{Call, Facts, Fate, drive};

/// Protected records that wait for the ChangeCipherSpec before them: a Finished and one more.
const HELD_MAX: usize = 2;
/// Bytes of such a record, at most: a Finished has under 120.
const HELD_BYTES_MAX: usize = 512;
/// Forged records that a handshake looks at: nobody shall try many keys with one.
const FORGED_MAX: u8 = 4;
/// How long a handshake goes on after a Finished that its key did not make. If that was forged,
/// the true one comes in this time: a client repeats its flight after 1 s (RFC 6347 §4.2.4.1), and
/// half a second is the way.
const FORGED_GRACE_MS: u64 = 1500;

/// A handshake under way, after a valid cookie.
pub(super) struct Pending {
    pub(super) peer: SocketAddr,
    pub(super) session: ffi::Session,
    pub(super) facts: Facts,
    /// Tells a repeated ClientHello from a new one.
    pub(super) random: u64,
    pub(super) began_ms: u64,
    /// When the handshake is over in any case.
    pub(super) end_ms: u64,
    pub(super) timer_ms: u64,
    held: Vec<Box<[u8]>>,
    /// The first record with a wrong tag, and when the handshake fails by it.
    forged: Option<(u64, Box<[u8]>)>,
    forged_count: u8,
}

/// Where records are tested and decrypted, and where their bytes go.
pub(super) struct Desk<'a> {
    pub(super) scratch: &'a mut [u8; RECORD_BYTES_MAX],
    pub(super) received: &'a mut VecDeque<Vec<u8>>,
}

impl Pending {
    pub(super) fn new(
        peer: SocketAddr,
        session: ffi::Session,
        (random, offers_extended_master_secret): (u64, bool),
        (began_ms, end_ms): (u64, u64),
    ) -> Self {
        Self {
            peer,
            session,
            facts: Facts { offers_extended_master_secret, ..Facts::default() },
            random,
            began_ms,
            end_ms,
            timer_ms: end_ms,
            held: Vec::new(),
            forged: None,
            forged_count: 0,
        }
    }

    /// When it wants to be looked at.
    pub(super) fn due_ms(&self) -> u64 {
        let forged = self.forged.as_ref().map(|(at, _)| *at);
        let dues = [self.session.timer_ms(), forged];
        dues.into_iter().flatten().fold(self.end_ms, u64::min)
    }

    /// Whether it got a Finished with a wrong tag: of another key, or forged.
    pub(super) fn is_refused(&self) -> bool {
        self.forged.is_some()
    }

    /// Takes a datagram.
    pub(super) fn receive(
        &mut self,
        call: &mut Call<'_>,
        datagram: &[u8],
        desk: &mut Desk<'_>,
    ) -> Fate {
        for record in Records(datagram) {
            let fate = self.take(call, record, desk);
            if fate != Fate::Goes {
                return fate;
            }
        }
        Fate::Goes
    }

    /// Does what is due.
    pub(super) fn wake(&mut self, call: &mut Call<'_>, desk: &mut Desk<'_>) -> Fate {
        let now_ms = call.shared.now_ms;
        match self.forged.take_if(|(at, _)| *at <= now_ms) {
            // Nothing better has come: the library says so to the client.
            Some((_, forged)) => {
                self.drive(call, &forged, desk);
                Fate::Failed
            }
            None => self.drive(call, &[], desk),
        }
    }

    fn take(&mut self, call: &mut Call<'_>, record: Record<'_>, desk: &mut Desk<'_>) -> Fate {
        if !self.session.is_established() {
            if !record.is_protected() {
                // A client that gave up has nothing to lose but a place here, for some seconds.
                if record.is(TYPE_ALERT) {
                    return Fate::Goes;
                }
            } else if record.0.len() > HELD_BYTES_MAX {
                return Fate::Goes;
            } else if !self.session.expects_finished() || record.is(TYPE_APPLICATION_DATA) {
                if self.held.len() < HELD_MAX {
                    self.held.push(record.0.into());
                }
                return Fate::Goes;
            } else if !self.is_authentic(call, record, desk) {
                return Fate::Goes;
            }
        }
        let fate = self.drive(call, record.0, desk);
        if fate == Fate::Goes { self.release(call, desk) } else { fate }
    }

    /// Takes what was held back, if it is time for it. What is too early still is held again.
    fn release(&mut self, call: &mut Call<'_>, desk: &mut Desk<'_>) -> Fate {
        if !self.session.is_established() && !self.session.expects_finished() {
            return Fate::Goes;
        }
        for record in std::mem::take(&mut self.held) {
            let fate = self.take(call, Record(&record), desk);
            if fate != Fate::Goes {
                return fate;
            }
        }
        Fate::Goes
    }

    fn is_authentic(
        &mut self,
        call: &mut Call<'_>,
        record: Record<'_>,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(copy) = desk.scratch.get_mut(..record.0.len()) else { return false };
        if self.forged_count >= FORGED_MAX {
            return false;
        }
        copy.copy_from_slice(record.0);
        match self.session.check(copy) {
            Check::Authentic => return true,
            Check::Unexpected => return false,
            Check::Forged => self.forged_count += 1,
        }
        if self.forged.is_none() {
            let at = call.shared.now_ms.saturating_add(FORGED_GRACE_MS).min(self.end_ms);
            self.forged = Some((at, record.0.into()));
            call.note_failure();
        }
        false
    }

    fn drive(&mut self, call: &mut Call<'_>, bytes: &[u8], desk: &mut Desk<'_>) -> Fate {
        drive(&mut self.session, call, bytes, desk.scratch, desk.received)
    }
}
