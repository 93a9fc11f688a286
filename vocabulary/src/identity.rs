//! Who sent a message, over what, and how that is known.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::{Iccid, Imsi};

/// The SIM behind a message, as it was known when the message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The SIM card; also the device id of the management API.
    pub iccid: Iccid,
    /// The subscriber, where the SIM registry knows it.
    pub imsi: Option<Imsi>,
    /// The source address of the message.
    pub ip: Option<IpAddr>,
}

/// The protocol that a message arrived by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// A plain datagram.
    Udp,
    /// CoAP, plain or over DTLS.
    Coap,
    /// LwM2M, plain or over DTLS.
    Lwm2m,
}

/// What vouches for an identity, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityClass {
    /// The source address, on a network that the operator declared a trusted APN.
    SimIp,
    /// A DTLS pre-shared key.
    DtlsPsk,
    /// A DTLS pre-shared key, from the SIM's own address.
    DtlsPskSimIp,
}

/// A word that names none of the values of its type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{word:?} is not known, allowed: {allowed}")]
pub struct UnknownWord {
    word: String,
    allowed: &'static str,
}

impl UnknownWord {
    pub(crate) fn new(word: &str, allowed: &'static str) -> Self {
        Self { word: word.to_owned(), allowed }
    }
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Coap, Self::Lwm2m];

    /// The name in events and in the management API: `UDP`, `COAP`, `LWM2M`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Coap => "COAP",
            Self::Lwm2m => "LWM2M",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Udp => 0,
            Self::Coap => 1,
            Self::Lwm2m => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.code() == code)
    }
}

impl IdentityClass {
    /// All classes, from weak to strong.
    pub const ALL: [Self; 3] = [Self::SimIp, Self::DtlsPsk, Self::DtlsPskSimIp];

    /// The name in messages and policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SimIp => "sim_ip",
            Self::DtlsPsk => "dtls_psk",
            Self::DtlsPskSimIp => "dtls_psk+sim_ip",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::SimIp => 0,
            Self::DtlsPsk => 1,
            Self::DtlsPskSimIp => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Case does not matter: the documented API shows `COAP` and `CoAP`.
impl FromStr for Protocol {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownWord::new(text, "UDP, COAP, LWM2M"))
    }
}

impl fmt::Display for IdentityClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_read_in_any_case() {
        assert_eq!("CoAP".parse(), Ok(Protocol::Coap));
        let error = "MQTT".parse::<Protocol>().unwrap_err();
        assert_eq!(error.to_string(), "\"MQTT\" is not known, allowed: UDP, COAP, LWM2M");
    }

    #[test]
    fn codes_come_back() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_code(protocol.code()), Some(protocol));
        }
        for class in IdentityClass::ALL {
            assert_eq!(IdentityClass::from_code(class.code()), Some(class));
        }
        assert_eq!(Protocol::from_code(9), None);
    }
}
