//! Which state of which registration: what tells whether another one was given out to be saved.

/// A state of a registration; no two of a registry are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Revision {
    /// Numbers the registrations in the order in which devices asked for them.
    pub(super) number: u64,
    /// How often this one was given out to be saved.
    pub(super) saves: u32,
}

/// The place of a registration that is being made durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(super) number: u64,
    /// The registration that it is to replace.
    pub(super) replaces: Option<Revision>,
    /// Deletions among its neighbours so far.
    pub(super) deletions: u64,
    /// The one before has expired, and its state may be deleted only later than the new one is
    /// written.
    pub(super) is_expired: bool,
}
