//! How far a reader of the log has come, and its form in the state file. Pure.
//!
//! A position says what is done in few bytes: everything below `resume`, except the holes. Heads
//! that failed carry their failures and the moment of their next attempt, by the wall clock, so
//! that a restart does not begin their schedule anew.
//!
//! The form is little: a version, then whole numbers in groups of seven bits, the lowest first,
//! the top bit of each byte saying that more follow; places that rise are written as differences.

use std::time::{Duration, Instant};

use vocabulary::Timestamp;

/// How far an integration has come: the place of its main lane, and of the lane for devices
/// without backlog where one is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// Everything that the lane takes below this place is done, except `holes`.
    pub(crate) resume: u64,
    /// In rising order; never more than the window holds and defers.
    pub(crate) holes: Vec<u64>,
    /// The events that failed and will be tried again, by rising places.
    pub(crate) retries: Vec<Retry>,
    /// The second lane.
    pub(crate) fresh: Option<FreshPosition>,
}

/// How far the lane for devices without backlog has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FreshPosition {
    /// From this place on, the main lane takes only the devices of the filter, and this lane all
    /// others.
    pub(crate) start: u64,
    /// As in [`Position`].
    pub(crate) resume: u64,
    /// As in [`Position`].
    pub(crate) holes: Vec<u64>,
    /// As in [`Position`].
    pub(crate) retries: Vec<Retry>,
}

/// An event that failed and will be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Its place in the log.
    pub(crate) place: u64,
    /// Attempts that failed and count.
    pub(crate) failures: u32,
    /// When it is tried again.
    pub(crate) due: Timestamp,
}

/// Both clocks at once: the one that only goes forward for waits, the wall clock for what outlives
/// a restart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) at: Timestamp,
}

impl Moment {
    /// As the wall clock shows it when the other one shows `instant`.
    pub(crate) fn shown(self, instant: Instant) -> Timestamp {
        let ahead = self.at.saturating_add(instant.saturating_duration_since(self.now));
        ahead.saturating_sub(self.now.saturating_duration_since(instant))
    }

    /// The moment that the wall clock shows as `timestamp`, or now where that has passed; not more
    /// than `most` from now.
    pub(crate) fn reached(self, timestamp: Timestamp, most: Duration) -> Instant {
        self.now + timestamp.saturating_since(self.at).min(most)
    }
}

/// The version of the form.
const FORMAT: u8 = 1;
/// Entries of one list at most: what is damaged must not ask for endless memory.
const LIST_MAX: usize = 1 << 20;

impl Position {
    /// A position at `resume` with nothing left behind.
    pub(crate) fn at(resume: u64) -> Self {
        Self { resume, ..Self::default() }
    }

    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        self.holes.first().copied().unwrap_or(self.resume)
    }

    /// The form in the state file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 2 * self.holes.len() + 12 * self.retries.len());
        out.push(FORMAT);
        put(&mut out, self.resume);
        put_places(&mut out, &self.holes);
        put_retries(&mut out, &self.retries);
        put(&mut out, u64::from(self.fresh.is_some()));
        if let Some(fresh) = &self.fresh {
            put(&mut out, fresh.start);
            put(&mut out, fresh.resume);
            put_places(&mut out, &fresh.holes);
            put_retries(&mut out, &fresh.retries);
        }
        out
    }

    /// The position of [`Position::encode`]; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let mut input = rest;
        let input = &mut input;
        let mut position = Self {
            resume: take(input)?,
            holes: take_places(input)?,
            retries: take_retries(input)?,
            fresh: None,
        };
        match take(input)? {
            0 => {}
            1 => {
                position.fresh = Some(FreshPosition {
                    start: take(input)?,
                    resume: take(input)?,
                    holes: take_places(input)?,
                    retries: take_retries(input)?,
                });
            }
            _ => return None,
        }
        input.is_empty().then_some(position)
    }

    /// The position without what lies at `end` or behind it.
    pub(crate) fn within(mut self, end: u64) -> Self {
        let clamp = |resume: &mut u64, holes: &mut Vec<u64>, retries: &mut Vec<Retry>| {
            *resume = end.min(*resume);
            holes.retain(|hole| *hole < end);
            retries.retain(|retry| retry.place < end);
        };
        clamp(&mut self.resume, &mut self.holes, &mut self.retries);
        if let Some(fresh) = &mut self.fresh {
            clamp(&mut fresh.resume, &mut fresh.holes, &mut fresh.retries);
            fresh.start = end.min(fresh.start);
        }
        self
    }

    /// What is left where the filter of the second lane is lost: everything from its start on
    /// counts as not done, so that it comes twice rather than never.
    pub(crate) fn without_fresh(mut self) -> Self {
        if let Some(fresh) = self.fresh.take() {
            self.resume = self.resume.min(fresh.start);
            self.holes.retain(|hole| *hole < self.resume);
            self.retries.retain(|retry| retry.place < fresh.start);
        }
        self
    }
}

