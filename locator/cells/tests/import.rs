//! From files to a database, and what becomes of attempts that fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cell_database::{CellDatabase, CellLocator, Import, ImportError, Imported, OpenError};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use vocabulary::{CellMatch, CellTower, RadioAccess};

const HEAD: &str =
    "radio,mcc,net,area,cell,unit,lon,lat,range,samples,changeable,created,updated,averageSignal\n";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn target(&self) -> PathBuf {
        self.0.path().join("cells.db")
    }

    fn import(&self, sources: &[&PathBuf]) -> Result<Imported, ImportError> {
        let sources = sources.iter().map(|path| (*path).clone()).collect();
        Import::new(sources, &self.target()).with_run_cells(100).run(|_| {})
    }

    fn database(&self) -> CellDatabase {
        CellDatabase::open(&self.target()).unwrap()
    }
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cells.csv")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn line(cell: u64, longitude: f64, updated: u64) -> String {
    format!("LTE,262,1,7,{cell},0,{longitude},50.5,1000,9,1,0,{updated},0\n")
}

fn tower(cell: u64) -> CellTower {
    let plmn = "262-01".parse().unwrap();
    CellTower { access: RadioAccess::Lte, plmn, area: Some(7), cell: Some(cell) }
}

fn longitude(database: &CellDatabase, cell: u64) -> Option<f64> {
    let fix = database.locate(&tower(cell))?;
    (fix.matched == CellMatch::Cell).then(|| fix.position.coordinates.longitude())
}

#[test]
fn real_cells_are_found_with_their_places() {
    let world = World::new();
    let imported = world.import(&[&sample()]).unwrap();
    assert_eq!((imported.cells, imported.other_radio, imported.bad), (6_674, 16, 0));
    assert_eq!(imported.database_cells, 6_674);
    let database = world.database();
    assert!(database.file_bytes() / database.len() < 60, "areas and networks of a small sample");
    for line in fs::read_to_string(sample()).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let access = match fields[0] {
            "GSM" => RadioAccess::Gsm,
            "UMTS" => RadioAccess::Hspa,
            "LTE" => RadioAccess::NbIot,
            "NR" => RadioAccess::Nr,
            _ => continue,
        };
        let tower = CellTower {
            access,
            plmn: format!("{}-{:0>2}", fields[1], fields[2]).parse().unwrap(),
            area: fields[3].parse().ok(),
            cell: fields[4].parse().ok(),
        };
        let fix = database.locate(&tower).unwrap();
        assert_eq!(fix.matched, CellMatch::Cell, "{line}");
        let near = |found: f64, text: &str| (found - text.parse::<f64>().unwrap()).abs() < 1e-7;
        let at = fix.position.coordinates;
        assert!(near(at.longitude(), fields[6]) && near(at.latitude(), fields[7]), "{line}");
        let range: f64 = fields[8].parse().unwrap();
        let accuracy = fix.position.accuracy_m.unwrap();
        assert!((accuracy - 0.82 * range).abs() < 8.0, "{line}: {accuracy}");
    }
}

