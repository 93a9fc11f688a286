//! One SIM in 32 bytes, as the tables of the directory hold it.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;

use vocabulary::{Iccid, Identity, Imsi};

/// An IMSI has at most 15 digits, below 2^50, so the highest bits are free.
const ACTIVE: u64 = 1 << 63;
const HAS_IMSI: u64 = 1 << 62;
/// Always set, so that `Option<Entry>` takes no more than an entry. Unwrapped by the compiler.
const PRESENT: NonZeroU64 = NonZeroU64::new(1 << 61).unwrap();
const IMSI_BITS: u64 = PRESENT.get() - 1;

/// An address as a number: IPv4 as its mapped IPv6 form (RFC 4291 §2.5.5.2), so that a datagram of
/// a dual-stack socket finds its SIM. Zero (`::`, the unspecified address) is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AddressKey(u128);

impl AddressKey {
    /// Of a SIM without address.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits()),
        }
    }

    pub(crate) fn address(self) -> Option<IpAddr> {
        (self != Self::NONE).then(|| IpAddr::V6(Ipv6Addr::from_bits(self.0)).to_canonical())
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

/// A SIM: who it is, its address, and whether it may speak.
/// Two fill a cache line, and none lies in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(32))]
pub(crate) struct Entry {
    pub(crate) address: AddressKey,
    pub(crate) iccid: Iccid,
    subscriber: NonZeroU64,
}

impl Entry {
    pub(crate) fn new(identity: Identity, active: bool) -> Self {
        let imsi = identity.imsi.map_or(0, |imsi| HAS_IMSI | (imsi.as_u64() & IMSI_BITS));
        Self {
            address: identity.ip.map_or(AddressKey::NONE, AddressKey::new),
            iccid: identity.iccid,
            subscriber: PRESENT | imsi | if active { ACTIVE } else { 0 },
        }
    }

    pub(crate) fn without_address(self) -> Self {
        Self { address: AddressKey::NONE, ..self }
    }

    pub(crate) fn active(self) -> bool {
        self.subscriber.get() & ACTIVE != 0
    }

    pub(crate) fn identity(self) -> Identity {
        let imsi = if self.subscriber.get() & HAS_IMSI == 0 {
            None
        } else {
            Imsi::from_u64(self.subscriber.get() & IMSI_BITS)
        };
        Identity { iccid: self.iccid, imsi, ip: self.address.address() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_32_bytes_and_comes_back() {
        assert_eq!(size_of::<Option<Entry>>(), 32);
        for ip in ["100.91.200.24", "2001:db8::1"] {
            let identity = Identity {
                iccid: "9999999999999999999".parse().unwrap(),
                imsi: Some("999999999999999".parse().unwrap()),
                ip: Some(ip.parse().unwrap()),
            };
            assert_eq!(Entry::new(identity, true).identity(), identity);
            assert!(Entry::new(identity, true).active());
            assert!(!Entry::new(identity, false).active());
        }
        let bare = Identity { iccid: "8988280666000002864".parse().unwrap(), imsi: None, ip: None };
        assert_eq!(Entry::new(bare, true).identity(), bare);
        let zero = Identity { imsi: Some("000000000000000".parse().unwrap()), ..bare };
        assert_eq!(Entry::new(zero, false).identity(), zero);
    }

    #[test]
    fn a_mapped_address_is_the_address_that_it_maps() {
        let mapped = AddressKey::new("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(mapped, AddressKey::new([10, 0, 0, 1].into()));
        assert_eq!(mapped.address(), Some([10, 0, 0, 1].into()));
    }
}
