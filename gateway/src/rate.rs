//! How many messages one device may send: the fairness among devices.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use vocabulary::Iccid;

/// The allowance of each device; without a limit nothing is remembered.
pub(crate) struct DeviceRate(Option<DefaultKeyedRateLimiter<Iccid>>);

impl DeviceRate {
    /// `per_second` messages on average and `burst` at once; 0 per second stands for no limit.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        Self(quota.map(|quota| RateLimiter::keyed(quota.allow_burst(burst))))
    }

    /// Whether `device` may send another message now.
    pub(crate) fn admits(&self, device: Iccid) -> bool {
        self.0.as_ref().is_none_or(|limiter| limiter.check_key(&device).is_ok())
    }

    /// Forgets devices whose allowance is full again, so that memory follows the active ones.
    pub(crate) fn forget_idle(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_more_does_not() {
        let rate = DeviceRate::new(1, 3);
        let device = "8988280666000002864".parse().unwrap();
        let admitted = (0..10).filter(|_| rate.admits(device)).count();
        assert_eq!(admitted, 3);
        assert!(rate.admits("8988280666000002865".parse().unwrap()), "another device");
    }

    #[test]
    fn zero_is_no_limit() {
        let rate = DeviceRate::new(0, 0);
        let device = "8988280666000002864".parse().unwrap();
        assert!((0..1_000).all(|_| rate.admits(device)));
    }
}