#[test]
fn what_is_not_known_is_found_by_its_area_or_its_network() {
    let world = World::new();
    let other =
        "LTE,262,1,8,1,0,11,50.5,1000,9,1,0,1,0\nUMTS,262,1,7,131073,0,12,50.5,1000,9,1,0,1,0\n";
    let cells = line(1, 10.0, 1) + &line(2, 10.1, 1) + other;
    world.import(&[&world.file("cells.csv", cells)]).unwrap();
    let database = world.database();
    let fix = |tower: &CellTower| database.locate(tower);
    let area = fix(&tower(99)).unwrap();
    assert_eq!(area.matched, CellMatch::Area);
    assert!((area.position.coordinates.longitude() - 10.05).abs() < 0.001);
    // Half of the way between the cells, and their range.
    assert!((4_000.0..5_500.0).contains(&area.position.accuracy_m.unwrap()), "{area:?}");
    let network = fix(&CellTower { area: Some(77), ..tower(99) }).unwrap();
    assert_eq!(network.matched, CellMatch::Network);
    assert!(network.position.accuracy_m.unwrap() > 20_000.0, "{network:?}");
    assert_eq!(fix(&CellTower { area: None, cell: None, ..tower(1) }), Some(network));
    assert_eq!(fix(&CellTower { plmn: "262-02".parse().unwrap(), ..tower(1) }), None);
    // A cell without its area, if only one of the network is it.
    let bare = |cell| CellTower { area: None, ..tower(cell) };
    assert_eq!(fix(&bare(2)), fix(&tower(2)));
    assert_eq!(fix(&bare(1)).unwrap().matched, CellMatch::Network, "there are two");
    // A service area shows the last 16 bits of a cell's number.
    let service_area = CellTower { access: RadioAccess::Umts, ..tower(1) };
    assert_eq!(fix(&service_area).unwrap().position.coordinates.longitude(), 12.0);
}

#[test]
fn newer_cells_take_the_places_of_older_ones() {
    let world = World::new();
    let week = 604_800;
    let first = world.file("first.csv", line(1, 10.0, 5 * week) + &line(2, 10.0, 5 * week));
    world.import(&[&first]).unwrap();
    let second = line(1, 11.0, 6 * week) + &line(2, 11.0, 4 * week) + &line(3, 11.0, 0);
    let second = world.file("second.csv.gz", gzip(second.as_bytes()));
    let imported = world.import(&[&second]).unwrap();
    assert_eq!(imported.database_cells, 3);
    let database = world.database();
    let found = [1, 2, 3].map(|cell| longitude(&database, cell));
    assert_eq!(found, [Some(11.0), Some(10.0), Some(11.0)]);
    // The same again changes nothing.
    let before = fs::read(world.target()).unwrap();
    world.import(&[&second, &first]).unwrap();
    assert_eq!(fs::read(world.target()).unwrap(), before);
}

#[test]
fn bad_lines_are_named_and_skipped() {
    let world = World::new();
    let text = format!("{HEAD}{}LTE,262\n{}nonsense\n", line(1, 10.0, 1), line(2, 10.0, 1));
    let imported = world.import(&[&world.file("cells.csv", text)]).unwrap();
    assert_eq!((imported.lines, imported.cells, imported.bad), (5, 2, 2));
    let told: Vec<_> =
        imported.bad_lines.iter().map(|(_, line, reason)| format!("{line}: {reason}")).collect();
    assert_eq!(told, ["3: 2 fields, allowed: at least 13", "5: 1 fields, allowed: at least 13"]);
    let none = World::new();
    let error = none.import(&[&none.file("none.csv", "a,b\n")]).unwrap_err();
    assert_eq!(error.to_string(), "1 lines without a cell: 2 fields, allowed: at least 13");
    assert!(!none.target().exists());
    let error = none.import(&[&none.0.path().join("missing.csv")]).unwrap_err();
    assert!(error.to_string().contains("missing.csv"), "{error}");
}

#[test]
fn a_truncated_file_changes_nothing_and_is_gone_on_with() {
    let world = World::new();
    world.import(&[&world.file("before.csv", line(7_777, 9.0, 1))]).unwrap();
    let before = fs::read(world.target()).unwrap();
    let lines: String = (0..1_000).map(|cell| line(cell, 10.0, 2)).collect();
    let first = world.file("first.csv", &lines[..lines.len() / 2]);
    let packed = gzip(lines.as_bytes());
    let broken = world.file("cells.csv.gz", &packed[..packed.len() / 2]);
    let error = world.import(&[&first, &broken]).unwrap_err();
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    assert!(error.to_string().contains("import again to go on"), "{error}");
    assert_eq!(fs::read(world.target()).unwrap(), before);
    let again = world.import(&[&first, &broken]).unwrap_err();
    assert!(again.to_string().contains("cells.csv.gz"), "{again}");
    // Another file is another import.
    let whole = world.file("whole.csv.gz", &packed);
    let imported = world.import(&[&whole]).unwrap();
    assert!(!imported.was_resumed);
    assert_eq!(imported.database_cells, 1_001);
}

