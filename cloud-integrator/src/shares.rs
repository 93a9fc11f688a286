//! Who is next: how the lanes of an integration share its endpoint (docs/delivery.md). Pure.
//!
//! While devices without backlog have a lane of their own, a fifth of the attempts is kept free for
//! it, at least one: what they send now does not wait for what others sent yesterday. Replays get
//! a fifth of the attempts at most while others wait. Beyond that turns are dealt by weight.

/// A kind of lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All devices, or those with a backlog while there is a second lane.
    Main,
    /// Devices without backlog.
    Fresh,
    /// What is delivered again.
    Replay,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Main, Self::Fresh, Self::Replay];

    const fn index(self) -> usize {
        match self {
            Self::Main => 0,
            Self::Fresh => 1,
            Self::Replay => 2,
        }
    }

    /// What one turn costs: of nine turns of two lanes that both wait, a replay gets one.
    const fn stride(self) -> u64 {
        match self {
            Self::Main => 1,
            Self::Fresh => 2,
            Self::Replay => 8,
        }
    }
}

/// Something for each kind of lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PerKind<T>([T; 3]);

impl<T> PerKind<T> {
    pub(crate) fn from_fn(mut of: impl FnMut(Kind) -> T) -> Self {
        Self(Kind::ALL.map(&mut of))
    }

    pub(crate) fn of(&self, kind: Kind) -> &T {
        let [main, fresh, replay] = &self.0;
        match kind {
            Kind::Main => main,
            Kind::Fresh => fresh,
            Kind::Replay => replay,
        }
    }
}

/// Deals the turns.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// What each kind has used.
    used: [u64; 3],
    /// What the last one to get a turn had used: who waited for nothing saves nothing up.
    now: u64,
}

impl Shares {
    /// Who gets the next attempt, of those who `want` one and may have it: `in_flight` attempts of
    /// each kind run, `limit` in all may, and a second lane `is_open` or not.
    pub(crate) fn deal(
        &mut self,
        want: PerKind<bool>,
        in_flight: PerKind<usize>,
        limit: usize,
        is_open: bool,
    ) -> Option<Kind> {
        let others_want = *want.of(Kind::Main) || *want.of(Kind::Fresh);
        let may = |kind: Kind| match kind {
            Kind::Fresh => true,
            Kind::Main => !is_open || leaves_room(&in_flight, limit),
            Kind::Replay => {
                let is_within = *in_flight.of(Kind::Replay) < fifth(limit);
                (!is_open || leaves_room(&in_flight, limit)) && (is_within || !others_want)
            }
        };
        let candidates = Kind::ALL.into_iter().filter(|kind| *want.of(*kind) && may(*kind));
        let (used, kind) = candidates
            .map(|kind| (self.used.get(kind.index()).map_or(0, |used| self.now.max(*used)), kind))
            .min_by_key(|(used, _)| *used)?;
        self.now = used;
        if let Some(of_kind) = self.used.get_mut(kind.index()) {
            *of_kind = used + kind.stride();
        }
        Some(kind)
    }
}

fn fifth(limit: usize) -> usize {
    (limit / 5).max(1)
}

/// Whether a fifth is left for the second lane when one more of the others begins. A limit of one
/// is shared by turns.
fn leaves_room(in_flight: &PerKind<usize>, limit: usize) -> bool {
    limit < 2 || in_flight.of(Kind::Main) + in_flight.of(Kind::Replay) + fifth(limit) < limit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct World {
        shares: Shares,
        in_flight: [usize; 3],
        begun: [usize; 3],
    }

    impl World {
        fn new() -> Self {
            Self { shares: Shares::default(), in_flight: [0; 3], begun: [0; 3] }
        }

        /// Starts all that may.
        fn fill(&mut self, want: [bool; 3], limit: usize, is_open: bool) {
            while self.in_flight.iter().sum::<usize>() < limit {
                let (want, in_flight) = (PerKind(want), PerKind(self.in_flight));
                let Some(kind) = self.shares.deal(want, in_flight, limit, is_open) else { break };
                self.in_flight[kind.index()] += 1;
                self.begun[kind.index()] += 1;
            }
        }
    }

    /// Rounds in which all attempts end together.
    fn begun(want: [bool; 3], limit: usize, rounds: usize) -> [usize; 3] {
        let mut world = World::new();
        for _ in 0..rounds {
            world.fill(want, limit, want[1]);
            world.in_flight = [0; 3];
        }
        world.begun
    }

    #[test]
    fn who_is_alone_gets_all() {
        assert_eq!(begun([true, false, false], 10, 10), [100, 0, 0]);
        assert_eq!(begun([false, true, false], 10, 10), [0, 100, 0]);
        assert_eq!(begun([false, false, true], 10, 10), [0, 0, 100]);
    }

    #[test]
    fn a_fifth_at_least_is_for_devices_without_backlog_and_a_fifth_at_most_for_replays() {
        for limit in [1, 2, 3, 4, 5, 10, 64, 256] {
            let [main, fresh, replay] = begun([true; 3], limit, 900);
            let total = main + fresh + replay;
            assert!(fresh * 5 >= total, "{limit}: {fresh} of {total}");
            assert!(replay * 5 <= total && replay > 0, "{limit}: {replay} of {total}");
            let [main, _, replay] = begun([true, false, true], limit, 900);
            assert!(replay * 5 <= main + replay && replay > 0, "{limit}: {main} {replay}");
        }
    }

    #[test]
    fn slow_attempts_of_the_backlog_never_take_what_is_kept_for_the_others() {
        let mut world = World::new();
        world.fill([true, false, true], 64, true);
        assert_eq!(world.in_flight.iter().sum::<usize>(), 64 - 12);
        world.fill([true, true, true], 64, true);
        assert_eq!(world.in_flight[1], 12);
    }

    proptest! {
        /// Ends come one by one and in any order.
        #[test]
        fn nobody_who_waits_is_forgotten(
            ends in proptest::collection::vec(any::<prop::sample::Index>(), 1_000),
            limit in 1_usize..100,
        ) {
            let mut world = World::new();
            for end in ends {
                world.fill([true; 3], limit, true);
                let total: usize = world.in_flight.iter().sum();
                prop_assert_eq!(total, limit);
                prop_assert!(world.in_flight[2] <= fifth(limit));
                let mut which = end.index(total);
                for count in &mut world.in_flight {
                    if which < *count {
                        *count -= 1;
                        break;
                    }
                    which -= *count;
                }
            }
            prop_assert!(world.begun.iter().all(|count| *count > 0));
        }
    }
}
