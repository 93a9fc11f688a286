//! From files to a database, and what becomes of attempts that fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::HashMap;
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
    let path = none.0.path().join("missing.csv");
    let told = format!("{}: No such file or directory (os error 2)", path.display());
    assert_eq!(error.to_string(), told);
}

#[test]
fn a_line_without_an_end_is_one_bad_line() {
    let world = World::new();
    let long = [line(1, 10.0, 1).trim_end(), &",".repeat(10_000_000), "\n"].concat();
    let text = [line(2, 10.0, 1), long, line(3, 10.0, 1), "x".repeat(5_000)].concat();
    let imported = world.import(&[&world.file("cells.csv", text)]).unwrap();
    assert_eq!((imported.lines, imported.cells, imported.bad), (4, 2, 2));
    let told: Vec<_> =
        imported.bad_lines.iter().map(|(_, line, reason)| format!("{line}: {reason}")).collect();
    assert_eq!(told, ["2: 4096 bytes or more", "4: 4096 bytes or more"]);
}

#[test]
fn of_two_imports_at_once_one_is_refused() {
    let world = World::new();
    let (one, two) =
        (world.file("one.csv", line(1, 10.0, 1)), world.file("two.csv", line(2, 10.0, 1)));
    let mut refused = 0;
    let import = Import::new(vec![one], &world.target());
    let imported = import.run(|_| {
        let error = world.import(&[&two]).unwrap_err();
        assert!(error.to_string().ends_with("cells.db is under way"), "{error}");
        refused += 1;
    });
    assert_eq!((imported.unwrap().database_cells, refused), (1, 1));
    assert_eq!(world.import(&[&two]).unwrap().database_cells, 2);
    assert!(!world.0.path().join("cells.db.import").exists());
}

#[test]
fn a_truncated_file_changes_nothing_and_is_gone_on_with() {
    let world = World::new();
    world.import(&[&world.file("before.csv", line(7_777, 9.0, 1))]).unwrap();
    let before = fs::read(world.target()).unwrap();
    let lines: String = (0..1_000).map(|cell| line(cell, 10.0, 2)).collect();
    let first = world.file("first.csv", &lines[..lines.len() / 2]);
    let packed = gzip(lines.as_bytes());
    let broken = world.file("cells.csv.GZ", &packed[..packed.len() / 2]);
    let error = world.import(&[&first, &broken]).unwrap_err();
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    assert!(error.to_string().contains("import again to go on"), "{error}");
    assert_eq!(fs::read(world.target()).unwrap(), before);
    let again = world.import(&[&first, &broken]).unwrap_err();
    assert!(again.to_string().contains("cells.csv.GZ"), "{again}");
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

/// A folder of pieces that somebody has tidied up is worth nothing.
#[test]
fn an_import_begins_anew_where_a_piece_is_gone_or_cut() {
    let lines: String = (0..1_050).map(|cell| line(cell, 10.0, cell)).collect();
    for is_gone in [true, false] {
        let world = World::new();
        let source = world.file("cells.csv", &lines);
        let import = Import::new(vec![source.clone()], &world.target()).with_run_cells(100);
        let reads = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            import.run(|progress| assert!(!progress.is_merging, "cut off before the merge"))
        }));
        assert!(reads.is_err());
        let piece = world.0.path().join("cells.db.import/run-3");
        if is_gone {
            fs::remove_file(piece).unwrap();
        } else {
            fs::File::options().write(true).open(piece).unwrap().set_len(230).unwrap();
        }
        let imported = world.import(&[&source]).unwrap();
        assert_eq!((imported.was_resumed, imported.database_cells), (false, 1_050));
    }
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
    assert!(matches!(refused(&[]), OpenError::Header(_)));
    assert!(matches!(refused(b"radio,mcc"), OpenError::Header(_)));
    assert!(matches!(refused(&good[..good.len() - 1]), OpenError::Length { .. }));
    assert!(matches!(refused(&[&good[..], &[0]].concat()), OpenError::Length { .. }));
    assert!(matches!(refused(&good[..20]), OpenError::Damaged(_)));
    let mut changed = good.clone();
    changed[8] ^= 1;
    assert!(matches!(refused(&changed), OpenError::Damaged(_)));
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(refused(&changed), OpenError::Damaged(_)));
    // Damaged cells are found elsewhere or not at all.
    let mut changed = good;
    changed[64..6_000].fill(0xff);
    fs::write(world.target(), changed).unwrap();
    world.database().locate(&tower(1));
}

