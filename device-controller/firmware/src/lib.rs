//! Firmware updates over LwM2M (object 5).
pub mod device;
pub mod plan;
pub mod step;
