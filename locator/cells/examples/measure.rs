//! Imports files and measures the import and the look-ups:
//! `cargo run --release -p cell-database --example measure -- TARGET FILE...`; without files only
//! the look-ups.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use cell_database::{CellDatabase, Import};
use vocabulary::{CellTower, RadioAccess};

const LOOK_UPS: usize = 4_000_000;
/// So many times the sample is in an export of 45,000,000 rows.
const ROUNDS: u64 = 6_700;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let target = arguments.next().ok_or("usage: measure TARGET [FILE...]")?;
    let sources: Vec<PathBuf> = arguments.collect();
    if !sources.is_empty() {
        let begun = Instant::now();
        let imported = Import::new(sources, &target).run(|_| {})?;
        println!("{} cells in {:.1?}", imported.database_cells, begun.elapsed());
        println!("memory at most: {}", memory("VmHWM:")?);
    }
    let begun = Instant::now();
    let database = CellDatabase::open(&target)?;
    println!(
        "{} cells opened in {:.2?}, {:.2} bytes each",
        database.len(),
        begun.elapsed(),
        database.file_bytes() as f64 / database.len() as f64
    );
    let towers = towers()?;
    // Once for the pages that another program may have used, then for the figures.
    for _ in 0..5 {
        let (mut found, begun) = (0, Instant::now());
        for tower in &towers {
            found += usize::from(black_box(database.locate(black_box(tower))).is_some());
        }
        let rate = towers.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("{rate:.2} million look-ups/s, {found} of {} found", towers.len());
    }
    Ok(())
}

/// Random cells of a generated export, all over it.
fn towers() -> Result<Vec<CellTower>, Box<dyn Error>> {
    let sample = include_str!("../tests/data/cells.csv").lines().skip(1);
    let lines: Vec<Vec<&str>> = sample.map(|line| line.split(',').collect()).collect();
    let mut towers = Vec::with_capacity(LOOK_UPS);
    let mut state = 1_u64;
    while towers.len() < LOOK_UPS {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = state >> 33;
        let fields = &lines[usize::try_from(random % lines.len() as u64)?];
        let round = random / lines.len() as u64 % ROUNDS;
        let (access, cells) = match fields[0] {
            "GSM" => (RadioAccess::Gsm, 65_536),
            "UMTS" => (RadioAccess::Umts, 1 << 28),
            "LTE" => (RadioAccess::Lte, 1 << 28),
            "NR" => (RadioAccess::Nr, 1 << 28),
            _ => continue,
        };
        towers.push(CellTower {
            access,
            plmn: format!("{}-{:0>2}", fields[1], fields[2]).parse()?,
            area: Some(u32::try_from((fields[3].parse::<u64>()? + round / 90 * 37) % 65_536)?),
            cell: Some((fields[4].parse::<u64>()? + round * 11) % cells),
        });
    }
    Ok(towers)
}

fn memory(name: &str) -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.ok_or("no such line")?.trim().to_owned())
}
