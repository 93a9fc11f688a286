//! What an operator should know, said once in a while and not for every packet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use vocabulary::{Notice, NoticeCategory, NoticeKind};

use super::Refused;

/// The same about the same address is not said again for so long.
const SILENCE: Duration = Duration::from_secs(3_600);

/// Addresses about which the same was said within [`SILENCE`]. Strangers can invent senders, so
/// each reason has places of its own: they must not hide that a client is ill.
const ADDRESSES_MAX: usize = 16;

/// What was said, about whom, and when.
#[derive(Debug, Default)]
pub(super) struct Notices {
    said: HashMap<(&'static str, IpAddr), Instant>,
}

impl Notices {
    /// The notice about a packet that was not taken, unless it was said lately.
    pub(super) fn notice(&mut self, now: Instant, ip: IpAddr, refused: &Refused) -> Option<Notice> {
        let word = refused.fate.as_word();
        let is_recent = |said: &Instant| now.saturating_duration_since(*said) < SILENCE;
        if self.said.get(&(word, ip)).is_some_and(is_recent) {
            return None;
        }
        self.said.retain(|_, said| is_recent(said));
        if self.said.keys().filter(|(said, _)| *said == word).count() >= ADDRESSES_MAX {
            return None;
        }
        self.said.insert((word, ip), now);
        let message = format!("Radius[{word}]");
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::General, &message);
        notice.description = format!("accounting from {ip} was dropped: {}", refused.description);
        notice.ip = Some(ip);
        Some(notice)
    }
}
