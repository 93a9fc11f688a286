//! The MQTT sink with brokers, real and scripted.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../bare/mod.rs"]
mod bare;
mod broker;
mod demands;
mod fake_broker;
mod faults;
#[path = "../mosquitto/mod.rs"]
mod mosquitto;
mod reader;
mod sinks;
#[path = "../suite/mod.rs"]
mod suite;
#[path = "../world/mod.rs"]
mod world;
