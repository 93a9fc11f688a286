//! The links of a registration and of a discovery.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/links.rs"]
mod links;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| links::links_survive(bytes));
