//! The tables of templates.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use state::Migrations;
use thiserror::Error;
use vocabulary::Timestamp;

use crate::{NewTemplate, ProtocolFilter, Template, TemplateId};

/// The state file refused to read or write.
#[derive(Debug, Error)]
#[error("templates in the state file: {0}")]
pub struct StoreError(#[from] pub(crate) rusqlite::Error);

/// Versions are never used twice (`AUTOINCREMENT`): a stored message may name one.
pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "templates",
    scripts: &["CREATE TABLE templates (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            status TEXT NOT NULL,
            protocols INTEGER NOT NULL,
            version INTEGER NOT NULL,
            created_us INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            deleted_us INTEGER
        ) STRICT;
        CREATE TABLE template_versions (
            version INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL,
            created_us INTEGER NOT NULL,
            replaced_us INTEGER
        ) STRICT;"],
};

const COLUMNS: &str = "SELECT id, name, status, protocols, templates.version, templates.created_us,
        updated_us, source
    FROM templates JOIN template_versions ON template_versions.version = templates.version
    WHERE deleted_us IS NULL";

/// All templates, oldest first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<Template>, StoreError> {
    let mut statement =
        connection.prepare(&format!("{COLUMNS} ORDER BY templates.created_us, id"))?;
    let templates = statement.query_map((), read)?.collect::<Result<_, _>>()?;
    Ok(templates)
}

/// One template.
pub(crate) fn find(connection: &Connection, id: &str) -> Result<Option<Template>, StoreError> {
    let mut statement = connection.prepare(&format!("{COLUMNS} AND id = ?1"))?;
    Ok(statement.query_row([id], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Template> {
    let unreadable =
        |column, kind| rusqlite::Error::InvalidColumnType(column, "templates".to_owned(), kind);
    let status: String = row.get(2)?;
    Ok(Template {
        id: row.get(0)?,
        name: row.get(1)?,
        status: status.parse().map_err(|_| unreadable(2, rusqlite::types::Type::Text))?,
        protocol_filter: ProtocolFilter::from_bits(row.get(3)?)
            .ok_or_else(|| unreadable(3, rusqlite::types::Type::Integer))?,
        version: row.get(4)?,
        created: Timestamp::from_micros(row.get(5)?),
        updated: Timestamp::from_micros(row.get(6)?),
        source: row.get(7)?,
    })
}

/// Adds a template with its first version.
pub(crate) fn insert(
    connection: &Connection,
    id: TemplateId,
    new: NewTemplate,
    now: Timestamp,
) -> Result<Template, StoreError> {
    let version = insert_version(connection, &new.source, now)?;
    connection.execute(
        "INSERT INTO templates (id, name, status, protocols, version, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![
            id,
            new.name,
            new.status.as_str(),
            new.protocol_filter.bits(),
            version,
            now.as_micros()
        ],
    )?;
    let NewTemplate { name, source, status, protocol_filter } = new;
    Ok(Template { id, name, source, status, protocol_filter, version, created: now, updated: now })
}

/// Writes what may change of a template.
pub(crate) fn update(connection: &Connection, template: &Template) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE templates SET name = ?2, status = ?3, protocols = ?4, version = ?5, updated_us = ?6
         WHERE id = ?1",
        params![
            template.id,
            template.name,
            template.status.as_str(),
            template.protocol_filter.bits(),
            template.version,
            template.updated.as_micros()
        ],
    )?;
    Ok(())
}

/// Marks a template as deleted and its version as replaced.
pub(crate) fn delete(
    connection: &Connection,
    template: &Template,
    now: Timestamp,
) -> Result<(), StoreError> {
    replace_version(connection, template.version, now)?;
    connection.execute(
        "UPDATE templates SET deleted_us = ?2 WHERE id = ?1",
        params![template.id, now.as_micros()],
    )?;
    Ok(())
}

/// Adds a version and returns its id.
pub(crate) fn insert_version(
    connection: &Connection,
    source: &str,
    now: Timestamp,
) -> Result<u32, StoreError> {
    let version = connection.query_row(
        "INSERT INTO template_versions (source, created_us) VALUES (?1, ?2) RETURNING version",
        params![source, now.as_micros()],
        |row| row.get(0),
    )?;
    Ok(version)
}

/// Notes that no message arrives under this version any more.
pub(crate) fn replace_version(
    connection: &Connection,
    version: u32,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE template_versions SET replaced_us = ?2 WHERE version = ?1",
        params![version, now.as_micros()],
    )?;
    Ok(())
}

/// How many versions there are.
pub(crate) fn count_versions(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("SELECT count(*) FROM template_versions", (), |row| row.get(0))?)
}

/// The source of a version.
pub(crate) fn source(connection: &Connection, version: u32) -> Result<Option<String>, StoreError> {
    let mut statement =
        connection.prepare("SELECT source FROM template_versions WHERE version = ?1")?;
    Ok(statement.query_row([version], |row| row.get(0)).optional()?)
}

/// Messages may still arrive under a version for this long after it was noted as replaced: the
/// note is written before the readers see the new version. A commit waits at most five seconds for
/// other writers; an hour is far beyond.
const REPLACED_MARGIN: Duration = Duration::from_secs(3_600);

/// Deletes versions that were replaced before `moment`, and deleted templates left without one.
pub(crate) fn forget(connection: &Connection, moment: Timestamp) -> Result<usize, StoreError> {
    let forgotten = connection.execute(
        "DELETE FROM template_versions WHERE replaced_us < ?1",
        params![moment.saturating_sub(REPLACED_MARGIN).as_micros()],
    )?;
    connection.execute(
        "DELETE FROM templates WHERE deleted_us IS NOT NULL
         AND version NOT IN (SELECT version FROM template_versions)",
        (),
    )?;
    Ok(forgotten)
}
