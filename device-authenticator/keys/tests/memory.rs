//! Memory per key, counted at the allocator.
#![allow(unsafe_code, reason = "an allocator that counts is a system interface")]
#![allow(clippy::unwrap_used, reason = "the lint exempts only what is marked #[test]")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use key_store::{KeyProtocol, Keys};
use sealing::KeySource;
use state::StateFile;
use vocabulary::{Iccid, Timestamp};

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

/// A million keys in 120 MB.
const BYTES_PER_KEY_MAX: usize = 120;
/// Enough for the tables to have grown several times; a multiple of it takes as much per key.
const KEYS: u64 = 65_536;

#[test]
fn a_key_costs_at_most_120_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFile::new(folder.path().join("state.db"));
    let source = KeySource::File(folder.path().join("keys.key"));
    let sims: Vec<Iccid> =
        (0..KEYS).map(|n| Iccid::from_u64(8_988_280_666_000_000_000 + n).unwrap()).collect();
    let keys = Keys::open(&state, &source).unwrap();
    let before = BYTES.load(Ordering::Relaxed);
    drop(keys.bootstrap(&sims, Timestamp::from_millis(1)).unwrap());
    let per_key = (BYTES.load(Ordering::Relaxed) - before) / sims.len();
    println!("{per_key} bytes per key");
    assert_eq!(keys.len(), sims.len());
    assert!(per_key <= BYTES_PER_KEY_MAX, "{per_key} bytes per key");
    let started = std::time::Instant::now();
    let reopened = Keys::open(&state, &source).unwrap();
    println!("opened {} keys in {:?}", reopened.len(), started.elapsed());
    let identity = sims[7].to_string();
    assert!(reopened.find(KeyProtocol::Coap, identity.as_bytes()).is_some());
}
