//! Writes an export of as many cells as wanted, with the distributions of a sample:
//! `cargo run --release -p cell-database --example generate_cells -- CELLS FILE`.
//!
//! Networks and areas are those of the sample, in its proportions; cells of an area lie around its
//! own places. A file whose name ends with `.gz` is compressed.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

const SAMPLE: &str = include_str!("../tests/data/cells.csv");
/// Cells of one area in a full export, roughly.
const CELLS_PER_AREA: u64 = 90;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, cells, file] = &arguments[..] else {
        return Err("usage: generate_cells CELLS FILE".into());
    };
    let (cells, output): (u64, _) = (cells.parse()?, File::create(file)?);
    let mut output: Box<dyn Write> = if file.ends_with(".gz") {
        Box::new(BufWriter::new(GzEncoder::new(output, Compression::fast())))
    } else {
        Box::new(BufWriter::with_capacity(1 << 20, output))
    };
    let lines: Vec<Vec<&str>> =
        SAMPLE.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let mut state = 1_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut place = |middle: &str| -> Result<f64, Box<dyn Error>> {
        let away = random() as f64 / (1_u64 << 31) as f64 - 0.5;
        Ok((middle.parse::<f64>()? + away).clamp(-89.9, 179.9))
    };
    writeln!(
        output,
        "radio,mcc,net,area,cell,unit,lon,lat,range,samples,changeable,created,updated,averageSignal"
    )?;
    for number in 0..cells {
        // Neighbours in the file are of different areas, as in an export by the time of changes.
        let from =
            &lines[usize::try_from(number.wrapping_mul(2_654_435_761) % lines.len() as u64)?];
        let round = number / lines.len() as u64;
        let area = (from[3].parse::<u64>()? + round / CELLS_PER_AREA * 37) % 65_536;
        let cell = (from[4].parse::<u64>()? + round * 11)
            % if from[0] == "GSM" { 65_536 } else { 1 << 28 };
        writeln!(
            output,
            "{},{},{},{area},{cell},0,{:.6},{:.6},{},{},1,{},{},0",
            from[0],
            from[1],
            from[2],
            place(from[6])?,
            place(from[7])?,
            from[8],
            from[9],
            from[11],
            from[12],
        )?;
    }
    output.flush()?;
    Ok(())
}
