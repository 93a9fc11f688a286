//! Bytes as records of an established session.
#![no_main]

#[path = "../../device-integrator/dtls/tests/survival/records.rs"]
mod records;
#[path = "../../device-integrator/dtls/tests/survival/rig.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| records::survive(bytes));
