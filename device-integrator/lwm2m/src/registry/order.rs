//! The order of notifications (RFC 7641 §3.4).

use std::time::{Duration, Instant};

/// The newest notification seen: its sequence number and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotificationOrder {
    pub(crate) sequence: u32,
    pub(crate) at: Instant,
}

impl NotificationOrder {
    /// Whether a notification is newer than this one.
    pub(crate) fn is_followed_by(self, next: Self) -> bool {
        const HALF: u32 = 1 << 23;
        let (old, new) = (self.sequence, next.sequence);
        (old < new && new - old < HALF)
            || (old > new && old - new > HALF)
            || next.at > self.at + Duration::from_secs(128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_age() {
        let at = Instant::now();
        let order = |sequence, seconds| NotificationOrder {
            sequence,
            at: at + Duration::from_secs(seconds),
        };
        assert!(order(1, 0).is_followed_by(order(2, 0)));
        assert!(!order(2, 0).is_followed_by(order(2, 128)));
        assert!(order(0xff_fffe, 0).is_followed_by(order(3, 0)));
        assert!(order(9, 0).is_followed_by(order(1, 129)));
    }
}
