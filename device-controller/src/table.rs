//! The table of requests.

use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use state::Migrations;
use vocabulary::{Iccid, Imsi, Protocol, Timestamp};

use crate::action::{
    Action, CoapAction, CoapMethod, Lwm2mAction, Lwm2mOperation, Payload, PayloadType, UdpAction,
};
use crate::request::{ActionResult, Mode, Request, Status};
use crate::request_id::RequestId;

/// A request lies here as SCHEDULED until it has ended: that it was handed to a sender is known
/// in memory only. The partial indexes keep apart what is active and what has ended.
pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "actions",
    scripts: &["CREATE TABLE actions (
            place INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,
            iccid INTEGER NOT NULL,
            status INTEGER NOT NULL,
            protocol INTEGER NOT NULL,
            mode INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            attempts_used INTEGER NOT NULL,
            created_us INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            imsi INTEGER,
            ip TEXT,
            port INTEGER,
            -- The method of CoAP, the operation of LwM2M.
            verb TEXT,
            -- The path of CoAP, the resource address of LwM2M.
            target TEXT,
            payload_type INTEGER,
            payload BLOB,
            result_code INTEGER,
            result_payload BLOB,
            result_format INTEGER,
            result_error TEXT
        ) STRICT;
        CREATE INDEX actions_active ON actions (created_us, iccid) WHERE status = 0;
        CREATE INDEX actions_ended ON actions
            (created_us, updated_us, status, protocol, iccid) WHERE status >= 2;
        CREATE INDEX actions_ended_of_device ON actions (iccid, created_us) WHERE status >= 2;"],
};

/// A request with its place: the number that orders requests by creation.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) place: u64,
    pub(crate) request: Request,
}

/// What becomes of a stored request.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) place: u64,
    pub(crate) device: Iccid,
    pub(crate) updated: Timestamp,
    pub(crate) attempts_used: u8,
    /// [`Status::Scheduled`], or how it ended.
    pub(crate) status: Status,
    pub(crate) result: Option<Box<ActionResult>>,
}

/// A request that was deleted.
pub(crate) struct Deleted {
    pub(crate) place: u64,
    pub(crate) device: Iccid,
    pub(crate) was_active: bool,
}

pub(crate) const COLUMNS: &str = "SELECT place, id, iccid, status, protocol, mode, attempts,
        attempts_used, created_us, updated_us, imsi, ip, port, verb, target, payload_type, payload,
        result_code, result_payload, result_format, result_error
    FROM actions";

pub(crate) const fn status_code(status: Status) -> u8 {
    match status {
        Status::Scheduled => 0,
        Status::InProgress => 1,
        Status::Succeeded => 2,
        Status::Failed => 3,
        Status::Cancelled => 4,
    }
}

pub(crate) const fn protocol_code(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 0,
        Protocol::Coap => 1,
        Protocol::Lwm2m => 2,
    }
}

const fn mode_code(mode: Mode) -> u8 {
    match mode {
        Mode::SendNow => 0,
        Mode::SendWhenActive => 1,
    }
}

const fn payload_code(kind: PayloadType) -> u8 {
    match kind {
        PayloadType::Text => 0,
        PayloadType::Base64 => 1,
    }
}

pub(crate) fn number(iccid: Iccid) -> i64 {
    iccid.as_u64().cast_signed()
}

pub(crate) fn device(number: i64) -> rusqlite::Result<Iccid> {
    Iccid::from_u64(number.cast_unsigned()).ok_or_else(|| unreadable(0))
}

fn unreadable(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "actions".to_owned(), Type::Null)
}

