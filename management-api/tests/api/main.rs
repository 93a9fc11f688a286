//! The API over real sockets, on real domain crates in a folder of its own.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

mod actions;
mod administration_logs;
mod aws_integrations;
mod contract;
mod dead_letters;
mod deliveries;
mod devices;
mod email_integrations;
mod firmware;
mod gateway;
mod geolocation;
mod history;
mod integrations;
mod limits;
mod locator;
mod mqtt_integrations;
mod oauth;
mod onboarding;
mod operations;
mod psk;
mod replays;
mod settings;
mod sims;
mod templates;
mod tls;
mod webhook_options;
