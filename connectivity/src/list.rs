//! Pages of SIMs, for the management API.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension};
use vocabulary::Iccid;

use crate::registry::{SimRegistry, StoreError, lock};
use crate::sim::Sim;
use crate::table::{Counters, blob_of, key_of, sim_columns, sim_of_row};

/// Most SIMs of one page: ten times what the documented API allows, and under 1 MB of memory.
pub const PAGE_SIZE_MAX: u32 = 1_000;

/// By what a list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortField {
    /// The card's number.
    #[default]
    Iccid,
    /// The address, byte by byte; SIMs without address are the lowest.
    Ip,
    /// The subscriber's number; SIMs without are the lowest.
    Imsi,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// The lowest.
    #[default]
    Ascending,
    /// The highest.
    Descending,
}

/// Which SIMs; each given property must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimFilter {
    /// This card.
    pub iccid: Option<Iccid>,
    /// This address.
    pub ip: Option<IpAddr>,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListQuery {
    /// Which SIMs.
    pub filter: SimFilter,
    /// Their order; SIMs that are equal in it are ordered by ICCID.
    pub sort: SortField,
    /// The order's direction.
    pub direction: Direction,
    /// The page, counted from 1; 0 is taken as 1.
    pub page: u32,
    /// SIMs per page, at most [`PAGE_SIZE_MAX`].
    pub page_size: u32,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimPage {
    /// The SIMs; none where the page lies behind the end.
    pub sims: Vec<Sim>,
    /// SIMs on all pages.
    pub total: u64,
}

impl SimRegistry {
    /// One page of SIMs.
    pub fn list(&self, query: &ListQuery) -> Result<SimPage, StoreError> {
        let connection = lock(&self.reader);
        if query.filter != SimFilter::default() {
            // Both properties are unique, so at most one SIM agrees.
            let sim = find(&connection, &query.filter)?;
            let total = u64::from(sim.is_some());
            let sims = sim.filter(|_| query.page <= 1 && query.page_size > 0);
            return Ok(SimPage { sims: sims.into_iter().collect(), total });
        }
        // One transaction, so that the page and the total are of the same moment.
        let transaction = connection.unchecked_transaction()?;
        let size = query.page_size.min(PAGE_SIZE_MAX);
        let offset = i64::from(query.page.saturating_sub(1)) * i64::from(size);
        let sims = transaction
            .prepare(&sql_of(query))?
            .query_map([i64::from(size), offset], sim_of_row)?
            .collect::<Result<_, _>>()?;
        let total = Counters::load(&transaction)?.total;
        Ok(SimPage { sims, total: total.try_into().unwrap_or(0) })
    }
}

fn find(connection: &Connection, filter: &SimFilter) -> rusqlite::Result<Option<Sim>> {
    let ip = filter.ip.map(|ip| ip.to_canonical());
    let sim = if let Some(iccid) = filter.iccid {
        let sql = concat!("SELECT ", sim_columns!(), " FROM sims WHERE iccid = ?1");
        connection.query_row(sql, [key_of(iccid)], sim_of_row)
    } else {
        let sql = concat!("SELECT ", sim_columns!(), " FROM sims WHERE ip = ?1");
        connection.query_row(sql, [ip.map(blob_of)], sim_of_row)
    };
    Ok(sim.optional()?.filter(|sim| ip.is_none() || sim.ip == ip))
}

/// Each order is that of an index, whose entries the pages before are counted in.
fn sql_of(query: &ListQuery) -> String {
    let direction = match query.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    let order = match query.sort {
        SortField::Iccid => format!("iccid {direction}"),
        SortField::Ip => format!("ip {direction}, iccid {direction}"),
        SortField::Imsi => format!("imsi {direction}, iccid {direction}"),
    };
    let columns = sim_columns!();
    format!("SELECT {columns} FROM sims ORDER BY {order} LIMIT ?1 OFFSET ?2")
}
