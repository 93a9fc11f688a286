//! A path and a payload in the JSON of LwM2M 1.0.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/payload.rs"]
mod payload;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    payload::payload_survives(lwm2m::ContentFormat::LWM2M_JSON, bytes);
});
