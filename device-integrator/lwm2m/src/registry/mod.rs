//! All registrations of a gateway, shared by the servers of all sockets.

use std::sync::Arc;

use vocabulary::{Iccid, Timestamp};

use crate::contact::Contact;
use crate::registration::{Registration, StateError};

/// Limits on what devices and operators can grow.
#[derive(Debug, Clone)]
pub struct RegistryLimits {
    /// Registrations. Default 1,000,000.
    pub registrations_max: usize,
    /// Observations of one device. Default 64.
    pub observations_per_device_max: usize,
    /// Operations that wait for one device. Default 20: the documented ten scheduled ones, and as
    /// many at once.
    pub queue_per_device_max: usize,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            registrations_max: 1_000_000,
            observations_per_device_max: 64,
            queue_per_device_max: 20,
        }
    }
}

/// All registrations of a gateway; clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    #[expect(dead_code)]
    limits: Arc<RegistryLimits>,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: RegistryLimits) -> Self {
        Self { limits: Arc::new(limits) }
    }

    /// Takes what [`crate::Event::Save`] gave before a restart; what has expired is dropped.
    /// `contact` stands for the one in the state, if the owner knows a better one.
    ///
    /// # Errors
    /// The bytes are no registration.
    pub fn restore(
        &self,
        _iccid: Iccid,
        _state: &[u8],
        _contact: Option<Contact>,
        _at: Timestamp,
    ) -> Result<(), StateError> {
        Ok(())
    }

    /// Whether the device has a registration.
    pub fn is_registered(&self, _iccid: Iccid) -> bool {
        false
    }

    /// Where the device was heard last.
    pub fn contact(&self, _iccid: Iccid) -> Option<Contact> {
        None
    }

    /// A copy of the device's registration.
    pub fn snapshot(&self, _iccid: Iccid) -> Option<Registration> {
        None
    }

    /// Registrations.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is no registration.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Observations of all devices.
    pub fn observations(&self) -> usize {
        0
    }

    /// Removes registrations that have expired, at most so many; the owner deletes their state.
    /// Operations that waited for them end with the next call of any server.
    pub fn expired(&self, _at: Timestamp, _max: usize) -> Vec<Iccid> {
        Vec::new()
    }
}
