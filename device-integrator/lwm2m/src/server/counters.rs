//! What happened, in numbers.

/// Plain counters since the server began; the owner reads them at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams handled.
    pub received: u64,
}

impl Counters {
    /// Names and values, for a metrics page.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("received", self.received)].into_iter()
    }
}
