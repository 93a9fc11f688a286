//! The objects and instances that a device has, packed: a registration is kept for each of a
//! million devices.

/// No instance: the link names the object alone.
const NO_INSTANCE: u16 = u16::MAX;

/// The links of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// Object and instance, in ascending order.
    pub(super) places: Box<[(u16, u16)]>,
    /// The versions of objects that are not 1.0.
    pub(super) versions: Box<[(u16, u8, u8)]>,
    /// Where the objects lie, if it is not the root (LwM2M Core 1.1 §6.2.1).
    pub(super) root: Option<Box<str>>,
    /// The formats that the device announced, as bits of [`FORMATS`].
    pub(super) formats: u8,
}

impl Links {
    /// Object and instance of each link, in ascending order; `None`: the object alone.
    pub fn places(&self) -> impl Iterator<Item = (u16, Option<u16>)> {
        self.places
            .iter()
            .map(|(object, instance)| (*object, (*instance != NO_INSTANCE).then_some(*instance)))
    }
}
