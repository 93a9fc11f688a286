//! Stored messages, newest first, in pages.
//!
//! Two views of the same messages. [`Inspector::history`] is that of the
//! documented API: each message as its customer reads it, and a message that the
//! template of its day cannot translate is not in it, but in the administration log.
//! [`Inspector::messages`] is simgate's own and shows every message with all that is known of it.
//! A message above the documented 2,048 bytes is stored and shown like any other.
//!
//! Paging is over a snapshot: the tokens of the first page remember where the log ended, so later
//! pages hold no message twice and none of the new ones, and the token of the first page always
//! gives the first page.

use message_log::{DeviceKey, Kind, KindSet, Query, ReadError, ReadLimits, Record};
use template_library::StoreError;
use thiserror::Error;
use vocabulary::{
    EventId, EventKind, Iccid, IdentityClass, Imsi, MalformedEvent, Protocol, Telemetry, Timestamp,
};

use crate::Inspector;
use crate::backward::Backward;
use crate::token::{PageToken, TokenError};
use crate::translation::{self, PayloadText, TemplateChoice, Translation};
use crate::window::{BackwardWindow, PAGE_SIZE_DEFAULT, PageSizeError, Window, check_page_size};

/// Records looked at for one page. A page whose filter matches more rarely ends early, with a
/// token to go on: at up to 7 microseconds each (measured) that is after 70 milliseconds.
const SCANNED_MAX: usize = 10_000;

/// Records read at once while looking for the next that match.
const CHUNK_RECORDS: usize = 256;

/// Which messages, and which page of them.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Only of this device.
    pub device: Option<Iccid>,
    /// Only by this protocol.
    pub protocol: Option<Protocol>,
    /// Received at or after; without it seven days before the end.
    pub from: Option<Timestamp>,
    /// Received before; without it until now.
    pub until: Option<Timestamp>,
    /// Messages on a page, 1 to 25.
    pub page_size: usize,
    /// A token of another page. It brings its own span of time with it, and must be of a query
    /// with the same device and protocol.
    pub token: Option<PageToken>,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self {
            device: None,
            protocol: None,
            from: None,
            until: None,
            page_size: PAGE_SIZE_DEFAULT,
            token: None,
        }
    }
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first. With a rare filter a page can be short although more follow.
    pub items: Vec<T>,
    /// The token of the next page, where there is one.
    pub next: Option<PageToken>,
    /// The token that gives the first page again; there where `next` is.
    pub first: Option<PageToken>,
}

/// A message as its customer reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The device.
    pub iccid: Iccid,
    /// When it was received.
    pub time: Timestamp,
    /// JSON as text where a template translated it, else base 64.
    pub payload: PayloadText,
    /// How it arrived.
    pub protocol: Protocol,
    /// Its topic, of CoAP.
    pub topic: Option<String>,
    /// When the device measured it, where it said so.
    pub measured: Option<Timestamp>,
    /// Its id.
    pub id: EventId,
}