/// A database that was damaged, or of the release before, said "import it again", and the import
/// failed with the same words until the file was removed by hand.
#[test]
fn an_import_takes_the_place_of_a_database_that_cannot_be_read_and_says_so() {
    let world = World::new();
    let source = world.file("cells.csv", line(1, 10.0, 1));
    assert_eq!(world.import(&[&source]).unwrap().replaced, None);
    let good = fs::read(world.target()).unwrap();
    let with = |place: usize, byte: u8| {
        let mut changed = good.clone();
        changed[place] = byte;
        changed
    };
    let older = with(7, b'1');
    let damaged = [with(9, 1), with(good.len() - 1, 0xff), good[..good.len() - 1].to_vec()];
    for (bytes, reason) in [(older, "was made by an older version; import again")]
        .into_iter()
        .chain(damaged.map(|bytes| (bytes, "import it again")))
    {
        fs::write(world.target(), bytes).unwrap();
        let error = CellDatabase::open(&world.target()).unwrap_err().to_string();
        assert!(error.ends_with(reason), "{error}");
        let imported = world.import(&[&source]).unwrap();
        assert_eq!(imported.replaced, Some(error));
        assert_eq!(fs::read(world.target()).unwrap(), good);
    }
    assert_eq!(world.import(&[&source]).unwrap().replaced, None);
    // What never was a database is somebody's file: it stays.
    fs::write(world.target(), "a letter").unwrap();
    let error = world.import(&[&source]).unwrap_err();
    assert!(error.to_string().contains("is no cell database"), "{error}");
    assert_eq!(fs::read(world.target()).unwrap(), b"a letter");
}

/// Lines were counted over all files: a bad line of the second one was named by a number that
/// it does not have.
#[test]
fn lines_are_counted_in_each_file() {
    let world = World::new();
    let long: String = (0..250).map(|cell| line(cell, 10.0, 1)).collect();
    let first = world.file("first.csv", long.clone() + "bad\n");
    let second = world.file("second.csv", line(900, 10.0, 1) + "bad\n");
    let told = |imported: &Imported| -> Vec<(PathBuf, u64)> {
        imported.bad_lines.iter().map(|(path, line, _)| (path.clone(), *line)).collect()
    };
    let path = |path: &PathBuf| path.canonicalize().unwrap();
    let imported = world.import(&[&first, &second]).unwrap();
    assert_eq!(told(&imported), [(path(&first), 251), (path(&second), 2)]);
    assert_eq!(imported.lines, 253);
    // Also where an import goes on in the middle of a file.
    let third = world.file("third.csv", long + "bad\n");
    let sources = vec![second.clone(), third.clone()];
    let cut = Import::new(sources, &world.target()).with_run_cells(100);
    let reads = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cut.run(|progress| assert!(!progress.is_merging, "cut off before the merge"))
    }));
    assert!(reads.is_err());
    fs::remove_file(world.0.path().join("cells.db.import/run-2")).unwrap();
    let stand = world.0.path().join("cells.db.import/stand.json");
    let text = fs::read_to_string(&stand).unwrap();
    let mut saved: serde_json::Value = serde_json::from_str(&text).unwrap();
    // As it was after two pieces: the cell of the second file and 199 lines of the third.
    let bytes: usize = (0..199).map(|cell| line(cell, 10.0, 1).len()).sum();
    for (name, number) in [
        ("runs", 2),
        ("source", 1),
        ("text_bytes", bytes),
        ("source_lines", 199),
        ("lines", 201),
        ("cells", 200),
        ("bad", 1),
    ] {
        saved[name] = number.into();
    }
    fs::write(&stand, saved.to_string()).unwrap();
    let imported = world.import(&[&second, &third]).unwrap();
    assert!(imported.was_resumed);
    assert_eq!(told(&imported), [(path(&third), 251)]);
    assert_eq!((imported.lines, imported.cells, imported.bad), (253, 251, 2));
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn all_cells_are_found_and_no_others(cells in prop::collection::btree_map(
        (0_u64..4, 1_u64..1_000), -179.0_f64..179.0, 1..800,
    )) {
        let world = World::new();
        let text: String = cells
            .iter()
            .map(|((area, cell), longitude)| {
                format!("LTE,262,1,{area},{cell},0,{longitude},50.5,1000,9,1,0,1,0\n")
            })
            .collect();
        world.import(&[&world.file("cells.csv", text)]).unwrap();
        let database = world.database();
        for area in 0..5 {
            for cell in 0..1_001 {
                let tower = CellTower { area: Some(area), ..tower(cell) };
                let fix = database.locate(&tower).filter(|fix| fix.matched == CellMatch::Cell);
                let expected = cells.get(&(area.into(), cell));
                prop_assert_eq!(fix.is_some(), expected.is_some(), "{}/{}", area, cell);
                if let Some((fix, longitude)) = fix.zip(expected) {
                    prop_assert!((fix.position.coordinates.longitude() - longitude).abs() < 1e-7);
                }
            }
        }
    }
}

/// A cell of the model: radio, network, area, number.
type Cell = (bool, u16, u32, u64);
/// Its longitude and the week of its change.
type Said = (f64, u64);

const RADIOS: [(&str, RadioAccess); 2] = [("LTE", RadioAccess::LteM), ("UMTS", RadioAccess::Umts)];

