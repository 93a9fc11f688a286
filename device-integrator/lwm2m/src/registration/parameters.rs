//! The query of registrations and updates (LwM2M Core 1.1 table 6.2.1-1).

/// How a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Binding {
    bits: u8,
}

impl Binding {
    /// Whether the device sleeps and is reached only after it was heard.
    pub const fn is_queued(self) -> bool {
        self.bits & 0x80 != 0
    }
}
pub(crate) struct Parameters;
pub(crate) struct Refused;
