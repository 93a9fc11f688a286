//! Bytes as records of an established session.
#![no_main]

#[allow(dead_code)]
#[path = "../../device-integrator/dtls/tests/survival/mod.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::records_survive(bytes));
