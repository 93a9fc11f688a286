//! The templates of one gateway: the table, and what readers see of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use energy_saver::{CompileError, Program};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use state::StateFile;
use thiserror::Error;
use vocabulary::{Protocol, Timestamp};

use crate::filter::{FILTERABLE, position};
use crate::program_cache::ProgramCache;
use crate::store::{self, MIGRATIONS};
use crate::{
    NAME_CHARS_MAX, NewTemplate, Patch, ProtocolFilter, Status, StoreError, Template, TemplateId,
    VERSIONS_MAX,
};

/// The templates of one gateway. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Templates {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Connection>,
    active: ArcSwap<Active>,
    cache: ProgramCache,
}

/// The active version of each protocol of [`FILTERABLE`].
type Active = [Option<ActiveVersion>; FILTERABLE.len()];

#[derive(Debug, Clone)]
struct ActiveVersion {
    version: u32,
    /// `None` where this release cannot compile a version that an earlier one accepted.
    program: Option<Arc<Program>>,
}

/// Why the templates could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The state file could not be opened.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The tables could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a template could not be read or changed. Nothing has changed then.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// No such template: the caller's fault.
    #[error("template {id:?} is not known")]
    NotFound {
        /// The id, cut to 64 characters.
        id: String,
    },
    /// Another template has the protocol, active or not: the caller's fault.
    #[error("protocol {protocol} already has the template {by}, allowed: one for each protocol")]
    Conflict {
        /// The protocol.
        protocol: Protocol,
        /// The template that has it.
        by: TemplateId,
    },
    /// The source does not compile: the caller's fault.
    #[error(transparent)]
    Invalid(#[from] CompileError),
    /// The name is too short or too long: the caller's fault.
    #[error("template name of {chars} characters, allowed: 1 to {NAME_CHARS_MAX}")]
    Name {
        /// Characters found.
        chars: usize,
    },
    /// Too many versions are kept: the caller's fault.
    #[error("{versions} template versions are kept, which is the limit")]
    TooManyVersions {
        /// [`VERSIONS_MAX`].
        versions: u32,
    },
    /// The state file: our own fault.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness for an id: our own fault.
    #[error("no randomness for a template id: {0}")]
    Randomness(getrandom::Error),
}

