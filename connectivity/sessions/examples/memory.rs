//! What a million sessions take, and how fast an address is found:
//! `cargo run --release -p data-sessions --example memory [SESSIONS]`.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use data_sessions::{SessionStore, Sessions, Settings};
use state::StateFile;
use vocabulary::{
    CellTower, Iccid, Imsi, Octets, RadioAccess, SessionChange, SessionReport, Timestamp,
};

fn report(number: u64, now: Timestamp) -> Result<SessionReport, Box<dyn Error>> {
    let mut report = SessionReport::new("radius", SessionChange::Start, "pgw-1", now);
    report.session = format!("0a2b3c4d{number:08x}");
    report.iccid = Iccid::from_u64(8_988_280_666_000_000_000 + number);
    report.imsi = Imsi::from_u64(901_405_100_000_000 + number);
    report.msisdn = Some(format!("4917{number:010}").parse()?);
    report.imei = Some(format!("352099{number:010}").parse()?);
    report.ipv4 = Some(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number)?));
    report.cell = Some(CellTower {
        access: RadioAccess::Lte,
        plmn: "262-01".parse()?,
        area: Some(30_003),
        cell: Some(number),
    });
    report.octets = Some(Octets { up: number, down: number });
    Ok(report)
}

/// What the process holds in memory, in bytes.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1_024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let now = Timestamp::from_millis(1_700_000_000_000);
    let folder = tempfile::tempdir()?;
    let file = StateFile::new(folder.path().join("data_sessions.db"));
    let settings = Settings { sessions_max: usize::try_from(count)?, ..Settings::default() };
    let (mut store, sessions) = SessionStore::open(&file, settings.clone())?;
    let before = resident()?;
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    for number in 0..count {
        let report = report(number, now)?;
        let applying = Instant::now();
        sessions.apply((number, now), &report);
        longest = longest.max(applying.elapsed());
        if number % 10_000 == 0 {
            store.write(&sessions)?;
        }
    }
    store.write(&sessions)?;
    let (held, took) = (resident()? - before, begun.elapsed());
    println!(
        "{count} sessions: {} bytes each, {:.0}/s with snapshots, longest step {longest:?}",
        held / count,
        count as f64 / took.as_secs_f64()
    );
    look_up(&sessions, count, now);
    drop((store, sessions));
    let begun = Instant::now();
    let (_, sessions) = SessionStore::open(&file, settings)?;
    println!("{} sessions opened from the snapshot in {:.2?}", sessions.len(), begun.elapsed());
    Ok(())
}

fn look_up(sessions: &Sessions, count: u64, now: Timestamp) {
    let (begun, look_ups) = (Instant::now(), 2_000_000_u64);
    for number in 0..look_ups {
        // Scattered, as datagrams are.
        let place = (number * 2_654_435_761) % count;
        let bits = 0x0a00_0000 + u32::try_from(place).unwrap_or(0);
        black_box(sessions.find(Ipv4Addr::from_bits(bits).into(), now));
    }
    println!("{:.1} million look-ups/s", look_ups as f64 / begun.elapsed().as_secs_f64() / 1e6);
}
