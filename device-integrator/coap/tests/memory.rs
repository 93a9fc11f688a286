//! What remembered exchanges cost.
#![allow(unsafe_code, reason = "an allocator that counts is a system interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::time::Instant;

use coap::wire::Code;
use coap::{Config, Endpoint, Event, Limits, Output, Response};

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

fn exchange(endpoint: &mut Endpoint<SocketAddr>, now: Instant, peer: SocketAddr, id: u16) {
    let [high, low] = id.to_be_bytes();
    let datagram = [0x44, 2, high, low, 1, 2, 3, 4, 0xb4, b'd', b'a', b't', b'a', 0xff, 7, 7];
    endpoint.handle_datagram(now, peer, &datagram);
    loop {
        match endpoint.poll_output() {
            Output::Event(Event::Request(request)) => {
                endpoint.respond(now, request.exchange, Response::new(Code::CHANGED));
            }
            Output::Timeout(_) => return,
            _ => {}
        }
    }
}

/// One test, because the counters are the process's.
#[test]
fn an_answered_exchange_costs_64_bytes_and_two_allocations_and_has_a_limit() {
    let limits = Limits { exchanges_max: 200_000, ..Limits::default() };
    let mut endpoint = Endpoint::new(Config { limits, ..Config::default() }, 1);
    let now = Instant::now();
    let peer = |number: u32| SocketAddr::from((number.to_be_bytes(), 5683));
    let before = (BYTES.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
    for round in 0..20 {
        for number in 0..10_000 {
            exchange(&mut endpoint, now, peer(number), round);
        }
    }
    assert_eq!(endpoint.exchanges(), 200_000);
    let bytes = BYTES.load(Ordering::Relaxed) - before.0;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before.1;
    assert!(bytes / 200_000 <= 64, "{} bytes per exchange", bytes / 200_000);
    // Options and payload; chunks and tables hardly count.
    assert!(allocations <= 401_000, "{allocations} allocations for 200,000 exchanges");

    // A flood from new addresses pushes out the oldest, and memory stays.
    for number in 0..400_000 {
        exchange(&mut endpoint, now, peer(0x1000_0000 + number), 1);
    }
    assert_eq!(endpoint.exchanges(), 200_000);
    assert_eq!(endpoint.counters().exchanges_evicted, 400_000);
    let per_exchange = (BYTES.load(Ordering::Relaxed) - before.0) / 200_000;
    // Each exchange now has a peer of its own, which is remembered with it.
    assert!(per_exchange <= 192, "{per_exchange} bytes per exchange and peer");
    println!("{} bytes per exchange, {per_exchange} with a peer of its own", bytes / 200_000);

    // Responses that nobody asked for leave nothing behind, confirmable or not.
    let before = BYTES.load(Ordering::Relaxed);
    for number in 0..100_000 {
        for first in [0x40, 0x50] {
            endpoint.handle_datagram(now, peer(0x2000_0000 + number), &[first, 0x45, 1, 1]);
            while !matches!(endpoint.poll_output(), Output::Timeout(_)) {}
        }
    }
    assert_eq!(BYTES.load(Ordering::Relaxed), before);
    assert_eq!(endpoint.counters().responses_unknown, 200_000);
}
