//! From records of the log to deliveries: decode, select, translate, write the envelope.
//!
//! Runs on threads that may block, beside the deliveries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use message_log::{Batch, Kind, KindSet, MessageLog, Offset, ReadError, ReadLimits, Record};
use template_library::{Templates, TranslateError, Translation};
use vocabulary::{Event, EventKind, Located, Notice, Protocol, Telemetry, Timestamp};

use crate::envelope::{self, Payload, Stamp};
use crate::event_type::{EventType, EventTypes};
use crate::filter::FilterBuilder;
use crate::lane::Plan;
use crate::lanes::Part;
use crate::sink::{Delivery, Subject};
use crate::window::Arrival;

/// Where forwarders read. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    /// The message log.
    pub log: MessageLog,
    /// The templates that its messages are translated with.
    pub templates: Templates,
}

/// What an integration wants, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The types of event.
    pub event_types: EventTypes,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: bool,
}

/// Records of one read at most, so that the first deliveries start early.
pub(crate) const RECORDS_PER_READ: usize = 512;
/// Bytes of their bodies at most: an eighth of the window's usual size.
const BYTES_PER_READ: usize = 1 << 20;
/// Holes that lie no farther apart are read at once, past what lies between them: a record that is
/// read in passing costs less than another question. An estimate.
const GAP: u64 = 8;

/// Reads for one integration.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) source: Source,
    pub(crate) subscription: Subscription,
    pub(crate) integration: Arc<str>,
    /// Whether what it reads is delivered again because somebody asked for it.
    pub(crate) replayed: bool,
    /// Versions of templates that take the place of those of the messages' day.
    pub(crate) versions: Vec<(Protocol, u32)>,
}

/// Which records a reader takes, of those that the integration subscribes to.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    /// Those of a lane that leads forward.
    Part(Part),
    /// Those of a replay: messages of devices, where they were and what they crossed; not what else
    /// the gateway said in its day, which would be said twice.
    Replay {
        /// Only received at this moment or later.
        from: Option<Timestamp>,
        /// Only received before this moment.
        until: Option<Timestamp>,
        /// Only of these devices, which rise; empty for all.
        devices: Arc<[u64]>,
    },
}

impl Selection {
    fn takes(&self, record: &Record) -> bool {
        let (place, device) = (record.offset.as_u64(), record.device.as_u64());
        match self {
            Self::Part(part) => part.takes(place, device),
            Self::Replay { from, until, devices } => {
                is_of_device(record)
                    && from.is_none_or(|from| record.received_at >= from)
                    && until.is_none_or(|until| record.received_at < until)
                    && (devices.is_empty() || devices.binary_search(&device).is_ok())
            }
        }
    }
}

/// Whether a record is about what a device did.
fn is_of_device(record: &Record) -> bool {
    match EventKind::from_code(record.kind.code()) {
        Some(EventKind::Telemetry | EventKind::Located) => true,
        Some(EventKind::Notice) => {
            Notice::decode(&record.body).is_ok_and(|notice| notice.geofence.is_some())
        }
        Some(EventKind::Registered | EventKind::Session) | None => false,
    }
}

/// What is delivered, with what a dead letter would need.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) delivery: Delivery,
    pub(crate) received_at: Timestamp,
}

/// What one read brought.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// What is to be delivered, by rising places.
    pub(crate) arrivals: Vec<Arrival<Item>>,
    /// Where to read on.
    pub(crate) next: u64,
    pub(crate) unreadable: u64,
    pub(crate) untranslated: u64,
    /// Of a replay's events so many cannot be delivered.
    pub(crate) passed_over: u64,
    /// Why the last record could not be translated now; it is the next to be read.
    pub(crate) cut_short: Option<TranslateError>,
}

/// Why a record is not delivered.
enum Skip {
    NotWanted,
    Unreadable,
    Untranslated,
    /// Our own fault, and it may pass.
    NotNow(TranslateError),
}

impl Reader {
    /// Reads by a lane's plan. Blocks.
    ///
    /// # Errors
    /// Where the log refuses, or no longer has what was asked for.
    pub(crate) fn read(&self, plan: &Plan, selection: &Selection) -> Result<Reading, ReadError> {
        match plan {
            Plan::On { from, until, records } => self.read_on(*from, *until, *records, selection),
            Plan::Holes(places) | Plan::Deferred(places) => self.read_at(places),
        }
    }

