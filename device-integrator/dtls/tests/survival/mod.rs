//! What must hold for any bytes: used by the tests and by the fuzz targets, one file for each.

pub(crate) mod records;
pub(crate) mod rig;
pub(crate) mod server;
