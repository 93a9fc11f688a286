//! The inspector over a real log and a real state file, through its public face.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asking;
mod limits;
mod reading;
mod world;
