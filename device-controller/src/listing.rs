//! Pages of requests, from memory and from the disk.
//!
//! What is active stands in memory, what has ended on the disk. A page of both is put together
//! from the places of each that could be on it; a request that ends in between is on one of them.

use std::cmp::Reverse;
use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use vocabulary::{Iccid, Protocol, Timestamp};

use crate::active::Active;
use crate::request::{Request, Status};
use crate::table;

/// Which requests are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Those that may still be sent.
    Active,
    /// Those that have ended.
    Archived,
    /// Both.
    All,
}

/// By what requests are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortField {
    /// When they were made.
    Created,
    /// When they last changed.
    Updated,
}

/// A question for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Which.
    pub shelf: Shelf,
    /// Only of this device.
    pub device: Option<Iccid>,
    /// Only of this protocol.
    pub protocol: Option<Protocol>,
    /// Only with this status.
    pub status: Option<Status>,
    /// The order.
    pub sort: SortField,
    /// Whether the newest comes first.
    pub descending: bool,
    /// Requests before the page.
    pub skip: usize,
    /// Requests on the page.
    pub take: usize,
}

/// A page of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The requests of the page.
    pub requests: Vec<Request>,
    /// How many there are in all.
    pub total: u64,
}

/// A request that may be on the page: its time in the order, its place, its device.
type Candidate = (Timestamp, u64, Iccid);

/// Reads a page.
pub(crate) fn list(
    active: &Active,
    connection: &Connection,
    query: &Query,
) -> rusqlite::Result<Listed> {
    // Memory first: what ends after that is found on the disk.
    let mut candidates = Vec::new();
    let mut total = 0;
    if query.shelf != Shelf::Archived {
        candidates = in_memory(active, query);
        total += candidates.len() as u64;
        first(&mut candidates, query);
    }
    if query.shelf != Shelf::Active {
        let seen: HashSet<u64> = candidates.iter().map(|(_, place, _)| *place).collect();
        let (ended, count) = on_disk(connection, query)?;
        total += count;
        candidates.extend(ended.into_iter().filter(|(_, place, _)| !seen.contains(place)));
        first(&mut candidates, query);
    }
    let mut requests = Vec::new();
    for (_, place, device) in candidates.into_iter().skip(query.skip) {
        let shown = match active.view(device, place) {
            Some(request) => Some(request),
            None => table::at(connection, place)?,
        };
        requests.extend(shown.filter(|request| {
            // What has ended in between belongs to another page.
            query.shelf != Shelf::Active || request.status.is_active()
        }));
    }
    Ok(Listed { requests, total })
}

/// Keeps those up to the end of the page, in order.
fn first(candidates: &mut Vec<Candidate>, query: &Query) {
    let end = query.skip.saturating_add(query.take);
    let order = |candidate: &Candidate| (candidate.0, candidate.1);
    if query.descending {
        if candidates.len() > end {
            candidates.select_nth_unstable_by_key(end, |candidate| Reverse(order(candidate)));
        }
        candidates.truncate(end);
        candidates.sort_unstable_by_key(|candidate| Reverse(order(candidate)));
    } else {
        if candidates.len() > end {
            candidates.select_nth_unstable_by_key(end, order);
        }
        candidates.truncate(end);
        candidates.sort_unstable_by_key(order);
    }
}

fn in_memory(active: &Active, query: &Query) -> Vec<Candidate> {
    let mut found = Vec::new();
    active.each(query.device, |device, entry| {
        let Some(status) = entry.status() else { return };
        let protocol = entry.action.protocol();
        let is_wanted = query.status.is_none_or(|wanted| wanted == status)
            && query.protocol.is_none_or(|wanted| wanted == protocol);
        if is_wanted {
            let time = match query.sort {
                SortField::Created => entry.created,
                SortField::Updated => entry.updated,
            };
            found.push((time, entry.place, device));
        }
    });
    found
}

fn on_disk(connection: &Connection, query: &Query) -> rusqlite::Result<(Vec<Candidate>, u64)> {
    // An unlikely status makes the partial indexes usable: they hold what has ended.
    let mut wanted = "status >= 2".to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut and = |column: &str, value: i64| {
        values.push(Value::Integer(value));
        wanted.push_str(&format!(" AND {column} = ?{}", values.len()));
    };
    if let Some(device) = query.device {
        and("iccid", table::number(device));
    }
    if let Some(protocol) = query.protocol {
        and("protocol", table::protocol_code(protocol).into());
    }
    if let Some(status) = query.status {
        and("status", table::status_code(status).into());
    }
    let sql = format!("SELECT count(*) FROM actions WHERE {wanted}");
    let count: i64 = connection.query_row(&sql, params_from_iter(&values), |row| row.get(0))?;
    let column = match query.sort {
        SortField::Created => "created_us",
        SortField::Updated => "updated_us",
    };
    let direction = if query.descending { "DESC" } else { "ASC" };
    let end = query.skip.saturating_add(query.take);
    let sql = format!(
        "SELECT {column}, place, iccid FROM actions WHERE {wanted}
         ORDER BY {column} {direction}, place {direction} LIMIT {end}"
    );
    let mut statement = connection.prepare(&sql)?;
    let found = statement.query_map(params_from_iter(&values), |row| {
        let (time, place, iccid): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((Timestamp::from_micros(time), place.cast_unsigned(), table::device(iccid)?))
    })?;
    Ok((found.collect::<rusqlite::Result<_>>()?, count.cast_unsigned()))
}