/// A process that is killed leaves its complete pieces; here the last one is cut off by hand.
#[test]
fn an_import_that_was_cut_off_gives_the_same_database() {
    let lines: String = (0..1_050).map(|cell| line(cell * 7 % 1_050, 10.0, cell)).collect();
    let whole = World::new();
    whole.import(&[&whole.file("cells.csv", &lines)]).unwrap();
    let cut = World::new();
    let source = cut.file("cells.csv", &lines);
    let target = cut.target();
    // The target's folder is missing when all is read: the pieces stay.
    let import = Import::new(vec![source.clone()], &target).with_run_cells(100);
    let reads = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        import.run(|progress| assert!(!progress.is_merging, "cut off before the merge"))
    }));
    assert!(reads.is_err());
    assert!(cut.0.path().join("cells.db.import/run-9").exists());
    let imported = cut.import(&[&source]).unwrap();
    assert!(imported.was_resumed);
    assert_eq!((imported.lines, imported.cells), (1_050, 1_050));
    assert_eq!(fs::read(&target).unwrap(), fs::read(whole.target()).unwrap());
    assert!(!cut.0.path().join("cells.db.import").exists());
}

#[test]
fn what_is_no_database_is_refused_and_nothing_is_read_beyond_its_end() {
    let world = World::new();
    world.import(&[&sample()]).unwrap();
    let good = fs::read(world.target()).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(world.target(), bytes).unwrap();
        CellDatabase::open(&world.target()).unwrap_err()
    };
    assert!(matches!(refused(&[]), OpenError::Other(_)));
    assert!(matches!(refused(b"radio,mcc"), OpenError::Other(_)));
    assert!(matches!(refused(&good[..20]), OpenError::Header(_)));
    assert!(matches!(refused(&good[..good.len() - 1]), OpenError::Length { .. }));
    assert!(matches!(refused(&[&good[..], &[0]].concat()), OpenError::Length { .. }));
    let mut changed = good.clone();
    changed[8] ^= 1;
    assert!(matches!(refused(&changed), OpenError::Header(_)));
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(refused(&changed), OpenError::Damaged(_)));
    // Damaged cells are found elsewhere or not at all.
    let mut changed = good;
    changed[64..6_000].fill(0xff);
    fs::write(world.target(), changed).unwrap();
    world.database().locate(&tower(1));
}

/// The error said to import again, and so did each import: the file had to be removed by hand.
#[test]
fn an_import_replaces_a_database_that_is_damaged_and_no_other_file() {
    let world = World::new();
    let cells = world.file("cells.csv", line(1, 10.0, 1));
    let first = world.import(&[&cells]).unwrap();
    assert_eq!(first.replaced, None);
    let good = fs::read(world.target()).unwrap();
    let mut of_another_release = good.clone();
    of_another_release[7] = b'0';
    for damaged in [&good[..good.len() - 1], &good[..9], &of_another_release] {
        fs::write(world.target(), damaged).unwrap();
        let imported = world.import(&[&cells]).unwrap();
        assert!(imported.replaced.unwrap().contains("import it again"));
        assert_eq!(fs::read(world.target()).unwrap(), good);
    }
    for other in ["radio,mcc\n", ""] {
        fs::write(world.target(), other).unwrap();
        let error = world.import(&[&cells]).unwrap_err();
        assert!(error.to_string().contains("is no cell database"), "{error}");
        assert_eq!(fs::read_to_string(world.target()).unwrap(), other);
    }
}

