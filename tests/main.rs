//! Tests of the whole program: real sockets on loopback, real files, real foreign clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod bootstrap;
mod coaps;
mod coaps_attacks;
mod coaps_interop;
mod commands;
mod disk_full;
mod downlink;
mod email;
mod firmware;
mod flows;
mod interop;
mod locate;
mod lwm2m;
mod lwm2m_interop;
mod network;
mod outage;
mod overload;
mod restart;
mod support;
mod tidy;
