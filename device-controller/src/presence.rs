//! Which devices have active requests, answered without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

use vocabulary::Iccid;

/// Bits of the index: 262,144 counters are one MiB. With 10,000 devices that have requests, one
/// question in 26 is answered yes for a device that has none; the lock behind it then says no.
const BITS: u32 = 18;

/// Counts devices that have active requests, in places that devices share by chance.
#[derive(Debug)]
pub(crate) struct Presence(Box<[AtomicU32]>);

/// A number whose high bits are spread evenly over devices: their numbers are consecutive.
/// The constant is 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming,
/// volume 3, §6.4).
pub(crate) fn spread(device: Iccid) -> u64 {
    device.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self((0..1 << BITS).map(|_| AtomicU32::new(0)).collect())
    }

    fn place(&self, device: Iccid) -> &AtomicU32 {
        // 18 bits remain, which fit.
        &self.0[(spread(device) >> (64 - BITS)) as usize]
    }

    /// False only where the device has no active requests.
    pub(crate) fn may_have(&self, device: Iccid) -> bool {
        self.place(device).load(Ordering::Acquire) > 0
    }

    pub(crate) fn enter(&self, device: Iccid) {
        self.place(device).fetch_add(1, Ordering::Release);
    }

    pub(crate) fn leave(&self, device: Iccid) {
        self.place(device).fetch_sub(1, Ordering::Release);
    }
}
