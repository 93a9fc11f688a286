//! The tables, and how those of earlier releases become them.

use rusqlite::{Connection, params};
use sealing::Sealer;
use state::Migrations;

use super::StoreError;
use super::integrations::{digest_of, seal_target};
use crate::target::{Target, WebhookTarget};
use crate::window::Position;

pub(super) const MIGRATIONS: Migrations = Migrations {
    owner: "cloud-integrator",
    scripts: &[
        "CREATE TABLE integrations (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            url TEXT NOT NULL,
            canonical_url TEXT NOT NULL UNIQUE,
            headers TEXT NOT NULL,
            event_types INTEGER NOT NULL,
            json_payload_enabled INTEGER NOT NULL,
            state TEXT NOT NULL,
            created_at_us INTEGER NOT NULL,
            updated_at_us INTEGER NOT NULL,
            first_delivery_at_us INTEGER,
            -- All places of the log below are done, except the holes (8 bytes each, little-endian);
            -- NULL until the integration first runs.
            resume INTEGER,
            holes BLOB
        ) STRICT",
        // What lies in the first table has no other kind than webhooks, unsealed: it is carried
        // over when the store is opened, because SQL cannot seal.
        "ALTER TABLE integrations RENAME TO unsealed_webhooks;
        CREATE TABLE integrations (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            kind TEXT NOT NULL,
            -- Sealed JSON.
            target BLOB NOT NULL,
            -- SHA-256 of what no two integrations may share; NULL where there is nothing yet.
            target_digest BLOB UNIQUE,
            event_types INTEGER NOT NULL,
            json_payload_enabled INTEGER NOT NULL,
            -- JSON.
            delivery TEXT NOT NULL,
            state TEXT NOT NULL,
            paused INTEGER NOT NULL,
            -- Why it has failed.
            error TEXT,
            -- SHA-256 of the token that finishes a rollout, and until when it does.
            rollout_digest BLOB UNIQUE,
            rollout_until_us INTEGER,
            created_at_us INTEGER NOT NULL,
            updated_at_us INTEGER NOT NULL,
            first_delivery_at_us INTEGER,
            -- How far it has come in the log; NULL until it first runs.
            position BLOB,
            -- Which devices had a backlog.
            filter BLOB,
            -- Since when nothing was delivered although it was tried, and what was told about it.
            trouble_since_us INTEGER,
            trouble_told INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE TABLE replays (
            id TEXT PRIMARY KEY,
            integration TEXT NOT NULL REFERENCES integrations ON DELETE CASCADE,
            -- JSON.
            source TEXT NOT NULL,
            versions TEXT NOT NULL,
            state TEXT NOT NULL,
            created_at_us INTEGER NOT NULL,
            ended_at_us INTEGER,
            position BLOB,
            delivered INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0,
            passed_over INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE INDEX replays_by_integration ON replays (integration);
        CREATE TABLE dead_letters (
            integration TEXT NOT NULL REFERENCES integrations ON DELETE CASCADE,
            place INTEGER NOT NULL,
            id TEXT NOT NULL,
            device INTEGER NOT NULL,
            event_type TEXT NOT NULL,
            received_at_us INTEGER NOT NULL,
            died_at_us INTEGER NOT NULL,
            class TEXT NOT NULL,
            reason TEXT NOT NULL,
            answer_code INTEGER,
            answer TEXT,
            attempts INTEGER NOT NULL,
            -- The replay that is to deliver it.
            replay TEXT,
            PRIMARY KEY (integration, place)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX dead_letters_by_replay ON dead_letters (replay, place)
            WHERE replay IS NOT NULL;",
        // How long the trouble has lasted while the gateway ran.
        "ALTER TABLE integrations ADD COLUMN trouble_lasted_us INTEGER NOT NULL DEFAULT 0",
    ],
};

/// Carries webhooks of earlier releases over, sealed.
pub(super) fn seal_unsealed(
    connection: &mut Connection,
    sealer: &Sealer,
) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let found = unsealed(&transaction)?;
    if found.is_empty() {
        return Ok(());
    }
    for webhook in found {
        let Unsealed { id, url, canonical_url, headers, resume, holes } = webhook;
        let headers = serde_json::from_str(&headers)
            .map_err(|_| StoreError::Row { id: id.clone(), field: "headers" })?;
        let target = Target::Webhook(WebhookTarget { url, headers, ..WebhookTarget::default() });
        let position = resume.map(|resume| position_of(resume, &holes.unwrap_or_default()));
        transaction.execute(
            "INSERT INTO integrations (id, name, kind, target, target_digest, event_types,
                json_payload_enabled, delivery, state, paused, created_at_us, updated_at_us,
                first_delivery_at_us, position)
             SELECT id, name, 'WEBHOOK', ?2, ?3, event_types, json_payload_enabled, '{}', state, 0,
                created_at_us, updated_at_us, first_delivery_at_us, ?4
             FROM unsealed_webhooks WHERE id = ?1",
            params![
                id,
                seal_target(sealer, &id, &target)?,
                digest_of(&canonical_url),
                position.map(|position| position.encode()),
            ],
        )?;
        transaction.execute("DELETE FROM unsealed_webhooks WHERE id = ?1", [id])?;
    }
    transaction.commit()?;
    // What an earlier release freed, and the write-ahead log, still hold them readable.
    Ok(connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?)
}

