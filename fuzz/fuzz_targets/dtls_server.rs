//! A row of datagrams, mutated ones of a true client, and time, into the engine.
#![no_main]

#[allow(dead_code)]
#[path = "../../device-integrator/dtls/tests/survival/mod.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::server_survives(bytes));