/// Reads a row of [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let (place, iccid): (i64, i64) = (row.get(0)?, row.get(2)?);
    let status: u8 = row.get(3)?;
    let status = Status::ALL.into_iter().find(|known| status_code(*known) == status);
    let status = status.ok_or_else(|| unreadable(3))?;
    let (attempts, used): (u8, u8) = (row.get(6)?, row.get(7)?);
    let imsi: Option<i64> = row.get(10)?;
    let ip: Option<String> = row.get(11)?;
    let request = Request {
        id: RequestId::from_bytes(row.get(1)?),
        device: device(iccid)?,
        action: Arc::new(read_action(row)?),
        mode: if row.get::<_, u8>(5)? == 0 { Mode::SendNow } else { Mode::SendWhenActive },
        status,
        created: Timestamp::from_micros(row.get(8)?),
        updated: Timestamp::from_micros(row.get(9)?),
        send_attempts: attempts,
        send_attempts_left: attempts.saturating_sub(used),
        imsi: imsi.and_then(|imsi| Imsi::from_u64(imsi.cast_unsigned())),
        ip: ip.and_then(|ip| ip.parse::<IpAddr>().ok()),
        result: read_result(row)?,
    };
    Ok(Stored { place: place.cast_unsigned(), request })
}

fn read_action(row: &Row<'_>) -> rusqlite::Result<Action> {
    let protocol: u8 = row.get(4)?;
    let known = Protocol::ALL.into_iter().find(|known| protocol_code(*known) == protocol);
    let payload = || -> rusqlite::Result<Option<Payload>> {
        let bytes: Option<Vec<u8>> = row.get(16)?;
        let is_text = row.get::<_, Option<u8>>(15)? == Some(payload_code(PayloadType::Text));
        let kind = if is_text { PayloadType::Text } else { PayloadType::Base64 };
        Ok(bytes.map(|bytes| Payload { bytes: bytes.into(), kind }))
    };
    let text = |column| -> rusqlite::Result<String> { row.get(column) };
    Ok(match known.ok_or_else(|| unreadable(4))? {
        Protocol::Udp => Action::Udp(UdpAction {
            port: row.get(12)?,
            payload: payload()?.ok_or_else(|| unreadable(16))?,
        }),
        Protocol::Coap => Action::Coap(CoapAction {
            port: row.get(12)?,
            method: text(13)?.parse::<CoapMethod>().map_err(|_| unreadable(13))?,
            path: text(14)?.into(),
            payload: payload()?,
        }),
        Protocol::Lwm2m => {
            let data = payload()?.map(|payload| payload.text());
            let operation = Lwm2mOperation::parse(&text(13)?, data.as_deref());
            Action::Lwm2m(Lwm2mAction {
                resource_address: text(14)?.into(),
                operation: operation.map_err(|_| unreadable(13))?,
            })
        }
    })
}

fn read_result(row: &Row<'_>) -> rusqlite::Result<Option<ActionResult>> {
    let payload: Option<Vec<u8>> = row.get(18)?;
    let Some(payload) = payload else { return Ok(None) };
    let error: Option<String> = row.get(20)?;
    Ok(Some(ActionResult {
        code: row.get(17)?,
        payload: payload.into(),
        content_format: row.get(19)?,
        error: error.map(Into::into),
    }))
}

/// What of an action has columns of its own.
#[derive(Default)]
struct Parts<'a> {
    port: Option<u16>,
    verb: Option<&'static str>,
    target: Option<&'a str>,
    kind: Option<PayloadType>,
    bytes: Option<&'a [u8]>,
}

fn parts(action: &Action) -> Parts<'_> {
    match action {
        Action::Udp(UdpAction { port, payload }) => Parts {
            port: Some(*port),
            kind: Some(payload.kind),
            bytes: Some(&payload.bytes),
            ..Parts::default()
        },
        Action::Coap(CoapAction { port, method, path, payload }) => Parts {
            port: Some(*port),
            verb: Some(method.as_str()),
            target: Some(path),
            kind: payload.as_ref().map(|payload| payload.kind),
            bytes: payload.as_ref().map(|payload| &*payload.bytes),
        },
        Action::Lwm2m(Lwm2mAction { resource_address, operation }) => Parts {
            port: None,
            verb: Some(operation.name()),
            target: Some(resource_address),
            kind: operation.data().map(|_| PayloadType::Text),
            bytes: operation.data().map(str::as_bytes),
        },
    }
}

