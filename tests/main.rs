//! Tests of the whole program: real sockets on loopback, real files, real foreign clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod flows;
mod interop;
mod support;
mod tidy;
