//! A row of datagrams, time-outs and calls of the owner into the endpoint.
#![no_main]

#[path = "../../device-integrator/coap/tests/survival/endpoint.rs"]
mod survival;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| survival::endpoint_survives(bytes));
