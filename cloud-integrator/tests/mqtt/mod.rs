//! The MQTT sink with brokers, real and scripted.

mod broker;
mod demands;
mod fake_broker;
mod faults;
mod reader;
mod sinks;
