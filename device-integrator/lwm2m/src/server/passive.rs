//! Passive reporting: after each registration and update the server reads what the device has.

use vocabulary::Iccid;

use super::Server;
use crate::path::Path;

/// Objects that are not read: security and OSCORE hold secrets (LwM2M Core 1.1 Appendix E.1), and
/// server, access control and device are left out as documented.
const SKIPPED: [u16; 5] = [0, 1, 2, 3, 21];

impl Server {
    /// Begins to read a device's objects, unless that is still under way.
    pub(super) fn begin_passive_reporting(&mut self, iccid: Iccid) {
        if !self.passive {
            return;
        }
        let model = &self.model;
        self.registry.with(iccid, |entry| {
            let objects: Vec<u16> = entry
                .registration
                .links
                .objects()
                .filter(|object| !SKIPPED.contains(object))
                .filter(|object| model.is_readable(&Path::object(*object)))
                .collect();
            entry.begin_passive(objects.into_iter())
        });
    }
}
