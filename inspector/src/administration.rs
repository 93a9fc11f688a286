//! The administration log: notices of the gateway, newest first, seven days.

use message_log::{DeviceKey, Kind, KindSet, Query, ReadError, Record};
use serde::{Serialize, Serializer};
use thiserror::Error;
use vocabulary::{
    EventId, EventKind, Iccid, Imsi, MalformedEvent, Notice, NoticeCategory, NoticeKind, Telemetry,
    Timestamp,
};

use crate::Inspector;
use crate::backward::Backward;
use crate::history::device_of;
use crate::window::{BackwardWindow, PAGE_SIZE_DEFAULT, PageSizeError, Window, check_page_size};

/// The highest page number, as documented.
pub const LOG_PAGE_MAX: usize = 50;

/// Notices looked at for one page. Beyond that the answer says that it is not complete. Measured:
/// up to 7 microseconds each, so at most 2 seconds.
const SCANNED_MAX: usize = 200_000;

/// Notices read at once.
const CHUNK_RECORDS: usize = 1_024;

/// Which notices, and which page of them.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// The page, 1 to 50.
    pub page: usize,
    /// Notices on a page, 1 to 25.
    pub page_size: usize,
    /// Only of this category.
    pub category: Option<NoticeCategory>,
    /// Only about this SIM.
    pub iccid: Option<Iccid>,
    /// Only of this type.
    pub kind: Option<NoticeKind>,
    /// Only about this integration.
    pub integration: Option<String>,
    /// Only about this geofence.
    pub geofence: Option<String>,
    /// Written at or after; without it seven days before the end.
    pub from: Option<Timestamp>,
    /// Written before; without it until now.
    pub until: Option<Timestamp>,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self {
            page: 1,
            page_size: PAGE_SIZE_DEFAULT,
            category: None,
            iccid: None,
            kind: None,
            integration: None,
            geofence: None,
            from: None,
            until: None,
        }
    }
}

/// A notice by the names of the documented API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogItem {
    /// Its id.
    #[serde(serialize_with = "as_text")]
    pub id: EventId,
    /// The customer of this gateway.
    pub customer_id: String,
    /// When it was written.
    #[serde(serialize_with = "as_text")]
    pub timestamp: Timestamp,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: NoticeKind,
    /// The stable text.
    pub message: String,
    /// The text for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its id in the form of the event envelope.
    pub trace_id: String,
    /// Information or error.
    pub category: NoticeCategory,
    /// The subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imsi: Option<Imsi>,
    /// The address concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    /// The SIM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
    /// `<customer>/<id>`, there where [`Inspector::log_payload`] finds a payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_reference: Option<String>,
    /// The geofence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geofence_id: Option<String>,
    /// The integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_id: Option<String>,
}