/// Lines were counted over all files, so of the second one a line was named that it had not.
#[test]
fn a_bad_line_is_named_by_its_place_in_its_own_file() {
    let world = World::new();
    let first = world.file("first.csv", line(1, 10.0, 1) + &line(2, 10.0, 1));
    let second = world.file("second.csv", line(3, 10.0, 1) + "nonsense\n");
    let imported = world.import(&[&first, &second]).unwrap();
    let [(file, line, _)] = &imported.bad_lines[..] else { panic!("{imported:?}") };
    assert!(file.ends_with("second.csv"));
    assert_eq!((*line, imported.lines), (2, 4));
}

#[test]
fn a_database_that_takes_another_s_place_is_opened() {
    let world = World::new();
    let locator = CellLocator::open(&world.target()).unwrap();
    assert!(locator.is_empty());
    world.import(&[&world.file("cells.csv", line(1, 10.0, 1))]).unwrap();
    assert_eq!(locator.refresh().unwrap(), Some(1));
    assert_eq!(locator.refresh().unwrap(), None);
    assert!(locator.locate(&tower(1)).is_some());
    fs::remove_file(world.target()).unwrap();
    assert_eq!(locator.refresh().unwrap(), Some(0));
}

/// An area of more pages than are looked at one after the other, between areas of one cell.
#[test]
fn each_cell_of_a_large_area_is_found() {
    let world = World::new();
    let in_area = |area, cell: u64| {
        let longitude = cell as f64 / 1_000.0;
        format!("LTE,262,1,{area},{cell},0,{longitude},50.5,1000,9,1,0,1,0\n")
    };
    let of_seven = (1..=5_000).map(|cell| in_area(7, cell * 3)).collect::<String>();
    world.import(&[&world.file("cells.csv", in_area(6, 3) + &of_seven + &in_area(8, 3))]).unwrap();
    let database = world.database();
    for cell in 0..15_010 {
        let is_there = cell % 3 == 0 && (3..=15_000).contains(&cell);
        let expected = is_there.then(|| format!("{:.3}", cell as f64 / 1_000.0));
        let found = longitude(&database, cell).map(|found| format!("{found:.3}"));
        assert_eq!(found, expected, "cell {cell}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn all_cells_are_found_and_no_others(cells in prop::collection::btree_map(
        (0_u64..2, 1_u64..3, 0_u64..4, 1_u64..200), -179.0_f64..179.0, 1..800,
    )) {
        const RADIOS: [(&str, RadioAccess); 3] =
            [("GSM", RadioAccess::Gsm), ("LTE", RadioAccess::Lte), ("NR", RadioAccess::Nr)];
        let world = World::new();
        let text: String = cells
            .iter()
            .map(|((radio, network, area, cell), longitude)| {
                let radio = RADIOS[usize::try_from(*radio).unwrap()].0;
                format!("{radio},262,{network},{area},{cell},0,{longitude},50.5,1000,9,1,0,1,0\n")
            })
            .collect();
        world.import(&[&world.file("cells.csv", text)]).unwrap();
        let database = world.database();
        // One more of each than there is.
        for number in 0..3 * 4 * 5 * 201_u64 {
            let (cell, area) = (number % 201, number / 201 % 5);
            let (network, radio) = (number / 1_005 % 4, number / 4_020);
            let tower = CellTower {
                access: RADIOS[usize::try_from(radio).unwrap()].1,
                plmn: format!("262-0{network}").parse().unwrap(),
                area: u32::try_from(area).ok(),
                cell: Some(cell),
            };
            let fix = database.locate(&tower).filter(|fix| fix.matched == CellMatch::Cell);
            let expected = cells.get(&(radio, network, area, cell));
            prop_assert_eq!(fix.is_some(), expected.is_some(), "{:?}", tower);
            if let Some((fix, longitude)) = fix.zip(expected) {
                prop_assert!((fix.position.coordinates.longitude() - longitude).abs() < 1e-7);
            }
        }
    }
}
