//! A server's request to one device: which operation it is (OMA LwM2M Core 1.1 §6.3 and §6.4,
//! table 6.4.2-1 and following), what the objects make of it, and the answer.

use coap::IncomingRequest;
use coap::Response;
use coap::wire::{Code, ContentFormat, OptionNumber};
use lwm2m::{Model, Path, Record, ResourceType, Value, codec};

use crate::lwm2m::leg::Leg;
use crate::lwm2m::objects::{Effect, Facts, Mode, Objects};
use crate::lwm2m::table::{self, Access};

/// Paths of one composite operation.
const PATHS_MAX: usize = 64;

/// A request as far as the objects are concerned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) method: Option<Code>,
    pub(crate) segments: Vec<&'a str>,
    pub(crate) queries: Vec<&'a str>,
    pub(crate) format: Option<ContentFormat>,
    pub(crate) accept: Option<ContentFormat>,
    pub(crate) observes: bool,
    pub(crate) payload: &'a [u8],
}

/// What the devices speak with, the same for all.
#[derive(Debug)]
pub(crate) struct Tongue {
    pub(crate) model: Model,
    /// The format of many values where the server names none.
    pub(crate) preferred: ContentFormat,
}

/// What an observation is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) paths: Box<[Path]>,
    pub(crate) format: ContentFormat,
    pub(crate) is_composite: bool,
}

/// What a device says to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The operation, for counting.
    pub(crate) operation: &'static str,
    pub(crate) response: Response,
    /// What the server observes from now on, if it asked for that.
    pub(crate) watch: Option<Watch>,
    pub(crate) effect: Option<Effect>,
    /// Where values changed.
    pub(crate) changed: Option<Path>,
}

impl<'a> Asked<'a> {
    /// `None` where a part of the path or of the query is no text.
    pub(crate) fn new(request: &'a IncomingRequest<Leg>) -> Option<Self> {
        Some(Self {
            method: Some(request.method),
            segments: request.path().collect::<Option<_>>()?,
            queries: request.queries().collect::<Option<_>>()?,
            format: request.content_format(),
            accept: request.accept(),
            observes: request.observe == Some(coap::ObserveAction::Register),
            payload: &request.payload,
        })
    }

    /// The path of objects that it names.
    pub(crate) fn path(&self) -> Option<Path> {
        // A lone empty segment is the root as well.
        let mut segments = self.segments.iter().filter(|segment| !segment.is_empty());
        segments.try_fold(Path::ROOT, |path, segment| {
            let id: Path = format!("/{segment}").parse().ok()?;
            path.child(id.object_id()?)
        })
    }
}

impl Answer {
    fn new(operation: &'static str, response: Response) -> Self {
        Self { operation, response, watch: None, effect: None, changed: None }
    }

    pub(crate) fn code(operation: &'static str, code: Code) -> Self {
        Self::new(operation, Response::new(code))
    }
}

/// One request being answered.
struct Turn<'a> {
    objects: &'a mut Objects,
    facts: &'a Facts<'a>,
    tongue: &'a Tongue,
    asked: &'a Asked<'a>,
}

/// Does what the server asks for.
pub(crate) fn answer(
    objects: &mut Objects,
    facts: &Facts<'_>,
    tongue: &Tongue,
    asked: &Asked<'_>,
) -> Answer {
    let Some(path) = asked.path() else { return Answer::code("unknown", Code::NOT_FOUND) };
    let mut turn = Turn { objects, facts, tongue, asked };
    let depth = path.ids().len();
    match asked.method {
        Some(Code::GET) if asked.accept == Some(ContentFormat::LINK_FORMAT) => turn.discover(&path),
        Some(Code::GET) => turn.read(&path),
        Some(Code::FETCH) if depth == 0 => turn.read_composite(),
        Some(Code::IPATCH) if depth == 0 => turn.write_composite(),
        Some(Code::PUT) if asked.payload.is_empty() && !asked.queries.is_empty() => {
            turn.write_attributes(&path)
        }
        Some(Code::PUT) if depth >= 2 => turn.write(&path, Mode::Replace),
        Some(Code::POST) if depth == 1 => turn.create(&path),
        Some(Code::POST) if depth == 2 => turn.write(&path, Mode::Update),
        Some(Code::POST) if depth >= 3 => turn.execute_or_update(&path),
        Some(Code::DELETE) => turn.delete(&path),
        _ => Answer::code("unknown", Code::METHOD_NOT_ALLOWED),
    }
}

