//! The receiver's ledger: which events arrived, how often, in which order and how late, for each
//! path by itself. Only events whose request was answered 2xx stand in it, since the others have
//! not been delivered.
//!
//! Order is checked for each device among the first arrivals: ids of the gateway rise with the
//! time of acceptance (as numbers, see [`EventId`]; the text of the trace form does not), so each
//! must be above all before it. Of events with other ids the field `received` must not fall, which
//! does not see what changes places within a millisecond. An event that never arrives is no break
//! of the order; `distinct` beside the number of messages sent tells it.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;
use vocabulary::EventId;

use super::events::Event;

/// Paths with a page of their own; those beyond share one.
const PATHS_MAX: usize = 128;
/// The page of the paths beyond; no path of a request is like that.
const OTHER_PATHS: &str = "*";
/// The longest latency that is told from longer ones: a week, as long as events are kept.
const LATENCY_MS_MAX: u64 = 7 * 86_400_000;

/// What a ledger says of one path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Events, each as often as it arrived.
    pub events: u64,
    /// Different ids.
    pub distinct: u64,
    /// Events whose id had arrived before.
    pub duplicates: u64,
    /// Events without an id; neither distinct nor duplicates.
    pub unnamed: u64,
    /// First arrivals behind a later event of the same device.
    pub out_of_order: u64,
    /// From `received` in the event to its arrival here, in milliseconds: half were faster.
    pub p50_ms: u64,
    /// 99 in 100 were faster.
    pub p99_ms: u64,
    /// The slowest.
    pub max_ms: u64,
    /// So many events went into these three.
    pub timed: u64,
}

/// The ledger: a page for each path.
#[derive(Debug)]
pub(super) struct Pages {
    /// What each new page begins with.
    no_latencies: Histogram<u64>,
    pages: HashMap<String, Page>,
}

#[derive(Debug)]
struct Page {
    events: u64,
    duplicates: u64,
    unnamed: u64,
    out_of_order: u64,
    ids: HashSet<EventId>,
    /// Ids that are not the gateway's.
    foreign_ids: HashSet<Box<str>>,
    newest: HashMap<String, Place>,
    /// Milliseconds.
    latencies: Histogram<u64>,
}

/// Where an event stands among those of its device. The smaller kind comes first, but one device
/// has events of one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Received(u64),
    Id(EventId),
}

impl Pages {
    pub(super) fn new() -> Result<Self, CreationError> {
        // Three digits: exact up to two seconds, then to a thousandth.
        let no_latencies = Histogram::new_with_bounds(1, LATENCY_MS_MAX, 3)?;
        Ok(Self { no_latencies, pages: HashMap::new() })
    }

    /// Enters the events of a request that arrived at `now_ms`, in milliseconds since 1970.
    pub(super) fn note(&mut self, path: &str, events: &[Event<'_>], now_ms: u64) {
        let path = path.split('?').next().unwrap_or(path);
        let has_room = self.pages.len() < PATHS_MAX || self.pages.contains_key(path);
        let page = self
            .pages
            .entry_ref(if has_room { path } else { OTHER_PATHS })
            .or_insert_with(|| Page::new(self.no_latencies.clone()));
        for event in events {
            page.note(event, now_ms);
        }
    }

    pub(super) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.pages.iter().map(|(path, page)| (path.clone(), page.tally())).collect()
    }

    pub(super) fn restart_latencies(&mut self) {
        for page in self.pages.values_mut() {
            page.latencies.reset();
        }
    }
}

impl Page {
    fn new(latencies: Histogram<u64>) -> Self {
        Self {
            events: 0,
            duplicates: 0,
            unnamed: 0,
            out_of_order: 0,
            ids: HashSet::new(),
            foreign_ids: HashSet::new(),
            newest: HashMap::new(),
            latencies,
        }
    }

    fn note(&mut self, event: &Event<'_>, now_ms: u64) {
        self.events += 1;
        let received_ms = event.received.and_then(|text| text.parse::<u64>().ok());
        if let Some(received_ms) = received_ms {
            self.latencies.saturating_record(now_ms.saturating_sub(received_ms));
        }
        let Some(text) = event.id else {
            self.unnamed += 1;
            return;
        };
        let id: Option<EventId> = text.parse().ok();
        let is_new = match id {
            Some(id) => self.ids.insert(id),
            None => self.foreign_ids.insert(text.into()),
        };
        if !is_new {
            self.duplicates += 1;
            return;
        }
        let device = event.device.as_ref().and_then(|device| device.iccid);
        let place = id.map(Place::Id).or(received_ms.map(Place::Received));
        if let (Some(device), Some(place)) = (device, place) {
            self.place(device, place);
        }
    }

