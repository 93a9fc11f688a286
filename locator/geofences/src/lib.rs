//! Geofences: shapes on the globe, and who crosses their borders.
//!
//! [`Shape`] is a polygon with holes or a circle, right at the antimeridian and the poles.
//! [`FenceIndex`] finds the fences around a point, [`DeviceState::observe`] tells crossings by the
//! times at which devices were somewhere, one for each crossing.
//!
//! No I/O, no clock. Not here: where positions come from, and who is told.

mod index;
mod monitor;
mod shape;

pub use index::{Fence, FenceIndex};
pub use monitor::{Crossed, DeviceState, MalformedState, Observation, Rules};
pub use shape::{InvalidShape, POINTS_MAX, RADIUS_MAX_M, RADIUS_MIN_M, Shape};
