//! What became of each datagram, in numbers.

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Fate {
    /// Its report is durable, and it was answered.
    Stored,
    /// Its report could not be stored. Its sender sends again.
    NotStored,
    /// A copy of one that was being stored.
    DuplicateWaiting,
    /// A copy of one that was stored: answered again.
    DuplicateAnswered,
    /// A status type that says nothing of sessions: answered, not stored.
    OtherStatus,
    /// A Status-Server: answered.
    StatusRequest,
    /// No client has the address.
    UnknownClient,
    /// A length that lies.
    Malformed,
    /// Neither an Accounting-Request nor a Status-Server.
    UnexpectedCode,
    /// Signed with another secret, or changed on its way.
    WrongAuthenticator,
    /// The same for the Message-Authenticator.
    WrongMessageAuthenticator,
    /// The client must send a Message-Authenticator, and has not.
    NoMessageAuthenticator,
    /// Without what a report needs, or with a value that has no meaning.
    Unusable,
    /// Sent at a time too far from ours.
    Stale,
    /// Too many are being stored.
    Overloaded,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Stored,
        Self::NotStored,
        Self::DuplicateWaiting,
        Self::DuplicateAnswered,
        Self::OtherStatus,
        Self::StatusRequest,
        Self::UnknownClient,
        Self::Malformed,
        Self::UnexpectedCode,
        Self::WrongAuthenticator,
        Self::WrongMessageAuthenticator,
        Self::NoMessageAuthenticator,
        Self::Unusable,
        Self::Stale,
        Self::Overloaded,
    ];

    /// The name on a metrics page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::NotStored => "not_stored",
            Self::DuplicateWaiting => "duplicate_waiting",
            Self::DuplicateAnswered => "duplicate_answered",
            Self::OtherStatus => "other_status",
            Self::StatusRequest => "status_request",
            Self::UnknownClient => "unknown_client",
            Self::Malformed => "malformed",
            Self::UnexpectedCode => "unexpected_code",
            Self::WrongAuthenticator => "wrong_authenticator",
            Self::WrongMessageAuthenticator => "wrong_message_authenticator",
            Self::NoMessageAuthenticator => "no_message_authenticator",
            Self::Unusable => "unusable",
            Self::Stale => "stale",
            Self::Overloaded => "overloaded",
        }
    }

    /// The word in a notice.
    pub(crate) const fn as_word(self) -> &'static str {
        match self {
            Self::UnknownClient => "UnknownClient",
            Self::WrongAuthenticator | Self::WrongMessageAuthenticator => "WrongSecret",
            Self::NoMessageAuthenticator => "NoMessageAuthenticator",
            Self::Stale => "Clock",
            Self::Overloaded => "Overloaded",
            _ => "Unusable",
        }
    }
}

/// Plain counters since the server began; the owner reads them at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams handled. Each is counted once more in one of the fates, as soon as it has one:
    /// see [`Counters::accounted`].
    pub received: u64,
    fates: [u64; Fate::ALL.len()],
    /// Responses, also those to copies.
    pub responses: u64,
    /// Values that had no meaning, so that a report went without them.
    pub values_ignored: u64,
    /// Answered packets that were forgotten early, because there were too many.
    pub forgotten: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, fate: Fate) {
        // The discriminants are the places: `ALL` has the order of the enum.
        if let Some(counter) = self.fates.get_mut(fate as usize) {
            *counter += 1;
        }
    }

    /// How many datagrams had this fate.
    pub fn of(&self, fate: Fate) -> u64 {
        self.fates.get(fate as usize).copied().unwrap_or_default()
    }

    /// The sum over the fates: with the reports that are being stored, all that were received.
    pub fn accounted(&self) -> u64 {
        self.fates.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_has_a_place_and_a_name_of_its_own() {
        for (place, fate) in Fate::ALL.into_iter().enumerate() {
            assert_eq!(place, fate as usize);
            let same = Fate::ALL.iter().filter(|other| other.as_str() == fate.as_str());
            assert_eq!(same.count(), 1, "{fate:?}");
        }
    }
}
