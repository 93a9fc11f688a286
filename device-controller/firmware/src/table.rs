//! The tables of jobs, their devices and their timelines.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use state::Migrations;
use vocabulary::{Iccid, Timestamp};

use crate::device::{Delivery, ENTRIES_MAX, Entry, Progress, Stage};
use crate::images::{Digest, Image};
use crate::job::{Counts, DeviceState, Job, JobDevice, JobState, NewJob};
use crate::plan::{Method, Patience};

pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "firmware",
    scripts: &["CREATE TABLE firmware_images (
            digest BLOB PRIMARY KEY,
            name TEXT NOT NULL,
            version TEXT,
            bytes INTEGER NOT NULL,
            created_us INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE firmware_jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            public TEXT NOT NULL UNIQUE,
            digest BLOB NOT NULL,
            image_name TEXT NOT NULL,
            image_version TEXT,
            method INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            pause_s INTEGER NOT NULL,
            deadline_s INTEGER NOT NULL,
            download_s INTEGER NOT NULL,
            install_s INTEGER NOT NULL,
            parallel_max INTEGER NOT NULL,
            stop_percent INTEGER,
            require_version INTEGER NOT NULL,
            state INTEGER NOT NULL,
            reason TEXT,
            created_us INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            -- What had ended and failed when a user last let the job go on.
            ended_before INTEGER NOT NULL DEFAULT 0,
            failed_before INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE TABLE firmware_devices (
            job INTEGER NOT NULL,
            iccid INTEGER NOT NULL,
            state INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            entries_left INTEGER NOT NULL,
            -- NULL before its turn.
            stage INTEGER,
            attempt INTEGER,
            started_us INTEGER,
            since_us INTEGER,
            delivery INTEGER,
            version_before TEXT,
            version_after TEXT,
            stale_result INTEGER,
            zero_seen INTEGER,
            moved INTEGER,
            push_only INTEGER,
            bytes INTEGER,
            failure TEXT,
            PRIMARY KEY (job, iccid)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX firmware_devices_by_state ON firmware_devices (job, state);
        -- A device belongs to one job at a time.
        CREATE UNIQUE INDEX firmware_devices_under_way ON firmware_devices (iccid)
            WHERE state <= 2;
        CREATE TABLE firmware_timeline (
            id INTEGER PRIMARY KEY,
            job INTEGER NOT NULL,
            iccid INTEGER NOT NULL,
            at_us INTEGER NOT NULL,
            stage INTEGER NOT NULL,
            text TEXT NOT NULL
        ) STRICT;
        CREATE INDEX firmware_timeline_of_device ON firmware_timeline (job, iccid, id);"],
};

/// A device as it lies in the file.
#[derive(Debug, Clone)]
pub(crate) struct DeviceRow {
    pub(crate) device: JobDevice,
    pub(crate) entries_left: u32,
}

/// A job as it lies in the file.
pub(crate) struct JobRow {
    pub(crate) number: i64,
    pub(crate) job: Job,
    pub(crate) ended_before: u32,
    pub(crate) failed_before: u32,
}

const JOB_COLUMNS: &str = "SELECT id, public, digest, image_name, image_version, method, attempts,
        pause_s, deadline_s, download_s, install_s, parallel_max, stop_percent, require_version,
        state, reason, created_us, updated_us, ended_before, failed_before
    FROM firmware_jobs";

const DEVICE_COLUMNS: &str = "SELECT iccid, state, updated_us, entries_left, stage, attempt,
        started_us, since_us, delivery, version_before, version_after, stale_result, zero_seen,
        moved, push_only, bytes, failure
    FROM firmware_devices";

fn unreadable(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "firmware".to_owned(), Type::Integer)
}

pub(crate) fn number(iccid: Iccid) -> i64 {
    iccid.as_u64().cast_signed()
}

