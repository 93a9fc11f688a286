//! The command line of `simgate simulate`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use thiserror::Error;

use crate::accounting::CoreCounts;
use crate::drive::{DRIVE_TEMPLATE, Drive, RouteError};
use crate::driving::{DriveArguments, Scenario};
use crate::fleet::{BASE, FleetError};
use crate::generator::{RunError, run, run_recorded};
use crate::ledger::Ledger;
use crate::lwm2m::Lwm2mArguments;
use crate::payload::{COUNTER_BYTES, Payload, PayloadError, PayloadSource};
use crate::plan::{Load, Method, Plan, Protocol};
use crate::report::{Progress, Report};
use crate::security::SecurityArguments;

/// Outstanding messages where neither a rate nor a number is given: enough to keep a server busy.
const OUTSTANDING: usize = 64;

/// Send a simulated fleet's traffic to a gateway, and tell what came of it.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Where to send [default: 127.0.0.1:5683 for CoAP, 127.0.0.1:5684 for CoAP over DTLS,
    /// 127.0.0.1:4445 for UDP, 127.0.0.1:5783 for LwM2M, 127.0.0.1:5784 for LwM2M over DTLS]
    #[arg(value_name = "ADDRESS:PORT")]
    pub target: Option<SocketAddrV4>,
    /// Number of devices, each with a loopback address of its own
    #[arg(long, default_value_t = 100)]
    pub devices: u32,
    /// Address of the first device; the others follow
    #[arg(long, default_value_t = BASE)]
    pub base: Ipv4Addr,
    /// What the devices speak
    #[arg(long, value_enum, default_value_t = Protocol::CoapCon)]
    pub protocol: Protocol,
    /// Open loop: messages per second of all devices together, whatever is answered
    #[arg(long, conflicts_with = "outstanding")]
    pub rate: Option<u64>,
    /// Closed loop: messages of all devices together that wait for an answer [default: 64]
    #[arg(long)]
    pub outstanding: Option<usize>,
    /// How long, e.g. 10s, 500ms, 5m [default: 10s, without end if --count is given]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How many messages
    #[arg(long)]
    pub count: Option<u64>,
    /// Hexadecimal bytes, @FILE, or one of counter, random, template-three-fields
    #[arg(long, default_value = "counter")]
    pub payload: PayloadSource,
    /// Length of the payloads counter and random
    #[arg(long, default_value_t = COUNTER_BYTES)]
    pub payload_bytes: usize,
    /// CoAP: the topic, sent as ?t=
    #[arg(long)]
    pub topic: Option<String>,
    /// CoAP: the method
    #[arg(long, value_enum, default_value_t = Method::Post)]
    pub method: Method,
    /// CoAP: the path, with a query if need be
    #[arg(long, default_value = "/")]
    pub path: String,
    /// CoAP: length of tokens, 4 or 8
    #[arg(long, default_value_t = 8)]
    pub token_bytes: usize,
    /// Malformed CoAP messages per second, besides, from other addresses; with CoAP over DTLS first
    /// messages of handshakes that do not go on
    #[arg(long, default_value_t = 0, value_name = "RATE")]
    pub garbage: u64,
    /// How long to wait for answers after the last message
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Repeat a run exactly [default: another one each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write each message and its acknowledgement into this file, as CSV
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Write the SIMs of the devices into this file, as `simgate sims import` reads them, and send
    /// nothing
    #[arg(long, value_name = "FILE")]
    pub write_sims: Option<PathBuf>,
    /// Keys and sessions
    #[command(flatten)]
    pub security: SecurityArguments,
    /// LwM2M
    #[command(flatten)]
    pub lwm2m: Lwm2mArguments,
    /// What the devices do
    #[arg(long, value_enum, default_value_t = Scenario::Steady)]
    pub scenario: Scenario,
    /// Devices on the road
    #[command(flatten)]
    pub drive: DriveArguments,
}

/// Where a run is told about.
pub struct Console<'a> {
    /// The result.
    pub output: &'a mut dyn Write,
    /// A line of progress each second.
    pub progress: &'a mut dyn Write,
    /// Whether `progress` is a terminal, on which one line is written over and over.
    pub terminal: bool,
}

