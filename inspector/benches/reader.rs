//! How fast the reader is, and what share of a core it needs at 100,000 messages a second.
//!
//! `cargo bench -p inspector --bench reader -- [MESSAGES] [DEVICES]`
//!
//! The log is filled first. Then one reader reads it at 100,000 messages a second: printed are the
//! share of a core in the first second (all devices are new, with a notice each) and in the later
//! ones, and how far behind it was at its end. Then another one, with an empty state file, reads
//! it as fast as it can. Without arguments four fleets are measured.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use inspector::{HistoryQuery, Inspector};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord, Options};
use state::StateFile;
use template_library::{NewTemplate, ProtocolFilter, Status, Templates};
use vocabulary::{EventKind, Iccid, Identity, IdentityClass, Protocol, Telemetry, Timestamp};

/// The rate of the question.
const PER_SECOND: u64 = 100_000;
const FIRST_ICCID: u64 = 8_988_280_666_000_000_000;
const TEMPLATE: &str =
    r#"{"sense":[{"asset":"t","value":{"byte":0,"bytelength":4,"type":"float"}}]}"#;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench`.
    let numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    let messages = numbers.first().copied().unwrap_or(1_000_000);
    let fleets = numbers.get(1).map_or(vec![1_000, 10_000, 100_000, 1_000_000], |one| vec![*one]);
    println!("{messages} messages of 8 bytes, template active");
    println!("            at {PER_SECOND}/s: share of a core                as fast as it can");
    println!("   devices  first second  later  seconds behind   messages/s");
    for devices in fleets {
        measure(messages, devices)?;
    }
    Ok(())
}

fn measure(messages: u64, devices: u64) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let state = StateFile::new(folder.path().join("state.db"));
    let options = Options::default();
    let (log, _) = MessageLog::open(&folder.path().join("log"), options)?;
    let templates = Templates::open(&state)?;
    templates.create(NewTemplate {
        name: "benchmark".to_owned(),
        source: TEMPLATE.to_owned(),
        status: Status::Active,
        protocol_filter: ProtocolFilter::new([Protocol::Coap])?,
    })?;
    fill(&log, &templates, messages, devices)?;
    let inspector = Inspector::open(&state, log.clone(), templates.clone())?;
    let (first, later, behind) = paced(&inspector, messages)?;
    let begun = Instant::now();
    let notices = inspector.administration_log_stats("UTC", None)?.total_unique_devices;
    let counted = begun.elapsed().as_millis();
    let begun = Instant::now();
    let iccid = Iccid::from_u64(FIRST_ICCID + devices / 2);
    inspector.history(&HistoryQuery { device: iccid, page_size: 25, ..HistoryQuery::default() })?;
    let page = begun.elapsed().as_micros();
    drop(inspector);
    let empty = StateFile::new(folder.path().join("empty.db"));
    let inspector = Inspector::open(&empty, log, templates)?;
    let mut reader = inspector.reader()?;
    let begun = Instant::now();
    while inspector.progress().messages < messages {
        reader.step()?;
    }
    reader.flush()?;
    let rate = messages as f64 / begun.elapsed().as_secs_f64();
    println!("{devices:>10}  {first:>12.3}  {later:>5.3}  {behind:>14.3}  {rate:>11.0}");
    println!("            {notices} notices counted in {counted} ms, a page of 25 in {page} us");
    Ok(())
}

/// Reads at the rate of the question. Returns the shares of a core and the seconds behind.
fn paced(inspector: &Inspector, messages: u64) -> Result<(f64, f64, f64), Box<dyn Error>> {
    let mut reader = inspector.reader()?;
    let mut shares = Vec::new();
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    while inspector.progress().messages < messages {
        let target = (inspector.progress().messages + PER_SECOND).min(messages);
        due += Duration::from_secs(1);
        let before = processor_time()?;
        while inspector.progress().messages < target {
            reader.step()?;
        }
        shares.push((processor_time()? - before).as_secs_f64());
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    let behind = begun.elapsed().saturating_sub(due).as_secs_f64();
    let before = processor_time()?;
    reader.flush()?;
    shares.push((processor_time()? - before).as_secs_f64());
    let first = shares[0];
    let seconds = shares.len().saturating_sub(2).max(1) as f64;
    Ok((first, shares[1..].iter().sum::<f64>() / seconds, behind))
}

fn fill(
    log: &MessageLog,
    templates: &Templates,
    messages: u64,
    devices: u64,
) -> Result<(), Box<dyn Error>> {
    let template = templates.active(Protocol::Coap);
    let mut number = 0;
    while number < messages {
        let until = (number + 4_096).min(messages);
        // A stride that is coprime to the fleets: neighbours in time are no neighbours in the key.
        let records = (number..until).map(|at| record(at * 7_919 % devices, template));
        log.append(records.collect()).wait()?;
        number = until;
    }
    Ok(())
}

fn record(device: u64, template: Option<u32>) -> NewRecord {
    let key = FIRST_ICCID + device;
    // Below 10^19, so it is an ICCID.
    let iccid = Iccid::from_u64(key).unwrap_or_else(|| unreachable!("{key} has 19 digits"));
    let telemetry = Telemetry {
        identity: Identity { iccid, imsi: None, ip: Some([10, 0, 0, 1].into()) },
        class: IdentityClass::SimIp,
        protocol: Protocol::Coap,
        topic: Some("room/1"),
        template,
        exchange: Some(7),
        measured: None,
        session: None,
        payload: &[1; 8],
    };
    NewRecord {
        kind: Kind::new(EventKind::Telemetry.code()),
        device: DeviceKey::from_u64(key),
        received_at: Timestamp::from(SystemTime::now()),
        body: telemetry.encode(),
    }
}

/// What this thread has used of a processor: the first number of its `schedstat` (proc(5)).
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().unwrap_or("0").parse()?;
    Ok(Duration::from_nanos(nanos))
}