    fn place(&mut self, device: &str, place: Place) {
        let newest = self.newest.entry_ref(device).or_insert(place);
        if place < *newest {
            self.out_of_order += 1;
        }
        *newest = place.max(*newest);
    }

    fn tally(&self) -> Tally {
        Tally {
            events: self.events,
            distinct: (self.ids.len() + self.foreign_ids.len()) as u64,
            duplicates: self.duplicates,
            unnamed: self.unnamed,
            out_of_order: self.out_of_order,
            p50_ms: self.latencies.value_at_quantile(0.5),
            p99_ms: self.latencies.value_at_quantile(0.99),
            max_ms: self.latencies.max(),
            timed: self.latencies.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use vocabulary::{EventIdGenerator, Timestamp};

    use super::super::events::Device;
    use super::*;

    fn event<'a>(id: &'a str, received: &'a str, iccid: &'a str) -> Event<'a> {
        let device = Some(Device { iccid: Some(iccid) });
        Event { id: Some(id), received: Some(received), device }
    }

    fn tally_of(events: &[Event<'_>], now_ms: u64) -> Tally {
        let mut pages = Pages::new().unwrap();
        pages.note("/hook", events, now_ms);
        pages.tallies().remove("/hook").unwrap()
    }

    #[test]
    fn duplicates_are_told_from_new_events_for_each_path() {
        let mut pages = Pages::new().unwrap();
        let unnamed = Event { id: None, received: None, device: None };
        pages.note("/a?x=1", &[event("one", "5", "d"), event("two", "5", "d")], 5);
        pages.note("/a?x=2", &[event("one", "5", "d"), unnamed], 5);
        pages.note("/b", &[event("one", "5", "d")], 5);
        let tallies = pages.tallies();
        let a =
            Tally { events: 4, distinct: 2, duplicates: 1, unnamed: 1, timed: 3, ..b(&tallies) };
        assert_eq!(tallies["/a"], a);
        assert_eq!(b(&tallies), Tally { events: 1, distinct: 1, timed: 1, ..Tally::default() });
    }

    fn b(tallies: &BTreeMap<String, Tally>) -> Tally {
        tallies["/b"].clone()
    }

    #[test]
    fn first_arrivals_of_a_device_must_rise_by_their_ids_not_by_their_text() {
        let mut generator = EventIdGenerator::new(3, None);
        let ids: Vec<_> =
            (0..4).map(|_| generator.next(Timestamp::from_millis(7)).to_string()).collect();
        // Both spellings are one id; the text of the trace form is below that of the other.
        let trace = ids[3].parse::<EventId>().unwrap().trace();
        let in_order = [&ids[0], &ids[1], &trace].map(|id| event(id, "7", "d"));
        assert_eq!(tally_of(&in_order, 7).out_of_order, 0);
        let wrong = [&ids[0], &ids[2], &ids[1], &ids[3], &ids[1]].map(|id| event(id, "7", "d"));
        let tally = tally_of(&wrong, 7);
        assert_eq!((tally.out_of_order, tally.duplicates, tally.distinct), (1, 1, 4));
        let two = [event(&ids[1], "7", "d"), event(&ids[0], "7", "another")];
        assert_eq!(tally_of(&two, 7).out_of_order, 0);
    }

    #[test]
    fn foreign_ids_have_the_order_of_their_times() {
        let events = [event("z", "10", "d"), event("a", "10", "d"), event("b", "9", "d")];
        assert_eq!(tally_of(&events, 10).out_of_order, 1);
    }

    #[test]
    fn latencies_are_those_since_the_restart() {
        let mut pages = Pages::new().unwrap();
        pages.note("/", &[event("one", "1000", "d"), event("two", "400", "d")], 1_500);
        let tally = pages.tallies()["/"].clone();
        assert_eq!((tally.p50_ms, tally.max_ms, tally.timed), (500, 1_100, 2));
        pages.restart_latencies();
        pages.note("/", &[event("three", "1500", "d"), event("four", "soon", "d")], 1_502);
        let tally = pages.tallies()["/"].clone();
        assert_eq!((tally.p99_ms, tally.max_ms, tally.timed, tally.events), (2, 2, 1, 4));
    }

    #[test]
    fn paths_beyond_the_limit_share_a_page() {
        let mut pages = Pages::new().unwrap();
        for number in 0..PATHS_MAX + 10 {
            pages.note(&format!("/{number}"), &[event("one", "5", "d")], 5);
        }
        pages.note("/0", &[event("two", "5", "d")], 5);
        let tallies = pages.tallies();
        assert_eq!(tallies.len(), PATHS_MAX + 1);
        assert_eq!((tallies["*"].events, tallies["/0"].events), (10, 2));
    }
}