fn cells() -> impl Strategy<Value = HashMap<Cell, Said>> {
    let number = (0_u64..3, 1_u64..12).prop_map(|(high, low)| high << 16 | low);
    let cell = (any::<bool>(), 1_u16..3, 0_u32..4, number);
    prop::collection::hash_map(cell, (10.0_f64..12.0, 0_u64..4), 1..300)
}

fn text((cell, said): (&Cell, &Said)) -> String {
    let ((umts, mnc, area, number), (longitude, week)) = (cell, said);
    let (radio, updated) = (RADIOS[usize::from(*umts)].0, week * 604_800);
    format!("{radio},262,{mnc},{area},{number},0,{longitude},50.5,1000,9,1,0,{updated},0\n")
}

/// What a plain map of cells says of a tower: how it is known, and the cells that say so.
fn expected(
    known: &HashMap<Cell, Said>,
    (umts, mnc): (bool, u16),
    (area, number): (Option<u32>, u64),
) -> Option<(CellMatch, Vec<f64>)> {
    let longitudes = |is_one: &dyn Fn(&Cell) -> bool| -> Vec<f64> {
        known.iter().filter(|(cell, _)| is_one(cell)).map(|(_, said)| said.0).collect()
    };
    let is_here = |cell: &Cell| (cell.0, cell.1) == (umts, mnc);
    let is_near = |cell: &Cell| is_here(cell) && area.is_none_or(|area| cell.2 == area);
    let exact = longitudes(&|cell| is_near(cell) && cell.3 == number);
    let short = umts && area.is_some() && number <= 0xffff;
    let short = longitudes(&|cell| short && is_near(cell) && cell.3 & 0xffff == number);
    let of_area = longitudes(&|cell| area.is_some() && is_near(cell));
    let of_network = longitudes(&is_here);
    [(CellMatch::Cell, exact, 1), (CellMatch::Cell, short, 1)]
        .into_iter()
        .chain([
            (CellMatch::Area, of_area, usize::MAX),
            (CellMatch::Network, of_network, usize::MAX),
        ])
        .find(|(_, found, most)| (1..=*most).contains(&found.len()))
        .map(|(matched, found, _)| (matched, found))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_database_says_what_a_plain_map_says(
        batches in prop::collection::vec((cells(), any::<bool>()), 1..4),
    ) {
        let world = World::new();
        let mut known: HashMap<Cell, Said> = HashMap::new();
        for (number, (batch, is_cut_off)) in batches.iter().enumerate() {
            let lines: String = batch.iter().map(text).collect();
            let source = world.file(&format!("{number}.csv"), lines);
            if *is_cut_off {
                // The source is gone before the end: the pieces that are complete stay.
                let import = Import::new(vec![source.clone()], &world.target()).with_run_cells(7);
                let whole = world.0.path().join("cells.db.new");
                fs::create_dir(&whole).unwrap();
                let cut_off = import.run(|_| {});
                prop_assert!(cut_off.is_err());
                fs::remove_dir(&whole).unwrap();
            }
            let imported = world.import(&[&source]).unwrap();
            prop_assert_eq!(imported.was_resumed, *is_cut_off);
            for (cell, said) in batch {
                let before = known.entry(*cell).or_insert(*said);
                *before = if said.1 >= before.1 { *said } else { *before };
            }
            prop_assert_eq!(imported.database_cells, known.len() as u64);
        }
        let database = world.database();
        let areas = || (0..5).map(Some).chain([None]);
        let numbers = || (0..4_u64).flat_map(|high| (0..13).map(move |low| high << 16 | low));
        for (umts, mnc) in [(false, 1), (false, 2), (false, 3), (true, 1), (true, 2)] {
            for (area, number) in areas().flat_map(|area| numbers().map(move |cell| (area, cell))) {
                let access = RADIOS[usize::from(umts)].1;
                let plmn = format!("262-0{mnc}").parse().unwrap();
                let fix = database.locate(&CellTower { access, plmn, area, cell: Some(number) });
                let expected = expected(&known, (umts, mnc), (area, number));
                prop_assert_eq!(
                    fix.map(|fix| fix.matched),
                    expected.as_ref().map(|(matched, _)| *matched)
                );
                let Some((fix, (_, of))) = fix.zip(expected) else { continue };
                let at = fix.position.coordinates.longitude();
                let accuracy = fix.position.accuracy_m.unwrap();
                // A degree of longitude at 50.5 degrees north.
                let away = |longitude: &f64| (longitude - at).abs() * 70_729.0;
                if fix.matched == CellMatch::Cell {
                    prop_assert!(away(&of[0]) < 0.1);
                } else if fix.matched == CellMatch::Area {
                    let within = of.iter().filter(|cell| away(cell) <= accuracy).count();
                    prop_assert!(within * 100 >= of.len() * 68, "{} of {}", within, of.len());
                }
            }
        }
    }
}