/// Why `simgate simulate` failed.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// The devices cannot have these addresses.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The payload cannot be sent.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// With CoAP over DTLS a key is given or asked for.
    #[error("--bootstrap and --psk or --psk-table do not go together with --protocol coaps")]
    TwoKeys,
    /// There is nothing to drive on.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The secret of RADIUS.
    #[error("--radius-secret: {0}")]
    Secret(String),
    /// The socket of RADIUS.
    #[error("socket of the simulated packet core: {0}")]
    PacketCore(io::Error),
    /// What is for devices on the road, without a road.
    #[error("--route, --radius, --write-cells and --print-template need --scenario drive")]
    NoDrive,
    /// The run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The result cannot be printed.
    #[error("printing the result: {0}")]
    Print(#[from] io::Error),
}

impl Arguments {
    /// Does what the arguments say, until the end of the run or until `stop` is set.
    ///
    /// # Errors
    /// Where the arguments do not go together, or the system refuses a socket or a file.
    pub fn execute(&self, console: Console<'_>, stop: &AtomicBool) -> Result<(), SimulateError> {
        let has_key = self.security.psk.is_some() || self.security.psk_table.is_some();
        if self.protocol == Protocol::Coaps && self.security.bootstrap.is_some() && has_key {
            return Err(SimulateError::TwoKeys);
        }
        let mut plan = self.plan()?;
        if let Some(path) = &self.write_sims {
            return write_sims(&plan, path, console.output);
        }
        let drive = self.road(&plan)?;
        if let Some(drive) = &drive {
            if self.drive.print_template {
                return Ok(writeln!(console.output, "{DRIVE_TEMPLATE}")?);
            }
            if let Some(path) = &self.drive.write_cells {
                let failed = |source| SimulateError::File { path: path.clone(), source };
                return std::fs::write(path, drive.cells_csv()).map_err(failed);
            }
            plan.payload = Payload::Drive(drive.clone());
        }
        let sent = Arc::new(AtomicU64::new(0));
        let core = match drive {
            Some(drive) => self.drive.packet_core((plan.fleet()?, drive), &sent)?,
            None => None,
        };
        let Console { output, progress, terminal } = console;
        let tell = |state: &Progress| {
            sent.store(state.counts.sent, Ordering::Relaxed);
            tell_progress(progress, state, terminal);
        };
        let report = match &self.ledger {
            None => run(&plan, tell, stop)?,
            Some(path) => {
                let failed = |source| SimulateError::File { path: path.clone(), source };
                let mut ledger = Ledger::default().write_to(path).map_err(failed)?;
                run_recorded(&plan, &mut ledger, tell, stop)?
            }
        };
        if terminal {
            writeln!(progress)?;
        }
        if let Some(core) = core {
            let CoreCounts { answered, unanswered, cells_changed } =
                core.stop().map_err(SimulateError::PacketCore)?;
            writeln!(
                progress,
                "radius: {answered} packets answered, {unanswered} not; {cells_changed} changes of \
                 cells"
            )?;
        }
        Ok(self.print(&report, output)?)
    }

    /// The road, where devices drive.
    fn road(&self, plan: &Plan) -> Result<Option<Drive>, SimulateError> {
        let DriveArguments { route, radius, write_cells, print_template, .. } = &self.drive;
        if self.scenario == Scenario::Drive {
            return Ok(Some(self.drive.drive(plan.devices)?));
        }
        let is_asked =
            route.is_some() || radius.is_some() || write_cells.is_some() || *print_template;
        if is_asked { Err(SimulateError::NoDrive) } else { Ok(None) }
    }

