//! The part of the command line about devices on the road.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Args;
use radius::{Secret, WeakSecret};

use crate::accounting::PacketCore;
use crate::arguments::SimulateError;
use crate::drive::{Drive, RouteError};
use crate::fleet::Fleet;

/// What the devices do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Scenario {
    /// They send what --payload says.
    #[default]
    Steady,
    /// They drive round a route and send where they are, 16 bytes: latitude and longitude.
    Drive,
}

/// Devices on the road.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Scenario drive")]
pub struct DriveArguments {
    /// The route, a GeoJSON LineString; its end leads back to its beginning [default: on the Rhine]
    #[arg(long, value_name = "FILE")]
    pub route: Option<PathBuf>,
    /// Metres that a device drives between two of its messages
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub step: u32,
    /// Tell sessions and cells by RADIUS accounting, besides
    #[arg(long, value_name = "ADDRESS:PORT", requires = "radius_secret")]
    pub radius: Option<SocketAddr>,
    /// The shared secret of that
    #[arg(long, value_name = "SECRET")]
    pub radius_secret: Option<String>,
    /// Write the cells along the route into this file, as `simgate cells import` reads them, and
    /// send nothing
    #[arg(long, value_name = "FILE")]
    pub write_cells: Option<PathBuf>,
    /// Print the template that reads the positions, and send nothing
    #[arg(long)]
    pub print_template: bool,
}

impl DriveArguments {
    /// The route with so many devices on it.
    pub(crate) fn drive(&self, devices: u32) -> Result<Drive, RouteError> {
        Drive::new(self.route.as_deref(), devices, self.step)
    }

    /// The packet core, if there is to be one.
    pub(crate) fn packet_core(
        &self,
        (fleet, drive): (Fleet, Drive),
        sent: &Arc<AtomicU64>,
    ) -> Result<Option<PacketCore>, SimulateError> {
        let Some((to, secret)) = self.radius.zip(self.radius_secret.as_ref()) else {
            return Ok(None);
        };
        let secret: Result<Secret, WeakSecret> = Secret::new(secret.as_bytes(), true);
        let secret = secret.map_err(|error| SimulateError::Secret(error.to_string()))?;
        let core = PacketCore::start((to, secret), (fleet, drive), Arc::clone(sent));
        core.map(Some).map_err(SimulateError::PacketCore)
    }
}