    fn read_on(
        &self,
        from: u64,
        until: u64,
        records: usize,
        selection: &Selection,
    ) -> Result<Reading, ReadError> {
        let limits = ReadLimits { records: records.min(RECORDS_PER_READ), bytes: BYTES_PER_READ };
        let batch = self.raw(from, limits)?;
        let mut reading = Reading { next: batch.next.as_u64().min(until), ..Reading::default() };
        let taken =
            batch.records.iter().filter(|at| at.offset.as_u64() < until && selection.takes(at));
        self.prepare_all(taken, &mut reading);
        Ok(reading)
    }

    /// What follows in the log, of the kinds that can be wanted.
    fn raw(&self, from: u64, limits: ReadLimits) -> Result<Batch, ReadError> {
        let from = Offset::from_u64(from);
        if self.subscription.event_types.telemetry() {
            return self.source.log.read(from, limits);
        }
        // Notices alone: the log finds them without passing over the devices' messages.
        let mut kinds = KindSet::only(Kind::new(EventKind::Notice.code()));
        if self.subscription.event_types.contains(EventType::Location) {
            kinds = kinds.with(Kind::new(EventKind::Located.code()));
        }
        self.source.log.read_kinds(from, kinds, limits)
    }

    /// The devices of everything from `from` to before `to`, put into `filter`. Blocks for as long
    /// as that takes, or until `is_cancelled`.
    ///
    /// # Errors
    /// Where the log refuses.
    pub(crate) fn scan(
        &self,
        from: u64,
        to: u64,
        filter: &mut FilterBuilder,
        is_cancelled: &AtomicBool,
    ) -> Result<(), ReadError> {
        let limits = ReadLimits { records: 10_000, bytes: 4 * BYTES_PER_READ };
        let mut next = from;
        while next < to && !is_cancelled.load(Ordering::Relaxed) {
            let batch = match self.raw(next, limits) {
                // What is gone is no backlog.
                Err(ReadError::Overtaken { oldest }) if oldest.as_u64() > next => {
                    next = oldest.as_u64();
                    continue;
                }
                read => read?,
            };
            batch.records.iter().for_each(|record| filter.insert(record.device.as_u64()));
            if batch.next.as_u64() <= next {
                break;
            }
            next = batch.next.as_u64();
        }
        Ok(())
    }

    /// Reads the records at the lowest of `places`, which rise and are not empty. Blocks.
    ///
    /// Those from [`Reading::next`] on have not been read: a read of the log may end early.
    ///
    /// # Errors
    /// Where the log refuses, or no longer has what was asked for.
    pub(crate) fn read_at(&self, places: &[u64]) -> Result<Reading, ReadError> {
        self.read_at_by(places, |from, limits| self.source.log.read(from, limits))
    }

    fn read_at_by(
        &self,
        places: &[u64],
        read: impl Fn(Offset, ReadLimits) -> Result<Batch, ReadError>,
    ) -> Result<Reading, ReadError> {
        let places = &places[..places.len().min(RECORDS_PER_READ)];
        let mut reading = Reading::default();
        let mut bytes_left = BYTES_PER_READ;
        for run in places.chunk_by(|one, next| next - one <= GAP) {
            let (first, after) = (run[0], run[run.len() - 1] + 1);
            let records = usize::try_from(after - first).unwrap_or(usize::MAX);
            let limits = ReadLimits { records, bytes: bytes_left };
            let batch = read(Offset::from_u64(first), limits)?;
            let wanted =
                batch.records.iter().filter(|at| run.binary_search(&at.offset.as_u64()).is_ok());
            // A place before it that brought no record is one that the log cannot read any more.
            reading.next = batch.next.as_u64().min(after);
            let ended_early = reading.next < after;
            self.prepare_all(wanted, &mut reading);
            let bytes: usize = batch.records.iter().map(|record| record.body.len()).sum();
            bytes_left = bytes_left.saturating_sub(bytes);
            if ended_early || reading.cut_short.is_some() || bytes_left == 0 {
                break;
            }
        }
        Ok(reading)
    }