    /// The plan that the arguments make.
    ///
    /// # Errors
    /// Where the payload cannot be had.
    pub fn plan(&self) -> Result<Plan, PayloadError> {
        // The ports of the gateway's own defaults: CoAP's own (RFC 7252 §12.6 and §12.7), the one
        // of plain datagrams, and those of LwM2M.
        let port = match self.protocol {
            Protocol::Udp => 4445,
            Protocol::CoapCon | Protocol::CoapNon => 5683,
            Protocol::Coaps => 5684,
            Protocol::Lwm2m => 5783,
            Protocol::Lwm2ms => 5784,
        };
        let target = self.target.unwrap_or(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let bootstrap = self.security.bootstrap.map(|server| server.unwrap_or(target));
        let load = match (self.rate, self.outstanding) {
            (Some(rate), _) => Load::PerSecond(rate),
            (None, outstanding) => Load::Outstanding(outstanding.unwrap_or(OUTSTANDING)),
        };
        let defaults = Plan::default();
        let whole_run = if self.count.is_some() { None } else { defaults.duration };
        Ok(Plan {
            target,
            base: self.base,
            devices: self.devices,
            protocol: self.protocol,
            load,
            duration: self.duration.or(whole_run),
            count: self.count,
            payload: self.payload.resolve(self.payload_bytes)?,
            method: self.method,
            path: self.path.clone(),
            topic: self.topic.clone(),
            token_bytes: self.token_bytes,
            security: self.security.security(),
            lwm2m: self.lwm2m.lwm2m(bootstrap),
            garbage_per_second: self.garbage,
            drain: self.drain,
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..defaults
        })
    }

    fn print(&self, report: &Report, output: &mut dyn Write) -> io::Result<()> {
        if self.json {
            serde_json::to_writer_pretty(&mut *output, report)?;
            writeln!(output)?;
        } else {
            report.write_table(output)?;
        }
        output.flush()
    }
}

fn tell_progress(output: &mut dyn Write, state: &Progress, terminal: bool) {
    if let Some(announcement) = &state.announcement {
        let erase = if terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(output, "{erase}{announcement}").and_then(|()| output.flush());
        return;
    }
    let line = state.to_line();
    // `\x1b[K` erases what is left of a longer line. Progress that cannot be shown is no failure.
    let _ = if terminal {
        write!(output, "\r{line}\x1b[K").and_then(|()| output.flush())
    } else {
        writeln!(output, "{line}")
    };
}

fn write_sims(plan: &Plan, path: &Path, output: &mut dyn Write) -> Result<(), SimulateError> {
    let fleet = plan.fleet()?;
    if path == Path::new("-") {
        return Ok(fleet.write_csv(output)?);
    }
    let failed = |source| SimulateError::File { path: path.to_owned(), source };
    let file = File::create(path).map_err(failed)?;
    fleet.write_csv(BufWriter::new(file)).map_err(failed)
}

/// The standard library seeds its hash maps from the system.
fn fresh_seed() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(std::process::id())
}

/// A whole number with a unit; seconds where there is none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("unit {unit:?} is not known, allowed: ms, s, m, h")),
    };
    let number: u64 =
        number.parse().map_err(|_| "allowed: a whole number and a unit".to_owned())?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| "longer than the limit of 580 million years".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use coap::wire::Code;

    use super::*;
    use crate::responder::{Answer, Responder};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Arguments {
        Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
            .unwrap()
            .arguments
    }

    fn execute(arguments: &Arguments) -> (String, String) {
        let (mut output, mut progress) = (Vec::new(), Vec::new());
        let console = Console { output: &mut output, progress: &mut progress, terminal: false };
        arguments.execute(console, &AtomicBool::new(false)).unwrap();
        (String::from_utf8(output).unwrap(), String::from_utf8(progress).unwrap())
    }

    #[test]
    fn the_command_line_becomes_a_plan() {
        let plan = parse("10.0.0.1:99 --protocol coap-non --rate 50 --duration 2m --topic a")
            .plan()
            .unwrap();
        assert_eq!(plan.target.to_string(), "10.0.0.1:99");
        assert_eq!((plan.protocol, plan.load), (Protocol::CoapNon, Load::PerSecond(50)));
        assert_eq!(plan.duration, Some(Duration::from_secs(120)));
        let plan = parse("--protocol udp --count 7").plan().unwrap();
        assert_eq!((plan.target.port(), plan.duration, plan.count), (4445, None, Some(7)));
        assert_ne!(plan.seed, parse("").plan().unwrap().seed);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert!(parse_duration("3 days").unwrap_err().contains("allowed: ms, s, m, h"));
        assert!(parse_duration("s").is_err());
    }

    #[test]
    fn a_run_prints_json_and_writes_its_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.csv");
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let responder =
            Responder::start(address, |_, _| Answer::Piggybacked(Code::CHANGED)).unwrap();
        let target = responder.address();
        let line = format!("{target} --json --count 25 --ledger {}", ledger.display());
        let (output, _) = execute(&parse(&line));
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(report["acknowledged"], 25);
        assert_eq!(std::fs::read_to_string(&ledger).unwrap().lines().count(), 26);
        let (table, _) = execute(&parse(&format!("{target} --count 5")));
        assert!(table.contains("acknowledged                 5\n"), "{table}");
    }

    #[test]
    fn sims_are_written_instead_of_a_run() {
        let (csv, _) = execute(&parse("--devices 3 --write-sims -"));
        assert_eq!(csv.lines().count(), 4);
        assert!(csv.contains(",127.16.0.3,Simulated device 3\n"), "{csv}");
    }
}
