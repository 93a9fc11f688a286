//! An object definition of an operator.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/definition.rs"]
mod definition;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| definition::definition_survives(bytes));
