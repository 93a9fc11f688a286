//! Everything between the gateway and a customer's HTTPS endpoint, against endpoints and name
//! servers that are as bad as they get. What all sinks must do is in `webhook_suite.rs`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod receiver;
mod webhook;
