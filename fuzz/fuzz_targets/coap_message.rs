//! Any bytes into the codec; what parses is written again as the same message.
#![no_main]

#[path = "../../device-integrator/coap/tests/survival/message.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::message_survives(bytes));
