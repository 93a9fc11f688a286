//! Tests of the whole program: real sockets on loopback, real files, real foreign clients.

mod tidy;
