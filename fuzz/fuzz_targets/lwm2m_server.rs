//! A row of datagrams, answers, verdicts, operations and times into an LwM2M server.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/mod.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::server_survives(bytes));
