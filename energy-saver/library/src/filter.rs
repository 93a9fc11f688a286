//! The set of protocols that a template applies to.

use std::fmt;

use thiserror::Error;
use vocabulary::Protocol;

/// A set of protocols, never empty. LwM2M cannot be in it: its messages carry their own types.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProtocolFilter {
    bits: u8,
}

/// Why some protocols are no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// No protocol at all.
    #[error("protocol filter is empty, allowed: COAP, UDP or both")]
    Empty,
    /// A protocol without templates.
    #[error("protocol filter holds {0}, allowed: COAP, UDP or both")]
    Protocol(Protocol),
}

/// Protocols that can have a template, in the order of the documented API.
pub(crate) const FILTERABLE: [Protocol; 2] = [Protocol::Coap, Protocol::Udp];

/// Where a protocol stands in [`FILTERABLE`].
pub(crate) fn position(protocol: Protocol) -> Option<usize> {
    FILTERABLE.iter().position(|filterable| *filterable == protocol)
}

impl ProtocolFilter {
    /// A filter of these protocols; one named twice counts once.
    pub fn new(protocols: impl IntoIterator<Item = Protocol>) -> Result<Self, FilterError> {
        let mut bits = 0;
        for protocol in protocols {
            bits |= 1 << position(protocol).ok_or(FilterError::Protocol(protocol))?;
        }
        Self::from_bits(bits).ok_or(FilterError::Empty)
    }

    /// Whether a template with this filter applies to the protocol.
    pub fn contains(self, protocol: Protocol) -> bool {
        position(protocol).is_some_and(|position| self.bits & 1 << position != 0)
    }

    /// The protocols, COAP before UDP.
    pub fn protocols(self) -> impl Iterator<Item = Protocol> {
        FILTERABLE.into_iter().filter(move |protocol| self.contains(*protocol))
    }

    /// A protocol that both filters hold.
    pub(crate) fn overlap(self, other: Self) -> Option<Protocol> {
        self.protocols().find(|protocol| other.contains(*protocol))
    }

    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits != 0 && bits >> FILTERABLE.len() == 0).then_some(Self { bits })
    }
}

impl fmt::Debug for ProtocolFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.protocols()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_holds_what_it_was_made_of() {
        let udp = ProtocolFilter::new([Protocol::Udp, Protocol::Udp]).unwrap();
        assert!(udp.contains(Protocol::Udp));
        assert!(!udp.contains(Protocol::Coap));
        assert!(!udp.contains(Protocol::Lwm2m));
        let both = ProtocolFilter::new([Protocol::Udp, Protocol::Coap]).unwrap();
        assert!(both.protocols().eq([Protocol::Coap, Protocol::Udp]));
        assert_eq!(both.overlap(udp), Some(Protocol::Udp));
        assert_eq!(ProtocolFilter::from_bits(both.bits()), Some(both));
    }

    #[test]
    fn an_empty_filter_and_lwm2m_are_refused() {
        assert_eq!(ProtocolFilter::new([]), Err(FilterError::Empty));
        let error = ProtocolFilter::new([Protocol::Lwm2m]).unwrap_err();
        assert_eq!(error.to_string(), "protocol filter holds LWM2M, allowed: COAP, UDP or both");
        assert_eq!(ProtocolFilter::from_bits(4), None);
    }
}
