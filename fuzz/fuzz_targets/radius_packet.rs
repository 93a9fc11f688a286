//! Any bytes as a datagram, as attributes that a client has signed, and as a location.
#![no_main]

#[path = "../../connectivity/radius/tests/survival/mod.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::packet_survives(bytes));