fn iccid(row: &Row<'_>, column: usize) -> rusqlite::Result<Iccid> {
    let number: i64 = row.get(column)?;
    Iccid::from_u64(number.cast_unsigned()).ok_or_else(|| unreadable(column))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

fn seconds(row: &Row<'_>, column: usize) -> rusqlite::Result<Duration> {
    Ok(Duration::from_secs(row.get::<_, u32>(column)?.into()))
}

fn job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let patience = Patience {
        attempts: row.get(6)?,
        pause: seconds(row, 7)?,
        deadline: seconds(row, 8)?,
        download: seconds(row, 9)?,
        install: seconds(row, 10)?,
    };
    let job = Job {
        id: row.get(1)?,
        image: Digest(row.get(2)?),
        image_name: row.get(3)?,
        image_version: row.get(4)?,
        method: Method::from_code(row.get(5)?).ok_or_else(|| unreadable(5))?,
        patience,
        parallel_max: row.get(11)?,
        stop_percent: row.get(12)?,
        require_version: row.get(13)?,
        state: JobState::from_code(row.get(14)?).ok_or_else(|| unreadable(14))?,
        reason: row.get(15)?,
        created: time(row, 16)?,
        updated: time(row, 17)?,
        counts: Counts::default(),
    };
    let (ended_before, failed_before) = (row.get(18)?, row.get(19)?);
    Ok(JobRow { number: row.get(0)?, job, ended_before, failed_before })
}

fn progress(row: &Row<'_>) -> rusqlite::Result<Option<Progress>> {
    let Some(stage) = row.get::<_, Option<u8>>(4)? else { return Ok(None) };
    let bytes: i64 = row.get(15)?;
    Ok(Some(Progress {
        stage: Stage::from_code(stage).ok_or_else(|| unreadable(4))?,
        attempt: row.get(5)?,
        started: time(row, 6)?,
        since: time(row, 7)?,
        delivery: row.get::<_, Option<u8>>(8)?.and_then(Delivery::from_code),
        version_before: row.get(9)?,
        version_after: row.get(10)?,
        stale_result: row.get(11)?,
        zero_seen: row.get(12)?,
        moved: row.get(13)?,
        push_only: row.get(14)?,
        bytes: bytes.cast_unsigned(),
        failure: row.get(16)?,
    }))
}

fn device(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    let device = JobDevice {
        iccid: iccid(row, 0)?,
        state: DeviceState::from_code(row.get(1)?).ok_or_else(|| unreadable(1))?,
        progress: progress(row)?,
        updated: time(row, 2)?,
    };
    Ok(DeviceRow { device, entries_left: row.get(3)? })
}

/// Adds a job with all its devices; gives its number.
pub(crate) fn add_job(
    connection: &Connection,
    (public, image): (&str, &Image),
    new: &NewJob,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let patience = &new.patience;
    connection.execute(
        "INSERT INTO firmware_jobs (public, digest, image_name, image_version, method, attempts,
            pause_s, deadline_s, download_s, install_s, parallel_max, stop_percent,
            require_version, state, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, ?14, ?14)",
        params![
            public,
            image.digest.0,
            image.name,
            image.version,
            new.method.code(),
            patience.attempts,
            patience.pause.as_secs().cast_signed(),
            patience.deadline.as_secs().cast_signed(),
            patience.download.as_secs().cast_signed(),
            patience.install.as_secs().cast_signed(),
            new.parallel_max,
            new.stop_percent,
            new.require_version,
            now.as_micros(),
        ],
    )?;
    let job = connection.last_insert_rowid();
    let mut insert = connection.prepare(
        "INSERT INTO firmware_devices (job, iccid, state, updated_us, entries_left)
         VALUES (?1, ?2, 0, ?3, ?4)",
    )?;
    for iccid in &new.devices {
        insert.execute((job, number(*iccid), now.as_micros(), ENTRIES_MAX))?;
    }
    Ok(job)
}

