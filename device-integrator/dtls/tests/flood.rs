//! What spoofed and half-hearted peers cost in memory, and what sessions cost.
// The counting allocator below is the one system interface of this test.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use dtls::client::{Client, ClientConfig};
use dtls::{Config, Limits, Suite};
use world::{KEY, World, address, client_config, datagrams, psk};

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory of the process, with what the C library has.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    // The second number counts pages of 4,096 bytes.
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// One test, because the counters are the process's.
#[test]
fn a_million_spoofed_hellos_cost_no_memory_and_sessions_cost_little() {
    spoofed_hellos_cost_nothing();
    sessions_cost_little();
}

fn spoofed_hellos_cost_nothing() {
    let mut world = World::new(Config::default());
    let config = client_config(Suite::Aes128Ccm8, Some(b""));
    let (mut client, session) = world.connect(address(1), &config);
    let mut spoofer = Client::new(&config, world.now, None).unwrap();
    let hello = datagrams(&mut spoofer).remove(0);
    let (mut bytes_in, mut bytes_out) = (0, 0);
    world.events = Vec::new();
    let before = BYTES.load(Ordering::Relaxed);
    let resident_before = resident_bytes();
    for number in 0..1_000_000_u32 {
        let peer = SocketAddr::from(((0x0B00_0000 + number).to_be_bytes(), 5000));
        world.engine.handle_datagram(world.now, peer, &hello);
        world.poll();
        bytes_in += hello.len();
        bytes_out += world.sent.drain(..).map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    world.sent = Vec::new();
    let grown = BYTES.load(Ordering::Relaxed) - before;
    assert!(grown <= 4096, "{grown} bytes stay after a million hellos");
    let resident = resident_bytes().saturating_sub(resident_before);
    assert!(resident < 1 << 20, "the process grew by {resident} bytes");
    assert!(bytes_out <= bytes_in, "T7: {bytes_out} bytes sent for {bytes_in}");
    assert_eq!(world.engine.counters().hello_without_cookie, 1_000_001);
    assert_eq!(world.engine.half_open(), 0);
    world.echo(address(1), &mut client, session);
}

fn sessions_cost_little() {
    const SESSIONS: u32 = 10_000;
    let limits = Limits {
        handshakes_per_second: 1_000_000,
        handshakes_burst: 1_000_000,
        resumptions_max: 0,
        ..Limits::default()
    };
    let mut world = World::new(Config { limits, persistent: true, ..Config::default() });
    let before = resident_bytes();
    for last in 0..SESSIONS {
        // A device sends something, so our last flight need not be kept.
        let identity = format!("device-{last:012}");
        let suites = [Suite::Aes128Ccm8];
        let key = psk(KEY);
        let config = ClientConfig::new(identity.as_bytes(), &key, &suites, Some(b"")).unwrap();
        let (mut client, _) = world.connect(address(last), &config);
        assert!(client.send(b"hello"));
        assert_eq!(world.exchange(address(last), &mut client), []);
        world.events.clear();
    }
    let awake = (resident_bytes() - before) / u64::from(SESSIONS);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.awake(), 0);
    // The C library's memory is free, but the system's allocator keeps it: what sessions asleep
    // cost is measured by a second world that fills with imported ones.
    let changes = world.engine.changes(usize::MAX);
    let counted_before = BYTES.load(Ordering::Relaxed);
    let config = Config { generation: 1, persistent: true, ..Config::default() };
    let mut next = World::new(config);
    let mut longest = 0;
    for change in &changes {
        let dtls::Change::Saved { bytes, .. } = change else { panic!("{change:?}") };
        longest = longest.max(bytes.len());
        next.engine.import(bytes).unwrap();
    }
    let asleep = (BYTES.load(Ordering::Relaxed) - counted_before) / SESSIONS.cast_signed() as isize;
    assert!(awake <= 8 << 10, "{awake} bytes per session awake");
    assert!(asleep <= 1 << 10, "{asleep} bytes per session asleep");
    assert!(longest <= 400, "{longest} bytes per saved session");
}
