//! A gateway in a temporary folder, without its network side.

use std::path::PathBuf;

use inspector::{HistoryQuery, Inspector, LogItem, LogQuery, Reader};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord, Options};
use state::StateFile;
use template_library::{NewTemplate, Patch, ProtocolFilter, Status, TemplateId, Templates};
use vocabulary::{
    EventId, EventKind, Iccid, Identity, IdentityClass, Protocol, Telemetry, Timestamp,
};

/// A template that reads one number of two bytes.
pub(crate) const TEMPERATURE: &str =
    r#"{"sense":[{"asset":"t","value":{"byte":0,"bytelength":2,"type":"int"}}]}"#;
/// A template that needs three bytes.
pub(crate) const LONGER: &str =
    r#"{"sense":[{"asset":"t","value":{"byte":1,"bytelength":2,"type":"int"}}]}"#;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) log: MessageLog,
    pub(crate) templates: Templates,
    pub(crate) inspector: Inspector,
}

pub(crate) fn iccid(number: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_options(Options::default())
    }

    pub(crate) fn with_options(options: Options) -> Self {
        Self::open(tempfile::tempdir().unwrap(), options)
    }

    fn open(folder: tempfile::TempDir, options: Options) -> Self {
        let path: PathBuf = folder.path().to_owned();
        let state = StateFile::new(path.join("state.db"));
        let (log, _) = MessageLog::open(&path.join("log"), options).unwrap();
        let templates = Templates::open(&state).unwrap();
        let inspector = Inspector::open(&state, log.clone(), templates.clone()).unwrap();
        Self { folder, log, templates, inspector }
    }

    /// The inspector of a process that starts anew over the same files.
    pub(crate) fn restart_inspector(&mut self) {
        let state = StateFile::new(self.folder.path().join("state.db"));
        self.inspector = Inspector::open(&state, self.log.clone(), self.templates.clone()).unwrap();
    }

    pub(crate) fn reader(&self) -> Reader {
        self.inspector.reader().unwrap()
    }

    /// Stores a message with the template that is active now.
    pub(crate) fn send(&self, device: u64, protocol: Protocol, payload: &[u8]) -> EventId {
        self.send_at(device, protocol, payload, std::time::SystemTime::now().into())
    }

    pub(crate) fn send_at(
        &self,
        device: u64,
        protocol: Protocol,
        payload: &[u8],
        received_at: Timestamp,
    ) -> EventId {
        let iccid = iccid(device);
        let telemetry = Telemetry {
            identity: Identity { iccid, imsi: None, ip: Some([10, 0, 0, 1].into()) },
            class: IdentityClass::SimIp,
            protocol,
            topic: (protocol == Protocol::Coap).then_some("room/1"),
            template: self.templates.active(protocol),
            exchange: None,
            measured: None,
            session: None,
            payload,
        };
        let record = NewRecord {
            kind: Kind::new(EventKind::Telemetry.code()),
            device: DeviceKey::from_u64(iccid.as_u64()),
            received_at,
            body: telemetry.encode(),
        };
        self.log.append(vec![record]).wait().unwrap().records().next().unwrap().1
    }

    /// All of the administration log that 50 pages hold, oldest first.
    pub(crate) fn notices(&self) -> Vec<LogItem> {
        let mut notices = Vec::new();
        for page in 1..=50 {
            let query = LogQuery { page, page_size: 25, ..LogQuery::default() };
            let found = self.inspector.administration_logs(&query).unwrap();
            assert!(found.complete);
            notices.extend(found.items);
            if page >= found.page_amount {
                break;
            }
        }
        notices.reverse();
        notices
    }

    /// All history of a query, newest first, by following its tokens.
    pub(crate) fn history_ids(&self, mut query: HistoryQuery) -> Vec<EventId> {
        let mut ids = Vec::new();
        loop {
            let page = self.inspector.history(&query).unwrap();
            ids.extend(page.items.iter().map(|item| item.id));
            query.token = page.next;
            if query.token.is_none() {
                return ids;
            }
        }
    }
}

impl World {
    pub(crate) fn create_template(
        &self,
        name: &str,
        source: &str,
        protocols: &[Protocol],
    ) -> TemplateId {
        let new = NewTemplate {
            name: name.to_owned(),
            source: source.to_owned(),
            status: Status::Active,
            protocol_filter: ProtocolFilter::new(protocols.iter().copied()).unwrap(),
        };
        self.templates.create(new).unwrap().id
    }

    pub(crate) fn mend_template(&self, template: &TemplateId, source: &str) {
        let patch = Patch { source: Some(source.to_owned()), ..Patch::default() };
        self.templates.update(template.as_str(), patch).unwrap();
    }
}
