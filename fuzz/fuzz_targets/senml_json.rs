//! A path and a payload in SenML JSON.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/payload.rs"]
mod payload;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    payload::payload_survives(lwm2m::ContentFormat::SENML_JSON, bytes);
});
