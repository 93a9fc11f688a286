//! The table of images.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use vocabulary::Timestamp;

use crate::images::{Digest, Image};

const COLUMNS: &str = "SELECT digest, name, version, bytes, created_us FROM firmware_images";

fn read(row: &Row<'_>) -> rusqlite::Result<Image> {
    let bytes: i64 = row.get(3)?;
    Ok(Image {
        digest: Digest(row.get(0)?),
        name: row.get(1)?,
        version: row.get(2)?,
        bytes: bytes.cast_unsigned(),
        created: Timestamp::from_micros(row.get(4)?),
    })
}

pub(crate) fn list(connection: &Connection) -> rusqlite::Result<Vec<Image>> {
    let sql = format!("{COLUMNS} ORDER BY created_us DESC, digest");
    connection.prepare(&sql)?.query_map((), read)?.collect()
}

pub(crate) fn find(connection: &Connection, digest: Digest) -> rusqlite::Result<Option<Image>> {
    let sql = format!("{COLUMNS} WHERE digest = ?1");
    connection.query_row(&sql, [digest.0], read).optional()
}

pub(crate) fn count(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT count(*) FROM firmware_images", (), |row| row.get(0))
}

pub(crate) fn add(connection: &Connection, image: &Image) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO firmware_images (digest, name, version, bytes, created_us)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                image.digest.0,
                image.name,
                image.version,
                image.bytes.cast_signed(),
                image.created.as_micros()
            ],
        )
        .map(drop)
}

pub(crate) fn remove(connection: &Connection, digest: Digest) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM firmware_images WHERE digest = ?1", [digest.0]).map(drop)
}

/// Whether a job that has not ended needs it.
pub(crate) fn is_used(connection: &Connection, digest: Digest) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM firmware_jobs WHERE digest = ?1 AND state <= 1)";
    connection.query_row(sql, [digest.0], |row| row.get(0))
}
