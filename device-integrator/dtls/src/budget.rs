//! A token bucket: so many events per second, and a burst.

/// Thousandths of a token, so that slow rates need no fractions.
const ONE: u64 = 1000;

#[derive(Debug)]
pub(crate) struct Budget {
    per_second: u64,
    burst: u64,
    thousandths: u64,
    at_ms: u64,
}

impl Budget {
    pub(crate) fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        let burst = u64::from(burst) * ONE;
        Self { per_second: u64::from(per_second), burst, thousandths: burst, at_ms: now_ms }
    }

    /// Whether more than half of the burst is left.
    pub(crate) fn is_plentiful(&mut self, now_ms: u64) -> bool {
        self.earn(now_ms);
        self.thousandths > self.burst / 2
    }

    fn earn(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        // A rate per second is as many thousandths per millisecond.
        let earned = elapsed_ms.saturating_mul(self.per_second);
        self.thousandths = self.thousandths.saturating_add(earned).min(self.burst);
    }

    /// Whether one more is allowed now.
    pub(crate) fn take(&mut self, now_ms: u64) -> bool {
        self.earn(now_ms);
        let allowed = self.thousandths >= ONE;
        if allowed {
            self.thousandths -= ONE;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut budget = Budget::new(10, 3, 0);
        let taken = |budget: &mut Budget, at| (0..20).filter(|_| budget.take(at)).count();
        assert_eq!(taken(&mut budget, 0), 3);
        assert_eq!(taken(&mut budget, 99), 0);
        assert_eq!(taken(&mut budget, 200), 2);
        assert!(!budget.is_plentiful(200) && budget.is_plentiful(400));
        assert_eq!(taken(&mut budget, 60_000), 3, "no more than the burst is saved up");
    }
}
