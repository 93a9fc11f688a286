//! What a server wants from its owner, and what the owner tells it.

use std::fmt;
use std::time::Instant;

use coap::Datagram;
use coap::wire::{Code, ContentFormat, Token};
use vocabulary::{Iccid, Timestamp};
use zeroize::Zeroizing;

use crate::contact::Contact;

/// What a server wants from its owner.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes.
    Transmit {
        /// To whom.
        to: Contact,
        /// What.
        bytes: Datagram,
    },
    /// Something happened.
    Event(Event),
    /// Nothing more; call [`crate::Server::handle_timeout`] at this time, if there is one.
    Timeout(Option<Instant>),
}

/// Names something that waits for [`crate::Server::settle`]; of one server alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Must be durable before the device hears of success.
    Save {
        /// To be settled.
        ticket: Ticket,
        /// Whose state.
        iccid: Iccid,
        /// What [`crate::Registry::restore`] takes; `None` deletes it.
        state: Option<Vec<u8>>,
    },
    /// To be durable within 5 s: an update, a new contact, an observation taken up or ended.
    SaveSoon {
        /// Whose state.
        iccid: Iccid,
        /// What [`crate::Registry::restore`] takes; `None` deletes it.
        state: Option<Vec<u8>>,
    },
    /// Values, as flat JSON: `{"/3303/0/5700":21.5}`.
    Uplink {
        /// The device waits until it is durable. Several uplinks of one message share a ticket;
        /// each is settled for itself, and the device hears once all are.
        ticket: Option<Ticket>,
        /// Whose values.
        iccid: Iccid,
        /// The message that brought them, if it was a Send or a notification.
        exchange: Option<Exchanged>,
        /// When they were measured, if the device says so.
        measured_at: Option<Timestamp>,
        /// The values.
        payload: Vec<u8>,
        /// What made the device send them.
        origin: Origin,
    },
    /// A registration or an update took effect: what was scheduled may go out.
    Awake {
        /// Which device.
        iccid: Iccid,
        /// A new registration, not an update.
        registered: bool,
    },
    /// A bootstrap over DTLS needs a fresh server key: [`Verdict::Key`] brings it.
    NeedKey {
        /// To be settled.
        ticket: Ticket,
        /// For which device.
        iccid: Iccid,
    },
    /// A bootstrap came to its end.
    BootstrapEnded {
        /// Of which device.
        iccid: Iccid,
        /// How.
        outcome: BootstrapOutcome,
    },
    /// An operation came to its end.
    CommandEnded {
        /// The number given to [`crate::Server::command`].
        command: u64,
        /// Of which device.
        iccid: Iccid,
        /// How.
        outcome: Outcome,
    },
    /// An operation waits for a device that another server hears: call
    /// [`crate::Server::advance`] of the server with this seat.
    Elsewhere {
        /// Which device.
        iccid: Iccid,
        /// Who hears it.
        seat: u32,
    },
    /// Something that an operator may want to find in the administration log.
    Notice {
        /// Of which device.
        iccid: Iccid,
        /// What happened, the same words each time.
        message: &'static str,
        /// The particulars.
        description: String,
    },
}

/// A message of a device, so that a copy of it is known after a restart, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanged {
    /// Its message id.
    pub message_id: u16,
    /// Its token.
    pub token: Token,
    /// Whether it was a CON.
    pub confirmable: bool,
    /// Which of the uplinks of the message this is, from zero: equal values measured at two times
    /// are two uplinks.
    pub part: u16,
}

/// What made a device send values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Its own decision: the Send operation.
    Send,
    /// An observation.
    Notification,
    /// An operation of ours.
    Command,
    /// Reading after registration or update.
    Passive,
}

/// What became of a ticket.
pub enum Verdict {
    /// It is durable.
    Done,
    /// It cannot be made durable now.
    Unavailable {
        /// When the device may come back.
        retry_after_seconds: u32,
        /// The device is to blame: 4.29 instead of 5.03 (RFC 8516).
        too_fast: bool,
    },
    /// The device may not, for this reason.
    Unauthorised(&'static str),
    /// A fresh server key, durable, for [`Event::NeedKey`].
    Key {
        /// The identity of the server account; that of the bootstrap account is the ICCID.
        identity: String,
        /// The key of the server account.
        key: Zeroizing<Vec<u8>>,
        /// The key of the bootstrap account as the device knows it; `None`: that account is not
        /// written.
        bootstrap_key: Option<Zeroizing<Vec<u8>>>,
    },
}

impl fmt::Debug for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => formatter.write_str("Done"),
            Self::Unavailable { retry_after_seconds, too_fast } => formatter
                .debug_struct("Unavailable")
                .field("retry_after_seconds", retry_after_seconds)
                .field("too_fast", too_fast)
                .finish(),
            Self::Unauthorised(reason) => write!(formatter, "Unauthorised({reason:?})"),
            // A key never appears.
            Self::Key { .. } => formatter.write_str("Key"),
        }
    }
}

/// How a bootstrap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootstrapOutcome {
    /// The device has its accounts.
    Done,
    /// It has not.
    Failed {
        /// What was asked of it last, for example "write /0/0".
        step: &'static str,
        /// Why.
        reason: String,
    },
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device answered.
    Answered {
        /// Its answer: 2.xx is success.
        code: Code,
        /// The format of its payload.
        format: Option<ContentFormat>,
        /// Flat JSON if it was decoded, otherwise as it came.
        payload: Vec<u8>,
        /// Whether it was decoded.
        decoded: bool,
    },
    /// The device did not answer, or could not be asked.
    Unreachable(String),
    /// The device has no registration, or lost it before it could be asked.
    NotRegistered,
    /// Path or value do not fit the object; nothing was sent.
    Invalid(String),
}
