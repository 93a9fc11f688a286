//! The program `simgate`: a self-hosted gateway from SIM-connected devices to customers' clouds.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

mod actions;
mod arguments;
mod causes;
mod cells;
mod clients;
mod commands;
mod config;
mod demo;
mod feeds;
mod firmware;
mod gateway;
mod house;
mod ingest;
mod key_desk;
mod listeners;
mod network;
mod network_desk;
mod objects;
mod onboarding;
mod rate;
mod readers;
mod recovered;
mod registration_desk;
mod serve;
mod session_desk;
mod signals;
mod sims;
mod telemetry;
mod upkeep;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "simgate: {}", causes::said(&error));
            exit_code(&error)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // One TLS provider for the whole process; with two in a tree rustls would refuse to choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.command {
        Command::Serve(place) => serve::run(&place.config()?),
        Command::Client(command) => clients::run(command),
        Command::Sims(command) => sims::run(command),
        Command::Cells(command) => cells::run(command),
        Command::Simulate(arguments) => simulate(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

fn simulate(arguments: &simulator::Arguments) -> anyhow::Result<ExitCode> {
    let stop = signals::stop_flag()?;
    let console = simulator::Console {
        output: &mut std::io::stdout(),
        progress: &mut std::io::stderr(),
        terminal: std::io::stderr().is_terminal(),
    };
    arguments.execute(console, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// The codes of sysexits.h that a supervisor can tell apart.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let wrong_certificate =
        matches!(error.downcast_ref(), Some(management_api::server::BindError::Tls(_)));
    if wrong_certificate || error.is::<config::ConfigError>() {
        return ExitCode::from(64);
    }
    if error.is::<serve::StoreFailed>() {
        return ExitCode::from(74);
    }
    ExitCode::FAILURE
}
