//! From records of the log to deliveries: decode, select, translate, write the envelope.
//!
//! Runs on threads that may block, beside the deliveries.

use std::sync::Arc;

use bytes::Bytes;
use message_log::{Kind, KindSet, MessageLog, Offset, ReadError, ReadLimits, Record};
use template_library::{Templates, TranslateError, Translation};
use vocabulary::{Event, EventKind, Notice, Telemetry};

use crate::envelope::{self, Payload, Stamp};
use crate::event_type::{EventType, EventTypes};
use crate::sink::{Delivery, Subject};

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
const RECORDS_PER_READ: usize = 512;
/// Bytes of their bodies at most: an eighth of the window's usual size.
const BYTES_PER_READ: usize = 1 << 20;

/// Reads for one integration.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) source: Source,
    pub(crate) subscription: Subscription,
    pub(crate) integration: Arc<str>,
}

/// A record that is to be delivered.
pub(crate) struct Prepared {
    pub(crate) place: u64,
    pub(crate) device: u64,
    pub(crate) delivery: Delivery,
}

/// What one read brought.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) prepared: Vec<Prepared>,
    /// Where to read on.
    pub(crate) next: u64,
    pub(crate) unreadable: u64,
    pub(crate) untranslated: u64,
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
    /// Reads up to `records` records from the place `from` on. Blocks.
    pub(crate) fn read(&self, from: u64, records: usize) -> Result<Reading, ReadError> {
        let limits = ReadLimits { records: records.min(RECORDS_PER_READ), bytes: BYTES_PER_READ };
        let from = Offset::from_u64(from);
        let batch = if self.subscription.event_types.telemetry() {
            self.source.log.read(from, limits)?
        } else {
            // Notices alone: the log finds them without passing over the devices' messages.
            let notices = KindSet::only(Kind::new(EventKind::Notice.code()));
            self.source.log.read_kinds(from, notices, limits)?
        };
        let mut reading = Reading { next: batch.next.as_u64(), ..Reading::default() };
        self.prepare_all(&batch.records, &mut reading);
        Ok(reading)
    }

    /// Reads the records at the lowest of `holes`, which rise and are not empty. Blocks.
    pub(crate) fn read_holes(&self, holes: &[u64]) -> Result<Reading, ReadError> {
        let holes = &holes[..holes.len().min(RECORDS_PER_READ)];
        let mut reading = Reading::default();
        for run in holes.chunk_by(|one, next| one + 1 == *next) {
            let limits = ReadLimits { records: run.len(), bytes: usize::MAX };
            let batch = self.source.log.read(Offset::from_u64(run[0]), limits)?;
            // A place that the log cannot read any more is passed over.
            let after = run[0] + run.len() as u64;
            let wanted = batch.records.iter().filter(|record| record.offset.as_u64() < after);
            reading.next = after;
            self.prepare_all(wanted, &mut reading);
            if reading.cut_short.is_some() {
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
            match self.prepare(record) {
                Ok(delivery) => reading.prepared.push(Prepared {
                    place: record.offset.as_u64(),
                    device: record.device.as_u64(),
                    delivery,
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
            Event::Telemetry(telemetry) => self.prepare_telemetry(record, &telemetry),
            Event::Notice(notice) => self.prepare_notice(record, &notice),
        }
    }

    fn prepare_telemetry(
        &self,
        record: &Record,
        telemetry: &Telemetry<'_>,
    ) -> Result<Delivery, Skip> {
        if !self.subscription.event_types.telemetry() {
            return Err(Skip::NotWanted);
        }
        let parse_json = self.subscription.json_payload_enabled;
        let translation = match self.source.templates.translate(telemetry) {
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
        let body = envelope::telemetry(stamp(record), telemetry, payload);
        Ok(Delivery {
            id: record.id,
            event_type: EventType::TelemetryData,
            subject: envelope::subject_of(telemetry),
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
        let body = envelope::notice(stamp(record), notice).ok_or(Skip::NotWanted)?;
        Ok(Delivery {
            id: record.id,
            event_type,
            subject: Subject { iccid: notice.iccid, imsi: notice.imsi, ip: notice.ip },
            body: Bytes::from(body),
        })
    }
}

fn stamp(record: &Record) -> Stamp {
    Stamp { id: record.id, received_at: record.received_at }
}
