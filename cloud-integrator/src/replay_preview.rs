//! What a replay would deliver, without delivering it: how many messages the templates of now
//! translate otherwise than those of their day, with samples.
//!
//! Templates alone are compared. What a customer's cloud makes of a message that comes again is
//! not known here.

use std::time::{Duration, Instant};

use message_log::{
    Batch, DeviceKey, Kind, KindSet, MessageLog, Offset, Query, ReadError, ReadLimits, Record,
};
use template_library::{TranslateError, Translation};
use vocabulary::{Event, EventId, EventKind, Iccid, Protocol, Telemetry, Timestamp};

use crate::integrations::{ReplayError, ReplayRequest, active_versions, selection};
use crate::progress::ReplaySource;
use crate::reading::Source;

/// Of a text so much is shown in a sample.
pub const SAMPLE_CHARS_MAX: usize = 2_000;

/// Records of one read at most; the clock is looked at between two reads.
const RECORDS_PER_READ: usize = 1_000;
/// Bytes of their bodies at most.
const BYTES_PER_READ: usize = 1 << 20;

/// How far a preview looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviewLimits {
    /// Messages at most.
    pub records: u64,
    /// How long at most.
    pub time: Duration,
    /// Samples of each kind of difference at most.
    pub samples: usize,
}

/// What a replay would deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Whether all of the selection was looked at.
    pub complete: bool,
    /// How many messages are what.
    pub counts: PreviewCounts,
    /// Messages that become something else.
    pub changed: Vec<Difference>,
    /// Messages that could not be translated and now can.
    pub repaired: Vec<Difference>,
    /// Messages that could be translated, or went out as they came, and now cannot.
    pub broken: Vec<Difference>,
    /// Messages that can be translated neither way.
    pub failing: Vec<Untranslatable>,
}

/// How many messages are what. Each is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PreviewCounts {
    /// All messages that were looked at: the sum of the others.
    pub messages: u64,
    /// They are translated to the same.
    pub unchanged: u64,
    /// They become something else.
    pub changed: u64,
    /// They could not be translated and now can.
    pub repaired: u64,
    /// They now cannot be translated, and were delivered before.
    pub broken: u64,
    /// They can be translated neither way.
    pub failing: u64,
    /// No template applies to them, then or now.
    pub raw: u64,
}

/// A message of which two templates make two things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The message.
    pub id: EventId,
    /// Its device.
    pub iccid: Iccid,
    /// What it was: JSON, or why there was none; `None` for the bytes as they came.
    pub before: Option<String>,
    /// What it would be: JSON, or why there is none; `None` for the bytes as they came.
    pub after: Option<String>,
}

/// A message that no template can translate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslatable {
    /// The message.
    pub id: EventId,
    /// Its device.
    pub iccid: Iccid,
    /// Why not, by the template that the replay would take.
    pub error: String,
}

impl Default for PreviewLimits {
    fn default() -> Self {
        Self { records: 1_000_000, time: Duration::from_secs(10), samples: 20 }
    }
}

/// Looks at what `request` selects. Blocks.
pub(crate) fn preview(
    source: &Source,
    request: &ReplayRequest,
    limits: PreviewLimits,
) -> Result<Preview, ReplayError> {
    let started_at = Instant::now();
    let ReplaySource::Log { start, end, from, until, devices } = selection(source, request)? else {
        return Err(ReplayError::Nothing);
    };
    let mut comparison = Comparison {
        source,
        versions: if request.newest_templates { active_versions(source) } else { Vec::new() },
        limits,
        ends_at: started_at + limits.time,
        preview: Preview::empty(),
    };
    let part = Part { start, end, from, until };
    if devices.is_empty() {
        comparison.walk_all(part)?;
    } else {
        for device in devices {
            comparison.walk_device(part, DeviceKey::from_u64(device))?;
            if !comparison.preview.complete {
                break;
            }
        }
    }
    Ok(comparison.preview)
}

/// A part of the log.
#[derive(Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

struct Comparison<'a> {
    source: &'a Source,
    /// What takes the place of the versions of the messages' day.
    versions: Vec<(Protocol, u32)>,
    limits: PreviewLimits,
    ends_at: Instant,
    preview: Preview,
}

/// What a template makes of a message.
#[derive(PartialEq, Eq)]
enum Rendering {
    Json(String),
    Raw,
    Failed(String),
}

