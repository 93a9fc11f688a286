//! From operations to requests (OMA LwM2M Core 1.1 §6.3, table 6.3-1), and what of them is refused
//! before anything is sent.

use coap::Request;
use coap::wire::{Code, ContentFormat, OptionNumber, Token};

use crate::codec;
use crate::model::Model;
use crate::operation::{Operation, WriteContent, WriteMode};
use crate::path::Path;
use crate::record::Record;
use crate::registration::{Observation, Version};
use crate::registry::Target;
use crate::value::{ResourceType, Value};

/// What an operation means for observations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watch {
    Nothing,
    /// One begins, with this token.
    Begin {
        /// Its token.
        token: u64,
        /// There was none of this yet, which is to be refreshed otherwise.
        is_new: bool,
    },
    /// This one ends.
    End(Observation),
}

/// A request, and the path that its answer speaks of.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: Request,
    pub(super) base: Path,
}

/// Whether an operation fits the objects that the model knows; of others nothing is known.
pub(super) fn check(model: &Model, operation: &Operation) -> Result<(), String> {
    match operation {
        Operation::Read { path, .. } | Operation::Observe { path, .. } => readable(model, path),
        Operation::ReadComposite { paths } | Operation::ObserveComposite { paths } => {
            if paths.is_empty() {
                return Err("no path is given".to_owned());
            }
            paths.iter().try_for_each(|path| readable(model, path))
        }
        Operation::Write { path, content: WriteContent::Text(text), .. } => {
            depth(path, 3..=4, "a resource")?;
            writable(model, path)?;
            let Some(kind) = model.kind(path) else { return Ok(()) };
            let checked = Value::parse_text(kind, text);
            checked.map(drop).map_err(|error| format!("{path}: {error}"))
        }
        Operation::Write { path, content: WriteContent::Records(records), .. } => {
            depth(path, 2..=4, "an object instance or a resource")?;
            check_records(model, path, records)
        }
        Operation::WriteComposite { records } => check_records(model, &Path::ROOT, records),
        Operation::Execute { path, .. } => {
            depth(path, 3..=3, "a resource")?;
            match model.is_executable(path) {
                true => Ok(()),
                false => Err(format!("{path} cannot be executed")),
            }
        }
        Operation::Create { path, .. } => depth(path, 1..=2, "an object or an object instance"),
        Operation::Delete { path } => depth(path, 2..=2, "an object instance"),
        Operation::Discover { path } => depth(path, 1..=3, "an object, instance or resource"),
        Operation::WriteAttributes { path, attributes } => {
            depth(path, 1..=4, "an object or what it holds")?;
            match attributes.is_empty() {
                true => Err("no attribute is given".to_owned()),
                false => Ok(()),
            }
        }
        Operation::CancelObservation { .. } => Ok(()),
        Operation::WriteRaw { path, .. } => {
            depth(path, 1..=4, "an object or what it holds")?;
            writable(model, path)
        }
    }
}

fn depth(path: &Path, allowed: std::ops::RangeInclusive<usize>, what: &str) -> Result<(), String> {
    match allowed.contains(&path.ids().len()) {
        true => Ok(()),
        false => Err(format!("{path} does not name {what}")),
    }
}

fn readable(model: &Model, path: &Path) -> Result<(), String> {
    depth(path, 1..=4, "an object or what it holds")?;
    match model.is_readable(path) {
        true => Ok(()),
        false => Err(format!("{path} cannot be read")),
    }
}

fn writable(model: &Model, path: &Path) -> Result<(), String> {
    match model.is_writable(path) {
        true => Ok(()),
        false => Err(format!("{path} cannot be written")),
    }
}

