//! What the account can switch on and off.
//!
//! A switch lies in the state file and in memory: whoever acts by it, on the way of a message,
//! reads an atomic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use state::{Migrations, StateFile};
use thiserror::Error;

const MIGRATIONS: Migrations = Migrations {
    owner: "switches",
    scripts: &["CREATE TABLE switches (
            name    TEXT PRIMARY KEY,
            enabled INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;"],
};

/// Something that can be on or off. Everything is off at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Whether a device is asked for all that it has at each registration and update.
    Lwm2mPassiveReporting,
    /// Whether devices are located by their cells.
    CellTowerLocation,
}

/// The switches of the account. Clones share them.
///
/// One process at a time turns them: another one is not told.
#[derive(Debug, Clone)]
pub struct Switches(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    connection: Mutex<Connection>,
    passive_reporting: Arc<AtomicBool>,
    cell_tower_location: Arc<AtomicBool>,
}

/// Why switches cannot be read.
#[derive(Debug, Error)]
pub enum OpenSwitchesError {
    /// The state file does not open.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The state file cannot be read.
    #[error("switches in the state file: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl Switch {
    /// Every switch.
    pub const ALL: [Self; 2] = [Self::Lwm2mPassiveReporting, Self::CellTowerLocation];

    /// The name in the management API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lwm2mPassiveReporting => "LWM2M_PASSIVE_REPORTING",
            Self::CellTowerLocation => "CELL_TOWER_LOCATION",
        }
    }

    /// The switch of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|switch| switch.name() == name)
    }
}

impl Switches {
    /// Opens the switches in the state file.
    pub fn open(state: &StateFile) -> Result<Self, OpenSwitchesError> {
        let connection = state.open(MIGRATIONS)?;
        let is_on = |switch: Switch| -> rusqlite::Result<bool> {
            let sql = "SELECT count(*) FROM switches WHERE name = ?1 AND enabled = 1";
            connection.query_row(sql, [switch.name()], |row| row.get(0))
        };
        let handle = |switch| is_on(switch).map(|on| Arc::new(AtomicBool::new(on)));
        let passive_reporting = handle(Switch::Lwm2mPassiveReporting)?;
        let cell_tower_location = handle(Switch::CellTowerLocation)?;
        let connection = Mutex::new(connection);
        Ok(Self(Arc::new(Parts { connection, passive_reporting, cell_tower_location })))
    }

    /// Turns a switch. Blocks; durable when it returns.
    pub fn set(&self, switch: Switch, enabled: bool) -> Result<(), rusqlite::Error> {
        // Held until memory follows, so that both see changes in one order.
        let connection = self.0.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.execute(
            "INSERT INTO switches (name, enabled) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled",
            (switch.name(), enabled),
        )?;
        self.handle(switch).store(enabled, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, switch: Switch) -> bool {
        self.handle(switch).load(Ordering::Relaxed)
    }

    /// The switch as whoever acts by it reads it: true is on.
    pub fn handle(&self, switch: Switch) -> Arc<AtomicBool> {
        match switch {
            Switch::Lwm2mPassiveReporting => Arc::clone(&self.0.passive_reporting),
            Switch::CellTowerLocation => Arc::clone(&self.0.cell_tower_location),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFile::new(folder.path().join("state.db"));
        let switch = Switch::Lwm2mPassiveReporting;
        let switches = Switches::open(&state).unwrap();
        let handle = switches.handle(switch);
        assert!(!switches.is_on(switch));
        switches.set(switch, true).unwrap();
        assert!(handle.load(Ordering::Relaxed));
        drop(switches);
        let switches = Switches::open(&state).unwrap();
        assert!(switches.is_on(switch));
        switches.set(switch, false).unwrap();
        assert!(!Switches::open(&state).unwrap().is_on(switch));
    }
}
