//! What arbitrary bytes must not break: also the bodies of the fuzz targets.

pub(crate) mod definition;
pub(crate) mod links;
pub(crate) mod payload;
