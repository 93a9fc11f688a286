//! Tests of the whole log, on real files: behaviour, a model, crashes, faults.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod behaviour;
mod crash;
mod damage;
mod faults;
mod model;
mod readers;
mod retention;
mod world;
