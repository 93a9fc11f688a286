//! What arbitrary bytes must not break. One file for each fuzz target, which includes it.

pub(crate) mod endpoint;
pub(crate) mod message;