/// A message with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    /// Its id.
    pub id: EventId,
    /// Its number among the messages of its device, from 1.
    pub seq: u64,
    /// When it was received.
    pub received_at: Timestamp,
    /// The device.
    pub iccid: Iccid,
    /// Its subscriber, where it was known.
    pub imsi: Option<Imsi>,
    /// The source address.
    pub ip: Option<std::net::IpAddr>,
    /// What vouched for the device.
    pub class: IdentityClass,
    /// The data session that the device had, by the place of its first report in the log.
    pub session: Option<u64>,
    /// How it arrived.
    pub protocol: Protocol,
    /// Its topic, of CoAP.
    pub topic: Option<String>,
    /// When the device measured it, where it said so.
    pub measured: Option<Timestamp>,
    /// The version of the template that was active when it arrived.
    pub template: Option<u32>,
    /// The bytes that the device sent.
    pub payload: Vec<u8>,
    /// What the chosen version of the template makes of it.
    pub translation: Translation,
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The page size.
    #[error(transparent)]
    PageSize(#[from] PageSizeError),
    /// The span of time.
    #[error(transparent)]
    Window(#[from] BackwardWindow),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Everything that the token leads to was deleted by retention.
    #[error("the messages of this page were deleted, the oldest is {}", name(oldest))]
    Gone {
        /// The oldest message or notice that there is.
        oldest: Option<EventId>,
    },
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
    /// The templates.
    #[error("reading a template: {0}")]
    Templates(#[from] StoreError),
}

/// Why a message cannot be shown.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
    /// A stored message that this release cannot read.
    #[error("stored message: {0}")]
    Malformed(#[from] MalformedEvent),
    /// The templates.
    #[error("reading a template: {0}")]
    Templates(#[from] StoreError),
}

fn name(oldest: &Option<EventId>) -> String {
    oldest.map_or_else(|| "still to come".to_owned(), |id| id.to_string())
}

impl Inspector {
    /// A page of messages as their customer reads them.
    pub fn history(&self, query: &HistoryQuery) -> Result<Page<HistoryItem>, HistoryError> {
        self.page(query, |record, telemetry| self.history_item(record, telemetry))
    }

    /// A page of messages with all that is known of them.
    pub fn messages(
        &self,
        query: &HistoryQuery,
        choice: TemplateChoice,
    ) -> Result<Page<MessageView>, HistoryError> {
        self.page(query, |record, telemetry| self.message_view(record, telemetry, choice).map(Some))
    }

    /// One message; `None` where there is none with this id, or no more.
    pub fn message(
        &self,
        id: EventId,
        choice: TemplateChoice,
    ) -> Result<Option<MessageView>, MessageError> {
        let Some(record) = self.log().find(id)? else {
            return Ok(None);
        };
        let Some(iccid) = device_of(&record) else {
            return Ok(None);
        };
        let telemetry = Telemetry::decode(iccid, &record.body)?;
        Ok(Some(self.message_view(&record, &telemetry, choice)?))
    }

    fn history_item(
        &self,
        record: &Record,
        telemetry: &Telemetry<'_>,
    ) -> Result<Option<HistoryItem>, StoreError> {
        let translation =
            translation::translate(self.templates(), telemetry, TemplateChoice::OfItsDay)?;
        let item = |payload| HistoryItem {
            iccid: telemetry.identity.iccid,
            time: record.received_at,
            payload,
            protocol: telemetry.protocol,
            topic: telemetry.topic.map(str::to_owned),
            measured: telemetry.measured,
            id: record.id,
        };
        Ok(translation::text(translation, telemetry).ok().map(item))
    }

    fn message_view(
        &self,
        record: &Record,
        telemetry: &Telemetry<'_>,
        choice: TemplateChoice,
    ) -> Result<MessageView, StoreError> {
        Ok(MessageView {
            id: record.id,
            seq: record.device_seq,
            received_at: record.received_at,
            iccid: telemetry.identity.iccid,
            imsi: telemetry.identity.imsi,
            ip: telemetry.identity.ip,
            class: telemetry.class,
            session: telemetry.session,
            protocol: telemetry.protocol,
            topic: telemetry.topic.map(str::to_owned),
            measured: telemetry.measured,
            template: telemetry.template,
            payload: telemetry.payload.to_vec(),
            translation: translation::translate(self.templates(), telemetry, choice)?,
        })
    }

    /// A page of what `view` makes of the messages; those of which it makes nothing are left out.
    fn page<T>(
        &self,
        query: &HistoryQuery,
        view: impl Fn(&Record, &Telemetry<'_>) -> Result<Option<T>, StoreError>,
    ) -> Result<Page<T>, HistoryError> {
        let page_size = check_page_size(query.page_size)?;
        let place = self.place(query)?;
        // One more than the page: whether another page follows.
        let mut walk = Backward::new(self.log(), query_at(&place, page_size + 1));
        let mut found = Vec::with_capacity(page_size);
        let mut before = place.before;
        let mut scanned = 0;
        let more = 'page: loop {
            let records = walk.chunk()?;
            if records.is_empty() {
                break false;
            }
            if scanned >= SCANNED_MAX {
                break true;
            }
            for record in &records {
                let telemetry = matching(record, place.protocol);
                let item =
                    telemetry.map(|telemetry| view(record, &telemetry)).transpose()?.flatten();
                if found.len() == page_size && item.is_some() {
                    break 'page true;
                }
                before = record.offset;
                found.extend(item);
            }
            scanned += records.len();
            walk.set_chunk(CHUNK_RECORDS);
        };
        let token = |before| more.then_some(PageToken { before, ..place });
        Ok(Page { items: found, next: token(before), first: token(place.first) })
    }

    /// Where the page begins.
    fn place(&self, query: &HistoryQuery) -> Result<PageToken, HistoryError> {
        if let Some(token) = query.token {
            if token.device != query.device {
                return Err(TokenError::OtherQuery("device").into());
            }
            if token.protocol != query.protocol {
                return Err(TokenError::OtherQuery("protocol").into());
            }
            return if token.before <= self.log().oldest() { Err(self.gone()?) } else { Ok(token) };
        }
        let window = Window::resolve(query.from, query.until)?;
        let end = self.log().end();
        Ok(PageToken {
            first: end,
            before: end,
            device: query.device,
            protocol: query.protocol,
            from: window.from,
            until: window.until,
        })
    }

    fn gone(&self) -> Result<HistoryError, HistoryError> {
        let first = ReadLimits { records: 1, bytes: usize::MAX };
        let batch = self.log().read(self.log().oldest(), first)?;
        Ok(HistoryError::Gone { oldest: batch.records.first().map(|record| record.id) })
    }
}

fn query_at(place: &PageToken, limit: usize) -> Query {
    Query {
        device: place.device.map(|iccid| DeviceKey::from_u64(iccid.as_u64())),
        kinds: KindSet::only(Kind::new(EventKind::Telemetry.code())),
        from: Some(place.from),
        until: place.until,
        before: Some(place.before),
        limit,
    }
}

/// The device of a telemetry record.
pub(crate) fn device_of(record: &Record) -> Option<Iccid> {
    if record.kind.code() == EventKind::Telemetry.code() {
        Iccid::from_u64(record.device.as_u64())
    } else {
        None
    }
}

/// The message in a record, if it is one of `protocol`. What this release cannot read is left out.
pub(crate) fn matching(record: &Record, protocol: Option<Protocol>) -> Option<Telemetry<'_>> {
    let telemetry = Telemetry::decode(device_of(record)?, &record.body).ok()?;
    protocol.is_none_or(|only| only == telemetry.protocol).then_some(telemetry)
}