/// A page of the administration log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    /// Newest first.
    pub items: Vec<LogItem>,
    /// The number of this page, from 1.
    pub page: usize,
    /// Pages that can be asked for, at least 1, at most 50.
    pub page_amount: usize,
    /// Whether all notices of the span were looked at, as far as 50 pages need them. With a filter
    /// that matches rarely, in a log of very many notices, older matches may be missing.
    #[serde(skip)]
    pub complete: bool,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The page's number.
    #[error("page {found} is not allowed, allowed: 1 to {LOG_PAGE_MAX}")]
    Page {
        /// What was asked for.
        found: usize,
    },
    /// The page size.
    #[error(transparent)]
    PageSize(#[from] PageSizeError),
    /// The span of time.
    #[error(transparent)]
    Window(#[from] BackwardWindow),
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
}

/// Why there is no payload.
#[derive(Debug, Error)]
pub enum LogPayloadError {
    /// No notice has this id, or no more.
    #[error("no entry of the administration log has the id {0}")]
    UnknownNotice(EventId),
    /// The notice is about no message.
    #[error("the entry {0} has no payload")]
    WithoutPayload(EventId),
    /// The message was deleted by retention.
    #[error("the payload of the entry {0} was deleted")]
    Gone(EventId),
    /// A stored event that this release cannot read.
    #[error("stored event: {0}")]
    Malformed(#[from] MalformedEvent),
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Inspector {
    /// A page of the administration log.
    pub fn administration_logs(&self, query: &LogQuery) -> Result<LogPage, LogsError> {
        let page_size = check_page_size(query.page_size)?;
        if !(1..=LOG_PAGE_MAX).contains(&query.page) {
            return Err(LogsError::Page { found: query.page });
        }
        let window = Window::resolve(query.from, query.until)?;
        let skipped = (query.page - 1) * page_size;
        let mut items = Vec::new();
        let mut matches = 0;
        let complete = self.each_notice(window, query.iccid, SCANNED_MAX, |record| {
            if let Some(notice) = query.matching(record) {
                if matches >= skipped && items.len() < page_size {
                    items.push(self.log_item(record, notice));
                }
                matches += 1;
            }
            matches < LOG_PAGE_MAX * page_size
        })?;
        let page_amount = matches.div_ceil(page_size).max(1);
        Ok(LogPage { items, page: query.page, page_amount, complete })
    }

    /// The payload of the message that a notice is about.
    pub fn log_payload(&self, notice: EventId) -> Result<Vec<u8>, LogPayloadError> {
        let record = self.log().find(notice)?;
        let record = record.filter(|record| record.kind.code() == EventKind::Notice.code());
        let record = record.ok_or(LogPayloadError::UnknownNotice(notice))?;
        let message = Notice::decode(&record.body)?.payload_id();
        let message = message.ok_or(LogPayloadError::WithoutPayload(notice))?;
        let record = self.log().find(message)?.ok_or(LogPayloadError::Gone(notice))?;
        let device = device_of(&record).ok_or(LogPayloadError::WithoutPayload(notice))?;
        Ok(Telemetry::decode(device, &record.body)?.payload.to_vec())
    }

    /// Calls `each` with the notices of the window, newest first, as long as it returns true and at
    /// most `scanned_max` times. Returns false where that was too few.
    pub(crate) fn each_notice(
        &self,
        window: Window,
        device: Option<Iccid>,
        scanned_max: usize,
        mut each: impl FnMut(&Record) -> bool,
    ) -> Result<bool, ReadError> {
        let mut walk = Backward::new(
            self.log(),
            Query {
                device: device.map(|iccid| DeviceKey::from_u64(iccid.as_u64())),
                kinds: KindSet::only(Kind::new(EventKind::Notice.code())),
                from: Some(window.from),
                until: window.until,
                before: None,
                limit: CHUNK_RECORDS,
            },
        );
        let mut scanned = 0;
        loop {
            let records = walk.chunk()?;
            if records.is_empty() {
                return Ok(true);
            }
            if scanned >= scanned_max {
                return Ok(false);
            }
            scanned += records.len();
            if !records.iter().all(&mut each) {
                return Ok(true);
            }
        }
    }

    fn log_item(&self, record: &Record, notice: Notice) -> LogItem {
        let customer_id = self.customer_id().to_owned();
        let reference = notice.payload_of.is_some().then(|| format!("{customer_id}/{}", record.id));
        LogItem {
            id: record.id,
            customer_id,
            timestamp: record.received_at,
            kind: notice.kind,
            message: notice.message,
            description: notice.description,
            trace_id: record.id.trace(),
            category: notice.category,
            imsi: notice.imsi,
            ip: notice.ip,
            iccid: notice.iccid,
            payload_reference: reference,
            geofence_id: notice.geofence.map(|crossing| crossing.id),
            integration_id: notice.integration,
        }
    }
}

impl LogQuery {
    /// The notice in a record, if the query asks for it. What this release cannot read is left out.
    fn matching(&self, record: &Record) -> Option<Notice> {
        let notice = Notice::decode(&record.body).ok()?;
        let fence = notice.geofence.as_ref().map(|crossing| &crossing.id);
        let matches = self.category.is_none_or(|only| only == notice.category)
            && self.kind.is_none_or(|only| only == notice.kind)
            && self.iccid.is_none_or(|only| Some(only) == notice.iccid)
            && (self.integration.is_none() || self.integration == notice.integration)
            && (self.geofence.is_none() || self.geofence.as_ref() == fence);
        matches.then_some(notice)
    }
}
