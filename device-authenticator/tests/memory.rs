//! Memory per SIM, counted at the allocator.
#![allow(unsafe_code, reason = "an allocator that counts is a system interface")]
#![allow(clippy::unwrap_used, reason = "the lint exempts only what is marked #[test]")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use device_authenticator::{DirectoryChange, SimDirectory};
use vocabulary::{Iccid, Imsi};

static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The customer's limit for everything that a SIM costs in memory.
const BYTES_PER_SIM_MAX: usize = 250;
const SIMS: u32 = 1_000_000;
/// Loading in parts leaves tables that grew, as they do in a gateway.
const BATCH: u32 = 250_000;

fn set(number: u32) -> DirectoryChange {
    DirectoryChange::Set {
        iccid: Iccid::from_u64(8_988_280_666_000_000_000 + u64::from(number)).unwrap(),
        imsi: Imsi::from_u64(901_405_100_000_000 + u64::from(number)),
        ip: Some(std::net::Ipv4Addr::from(0x6440_0000 + number).into()),
        active: true,
    }
}

#[test]
fn a_million_sims_cost_at_most_250_bytes_each() {
    let before = BYTES.load(Ordering::Relaxed);
    let directory = SimDirectory::new();
    for start in (0..SIMS).step_by(BATCH as usize) {
        let batch: Vec<_> = (start..start + BATCH).map(set).collect();
        assert!(directory.apply(&batch).takeovers.is_empty());
    }
    let after = BYTES.load(Ordering::Relaxed);
    let per_sim = (after - before) / SIMS as usize;
    println!("{per_sim} bytes per SIM");
    assert_eq!(directory.len(), SIMS as usize);
    assert!(per_sim <= BYTES_PER_SIM_MAX, "{per_sim} bytes per SIM");
}
