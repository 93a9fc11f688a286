//! Which devices there are.

use std::fmt;
use std::sync::Arc;

use vocabulary::Iccid;

/// Says whether a device is one of the operator's. What was stored of others is history: it makes
/// no position, and nothing is remembered of them.
#[derive(Clone)]
pub struct Held(Arc<dyn Fn(Iccid) -> bool + Send + Sync>);

impl Held {
    /// Those for which `holds` is true. It is asked for each record, so it must not block.
    pub fn new(holds: impl Fn(Iccid) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    pub(crate) fn holds(&self, iccid: Iccid) -> bool {
        (self.0)(iccid)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Held").finish_non_exhaustive()
    }
}