/// Which of `devices` another job has: the first, and how many.
pub(crate) fn busy(
    connection: &Connection,
    devices: &[Iccid],
) -> rusqlite::Result<Option<(Iccid, usize)>> {
    let mut find = connection.prepare(
        "SELECT EXISTS (SELECT 1 FROM firmware_devices WHERE iccid = ?1 AND state <= 2)",
    )?;
    let mut found = None;
    for iccid in devices {
        if find.query_row([number(*iccid)], |row| row.get::<_, bool>(0))? {
            found.get_or_insert((*iccid, 0)).1 += 1;
        }
    }
    Ok(found)
}

pub(crate) fn jobs(
    connection: &Connection,
    skip: usize,
    take: usize,
) -> rusqlite::Result<(Vec<Job>, u64)> {
    let total: u32 =
        connection.query_row("SELECT count(*) FROM firmware_jobs", (), |row| row.get(0))?;
    let sql = format!("{JOB_COLUMNS} ORDER BY id DESC LIMIT ?1 OFFSET ?2");
    let mut statement = connection.prepare(&sql)?;
    let limits = [i64::try_from(take), i64::try_from(skip)].map(|limit| limit.unwrap_or(i64::MAX));
    let rows = statement.query_map(limits, job)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let counted = rows.into_iter().map(|row| with_counts(connection, row));
    let jobs = counted.map(|row| row.map(|row| row.job)).collect::<rusqlite::Result<_>>()?;
    Ok((jobs, total.into()))
}

pub(crate) fn find_job(connection: &Connection, public: &str) -> rusqlite::Result<Option<JobRow>> {
    let sql = format!("{JOB_COLUMNS} WHERE public = ?1");
    let found = connection.query_row(&sql, [public], job).optional()?;
    found.map(|row| with_counts(connection, row)).transpose()
}

/// Jobs that have not ended, in the order in which they were started.
pub(crate) fn under_way(connection: &Connection) -> rusqlite::Result<Vec<JobRow>> {
    let sql = format!("{JOB_COLUMNS} WHERE state <= 1 ORDER BY id");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map((), job)?.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().map(|row| with_counts(connection, row)).collect()
}

fn with_counts(connection: &Connection, mut row: JobRow) -> rusqlite::Result<JobRow> {
    let mut statement = connection
        .prepare("SELECT state, count(*) FROM firmware_devices WHERE job = ?1 GROUP BY state")?;
    let counts = statement.query_map([row.number], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for count in counts {
        let (state, count) = count?;
        row.job.counts.set(DeviceState::from_code(state).ok_or_else(|| unreadable(0))?, count);
    }
    Ok(row)
}

/// Writes the state of a job.
pub(crate) fn put_job(connection: &Connection, row: &JobRow) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "UPDATE firmware_jobs SET state = ?2, reason = ?3, updated_us = ?4, ended_before = ?5,
            failed_before = ?6
         WHERE id = ?1",
    )?;
    statement.execute(params![
        row.number,
        row.job.state.code(),
        row.job.reason,
        row.job.updated.as_micros(),
        row.ended_before,
        row.failed_before,
    ])?;
    Ok(())
}

/// Devices of a job that have not ended.
pub(crate) fn unfinished(connection: &Connection, job: i64) -> rusqlite::Result<Vec<DeviceRow>> {
    let sql = format!("{DEVICE_COLUMNS} WHERE job = ?1 AND state <= 2 ORDER BY iccid");
    connection.prepare(&sql)?.query_map([job], device)?.collect()
}

/// A page of the devices of a job, all or those in one state, and how many those are.
pub(crate) fn devices(
    connection: &Connection,
    job: i64,
    state: Option<DeviceState>,
    (skip, take): (usize, usize),
) -> rusqlite::Result<(Vec<JobDevice>, u64)> {
    let which = "WHERE job = ?1 AND (?2 IS NULL OR state = ?2)";
    let state = state.map(DeviceState::code);
    let sql = format!("SELECT count(*) FROM firmware_devices {which}");
    let total: u32 = connection.query_row(&sql, (job, state), |row| row.get(0))?;
    let sql = format!("{DEVICE_COLUMNS} {which} ORDER BY iccid LIMIT ?3 OFFSET ?4");
    let [take, skip] = [take, skip].map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map((job, state, take, skip), |row| Ok(device(row)?.device))?;
    Ok((rows.collect::<rusqlite::Result<_>>()?, total.into()))
}

