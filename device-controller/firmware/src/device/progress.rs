//! How far a device is: what has to survive a restart.

use vocabulary::Timestamp;

/// What an update does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Asks what the device can and how it is.
    Probing,
    /// Brings it back to idle.
    Clearing,
    /// Asks to be told of changes.
    Observing,
    /// Writes the address of the image, or the image.
    Delivering,
    /// Waits until the device has the image.
    Downloading,
    /// Tells the device to install it.
    Installing,
    /// Waits for the device and its result.
    Rebooting,
    /// Waits for the next attempt.
    Pausing,
    /// The device has the new firmware.
    Succeeded,
    /// It has not, and no attempt is left.
    Failed,
    /// Given up at the user's wish.
    Cancelled,
}

/// How the image goes to one device, as decided from what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It fetches it by CoAP.
    Pull,
    /// It fetches it by CoAP over DTLS.
    PullSecure,
    /// It is written to it.
    Push,
}

/// How far a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is done at the moment.
    pub stage: Stage,
    /// The attempt, from 1.
    pub attempt: u32,
    /// When the first step was made.
    pub started: Timestamp,
    /// When something last moved.
    pub since: Timestamp,
    /// How the image goes to the device.
    pub delivery: Option<Delivery>,
    /// The firmware version before the update.
    pub version_before: Option<String>,
    /// The firmware version after it.
    pub version_after: Option<String>,
    /// What Update Result held before this attempt began.
    pub(crate) stale_result: i64,
    /// Whether Update Result was seen at 0 in this attempt: what it shows then is new.
    pub(crate) zero_seen: bool,
    /// Whether State was seen to leave idle in this attempt.
    pub(crate) moved: bool,
    /// Whether pull was tried and cannot work.
    pub(crate) push_only: bool,
    /// Bytes of the image that the device has, as far as known.
    pub bytes: u64,
    /// Why it failed.
    pub failure: Option<String>,
}

const STAGES: [Stage; 11] = [
    Stage::Probing,
    Stage::Clearing,
    Stage::Observing,
    Stage::Delivering,
    Stage::Downloading,
    Stage::Installing,
    Stage::Rebooting,
    Stage::Pausing,
    Stage::Succeeded,
    Stage::Failed,
    Stage::Cancelled,
];

impl Stage {
    /// As stored.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        STAGES.get(usize::from(code)).copied()
    }

    /// In capitals, as in `DOWNLOADING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probing => "PROBING",
            Self::Clearing => "CLEARING",
            Self::Observing => "OBSERVING",
            Self::Delivering => "DELIVERING",
            Self::Downloading => "DOWNLOADING",
            Self::Installing => "INSTALLING",
            Self::Rebooting => "REBOOTING",
            Self::Pausing => "PAUSING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl Delivery {
    /// As stored.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Pull => 1,
            Self::PullSecure => 2,
            Self::Push => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Pull, Self::PullSecure, Self::Push].into_iter().find(|known| known.code() == code)
    }

    /// `PULL`, `PULL_SECURE` or `PUSH`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "PULL",
            Self::PullSecure => "PULL_SECURE",
            Self::Push => "PUSH",
        }
    }
}

impl Progress {
    /// At the beginning.
    pub fn new(now: Timestamp) -> Self {
        Self {
            stage: Stage::Probing,
            attempt: 1,
            started: now,
            since: now,
            delivery: None,
            version_before: None,
            version_after: None,
            stale_result: 0,
            zero_seen: false,
            moved: false,
            push_only: false,
            bytes: 0,
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_and_deliveries_keep_their_codes() {
        for (code, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(usize::from(stage.code()), code);
            assert_eq!(Stage::from_code(stage.code()), Some(stage));
        }
        assert_eq!(Stage::from_code(11), None);
        for delivery in [Delivery::Pull, Delivery::PullSecure, Delivery::Push] {
            assert_eq!(Delivery::from_code(delivery.code()), Some(delivery));
        }
    }
}
