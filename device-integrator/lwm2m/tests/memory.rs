//! What a registered device costs.
#![allow(unsafe_code, reason = "an allocator that counts is a system interface")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

#[expect(dead_code, reason = "each test binary uses a part")]
mod scene;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use lwm2m::Registry;
use scene::{Scene, notify, sim};

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);

/// What an allocation of the system's allocator takes beyond what was asked: 8 bytes, and up to
/// 16 by rounding.
fn real(size: usize) -> isize {
    (size + 8).next_multiple_of(16).max(32).cast_signed()
}

// SAFETY: every call is handed to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(real(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.fetch_sub(real(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEVICES: u32 = 10_000;
const LINKS: &str = "</>;rt=\"oma.lwm2m\";ct=\"110 112 11542\",</1/0>,</3/0>,</4/0>,</5/0>,\
    </3303/0>,</3303/1>,</3304/0>,</3311/0>,</3342/0>,</3347/0>";

/// One test, because the counter is the process's.
#[test]
fn an_idle_device_with_an_observation_costs_less_than_2_kib() {
    let mut scene = Scene::new();
    // What does not depend on devices is there before.
    scene.register(sim(60_000), "lt=86400&lwm2m=1.1&b=U&Q", LINKS);
    let per_device = |before: isize| {
        (BYTES.load(Ordering::Relaxed) - before) / isize::try_from(DEVICES).unwrap()
    };
    let before = BYTES.load(Ordering::Relaxed);
    let mut tokens = Vec::new();
    for number in 0..u64::from(DEVICES) {
        scene.register(sim(number), "lt=86400&lwm2m=1.1&b=U&Q", LINKS);
        tokens.push(scene.observe(sim(number), "/3303/0/5700"));
        let step = scene.receive(sim(number), &notify(7, &tokens[tokens.len() - 1], 2, b"21.5"));
        for ticket in step.tickets() {
            scene.settle(0, ticket, lwm2m::Verdict::Done);
        }
    }
    assert_eq!((scene.registry.len(), scene.registry.observations()), (10_001, 10_000));
    drop(tokens);
    let busy = per_device(before);
    // After the exchange lifetime nothing is remembered against copies any more.
    scene.at(300);
    for _ in 0..100 {
        scene.timeout(0);
    }
    let idle = per_device(before);
    println!("{busy} bytes per device in traffic, {idle} when idle");
    assert!(busy <= 2_048, "{busy} bytes per device");
    assert!(idle <= busy);

    // The registry alone, as it is after a restart.
    let states: Vec<Vec<u8>> = (0..u64::from(DEVICES))
        .map(|number| {
            let location = scene.registry.snapshot(scene::iccid(number)).unwrap().id;
            let step =
                scene.ask(sim(number), coap::wire::Code::POST, &format!("/rd/{location}"), None);
            step.state().unwrap()
        })
        .collect();
    assert!(states.iter().all(|state| state.len() <= 600));
    let before = BYTES.load(Ordering::Relaxed);
    let registry = Registry::new(lwm2m::RegistryLimits::default());
    for (number, state) in (0..).zip(&states) {
        registry.restore(scene::iccid(number), state, Some(sim(number).contact)).unwrap();
    }
    let restored = per_device(before);
    println!("{restored} bytes per device in the registry, {} on disk", states[0].len());
    assert!(restored <= 1_024, "{restored} bytes per device");
}
