//! CoAP endpoint, sans-IO.