    fn prepare_all<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Record>,
        reading: &mut Reading,
    ) {
        for record in records {
            match unless_it_panics(|| self.prepare(record)) {
                Ok(delivery) => reading.arrivals.push(Arrival {
                    place: record.offset.as_u64(),
                    device: record.device.as_u64(),
                    bytes: delivery.body.len(),
                    item: Item { delivery, received_at: record.received_at },
                }),
                Err(Skip::NotWanted) => {}
                Err(Skip::Unreadable) => reading.unreadable += 1,
                Err(Skip::Untranslated) => reading.untranslated += 1,
                Err(Skip::NotNow(error)) => {
                    reading.next = record.offset.as_u64();
                    reading.cut_short = Some(error);
                    break;
                }
            }
        }
    }

    fn prepare(&self, record: &Record) -> Result<Delivery, Skip> {
        let device = record.device.as_u64();
        let event = Event::decode(record.kind.code(), device, &record.body);
        match event.map_err(|_| Skip::Unreadable)? {
            Event::Telemetry(telemetry) => self.prepare_telemetry(record, telemetry),
            // The inspector says of the first one what a customer should hear.
            Event::Registered(_) | Event::Session(_) => Err(Skip::NotWanted),
            Event::Located(located) => self.prepare_location(record, &located),
            Event::Notice(notice) => self.prepare_notice(record, &notice),
        }
    }

    fn prepare_telemetry(
        &self,
        record: &Record,
        mut telemetry: Telemetry<'_>,
    ) -> Result<Delivery, Skip> {
        if !self.subscription.event_types.telemetry() {
            return Err(Skip::NotWanted);
        }
        let pinned = self.versions.iter().find(|(protocol, _)| *protocol == telemetry.protocol);
        telemetry.template = pinned.map(|(_, version)| *version).or(telemetry.template);
        let parse_json = self.subscription.json_payload_enabled;
        let translation = match self.source.templates.translate(&telemetry) {
            Ok(translation) => translation,
            Err(error @ TranslateError::Store(_)) => return Err(Skip::NotNow(error)),
            // The notice about it is written elsewhere, once.
            Err(TranslateError::Payload(_) | TranslateError::UnknownVersion { .. }) => {
                return Err(Skip::Untranslated);
            }
        };
        let payload = match &translation {
            Translation::Json(translated) => Payload::Translated(&translated.json),
            Translation::Raw => Payload::Raw { parse_json },
        };
        let body = envelope::telemetry(self.stamp(record), &telemetry, payload);
        Ok(Delivery {
            id: record.id,
            event_type: EventType::TelemetryData,
            subject: envelope::subject_of(&telemetry),
            source: Some(telemetry.protocol),
            topic: telemetry.topic.map(Into::into),
            body: Bytes::from(body),
        })
    }

    fn prepare_notice(&self, record: &Record, notice: &Notice) -> Result<Delivery, Skip> {
        // An integration is not told about itself: what it cannot deliver would only grow.
        if notice.integration.as_deref() == Some(&*self.integration) {
            return Err(Skip::NotWanted);
        }
        let event_type = envelope::event_type_of(notice)
            .filter(|kind| self.subscription.event_types.contains(*kind))
            .ok_or(Skip::NotWanted)?;
        let body = envelope::notice(self.stamp(record), notice).ok_or(Skip::NotWanted)?;
        Ok(Delivery {
            id: record.id,
            event_type,
            subject: Subject { iccid: notice.iccid, imsi: notice.imsi, ip: notice.ip },
            source: None,
            topic: None,
            body: Bytes::from(body),
        })
    }

    fn prepare_location(&self, record: &Record, located: &Located) -> Result<Delivery, Skip> {
        if !self.subscription.event_types.contains(EventType::Location) {
            return Err(Skip::NotWanted);
        }
        let body = envelope::location(self.stamp(record), located).ok_or(Skip::NotWanted)?;
        Ok(Delivery {
            id: record.id,
            event_type: EventType::Location,
            subject: envelope::located_subject(located),
            source: None,
            topic: None,
            body: Bytes::from(body),
        })
    }

    fn stamp(&self, record: &Record) -> Stamp {
        Stamp { id: record.id, received_at: record.received_at, replayed: self.replayed }
    }
}