impl From<rusqlite::Error> for TemplateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Templates {
    /// Opens the templates of a state file.
    pub fn open(file: &StateFile) -> Result<Self, OpenError> {
        let connection = file.open(MIGRATIONS)?;
        let cache = ProgramCache::default();
        let active = active_of(&store::list(&connection)?, &cache);
        let shared = Shared {
            connection: Mutex::new(connection),
            active: ArcSwap::from_pointee(active),
            cache,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// All templates, oldest first. There is at most one for each protocol.
    pub fn list(&self) -> Result<Vec<Template>, StoreError> {
        store::list(&self.connection())
    }

    /// One template.
    pub fn find(&self, id: &str) -> Result<Template, TemplateError> {
        find(&self.connection(), id)
    }

    /// Makes a template.
    pub fn create(&self, new: NewTemplate) -> Result<Template, TemplateError> {
        check_name(&new.name)?;
        Program::compile(&new.source)?;
        let id = TemplateId::random().map_err(TemplateError::Randomness)?;
        self.change(|transaction, now| {
            check_conflict(transaction, None, new.protocol_filter)?;
            check_room(transaction)?;
            Ok(store::insert(transaction, id, new, now)?)
        })
    }

    /// Changes a template. A changed source becomes a new version, under which messages are
    /// received from now on; a source that does not compile leaves everything as it was.
    pub fn update(&self, id: &str, patch: Patch) -> Result<Template, TemplateError> {
        if let Some(name) = &patch.name {
            check_name(name)?;
        }
        self.change(|transaction, now| {
            let mut template = find(transaction, id)?;
            if let Some(filter) = patch.protocol_filter {
                check_conflict(transaction, Some(&template.id), filter)?;
                template.protocol_filter = filter;
            }
            template.name = patch.name.unwrap_or(template.name);
            template.status = patch.status.unwrap_or(template.status);
            if let Some(source) = patch.source.filter(|source| *source != template.source) {
                Program::compile(&source)?;
                check_room(transaction)?;
                store::replace_version(transaction, template.version, now)?;
                template.version = store::insert_version(transaction, &source, now)?;
                template.source = source;
            }
            template.updated = now;
            store::update(transaction, &template)?;
            Ok(template)
        })
    }

    /// Deletes a template. Its versions stay: stored messages were received under them.
    pub fn delete(&self, id: &str) -> Result<(), TemplateError> {
        self.change(|transaction, now| {
            let template = find(transaction, id)?;
            Ok(store::delete(transaction, &template, now)?)
        })
    }

    /// Deletes versions that were replaced, or whose template was deleted, before `moment`, and
    /// returns how many. The caller passes the arrival of the oldest message that it still has.
    pub fn forget(&self, moment: Timestamp) -> Result<usize, TemplateError> {
        self.change(|transaction, _| Ok(store::forget(transaction, moment)?))
    }

    /// The version under which a message of this protocol is received now. Never waits.
    pub fn active(&self, protocol: Protocol) -> Option<u32> {
        let position = position(protocol)?;
        self.shared.active.load()[position].as_ref().map(|active| active.version)
    }

    /// The program under which a message of this protocol is received now. Never waits.
    pub fn active_program(&self, protocol: Protocol) -> Option<Arc<Program>> {
        let position = position(protocol)?;
        self.shared.active.load()[position].as_ref().and_then(|active| active.program.clone())
    }

    /// The program of a version; `None` where it is not known or cannot be read. Does not wait for
    /// active versions and those used lately, otherwise reads the state file.
    pub fn program(&self, version: u32) -> Option<Arc<Program>> {
        self.load(version).ok().flatten()
    }

    /// The program of a version, with the reason why it cannot be read.
    pub(crate) fn load(&self, version: u32) -> Result<Option<Arc<Program>>, StoreError> {
        let active = self.shared.active.load();
        let found = active.iter().flatten().find(|active| active.version == version);
        if let Some(program) = found.and_then(|active| active.program.clone()) {
            return Ok(Some(program));
        }
        if let Some(program) = self.shared.cache.find(version) {
            return Ok(Some(program));
        }
        let Some(source) = store::source(&self.connection(), version)? else { return Ok(None) };
        let program = Program::compile(&source).ok().map(Arc::new);
        if let Some(program) = &program {
            self.shared.cache.insert(version, program);
        }
        Ok(program)
    }

    /// Runs a change in a transaction, and shows the result to readers once it is durable.
    fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = change(&transaction, SystemTime::now().into())?;
        let templates = store::list(&transaction)?;
        transaction.commit()?;
        // Only now may a program stand in the cache: a version whose transaction fails is given to
        // the next one. Still under the lock: two changes are shown in the order in which they were
        // made.
        self.shared.active.store(Arc::new(active_of(&templates, &self.shared.cache)));
        Ok(result)
    }

    /// A panic while the lock was held rolled its transaction back: the connection is sound.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What readers see of these templates.
fn active_of(templates: &[Template], cache: &ProgramCache) -> Active {
    FILTERABLE.map(|protocol| {
        let applies = |template: &&Template| {
            template.status == Status::Active && template.protocol_filter.contains(protocol)
        };
        let template = templates.iter().find(applies)?;
        let version = template.version;
        let program = cache.find(version).or_else(|| {
            let program = Arc::new(Program::compile(&template.source).ok()?);
            cache.insert(version, &program);
            Some(program)
        });
        Some(ActiveVersion { version, program })
    })
}

fn find(connection: &Connection, id: &str) -> Result<Template, TemplateError> {
    store::find(connection, id)?
        .ok_or_else(|| TemplateError::NotFound { id: id.chars().take(64).collect() })
}

fn check_name(name: &str) -> Result<(), TemplateError> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(()),
        chars => Err(TemplateError::Name { chars }),
    }
}

/// Refuses a protocol that another template than `own` has.
fn check_conflict(
    connection: &Connection,
    own: Option<&TemplateId>,
    filter: ProtocolFilter,
) -> Result<(), TemplateError> {
    for template in store::list(connection)? {
        if own == Some(&template.id) {
            continue;
        }
        if let Some(protocol) = filter.overlap(template.protocol_filter) {
            return Err(TemplateError::Conflict { protocol, by: template.id });
        }
    }
    Ok(())
}