impl Turn<'_> {
    fn discover(&self, path: &Path) -> Answer {
        let response = match links(self.objects, path) {
            Some(links) => Response::new(Code::CONTENT)
                .with_payload(ContentFormat::LINK_FORMAT, links.into_bytes()),
            None => Response::new(Code::NOT_FOUND),
        };
        Answer::new("discover", response)
    }

    fn read(&self, path: &Path) -> Answer {
        let operation = if self.asked.observes { "observe" } else { "read" };
        if path.is_root() {
            return Answer::code(operation, Code::METHOD_NOT_ALLOWED);
        }
        let records = match self.objects.read(self.facts, path) {
            Ok(records) => records,
            Err(code) => return Answer::code(operation, code),
        };
        let format = self.asked.accept.unwrap_or_else(|| self.natural_format(path, &records));
        let mut answer = Answer::new(operation, content(format, path, &records));
        if self.asked.observes && answer.response.code.is_success() {
            let paths = Box::new([*path]);
            answer.watch = Some(Watch { paths, format, is_composite: false });
        }
        answer
    }

    /// The format where the server leaves it to the device.
    fn natural_format(&self, path: &Path, records: &[Record]) -> ContentFormat {
        match records {
            [record] if record.path == *path => match record.value.kind() {
                ResourceType::Opaque => ContentFormat::OCTET_STREAM,
                _ => ContentFormat::TEXT_PLAIN,
            },
            _ => self.tongue.preferred,
        }
    }

    fn read_composite(&self) -> Answer {
        let operation = if self.asked.observes { "observe-composite" } else { "read-composite" };
        let Some(format) = self.asked.format.filter(|format| is_senml(*format)) else {
            return Answer::code(operation, Code::UNSUPPORTED_CONTENT_FORMAT);
        };
        let accept = self.asked.accept.unwrap_or(format);
        if !is_senml(accept) {
            return Answer::code(operation, Code::NOT_ACCEPTABLE);
        }
        let paths = match codec::decode_paths(format, self.asked.payload) {
            Ok(paths) if (1..=PATHS_MAX).contains(&paths.len()) => paths,
            _ => return Answer::code(operation, Code::BAD_REQUEST),
        };
        let watch = Watch { paths: paths.into_boxed_slice(), format: accept, is_composite: true };
        let response = describe(self.objects, self.facts, &watch);
        let is_success = response.code.is_success();
        let mut answer = Answer::new(operation, response);
        answer.watch = (self.asked.observes && is_success).then_some(watch);
        answer
    }

    fn write(&mut self, path: &Path, mode: Mode) -> Answer {
        let mut answer = Answer::code("write", Code::CHANGED);
        let result = self
            .records(path)
            .and_then(|records| self.objects.write(self.facts, (path, mode), records));
        match result {
            Ok(effect) => {
                answer.effect = effect;
                // What is written to the firmware object changes its state and its result as well.
                let is_firmware = path.object_id() == Some(table::FIRMWARE);
                answer.changed =
                    Some(if is_firmware { Path::object(table::FIRMWARE) } else { *path });
            }
            Err(code) => answer.response.code = code,
        }
        answer
    }

    fn write_composite(&mut self) -> Answer {
        let mut answer = Answer::code("write-composite", Code::CHANGED);
        if !self.asked.format.is_some_and(is_senml) {
            answer.response.code = Code::UNSUPPORTED_CONTENT_FORMAT;
            return answer;
        }
        let result = self.records(&Path::ROOT).and_then(|records| {
            // All or none: each value is checked before the first is written.
            self.objects.write(self.facts, (&Path::ROOT, Mode::Update), records)
        });
        match result {
            Ok(effect) => {
                answer.effect = effect;
                answer.changed = Some(Path::ROOT);
            }
            Err(code) => answer.response.code = code,
        }
        answer
    }

    /// The values that the server writes at or below `path`.
    fn records(&self, path: &Path) -> Result<Vec<Record>, Code> {
        let format = self.asked.format.unwrap_or(ContentFormat::TEXT_PLAIN);
        if format == ContentFormat::OCTET_STREAM && path.resource_id().is_some() {
            // A firmware package may be larger than what the codecs read.
            let value = Value::Opaque(self.asked.payload.to_vec());
            return Ok(vec![Record::new(*path, value)]);
        }
        if !codec::is_readable(format) {
            return Err(Code::UNSUPPORTED_CONTENT_FORMAT);
        }
        let now = self.facts.unix_seconds as f64;
        codec::decode(format, path, self.asked.payload, &self.tongue.model, now)
            .map_err(|_| Code::BAD_REQUEST)
    }

    fn write_attributes(&mut self, path: &Path) -> Answer {
        let queries = self.asked.queries.iter().copied();
        let code = self.objects.write_attributes(path, queries).err().unwrap_or(Code::CHANGED);
        Answer::code("write-attributes", code)
    }

    fn execute_or_update(&mut self, path: &Path) -> Answer {
        let (object, id) = (path.object_id(), path.resource_id());
        let found = object.zip(id).and_then(|(object, id)| table::resource(object, id));
        let is_structured =
            self.asked.format.is_some_and(|format| format != ContentFormat::TEXT_PLAIN);
        if is_structured && found.is_some_and(|found| found.access != Access::Execute) {
            return self.write(path, Mode::Update);
        }
        let mut answer = Answer::code("execute", Code::CHANGED);
        match self.objects.execute(path) {
            Ok(effect) => {
                answer.effect = effect;
                answer.changed = path.parent();
            }
            Err(code) => answer.response.code = code,
        }
        answer
    }

    fn create(&mut self, path: &Path) -> Answer {
        let mut answer = Answer::code("create", Code::CREATED);
        let Some(object) = path.object_id() else { return answer };
        let records = match self.created_records(object) {
            Ok(records) => records,
            Err(code) => return Answer::code("create", code),
        };
        match self.objects.create(self.facts, object, records) {
            Ok(instance) => {
                answer.effect = Some(Effect::Update);
                answer.changed = Some(Path::instance(object, instance));
                answer.response = located(object, instance);
            }
            Err(code) => answer.response.code = code,
        }
        answer
    }

    /// The values of a new instance. Without an instance in the payload the device chooses one.
    fn created_records(&self, object: u16) -> Result<Vec<Record>, Code> {
        if self.asked.payload.is_empty() {
            return Ok(Vec::new());
        }
        match self.records(&Path::object(object)) {
            Err(Code::BAD_REQUEST) => {}
            result => return result,
        }
        let free = (0..u16::MAX).find(|id| !self.objects.has(&Path::instance(object, *id)));
        self.records(&Path::instance(object, free.unwrap_or_default()))
    }

    fn delete(&mut self, path: &Path) -> Answer {
        let mut answer = Answer::code("delete", Code::DELETED);
        match self.objects.delete(path) {
            Ok(()) => answer.effect = Some(Effect::Update),
            Err(code) => answer.response.code = code,
        }
        answer
    }
}