/// What `prepare` gives; a panic is a fault of ours that this very record meets each time that it
/// is read, so it is passed over like one that cannot be read.
fn unless_it_panics(prepare: impl FnOnce() -> Result<Delivery, Skip>) -> Result<Delivery, Skip> {
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| {
        tracing::error!("a record cannot be prepared for delivery: a fault of the gateway");
        Err(Skip::Unreadable)
    })
}

#[cfg(test)]
mod tests {
    use message_log::{DeviceKey, NewRecord, Options};
    use state::StateFile;
    use vocabulary::{Identity, IdentityClass, Protocol, Timestamp};

    use super::*;

    fn message(payload: &[u8]) -> NewRecord {
        let iccid = vocabulary::Iccid::from_u64(5).unwrap();
        let telemetry = Telemetry {
            identity: Identity { iccid, imsi: None, ip: None },
            class: IdentityClass::SimIp,
            protocol: Protocol::Udp,
            topic: None,
            template: None,
            exchange: None,
            measured: None,
            session: None,
            payload,
        };
        NewRecord {
            kind: Kind::new(EventKind::Telemetry.code()),
            device: DeviceKey::from_u64(5),
            received_at: Timestamp::from_micros(1),
            body: telemetry.encode(),
        }
    }

    fn reader_of(count: usize, payload: &[u8]) -> (tempfile::TempDir, Reader) {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        let (log, _) = MessageLog::open(&folder.path().join("log"), Options::default()).unwrap();
        log.append(vec![message(payload); count]).wait().unwrap();
        let reader = Reader {
            source: Source { log, templates: Templates::open(&file).unwrap() },
            subscription: Subscription {
                event_types: EventTypes::ALL,
                json_payload_enabled: false,
            },
            integration: "one".into(),
            replayed: false,
            versions: Vec::new(),
        };
        (folder, reader)
    }

    /// Reads all holes as a forwarder does; gives what was read and in how many steps.
    fn read_all(mut holes: Vec<u64>, read: impl Fn(&[u64]) -> Reading) -> (Vec<u64>, usize) {
        let (mut places, mut steps) = (Vec::new(), 0);
        while !holes.is_empty() {
            let reading = read(&holes);
            assert!(reading.next > holes[0], "it goes on");
            places.extend(reading.arrivals.iter().map(|arrival| arrival.place));
            holes.retain(|hole| *hole >= reading.next);
            steps += 1;
        }
        (places, steps)
    }

    /// A read of the log ends after a second with what it found. On a slow disk the rest of a run
    /// of holes counted as read and empty, the next save made that durable, and those messages
    /// were never delivered.
    #[test]
    fn holes_that_a_short_read_did_not_reach_are_read_later() {
        let (_folder, reader) = reader_of(40, b"x");
        let short = |holes: &[u64]| {
            let read = |from, limits: ReadLimits| {
                let records = limits.records.min(3);
                reader.source.log.read(from, ReadLimits { records, ..limits })
            };
            reader.read_at_by(holes, read).unwrap()
        };
        let holes: Vec<u64> = (2..20).chain([25, 36, 39]).collect();
        assert_eq!(read_all(holes.clone(), short).0, holes);
    }

    /// A record whose preparation panicked cut off the read that brought it, and so did the next
    /// one: nothing behind it was delivered any more.
    #[test]
    fn a_record_that_makes_us_panic_is_passed_over() {
        let skip = unless_it_panics(|| panic!("a fault of ours"));
        assert!(matches!(skip, Err(Skip::Unreadable)));
        let skip = unless_it_panics(|| Err(Skip::NotWanted));
        assert!(matches!(skip, Err(Skip::NotWanted)));
    }

    #[test]
    fn holes_are_read_in_steps_of_a_megabyte() {
        let (_folder, reader) = reader_of(70, &[0; 60_000]);
        let holes: Vec<u64> = (1..30).chain((40..68).step_by(9)).collect();
        let (places, steps) = read_all(holes.clone(), |holes| reader.read_at(holes).unwrap());
        assert_eq!(places, holes);
        assert_eq!(steps, 2, "33 holes of 60,000 bytes, 17 in a step");
    }
}
