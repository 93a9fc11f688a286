//! A registration as it is kept on disk.

/// Why bytes are no registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Of another version.
    #[error("state has version {0}, known: 1")]
    Version(u8),
    /// They end early, go on too long or contradict themselves.
    #[error("state is damaged at byte {0}")]
    Damaged(usize),
}
pub(crate) struct Restored;
pub(crate) fn encode() {}
pub(crate) fn decode() {}