/// Writes new requests.
pub(crate) fn insert<'a>(
    connection: &Connection,
    stored: impl Iterator<Item = &'a Stored>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "INSERT INTO actions (place, id, iccid, status, protocol, mode, attempts, attempts_used,
             created_us, updated_us, imsi, ip, port, verb, target, payload_type, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    for Stored { place, request } in stored {
        let Parts { port, verb, target, kind, bytes } = parts(&request.action);
        statement.execute(params![
            place.cast_signed(),
            request.id.to_bytes(),
            number(request.device),
            status_code(request.status),
            protocol_code(request.action.protocol()),
            mode_code(request.mode),
            request.send_attempts,
            request.created.as_micros(),
            request.updated.as_micros(),
            request.imsi.map(|imsi| imsi.as_u64().cast_signed()),
            request.ip.map(|ip| ip.to_string()),
            port,
            verb,
            target,
            kind.map(payload_code),
            bytes,
        ])?;
    }
    Ok(())
}

/// Writes what has become of requests, in order.
pub(crate) fn update<'a>(
    connection: &Connection,
    changes: impl Iterator<Item = &'a Change>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "UPDATE actions SET status = ?2, attempts_used = ?3, updated_us = ?4, result_code = ?5,
             result_payload = ?6, result_format = ?7, result_error = ?8
         WHERE place = ?1",
    )?;
    for change in changes {
        let result = change.result.as_deref();
        statement.execute(params![
            change.place.cast_signed(),
            status_code(change.status),
            change.attempts_used,
            change.updated.as_micros(),
            result.and_then(|result| result.code),
            result.map(|result| &*result.payload),
            result.and_then(|result| result.content_format),
            result.and_then(|result| result.error.as_deref()),
        ])?;
    }
    Ok(())
}

/// Deletes requests made at `before` or earlier, a limited number of them.
pub(crate) fn delete(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<Deleted>> {
    let mut all = Vec::new();
    for shelf in ["status >= 2", "status = 0"] {
        let mut statement = connection.prepare(&format!(
            "DELETE FROM actions WHERE place IN (SELECT place FROM actions
                 WHERE {shelf} AND created_us <= ?1 ORDER BY created_us LIMIT ?2)
             RETURNING place, iccid, status"
        ))?;
        let mut rows = statement.query((before.as_micros(), limit))?;
        while let Some(row) = rows.next()? {
            let (place, iccid, status): (i64, i64, u8) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = place.cast_unsigned();
            all.push(Deleted { place, device: device(iccid)?, was_active: status < 2 });
        }
    }
    Ok(all)
}

/// Every request that has not ended, in order of creation.
pub(crate) fn each_active(
    connection: &Connection,
    mut take: impl FnMut(Stored),
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare(&format!("{COLUMNS} WHERE status = 0 ORDER BY place"))?;
    for stored in statement.query_map((), read)? {
        take(stored?);
    }
    Ok(())
}

/// The highest place of the table; 0 where it is empty.
pub(crate) fn last_place(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> =
        connection.query_row("SELECT max(place) FROM actions", (), |row| row.get(0))?;
    Ok(last.map_or(0, i64::cast_unsigned))
}

/// The request at a place.
pub(crate) fn at(connection: &Connection, place: u64) -> rusqlite::Result<Option<Request>> {
    let mut statement = connection.prepare(&format!("{COLUMNS} WHERE place = ?1"))?;
    let found = statement.query_row([place.cast_signed()], read).optional()?;
    Ok(found.map(|stored| stored.request))
}

/// The request with an id.
pub(crate) fn find(connection: &Connection, id: RequestId) -> rusqlite::Result<Option<Stored>> {
    let mut statement = connection.prepare(&format!("{COLUMNS} WHERE id = ?1"))?;
    statement.query_row([id.to_bytes()], read).optional()
}

/// Places and devices of active requests made at `before` or earlier, a limited number.
pub(crate) fn overdue(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(u64, Iccid)>> {
    let mut statement = connection.prepare(
        "SELECT place, iccid FROM actions WHERE status = 0 AND created_us <= ?1
         ORDER BY created_us LIMIT ?2",
    )?;
    let read = |row: &Row<'_>| {
        let (place, iccid): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok((place.cast_unsigned(), device(iccid)?))
    };
    statement.query_map((before.as_micros(), limit), read)?.collect()
}

/// Bytes of the file that hold something.
pub(crate) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| -> rusqlite::Result<u64> {
        let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        Ok(value.cast_unsigned())
    };
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(pages.saturating_mul(number("page_size")?))
}
