//! A row of datagrams, mutated ones of a true client, and time, into the engine.
#![no_main]

#[path = "../../device-integrator/dtls/tests/survival/server.rs"]
mod server;
#[path = "../../device-integrator/dtls/tests/survival/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| server::survive(bytes));
