//! Cost of a look-up among a million SIMs, and of changing one.
//!
//! `cargo bench -p device-authenticator`; samples of look-ups are long, or the caches that the
//! clock's own code emptied would be most of what is measured.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::LazyLock;

use device_authenticator::{DirectoryChange, SimDirectory};
use vocabulary::{Iccid, Imsi};

const SIMS: u32 = 1_000_000;

static DIRECTORY: LazyLock<SimDirectory> = LazyLock::new(|| {
    let directory = SimDirectory::new();
    directory.apply(&(0..SIMS).filter_map(set).collect::<Vec<_>>());
    directory
});

fn main() {
    LazyLock::force(&DIRECTORY);
    divan::main();
}

fn iccid(number: u32) -> Option<Iccid> {
    Iccid::from_u64(8_988_280_666_000_000_000 + u64::from(number))
}

fn ip(number: u32) -> IpAddr {
    IpAddr::V4((0x6440_0000 + number).into())
}

fn set(number: u32) -> Option<DirectoryChange> {
    Some(DirectoryChange::Set {
        iccid: iccid(number)?,
        imsi: Imsi::from_u64(901_405_100_000_000 + u64::from(number)),
        ip: Some(ip(number)),
        active: true,
    })
}

/// Visits all SIMs in an order that no cache can foresee (an odd factor permutes 2^20 numbers).
fn scattered(step: &mut u32) -> u32 {
    *step = step.wrapping_add(1);
    (step.wrapping_mul(0x9e37_79b1) >> 12) % SIMS
}

/// Random SIMs: the entry comes from main memory.
#[divan::bench(sample_size = 10_000)]
fn authenticate_scattered(bencher: divan::Bencher) {
    let mut step = 0;
    bencher.bench_local(|| black_box(DIRECTORY.find(ip(scattered(&mut step)))));
}

/// A thousand SIMs that talk often: the entry is in a cache.
#[divan::bench(sample_size = 10_000)]
fn authenticate_thousand(bencher: divan::Bencher) {
    let mut step = 0;
    bencher.bench_local(|| {
        let number = scattered(&mut step) % 1_000;
        black_box(DIRECTORY.find(ip(number)))
    });
}

#[divan::bench(sample_size = 10_000)]
fn refuse_unknown(bencher: divan::Bencher) {
    let mut step = 0;
    bencher.bench_local(|| {
        let number = SIMS + scattered(&mut step);
        black_box(DIRECTORY.find(ip(number)))
    });
}

#[divan::bench(sample_size = 10_000)]
fn find_iccid_scattered(bencher: divan::Bencher) {
    let mut step = 0;
    bencher.bench_local(|| black_box(DIRECTORY.find_iccid(iccid(scattered(&mut step))?)));
}

#[divan::bench]
fn change_one(bencher: divan::Bencher) {
    let mut step = 0;
    bencher.bench_local(|| Some(DIRECTORY.apply(&[set(scattered(&mut step))?])));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn load_million(bencher: divan::Bencher) {
    let changes: Vec<_> = (0..SIMS).filter_map(set).collect();
    bencher.bench_local(|| {
        let directory = SimDirectory::new();
        directory.apply(&changes);
        directory
    });
}
