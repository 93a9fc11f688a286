//! `simgate sims`: the SIM registry from the command line, also beside a serving gateway.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use connectivity::{ImportReport, SimRegistry};
use vocabulary::Timestamp;

use crate::arguments::SimsCommand;
use crate::house;

pub(crate) fn run(command: SimsCommand) -> anyhow::Result<ExitCode> {
    let SimsCommand::Import { file, place } = command;
    let state = house::state_file(&place.config()?)?;
    let registry = SimRegistry::open(&state)?;
    let report = registry
        .import(open(&file)?, Timestamp::from(SystemTime::now()), |_| {})
        .with_context(|| format!("{} cannot be imported", file.display()))?;
    print(&report)?;
    Ok(if report.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(Box::new(opened))
}

/// Rejected lines to standard error, the sum to standard output.
fn print(report: &ImportReport) -> io::Result<()> {
    let mut errors = io::stderr().lock();
    for rejected in &report.rejections {
        writeln!(errors, "line {}: {}", rejected.line, rejected.reason)?;
    }
    let unnamed = report.rejected - report.rejections.len() as u64;
    if unnamed > 0 {
        writeln!(errors, "and {unnamed} more lines")?;
    }
    writeln!(
        io::stdout(),
        "{} lines read: {} SIMs created, {} updated, {} unchanged, {} lines rejected",
        report.read,
        report.created,
        report.updated,
        report.unchanged,
        report.rejected
    )
}