fn check_records(model: &Model, base: &Path, records: &[Record]) -> Result<(), String> {
    if records.is_empty() {
        return Err("no value is given".to_owned());
    }
    for Record { path, value, .. } in records {
        if !base.contains(path) {
            return Err(format!("{path} does not lie within {base}"));
        }
        depth(path, 3..=4, "a resource")?;
        writable(model, path)?;
        match model.kind(path) {
            Some(kind) if kind != value.kind() => {
                return Err(format!("{path} is of type {kind}, given: {}", value.kind()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The formats to be tried for a device: what it announced, in our order; TLV, which every client
/// of LwM2M 1.0 and most of 1.1 speak, where it announced nothing. A client of 1.0 has to speak
/// TLV (LwM2M 1.0 §6.4.3), so that its word for JSON is no reason to write JSON: Wakaama answers
/// 2.04 to a JSON of one value and does nothing.
fn formats(target: &Target, composite: bool) -> [ContentFormat; 2] {
    use ContentFormat as F;
    let order: &[F] = match (composite, target.version) {
        (true, _) => &[F::SENML_CBOR, F::SENML_JSON],
        (false, Version::V1_0) => &[F::LWM2M_TLV, F::LWM2M_JSON],
        (false, Version::V1_1) => &[F::SENML_CBOR, F::LWM2M_TLV, F::SENML_JSON],
    };
    let fallback = match (composite, target.version) {
        (true, _) => [F::SENML_CBOR, F::SENML_JSON],
        (false, Version::V1_0) => [F::LWM2M_TLV, F::LWM2M_JSON],
        (false, Version::V1_1) => [F::LWM2M_TLV, F::SENML_CBOR],
    };
    let is_old = target.version == Version::V1_0;
    let announced = order.iter().copied().filter(|format| !is_old && target.links.speaks(*format));
    let mut chosen = announced.chain(fallback);
    let first = chosen.next().unwrap_or(fallback[0]);
    let second = chosen.find(|format| *format != first).unwrap_or(fallback[1]);
    [first, second]
}

/// The format to be asked for; none for a single value of an old device, which knows best.
fn accept(
    target: &Target,
    path: &Path,
    wanted: Option<ContentFormat>,
    attempt: usize,
) -> Option<ContentFormat> {
    let is_simple = target.version == Version::V1_0 && path.ids().len() >= 3;
    match (wanted, is_simple, attempt) {
        (Some(wanted), ..) => Some(wanted),
        (None, true, 0) => None,
        (None, true, _) => Some(ContentFormat::LWM2M_TLV),
        (None, false, attempt) => Some(formats(target, false)[attempt.min(1)]),
    }
}

/// Whether another format may be tried after 4.06 or 4.15.
pub(super) fn has_alternative(operation: &Operation) -> bool {
    match operation {
        Operation::Read { accept, .. } | Operation::Observe { accept, .. } => accept.is_none(),
        Operation::Write { .. }
        | Operation::Create { .. }
        | Operation::ReadComposite { .. }
        | Operation::ObserveComposite { .. }
        | Operation::WriteComposite { .. } => true,
        _ => false,
    }
}

/// The request for an operation; `attempt` is 0, or 1 after the first format was refused.
pub(super) fn plan(
    model: &Model,
    target: &Target,
    operation: &Operation,
    (watch, attempt): (&Watch, usize),
) -> Result<Plan, String> {
    let draft = |method, path: &Path| Draft::new(target, method, path);
    let composite = formats(target, true)[attempt.min(1)];
    let draft = match operation {
        Operation::Read { path, accept: wanted } => {
            draft(Code::GET, path)?.accept(accept(target, path, *wanted, attempt))?
        }
        Operation::Observe { path, accept: wanted } => {
            draft(Code::GET, path)?.accept(accept(target, path, *wanted, attempt))?
        }
        Operation::Discover { path } => {
            draft(Code::GET, path)?.accept(Some(ContentFormat::LINK_FORMAT))?
        }
        Operation::Write { path, content, mode } => {
            let method = match mode {
                WriteMode::Replace => Code::PUT,
                WriteMode::Update => Code::POST,
            };
            let (format, payload) = content_of(model, target, (path, content), attempt)?;
            draft(method, path)?.payload(format, payload)?
        }
        Operation::WriteRaw { path, format, payload } => {
            draft(Code::PUT, path)?.payload(*format, payload.clone())?
        }
        Operation::Execute { path, arguments } => {
            let draft = draft(Code::POST, path)?;
            match arguments.is_empty() {
                true => draft,
                false => draft.payload(ContentFormat::TEXT_PLAIN, arguments.clone().into())?,
            }
        }
        Operation::Create { path, records } => {
            let object = Path::object(path.object_id().unwrap_or_default());
            let format = formats(target, false)[attempt.min(1)];
            let payload = encode(format, &object, records)?;
            draft(Code::POST, &object)?.payload(format, payload)?
        }
        Operation::Delete { path } => draft(Code::DELETE, path)?,
        Operation::WriteAttributes { path, attributes } => {
            let draft = draft(Code::PUT, path)?;
            attributes.iter().try_fold(draft, |draft, attribute| {
                draft.option(OptionNumber::URI_QUERY, attribute.as_bytes())
            })?
        }
        Operation::ReadComposite { paths } | Operation::ObserveComposite { paths } => {
            fetch(target, composite, paths)?
        }
        Operation::WriteComposite { records } => {
            needs_1_1(target)?;
            let payload = encode(composite, &Path::ROOT, records)?;
            draft(Code::IPATCH, &Path::ROOT)?.payload(composite, payload)?
        }
        Operation::CancelObservation { path } => match watch {
            Watch::End(observation) => cancelling(target, observation)?,
            _ => return Err(format!("{path} is not observed")),
        },
    };
    Ok(draft.finish(watch))
}

/// A plain reading of what an observation observes, in the format of its notification.
pub(super) fn reading(
    target: &Target,
    observation: &Observation,
    format: Option<ContentFormat>,
) -> Result<Plan, String> {
    let draft = match &*observation.paths {
        [path] if !observation.composite => Draft::new(target, Code::GET, path)?.accept(format)?,
        paths => fetch(target, format.unwrap_or(ContentFormat::SENML_CBOR), paths)?,
    };
    Ok(draft.finish(&Watch::Nothing))
}

/// RFC 7641 §3.6: the request that began an observation, with the same token and Observe = 1.
fn cancelling(target: &Target, observation: &Observation) -> Result<Draft, String> {
    let draft = match &*observation.paths {
        [path] if !observation.composite => {
            Draft::new(target, Code::GET, path)?.accept(observation.format)?
        }
        paths => {
            let format = observation.format.unwrap_or(ContentFormat::SENML_CBOR);
            fetch(target, format, paths)?
        }
    };
    draft.option(OptionNumber::OBSERVE, &[1])
}

fn fetch(target: &Target, format: ContentFormat, paths: &[Path]) -> Result<Draft, String> {
    needs_1_1(target)?;
    let payload = codec::encode_paths(format, paths).map_err(|error| error.to_string())?;
    Draft::new(target, Code::FETCH, &Path::ROOT)?.accept(Some(format))?.payload(format, payload)
}

fn needs_1_1(target: &Target) -> Result<(), String> {
    match target.version {
        Version::V1_0 => Err("composite operations need LwM2M 1.1, the device has 1.0".to_owned()),
        Version::V1_1 => Ok(()),
    }
}

fn encode(format: ContentFormat, base: &Path, records: &[Record]) -> Result<Vec<u8>, String> {
    codec::encode(format, base, records).map_err(|error| error.to_string())
}

/// Format and payload of a write.
fn content_of(
    model: &Model,
    target: &Target,
    (path, content): (&Path, &WriteContent),
    attempt: usize,
) -> Result<(ContentFormat, Vec<u8>), String> {
    let text = match content {
        WriteContent::Records(records) => {
            let format = formats(target, false)[attempt.min(1)];
            return Ok((format, encode(format, path, records)?));
        }
        WriteContent::Text(text) => text,
    };
    let Some(kind) = model.kind(path) else {
        return Ok((ContentFormat::TEXT_PLAIN, text.clone().into_bytes()));
    };
    let value = Value::parse_text(kind, text).map_err(|error| format!("{path}: {error}"))?;
    let format = match (attempt, kind) {
        (0, _) => formats(target, false)[0],
        (_, ResourceType::Opaque) => ContentFormat::OCTET_STREAM,
        _ => ContentFormat::TEXT_PLAIN,
    };
    Ok((format, encode(format, path, &[Record::new(*path, value)])?))
}

/// A request that is being written.
struct Draft {
    request: Request,
    base: Path,
}

impl Draft {
    fn new(target: &Target, method: Code, path: &Path) -> Result<Self, String> {
        let root = target.links.root().split('/').filter(|segment| !segment.is_empty());
        let draft = Self { request: Request::new(method), base: *path };
        let draft = root
            .map(str::as_bytes)
            .try_fold(draft, |draft, segment| draft.option(OptionNumber::URI_PATH, segment))?;
        path.ids().iter().try_fold(draft, |draft, id| {
            draft.option(OptionNumber::URI_PATH, itoa::Buffer::new().format(*id).as_bytes())
        })
    }

    fn option(mut self, number: OptionNumber, value: &[u8]) -> Result<Self, String> {
        let pushed = self.request.options.push(number, value);
        pushed.map(|()| self).map_err(|error| error.to_string())
    }

    fn accept(self, format: Option<ContentFormat>) -> Result<Self, String> {
        self.format_option(OptionNumber::ACCEPT, format)
    }

    fn payload(mut self, format: ContentFormat, payload: Vec<u8>) -> Result<Self, String> {
        self.request.payload = payload;
        self.format_option(OptionNumber::CONTENT_FORMAT, Some(format))
    }

    fn format_option(
        mut self,
        number: OptionNumber,
        format: Option<ContentFormat>,
    ) -> Result<Self, String> {
        if let Some(format) = format {
            let pushed = self.request.options.push_uint(number, format.0.into());
            pushed.map_err(|error| error.to_string())?;
        }
        Ok(self)
    }

    fn finish(mut self, watch: &Watch) -> Plan {
        match watch {
            Watch::Nothing => {}
            Watch::Begin { token, .. } => {
                self.request.observe = true;
                self.request.token = Some(Token::from_u64(*token));
            }
            Watch::End(observation) => {
                self.request.token = Some(Token::from_u64(observation.token));
            }
        }
        Plan { request: self.request, base: self.base }
    }
}

/// The format that an observation asks for first.
pub(super) fn observed_format(target: &Target, operation: &Operation) -> Option<ContentFormat> {
    match operation {
        Operation::Observe { path, accept: wanted } => accept(target, path, *wanted, 0),
        _ => Some(formats(target, true)[0]),
    }
}
