//! The SIM registry.