/// What an observer is told: the state of what it watches.
pub(crate) fn describe(objects: &Objects, facts: &Facts<'_>, watch: &Watch) -> Response {
    if !watch.is_composite {
        let path = watch.paths.first().copied().unwrap_or(Path::ROOT);
        return match objects.read(facts, &path) {
            Ok(records) => content(watch.format, &path, &records),
            Err(code) => Response::new(code),
        };
    }
    // What is not there is left out (§6.3.8).
    let found = watch.paths.iter().filter_map(|path| objects.read(facts, path).ok());
    let mut records: Vec<Record> = found.flatten().collect();
    records.sort_by_key(|record| record.path);
    records.dedup_by_key(|record| record.path);
    if records.is_empty() {
        return Response::new(Code::NOT_FOUND);
    }
    content(watch.format, &Path::ROOT, &records)
}

fn content(format: ContentFormat, path: &Path, records: &[Record]) -> Response {
    match codec::encode(format, path, records) {
        Ok(payload) => Response::new(Code::CONTENT).with_payload(format, payload),
        Err(_) => Response::new(Code::NOT_ACCEPTABLE),
    }
}

/// 2.01 with the place of a new instance.
fn located(object: u16, instance: u16) -> Response {
    let response = Response::new(Code::CREATED);
    [object, instance]
        .into_iter()
        .try_fold(response, |response, id| {
            response.with_option(OptionNumber::LOCATION_PATH, id.to_string().as_bytes())
        })
        .unwrap_or(Response::new(Code::CREATED))
}

const fn is_senml(format: ContentFormat) -> bool {
    matches!(format, ContentFormat::SENML_JSON | ContentFormat::SENML_CBOR)
}

/// What lies at and below `path`, as links with attributes (§6.3.2); `None` where nothing does.
fn links(objects: &Objects, path: &Path) -> Option<String> {
    if path.is_root() || path.resource_instance_id().is_some() || !objects.has(path) {
        return None;
    }
    let link = |path: &Path| format!("<{path}>{}", objects.own_attributes(path).link_text());
    let mut links = Vec::new();
    if path.instance_id().is_none() {
        links.push(link(path));
    }
    for (object, instance) in objects.instances() {
        let within = Path::instance(*object, *instance);
        if path.contains(&within) {
            links.push(link(&within));
        }
        let resources = table::resources(*object).iter();
        let below = resources.map(|resource| Path::resource(*object, *instance, resource.id));
        links.extend(below.filter(|one| path.contains(one)).map(|one| link(&one)));
    }
    Some(links.join(","))
}
