//! Where devices are, and which borders they cross.
//!
//! The [`Reader`] follows the message log: of positions that devices tell (templates, LwM2M object
//! 6) and of cells that the network tells (session reports) it makes `Located` records, and of
//! crossed geofences notices; both go into the log, where whoever pushes finds them. The
//! [`Locator`] answers queries and keeps the customer's geofences. It knows no HTTP.
//!
//! Queries block on files: an asynchronous caller puts them on a thread for blocking work.

mod cells;
mod devices;
mod fences;
mod geofences;
mod held;
mod outputs;
mod queries;
mod reader;
mod sightings;
mod store;
mod world;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cell_database::CellLocator;
pub use cell_database::{CellFix, Measured, MeasuredCell};
use message_log::MessageLog;
use state::StateFile;
use template_library::Templates;
use vocabulary::Iccid;

use cells::Cells;
use devices::Devices;
use fences::Fences;
pub use geofence::InvalidShape;
pub use geofences::{
    Area, Geofence, GeofenceChange, GeofenceError, GeofenceShape, NAME_CHARS_MAX, NewGeofence,
};
pub use held::Held;
pub use outputs::{ENTERED, EXITED, REFUSED};
pub use queries::{BoundingBox, LatestPosition, LatestQuery, PositionsQuery, QueryError};
pub use reader::{Reader, ReaderError, ReaderThread};
use store::Store;
pub use store::StoreError;

/// How devices are located.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cell database; it need not be there yet.
    pub cells: PathBuf,
    /// A device is located by its cell at most this often.
    pub cell_interval: Duration,
    /// Learn where cells are from devices that tell their own position.
    pub learn_cells: bool,
    /// Geofences at most.
    pub geofences_max: usize,
    /// How far behind a border a device must be before it counts as crossed, in metres.
    pub hysteresis_m: f64,
    /// How long it must have been there.
    pub dwell: Duration,
    /// Whether devices are located by their cells; it may change at any time.
    pub by_cells: Arc<AtomicBool>,
    /// Which devices there are; it may change at any time.
    pub held: Held,
}

/// Answers where devices are. Cheap to clone.
#[derive(Clone)]
pub struct Locator(Arc<Parts>);

struct Parts {
    log: MessageLog,
    templates: Templates,
    settings: Settings,
    database: CellLocator,
    /// What the reader and the queries share.
    world: Mutex<World>,
    /// The connection for geofences, which are written at once.
    store: Mutex<Store>,
    file: StateFile,
}

/// All that is known in memory.
struct World {
    devices: Devices,
    fences: Fences,
    cells: Cells,
}

impl Locator {
    /// Opens what is known from earlier starts.
    pub fn open(
        file: &StateFile,
        log: MessageLog,
        templates: Templates,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        let database = CellLocator::open(&settings.cells).or_else(|error| {
            // A file that is damaged must not keep the gateway from starting: it is looked for
            // again and again.
            tracing::error!(%error, "devices are not located by cells");
            CellLocator::open(&settings.cells.with_extension("missing"))
        })?;
        let mut store = Store::open(file)?;
        let saved = store.load()?;
        let world = World {
            devices: Devices::new(saved.devices),
            fences: Fences::new(saved.geofences),
            cells: Cells::new(saved.cells),
        };
        Ok(Self(Arc::new(Parts {
            log,
            templates,
            settings,
            database,
            world: Mutex::new(world),
            store: Mutex::new(store),
            file: file.clone(),
        })))
    }

    /// The reader that goes on where the last one stopped. There must be only one at a time.
    pub fn reader(&self) -> Result<Reader, ReaderError> {
        // Those that were removed while nobody was told.
        self.world().devices.retain(&self.0.settings.held);
        Reader::new(self.clone(), Store::open(&self.0.file)?)
    }

    /// Forgets where a device is and which geofences it is in, once it is not held any more. Its
    /// positions of before stay in the log, as its messages do.
    pub fn forget(&self, device: Iccid) {
        self.world().devices.forget(device);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