pub(crate) fn find_device(
    connection: &Connection,
    job: i64,
    iccid: Iccid,
) -> rusqlite::Result<Option<JobDevice>> {
    let sql = format!("{DEVICE_COLUMNS} WHERE job = ?1 AND iccid = ?2");
    let read = |row: &Row<'_>| Ok(device(row)?.device);
    connection.query_row(&sql, (job, number(iccid)), read).optional()
}

pub(crate) fn put_device(
    connection: &Connection,
    job: i64,
    row: &DeviceRow,
) -> rusqlite::Result<()> {
    let Some(progress) = &row.device.progress else { return Ok(()) };
    let mut statement = connection.prepare(
        "UPDATE firmware_devices SET state = ?3, updated_us = ?4, entries_left = ?5, stage = ?6,
            attempt = ?7, started_us = ?8, since_us = ?9, delivery = ?10, version_before = ?11,
            version_after = ?12, stale_result = ?13, zero_seen = ?14, moved = ?15,
            push_only = ?16, bytes = ?17, failure = ?18
         WHERE job = ?1 AND iccid = ?2",
    )?;
    statement.execute(params![
        job,
        number(row.device.iccid),
        row.device.state.code(),
        row.device.updated.as_micros(),
        row.entries_left,
        progress.stage.code(),
        progress.attempt,
        progress.started.as_micros(),
        progress.since.as_micros(),
        progress.delivery.map(Delivery::code),
        progress.version_before,
        progress.version_after,
        progress.stale_result,
        progress.zero_seen,
        progress.moved,
        progress.push_only,
        progress.bytes.cast_signed(),
        progress.failure,
    ])?;
    Ok(())
}

/// Ends devices whose turn had not come.
pub(crate) fn end_waiting(
    connection: &Connection,
    job: i64,
    state: DeviceState,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE firmware_devices SET state = ?2, updated_us = ?3 WHERE job = ?1 AND state = 0";
    connection.execute(sql, (job, state.code(), now.as_micros())).map(drop)
}

/// Time that a job was paused does not count.
pub(crate) fn shift(connection: &Connection, job: i64, span: Duration) -> rusqlite::Result<()> {
    let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    let sql = "UPDATE firmware_devices SET started_us = started_us + ?2
        WHERE job = ?1 AND state <= 2 AND started_us IS NOT NULL";
    connection.execute(sql, (job, micros)).map(drop)
}

pub(crate) fn add_entry(
    connection: &Connection,
    job: i64,
    iccid: Iccid,
    entry: &Entry,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "INSERT INTO firmware_timeline (job, iccid, at_us, stage, text) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let Entry { at, stage, text } = entry;
    statement.execute((job, number(iccid), at.as_micros(), stage.code(), text)).map(drop)
}

pub(crate) fn timeline(
    connection: &Connection,
    job: i64,
    iccid: Iccid,
) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare(
        "SELECT at_us, stage, text FROM firmware_timeline WHERE job = ?1 AND iccid = ?2
         ORDER BY id",
    )?;
    let read = |row: &Row<'_>| {
        let stage = Stage::from_code(row.get(1)?).ok_or_else(|| unreadable(1))?;
        Ok(Entry { at: time(row, 0)?, stage, text: row.get(2)? })
    };
    statement.query_map((job, number(iccid)), read)?.collect()
}

/// Forgets the oldest jobs that have ended, so that `kept` jobs are left.
pub(crate) fn forget(connection: &Connection, kept: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT id FROM firmware_jobs WHERE state > 1 ORDER BY id DESC LIMIT -1 OFFSET ?1",
    )?;
    let old = statement.query_map([kept], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for job in old {
        for table in ["firmware_timeline", "firmware_devices"] {
            connection.execute(&format!("DELETE FROM {table} WHERE job = ?1"), [job])?;
        }
        connection.execute("DELETE FROM firmware_jobs WHERE id = ?1", [job])?;
    }
    Ok(())
}