fn check_room(connection: &Connection) -> Result<(), TemplateError> {
    let versions = store::count_versions(connection)?;
    if versions >= VERSIONS_MAX {
        return Err(TemplateError::TooManyVersions { versions });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const BYTE: &str = r#"{"sense":[{"asset":"n","value":{"byte":0,"type":"uint"}}]}"#;
    const HEX: &str = r#"{"sense":[{"asset":"n","value":{"byte":0,"type":"hex"}}]}"#;

    fn open() -> (TempDir, Templates) {
        let folder = tempfile::tempdir().unwrap();
        let templates = reopen(&folder);
        (folder, templates)
    }

    fn reopen(folder: &TempDir) -> Templates {
        Templates::open(&StateFile::new(folder.path().join("state.db"))).unwrap()
    }

    fn new(source: &str, protocols: &[Protocol]) -> NewTemplate {
        NewTemplate {
            name: "meter".to_owned(),
            source: source.to_owned(),
            status: Status::Active,
            protocol_filter: ProtocolFilter::new(protocols.iter().copied()).unwrap(),
        }
    }

    #[test]
    fn a_template_is_active_for_its_protocols_also_after_a_restart() {
        let (folder, templates) = open();
        assert_eq!(templates.active(Protocol::Udp), None);
        let created = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        for templates in [&templates, &templates.clone(), &reopen(&folder)] {
            assert_eq!(templates.active(Protocol::Udp), Some(created.version));
            assert_eq!(templates.active(Protocol::Coap), None);
            assert_eq!(templates.active(Protocol::Lwm2m), None);
            assert_eq!(templates.list().unwrap(), std::slice::from_ref(&created));
            assert_eq!(templates.find(created.id.as_str()).unwrap(), created);
        }
    }

    #[test]
    fn a_protocol_has_one_template_active_or_not() {
        let (_folder, templates) = open();
        let mut resting = new(BYTE, &[Protocol::Udp]);
        resting.status = Status::Inactive;
        let first = templates.create(resting).unwrap();
        assert_eq!(templates.active(Protocol::Udp), None);
        let error = templates.create(new(BYTE, &[Protocol::Coap, Protocol::Udp])).unwrap_err();
        let text = format!(
            "protocol UDP already has the template {}, allowed: one for each protocol",
            first.id
        );
        assert_eq!(error.to_string(), text);
        let second = templates.create(new(BYTE, &[Protocol::Coap])).unwrap();
        let both = ProtocolFilter::new([Protocol::Coap, Protocol::Udp]).unwrap();
        let patch = Patch { protocol_filter: Some(both), ..Patch::default() };
        let error = templates.update(second.id.as_str(), patch.clone()).unwrap_err();
        assert!(matches!(error, TemplateError::Conflict { protocol: Protocol::Udp, .. }));
        templates.delete(first.id.as_str()).unwrap();
        templates.update(second.id.as_str(), patch).unwrap();
        assert_eq!(templates.active(Protocol::Udp), Some(second.version));
    }

    #[test]
    fn an_invalid_patch_leaves_the_old_version_active() {
        let (_folder, templates) = open();
        let created = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        let patch = Patch {
            name: Some("other".to_owned()),
            source: Some(r#"{"sense":[{"asset":"n","value":{"byte":-1}}]}"#.to_owned()),
            ..Patch::default()
        };
        let error = templates.update(created.id.as_str(), patch).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sense[0].value.byte: -1 is not allowed, allowed: 0 to 65536"
        );
        assert_eq!(templates.list().unwrap(), std::slice::from_ref(&created));
        assert_eq!(templates.active(Protocol::Udp), Some(created.version));
    }

    #[test]
    fn only_another_source_makes_another_version() {
        let (_folder, templates) = open();
        let created = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        let id = created.id.as_str();
        let update = |patch| templates.update(id, patch).unwrap();
        let same = update(Patch {
            name: Some("gauge".to_owned()),
            source: Some(BYTE.to_owned()),
            ..Patch::default()
        });
        assert_eq!((same.version, &*same.name), (created.version, "gauge"));
        let other = update(Patch { source: Some(HEX.to_owned()), ..Patch::default() });
        assert!(other.version > created.version);
        assert_eq!(templates.active(Protocol::Udp), Some(other.version));
        let resting = update(Patch { status: Some(Status::Inactive), ..Patch::default() });
        assert_eq!(resting.version, other.version);
        assert_eq!(templates.active(Protocol::Udp), None);
    }

    #[test]
    fn versions_outlive_their_template_until_forgotten() {
        let (folder, templates) = open();
        let created = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        templates.delete(created.id.as_str()).unwrap();
        assert_eq!(templates.active(Protocol::Udp), None);
        assert_eq!(templates.list().unwrap(), []);
        for call in [templates.find(created.id.as_str()).err(), templates.delete("x").err()] {
            assert!(matches!(call, Some(TemplateError::NotFound { .. })));
        }
        let templates = reopen(&folder);
        assert!(templates.program(created.version).is_some());
        let now = Timestamp::from(SystemTime::now());
        assert_eq!(templates.forget(now).unwrap(), 0);
        let later = now.saturating_add(std::time::Duration::from_secs(2 * 3_600));
        assert_eq!(templates.forget(later).unwrap(), 1);
        assert!(reopen(&folder).program(created.version).is_none());
        // Ids of versions are never used again.
        let next = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        assert!(next.version > created.version);
        assert_eq!(templates.forget(later).unwrap(), 0);
    }

    #[test]
    fn names_have_1_to_64_characters() {
        let (_folder, templates) = open();
        for (name, allowed) in [(String::new(), false), ("ü".repeat(64), true)] {
            let named = NewTemplate { name, ..new(BYTE, &[Protocol::Udp]) };
            assert_eq!(templates.create(named).is_ok(), allowed);
        }
        let id = templates.list().unwrap()[0].id.clone();
        let patch = Patch { name: Some("x".repeat(65)), ..Patch::default() };
        let error = templates.update(id.as_str(), patch).unwrap_err();
        assert_eq!(error.to_string(), "template name of 65 characters, allowed: 1 to 64");
    }

    #[test]
    fn the_number_of_versions_is_limited() {
        let (_folder, templates) = open();
        let created = templates.create(new(BYTE, &[Protocol::Udp])).unwrap();
        templates
            .connection()
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 4096)
                 INSERT INTO template_versions (source, created_us) SELECT '', 0 FROM n",
            )
            .unwrap();
        let patch = Patch { source: Some(HEX.to_owned()), ..Patch::default() };
        let error = templates.update(created.id.as_str(), patch).unwrap_err();
        assert!(matches!(error, TemplateError::TooManyVersions { versions: 4_096 }));
        assert_eq!(templates.active(Protocol::Udp), Some(created.version));
    }
}