impl FreshPosition {
    /// The same as a position of a lane of its own.
    pub(crate) fn into_position(self) -> Position {
        let Self { start: _, resume, holes, retries } = self;
        Position { resume, holes, retries, fresh: None }
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // Seven bits: it fits.
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_places(out: &mut Vec<u8>, places: &[u64]) {
    put(out, places.len() as u64);
    let mut before = 0;
    for place in places {
        put(out, place.wrapping_sub(before));
        before = *place;
    }
}

fn take_length(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(take(input)?).ok().filter(|length| *length <= LIST_MAX)
}

fn take_places(input: &mut &[u8]) -> Option<Vec<u64>> {
    let mut before = 0_u64;
    (0..take_length(input)?)
        .map(|_| {
            before = before.checked_add(take(input)?)?;
            Some(before)
        })
        .collect()
}

fn put_retries(out: &mut Vec<u8>, retries: &[Retry]) {
    put(out, retries.len() as u64);
    let mut before = 0;
    for Retry { place, failures, due } in retries {
        put(out, place.wrapping_sub(before));
        put(out, u64::from(*failures));
        put(out, u64::try_from(due.as_millis()).unwrap_or(0));
        before = *place;
    }
}

fn take_retries(input: &mut &[u8]) -> Option<Vec<Retry>> {
    let mut before = 0_u64;
    (0..take_length(input)?)
        .map(|_| {
            before = before.checked_add(take(input)?)?;
            let failures = u32::try_from(take(input)?).ok()?;
            let millis = i64::try_from(take(input)?).ok()?;
            Some(Retry { place: before, failures, due: millis_timestamp(millis)? })
        })
        .collect()
}

/// Refuses what a timestamp cannot hold.
fn millis_timestamp(millis: i64) -> Option<Timestamp> {
    millis.checked_mul(1_000).map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retries() -> impl Strategy<Value = Vec<Retry>> {
        proptest::collection::btree_map(any::<u64>(), (any::<u32>(), 0_i64..1 << 42), 0..20)
            .prop_map(|entries| {
                let retry = |(place, (failures, millis))| Retry {
                    place,
                    failures,
                    due: Timestamp::from_millis(millis),
                };
                entries.into_iter().map(retry).collect()
            })
    }

    fn lane() -> impl Strategy<Value = (u64, Vec<u64>, Vec<Retry>)> {
        let holes = proptest::collection::btree_set(any::<u64>(), 0..40);
        (any::<u64>(), holes.prop_map(|holes| holes.into_iter().collect()), retries())
    }

    fn position() -> impl Strategy<Value = Position> {
        (lane(), proptest::option::of((any::<u64>(), lane()))).prop_map(|(main, fresh)| {
            let (resume, holes, retries) = main;
            let fresh = fresh.map(|(start, (resume, holes, retries))| FreshPosition {
                start,
                resume,
                holes,
                retries,
            });
            Position { resume, holes, retries, fresh }
        })
    }

    proptest! {
        #[test]
        fn a_position_comes_back(position in position()) {
            prop_assert_eq!(Position::decode(&position.encode()), Some(position));
        }

        #[test]
        fn damage_is_refused_or_read_but_never_worse(
            position in position(),
            cut in any::<prop::sample::Index>(),
            flip in any::<u8>(),
        ) {
            let mut bytes = position.encode();
            let at = cut.index(bytes.len());
            prop_assert_eq!(Position::decode(&bytes[..at]), None);
            bytes[at] ^= flip;
            let _ = Position::decode(&bytes);
        }
    }

    /// A log that had lost its last records after a crash of the machine lay behind the cursor by a
    /// few places. All that was not delivered was passed over, also what lay days before.
    #[test]
    fn a_log_that_ends_earlier_costs_only_what_it_does_not_have() {
        let due = Timestamp::from_millis(1);
        let retry = |place| Retry { place, failures: 1, due };
        let lane = |resume| Position {
            resume,
            holes: vec![7, 110, 150],
            retries: vec![retry(7), retry(150)],
            fresh: None,
        };
        let fresh = |start, lane: Position| FreshPosition {
            start,
            resume: lane.resume,
            holes: lane.holes,
            retries: lane.retries,
        };
        let kept =
            |resume| Position { resume, holes: vec![7, 110], retries: vec![retry(7)], fresh: None };
        let both = Position { fresh: Some(fresh(125, lane(200))), ..lane(120) };
        let left = Position { fresh: Some(fresh(125, kept(130))), ..kept(120) };
        assert_eq!(both.clone().within(130), left);
        let left = Position { fresh: Some(fresh(115, kept(115))), ..kept(115) };
        assert_eq!(both.within(115), left);
    }

    #[test]
    fn it_is_small() {
        let holes = (1_000_000..1_016_384).collect();
        let position = Position { holes, ..Position::at(2_000_000) };
        assert!(position.encode().len() < 16_400, "{}", position.encode().len());
        assert_eq!(position.cursor(), 1_000_000);
    }

    #[test]
    fn without_its_filter_the_second_lane_is_given_up_and_nothing_is_lost() {
        let due = Timestamp::from_millis(1);
        let retry = |place| Retry { place, failures: 1, due };
        let fresh = FreshPosition { start: 100, resume: 180, ..FreshPosition::default() };
        let position = Position {
            resume: 130,
            holes: vec![7, 110],
            retries: vec![retry(7), retry(110)],
            fresh: Some(fresh),
        };
        let left = Position { resume: 100, holes: vec![7], retries: vec![retry(7)], fresh: None };
        assert_eq!(position.without_fresh(), left);
    }
}
