//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// A self-hosted gateway from SIM-connected devices to customers' clouds.
#[derive(Debug, Parser)]
#[command(name = "simgate", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway until SIGTERM or SIGINT
    Serve(Place),
    /// Manage API clients
    #[command(subcommand)]
    Client(ClientCommand),
    /// Manage SIMs
    #[command(subcommand)]
    Sims(SimsCommand),
    /// Manage the database of cell towers
    #[command(subcommand)]
    Cells(CellsCommand),
    /// Send the traffic of a simulated fleet and measure the answers
    Simulate(Box<simulator::Arguments>),
    /// Run a gateway, a small simulated fleet and a webhook receiver, and show what arrives
    Demo(DemoArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Create an API client; its secret is printed now and never again
    Create {
        /// What the client is for
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimsCommand {
    /// Import SIMs from a CSV file with the columns iccid, imsi, msisdn, imei, ip, label
    Import {
        /// The file; `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CellsCommand {
    /// Import exports of OpenCelliD or the Mozilla Location Service (CSV, plain or .gz); cells that
    /// are known stay, newer ones take their places
    Import {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Show where a cell is
    Show {
        #[command(flatten)]
        address: CellAddress,
        #[command(flatten)]
        place: Place,
    },
}

/// A cell.
#[derive(Debug, Args)]
pub(crate) struct CellAddress {
    /// 2G, 3G, 3.5G, 4G, NB-IoT, LTE-M or 5G
    pub(crate) radio: String,
    /// Country and network, e.g. 262-01
    pub(crate) network: String,
    /// The location or tracking area
    pub(crate) area: Option<u32>,
    /// The cell
    pub(crate) cell: Option<u64>,
}

/// Which gateway a command is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Configuration file (TOML); simgate.example.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; overrides the configuration
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Simulated devices
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) devices: u32,
    /// Seconds until the demonstration ends; 0 runs until it is interrupted
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

impl Place {
    /// The configuration of the place, checked.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars())?;
        if let Some(data) = &self.data {
            config.data.dir.clone_from(data);
        }
        Ok(config)
    }
}