/// A webhook as the first release kept it.
struct Unsealed {
    id: String,
    url: String,
    canonical_url: String,
    headers: String,
    resume: Option<i64>,
    holes: Option<Vec<u8>>,
}

fn unsealed(connection: &Connection) -> rusqlite::Result<Vec<Unsealed>> {
    let mut statement = connection
        .prepare("SELECT id, url, canonical_url, headers, resume, holes FROM unsealed_webhooks")?;
    let rows = statement.query_map((), |row| {
        Ok(Unsealed {
            id: row.get(0)?,
            url: row.get(1)?,
            canonical_url: row.get(2)?,
            headers: row.get(3)?,
            resume: row.get(4)?,
            holes: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn position_of(resume: i64, holes: &[u8]) -> Position {
    let (holes, _) = holes.as_chunks();
    let holes = holes.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    Position { resume: super::from_column(resume), holes, ..Position::default() }
}

#[cfg(test)]
mod tests {
    use state::StateFile;

    use super::super::tests::sealer;
    use super::*;
    use crate::store::Store;

    /// A release that sealed nothing kept URLs and headers as they were.
    #[test]
    fn webhooks_of_the_first_release_are_carried_over_and_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        let first = Migrations { owner: MIGRATIONS.owner, scripts: &MIGRATIONS.scripts[..1] };
        let connection = file.open(first).unwrap();
        connection
            .execute(
                "INSERT INTO integrations VALUES ('one', 'a name', 'https://h.example/s3cret',
                    'https://h.example/s3cret', '{\"x-api-key\":\"s3cret\"}', 31, 1,
                    'INTEGRATION_ACTIVE', 5, 6, 7, 500, ?1)",
                [[9_u64, 400].map(u64::to_le_bytes).concat()],
            )
            .unwrap();
        drop(connection);
        for _ in 0..2 {
            let store = Store::open(&file, sealer()).unwrap();
            let one = store.find("one").unwrap().unwrap();
            let Target::Webhook(webhook) = &one.target else { panic!("{:?}", one.target) };
            assert_eq!(webhook.url, "https://h.example/s3cret");
            assert_eq!(webhook.headers["x-api-key"], "s3cret");
            assert_eq!(one.first_delivery_at.unwrap().as_micros(), 7);
            let position = store.bookmark("one").load().unwrap().position.unwrap();
            assert_eq!((position.resume, position.holes), (500, vec![9, 400]));
        }
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let is_readable = bytes.windows(6).any(|window| window == b"s3cret");
            assert!(!is_readable, "{:?}", entry.path());
        }
    }
}
