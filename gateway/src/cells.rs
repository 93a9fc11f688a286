//! `simgate cells`: the cell database from the command line, also beside a serving gateway.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use cell_database::{CellDatabase, Import, Imported, Progress};
use vocabulary::{CellMatch, CellTower};

use crate::arguments::{CellAddress, CellsCommand};

/// How often the progress is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const BAR: usize = 40;

pub(crate) fn run(command: CellsCommand) -> anyhow::Result<ExitCode> {
    match command {
        CellsCommand::Import { files, place } => import(files, &place.config()?.cells()),
        CellsCommand::Show { address, place } => show(&address, &place.config()?.cells()),
    }
}

fn import(files: Vec<PathBuf>, target: &Path) -> anyhow::Result<ExitCode> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("folder {} cannot be made", folder.display()))?;
    }
    let (begun, terminal) = (Instant::now(), io::stderr().is_terminal());
    let mut drawn = None;
    let imported = Import::new(files, target).run(|progress| {
        let is_due = drawn.is_none_or(|at: Instant| at.elapsed() >= DRAWN_EVERY);
        if terminal && (is_due || progress.is_merging) {
            drawn = Some(Instant::now());
            draw(&progress);
        }
    })?;
    if terminal {
        let _ = writeln!(io::stderr());
    }
    report(&imported, target, begun.elapsed())?;
    Ok(if imported.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A bar on standard error. What cannot be drawn is not missed.
fn draw(progress: &Progress) {
    let part = |of: u64| progress.read_bytes.saturating_mul(of) / progress.bytes.max(1);
    let full = usize::try_from(part(BAR as u64)).unwrap_or(BAR).min(BAR);
    let doing = if progress.is_merging { "writing" } else { "reading" };
    let bar = "#".repeat(full) + &".".repeat(BAR - full);
    let (percent, cells) = (part(100), progress.cells);
    let _ = write!(io::stderr(), "\r[{bar}] {percent:3} %  {cells} cells, {doing} ");
}

fn report(imported: &Imported, target: &Path, took: Duration) -> io::Result<()> {
    let mut errors = io::stderr().lock();
    if let Some(reason) = &imported.replaced {
        writeln!(errors, "warning: {reason}; it was replaced, and its cells are not kept")?;
    }
    for (file, line, reason) in &imported.bad_lines {
        writeln!(errors, "{}, line {line}: {reason}", file.display())?;
    }
    let unnamed = imported.bad - imported.bad_lines.len() as u64;
    if unnamed > 0 {
        writeln!(errors, "and {unnamed} more lines")?;
    }
    let resumed = if imported.was_resumed { ", after an earlier attempt" } else { "" };
    writeln!(
        io::stdout(),
        "{} lines read in {:.1} s{resumed}: {} cells, {} of CDMA left out, {} lines rejected; {} \
         holds {} cells",
        imported.lines,
        took.as_secs_f64(),
        imported.cells,
        imported.other_radio,
        imported.bad,
        target.display(),
        imported.database_cells
    )
}

fn show(address: &CellAddress, target: &Path) -> anyhow::Result<ExitCode> {
    let tower = CellTower {
        access: address.radio.parse()?,
        plmn: address.network.parse()?,
        area: address.area,
        cell: address.cell,
    };
    let fix = CellDatabase::open(target)?.locate(&tower);
    let fix = fix.ok_or_else(|| anyhow!("nothing is known of the network {}", tower.plmn))?;
    let at = fix.position.coordinates;
    let by = match fix.matched {
        CellMatch::Cell => "the cell",
        CellMatch::Cells => "several cells",
        CellMatch::Area => "its area; the cell is not known",
        CellMatch::Network => "its network; neither cell nor area are known",
    };
    writeln!(
        io::stdout(),
        "{:.6}, {:.6} (latitude, longitude), within {:.0} m, by {by}",
        at.latitude(),
        at.longitude(),
        fix.position.accuracy_m.unwrap_or_default()
    )?;
    Ok(ExitCode::SUCCESS)
}
