//! A million SIMs: import, import again, load, and pages far down the list.
//!
//! `cargo bench -p connectivity`
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use connectivity::{
    Direction, ImportReport, ListQuery, Revision, SimFilter, SimRegistry, SortField,
};
use state::StateFile;
use vocabulary::Timestamp;

const SIMS: u32 = 1_000_000;
const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        ("in order", file(|number| [number, number])?),
        ("scattered", file(|number| [scattered(number); 2])?),
        ("in order, addresses scattered", file(|number| [number, scattered(number)])?),
    ];
    for (name, file) in files {
        println!("--- {SIMS} SIMs, {name}, {} MB of CSV", file.len() / 1_000_000);
        measure(&file)?;
    }
    Ok(())
}

/// Visits all numbers below 1,000,000 in a scattered order: 611,953 has no factor in common.
fn scattered(number: u32) -> u32 {
    u32::try_from(u64::from(number) * 611_953 % u64::from(SIMS)).unwrap_or(0)
}

/// A file of SIMs and addresses in the order that `order` gives.
fn file(order: impl Fn(u32) -> [u32; 2]) -> Result<String, std::fmt::Error> {
    let mut text = String::from("iccid,imsi,msisdn,imei,ip,label\n");
    for [number, address] in (0..SIMS).map(order) {
        let iccid = 8_988_280_666_000_000_000 + u64::from(number);
        let ip = std::net::Ipv4Addr::from(0x6440_0000 + address);
        writeln!(
            text,
            "{iccid},{},{},{:016},{ip},meter-{number}",
            901_405_100_000_000 + u64::from(number),
            882_285_100_000_000 + u64::from(number),
            u64::from(number) * 100,
        )?;
    }
    Ok(text)
}

fn measure(csv: &str) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let registry = SimRegistry::open(&StateFile::new(folder.path().join("state.db")))?;
    for name in ["import", "import again"] {
        let start = Instant::now();
        let (mut last, mut longest) = (start, 0.0_f64);
        let ImportReport { created, unchanged, rejected, .. } =
            registry.import(csv.as_bytes(), NOW, |_| {
                longest = longest.max(last.elapsed().as_secs_f64());
                last = Instant::now();
            })?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {seconds:.2} s, longest block {:.0} ms", longest * 1e3);
        println!("  {created} created, {unchanged} unchanged, {rejected} rejected");
    }
    timed("load_all", || registry.load_all(|sim| drop(black_box(sim))))?;
    timed("changes_since, first 10,000", || registry.changes_since(Revision::BEGINNING, 10_000))?;
    timed("statistics", || registry.statistics())?;
    timed("data_version", || registry.data_version())?;
    for sort in [SortField::Iccid, SortField::Ip, SortField::Imsi] {
        let (filter, direction) = (SimFilter::default(), Direction::Descending);
        for page in [1, 10_000] {
            let query = ListQuery { filter, sort, direction, page, page_size: 100 };
            timed(&format!("page {page} by {sort:?}"), || registry.list(&query))?;
        }
    }
    Ok(())
}

fn timed<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
    let start = Instant::now();
    black_box(work()?);
    println!("{name}: {:.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
