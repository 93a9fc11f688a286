//! A path and a payload of one value: text, opaque bytes, CBOR.
#![no_main]

#[path = "../../device-integrator/lwm2m/tests/survival/payload.rs"]
mod payload;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    payload::payload_survives(lwm2m::ContentFormat::TEXT_PLAIN, bytes);
    payload::payload_survives(lwm2m::ContentFormat::OCTET_STREAM, bytes);
    payload::payload_survives(lwm2m::ContentFormat::CBOR, bytes);
});
