//! Sinks, and the forwarder before them, against clouds on loopback: scripted ones, and real
//! foreign servers.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod aiosmtpd;
mod aws;
mod aws_suite;
mod bare;
mod configuration;
mod email;
mod email_suite;
mod forwarding;
mod mosquitto;
mod moto;
mod mqtt;
mod places;
mod receiver;
mod scripted;
mod smtp;
mod suite;
mod webhook;
mod webhook_suite;
mod world;