impl Part {
    fn holds(&self, record: &Record) -> bool {
        let received = record.received_at;
        (self.start..self.end).contains(&record.offset.as_u64())
            && self.from.is_none_or(|from| from <= received)
            && self.until.is_none_or(|until| received < until)
    }
}

impl Comparison<'_> {
    fn walk_all(&mut self, part: Part) -> Result<(), ReplayError> {
        let mut from = Offset::from_u64(part.start);
        while from.as_u64() < part.end {
            let batch = match read(&self.source.log, from) {
                Ok(batch) => batch,
                Err(ReadError::Overtaken { oldest }) => {
                    from = oldest;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if !self.compare_all(part, &batch.records)? || batch.next == from {
                break;
            }
            from = batch.next;
        }
        Ok(())
    }

    /// By the device's own index: its few messages may lie far apart.
    fn walk_device(&mut self, part: Part, device: DeviceKey) -> Result<(), ReplayError> {
        let mut before = Offset::from_u64(part.end);
        loop {
            let query = Query {
                device: Some(device),
                kinds: telemetry_only(),
                from: part.from,
                until: part.until,
                before: Some(before),
                limit: RECORDS_PER_READ,
            };
            let records = match self.source.log.newest(query) {
                Ok(records) => records,
                // What would follow has expired.
                Err(ReadError::Overtaken { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Some(oldest) = records.last().map(|record| record.offset) else { return Ok(()) };
            if !self.compare_all(part, &records)? || oldest.as_u64() <= part.start {
                return Ok(());
            }
            before = oldest;
        }
    }

    /// Compares records, and says whether there is time for more.
    fn compare_all(&mut self, part: Part, records: &[Record]) -> Result<bool, ReplayError> {
        for record in records.iter().filter(|record| part.holds(record)) {
            let is_over = Instant::now() >= self.ends_at;
            if is_over || self.preview.counts.messages >= self.limits.records {
                self.preview.complete = false;
                return Ok(false);
            }
            let event = Event::decode(record.kind.code(), record.device.as_u64(), &record.body);
            // What cannot be read is not delivered by a replay either.
            if let Ok(Event::Telemetry(telemetry)) = event {
                self.compare(record.id, &telemetry)?;
            }
        }
        if Instant::now() >= self.ends_at {
            self.preview.complete = false;
        }
        Ok(self.preview.complete)
    }

    fn compare(&mut self, id: EventId, telemetry: &Telemetry<'_>) -> Result<(), ReplayError> {
        let before = self.render(telemetry)?;
        let newest = self.versions.iter().find(|(protocol, _)| *protocol == telemetry.protocol);
        let template = newest.map(|(_, version)| *version).or(telemetry.template);
        let after = if template == telemetry.template {
            None
        } else {
            Some(self.render(&Telemetry { template, ..*telemetry })?)
        };
        self.count((id, telemetry.identity.iccid), before, after);
        Ok(())
    }

    fn render(&self, telemetry: &Telemetry<'_>) -> Result<Rendering, ReplayError> {
        match self.source.templates.translate(telemetry) {
            Ok(Translation::Json(translated)) => Ok(Rendering::Json(translated.json)),
            Ok(Translation::Raw) => Ok(Rendering::Raw),
            Err(TranslateError::Store(error)) => Err(ReplayError::Templates(error)),
            Err(error) => Ok(Rendering::Failed(error.to_string())),
        }
    }

    /// Counts a message; no `after` is the same as `before`.
    fn count(
        &mut self,
        (id, iccid): (EventId, Iccid),
        before: Rendering,
        after: Option<Rendering>,
    ) {
        let samples = self.limits.samples;
        let Preview { counts, changed, repaired, broken, failing, .. } = &mut self.preview;
        counts.messages += 1;
        let (count, differences) = match (&before, after.as_ref().unwrap_or(&before)) {
            (Rendering::Failed(_), Rendering::Failed(error)) => {
                counts.failing += 1;
                if failing.len() < samples {
                    failing.push(Untranslatable { id, iccid, error: cut(error) });
                }
                return;
            }
            (Rendering::Raw, Rendering::Raw) => {
                counts.raw += 1;
                return;
            }
            (before, after) if before == after => {
                counts.unchanged += 1;
                return;
            }
            (Rendering::Failed(_), _) => (&mut counts.repaired, repaired),
            (_, Rendering::Failed(_)) => (&mut counts.broken, broken),
            _ => (&mut counts.changed, changed),
        };
        *count += 1;
        if differences.len() < samples {
            let after = after.as_ref().and_then(Rendering::text);
            differences.push(Difference { id, iccid, before: before.text(), after });
        }
    }
}

impl Preview {
    const fn empty() -> Self {
        Self {
            complete: true,
            counts: PreviewCounts {
                messages: 0,
                unchanged: 0,
                changed: 0,
                repaired: 0,
                broken: 0,
                failing: 0,
                raw: 0,
            },
            changed: Vec::new(),
            repaired: Vec::new(),
            broken: Vec::new(),
            failing: Vec::new(),
        }
    }
}

impl Rendering {
    fn text(&self) -> Option<String> {
        match self {
            Self::Json(text) | Self::Failed(text) => Some(cut(text)),
            Self::Raw => None,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SAMPLE_CHARS_MAX).collect()
}

fn telemetry_only() -> KindSet {
    KindSet::only(Kind::new(EventKind::Telemetry.code()))
}

fn read(log: &MessageLog, from: Offset) -> Result<Batch, ReadError> {
    let limits = ReadLimits { records: RECORDS_PER_READ, bytes: BYTES_PER_READ };
    log.read_kinds(from, telemetry_only(), limits)
}

#[cfg(test)]
mod tests {
    use message_log::{NewRecord, Options};
    use state::StateFile;
    use template_library::{NewTemplate, Patch, ProtocolFilter, Status, Templates};
    use vocabulary::{Identity, IdentityClass};

    use super::*;

    const BYTE: &str =
        r#"{"sense":[{"asset":"n","value":{"byte":0,"bytelength":1,"type":"uint"}}]}"#;
    const PAIR: &str =
        r#"{"sense":[{"asset":"n","value":{"byte":0,"bytelength":2,"type":"uint"}}]}"#;
    const SECOND: &str =
        r#"{"sense":[{"asset":"n","value":{"byte":1,"bytelength":1,"type":"uint"}}]}"#;

    const ONE: u64 = 8_988_280_666_000_000_001;
    const TWO: u64 = 8_988_280_666_000_000_002;

    /// Messages as the gateway receives them: each names the template that is active.
    fn receive(source: &Source, protocol: Protocol, messages: &[(u64, &[u8], i64)]) {
        let records = messages.iter().map(|(device, payload, second)| {
            let telemetry = Telemetry {
                identity: Identity {
                    iccid: Iccid::from_u64(*device).unwrap(),
                    imsi: None,
                    ip: None,
                },
                class: IdentityClass::SimIp,
                protocol,
                topic: None,
                template: source.templates.active(protocol),
                exchange: None,
                measured: None,
                session: None,
                payload,
            };
            NewRecord {
                kind: Kind::new(EventKind::Telemetry.code()),
                device: DeviceKey::from_u64(*device),
                received_at: at(*second),
                body: telemetry.encode(),
            }
        });
        source.log.append(records.collect()).wait().unwrap();
    }

    /// Seconds of a day long ago.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + second * 1_000_000)
    }

    /// Messages without a template, by a template for one byte, for two bytes, and by the one that
    /// is active now: for the second byte alone.
    fn with_history() -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        let (log, _) = MessageLog::open(&folder.path().join("log"), Options::default()).unwrap();
        let source = Source { log, templates: Templates::open(&file).unwrap() };
        receive(&source, Protocol::Udp, &[(ONE, &[1, 2], 1), (ONE, &[3], 2)]);
        let filter = ProtocolFilter::new([Protocol::Udp]).unwrap();
        let template = source
            .templates
            .create(NewTemplate {
                name: "meter".to_owned(),
                source: BYTE.to_owned(),
                status: Status::Active,
                protocol_filter: filter,
            })
            .unwrap();
        receive(&source, Protocol::Udp, &[(ONE, &[5, 6], 3), (TWO, &[7], 4), (TWO, &[8, 8], 5)]);
        let change = |text: &str| {
            let patch = Patch { source: Some(text.to_owned()), ..Patch::default() };
            source.templates.update(template.id.as_str(), patch).unwrap();
        };
        change(PAIR);
        receive(&source, Protocol::Udp, &[(TWO, &[1, 0], 6), (TWO, &[9], 7), (ONE, &[0, 4], 8)]);
        change(r#"{"sense":[{"asset":"n","value":{"byte":7,"bytelength":1,"type":"uint"}}]}"#);
        receive(&source, Protocol::Udp, &[(ONE, &[2, 2], 9)]);
        change(SECOND);
        receive(&source, Protocol::Udp, &[(ONE, &[0, 9], 10)]);
        receive(&source, Protocol::Coap, &[(ONE, &[0], 11)]);
        (folder, source)
    }

    fn newest() -> ReplayRequest {
        ReplayRequest { newest_templates: true, ..ReplayRequest::default() }
    }

    fn look(source: &Source, request: &ReplayRequest) -> Preview {
        preview(source, request, PreviewLimits::default()).unwrap()
    }

    fn texts(differences: &[Difference]) -> Vec<(Option<&str>, Option<&str>)> {
        differences.iter().map(|one| (one.before.as_deref(), one.after.as_deref())).collect()
    }

    #[test]
    fn each_message_is_told_by_what_the_template_of_now_makes_of_it() {
        let (_folder, source) = with_history();
        let found = look(&source, &newest());
        assert!(found.complete);
        let counts = PreviewCounts {
            messages: 11,
            unchanged: 3,
            changed: 3,
            repaired: 1,
            broken: 2,
            failing: 1,
            raw: 1,
        };
        assert_eq!(found.counts, counts, "{found:?}");
        let failure = "Asset path:n, Error: can't extract [1:2] from 1 bytes";
        let changed = [(None, Some(r#"{"n":2}"#)), (Some(r#"{"n":5}"#), Some(r#"{"n":6}"#))];
        assert_eq!(texts(&found.changed)[..2], changed);
        assert_eq!(texts(&found.broken)[0], (None, Some(failure)));
        assert_eq!(texts(&found.broken)[1], (Some(r#"{"n":7}"#), Some(failure)));
        assert_eq!(texts(&found.repaired)[0].1, Some(r#"{"n":2}"#));
        assert!(texts(&found.repaired)[0].0.unwrap().contains("can't extract [7:8]"));
        assert_eq!((found.failing.len(), found.failing[0].error.as_str()), (1, failure));
        assert_eq!(found.failing[0].iccid.as_u64(), TWO);
    }

    #[test]
    fn by_the_templates_of_their_day_nothing_changes() {
        let (_folder, source) = with_history();
        let found = look(&source, &ReplayRequest::default());
        let counts = found.counts;
        assert_eq!(
            (counts.messages, counts.changed, counts.repaired, counts.broken),
            (11, 0, 0, 0)
        );
        assert_eq!((counts.unchanged, counts.failing, counts.raw), (6, 2, 3));
        assert!(found.failing[0].error.contains("[0:2] from 1 bytes"), "{found:?}");
    }

    #[test]
    fn devices_and_times_select_the_messages() {
        let (_folder, source) = with_history();
        let two = vec![Iccid::from_u64(TWO).unwrap()];
        let of_two = look(&source, &ReplayRequest { devices: two.clone(), ..newest() });
        let counts = of_two.counts;
        assert!(of_two.complete);
        assert_eq!((counts.messages, counts.unchanged, counts.changed), (4, 1, 1), "{counts:?}");
        assert_eq!((counts.broken, counts.failing), (1, 1));
        let part = ReplayRequest { from: Some(at(4)), until: Some(at(7)), ..newest() };
        assert_eq!(look(&source, &part.clone()).counts.messages, 3);
        let part = ReplayRequest { devices: two, until: Some(at(6)), ..part };
        assert_eq!(look(&source, &part.clone()).counts.messages, 2);
        let nothing = ReplayRequest { until: Some(at(4)), ..part };
        let refused = preview(&source, &nothing, PreviewLimits::default());
        assert!(matches!(refused, Err(ReplayError::Range)), "{refused:?}");
    }

    #[test]
    fn a_preview_that_reaches_a_limit_says_so() {
        let (_folder, source) = with_history();
        let few = PreviewLimits { records: 4, samples: 1, ..PreviewLimits::default() };
        let found = preview(&source, &newest(), few).unwrap();
        assert_eq!((found.complete, found.counts.messages), (false, 4));
        assert_eq!((found.counts.changed, found.changed.len()), (2, 1));
        let exact = PreviewLimits { records: 11, ..few };
        assert!(preview(&source, &newest(), exact).unwrap().complete);
        let at_once = PreviewLimits { time: Duration::ZERO, ..PreviewLimits::default() };
        assert!(!preview(&source, &newest(), at_once).unwrap().complete);
    }
}
