//! The decision about one datagram.

use std::net::IpAddr;

use thiserror::Error;
use vocabulary::{Iccid, Identity, IdentityClass};

use crate::SimDirectory;

/// What a source address proves on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTrust {
    /// The operator declared that only the network of its SIMs reaches this listener, and that the
    /// network lets no SIM use another's address.
    TrustedApn,
    /// Anybody may send here with any source address: it proves nothing.
    Untrusted,
}

/// Why a device may not speak. The device's fault or the configuration's, never an error of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No SIM has this address.
    #[error("no sim has this address")]
    UnknownAddress,
    /// The SIM is known and disabled.
    #[error("sim is disabled")]
    InactiveSim(Identity),
    /// The listener's source addresses are no identity.
    #[error("listener is not on a trusted apn, so a source address is no identity")]
    UntrustedListener,
    /// There is a key for it, but no SIM.
    #[error("no sim has the iccid of this key")]
    UnknownSim,
    /// The listener asks for the SIM's own address besides its key.
    #[error("the key of the sim is used from an address that is not the sim's")]
    OtherAddress(Identity),
    /// The key that the session began with was replaced.
    #[error("the key of the session was replaced")]
    ReplacedKey,
}

/// A key that a sender has proved to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHolder {
    /// The SIM whose key it is.
    pub iccid: Iccid,
    /// Where the sender is.
    pub ip: IpAddr,
    /// Whether it must be the SIM's own address besides.
    pub needs_address: bool,
}

impl SimDirectory {
    /// Decides whether a datagram from `ip`, received by a listener of this trust, is a device's.
    /// The identity's class is [`vocabulary::IdentityClass::SimIp`].
    ///
    /// An untrusted listener learns nothing about which addresses are known.
    pub fn authenticate(&self, ip: IpAddr, listener: ListenerTrust) -> Result<Identity, Refusal> {
        if listener == ListenerTrust::Untrusted {
            return Err(Refusal::UntrustedListener);
        }
        match self.find(ip) {
            None => Err(Refusal::UnknownAddress),
            Some(found) if !found.active => Err(Refusal::InactiveSim(found.identity)),
            Some(found) => Ok(found.identity),
        }
    }
}

impl SimDirectory {
    /// Decides whether whoever holds a key is a device, and how well that is vouched for: only on
    /// a trusted listener the address adds to the key.
    pub fn authenticate_key(
        &self,
        holder: KeyHolder,
        listener: ListenerTrust,
    ) -> Result<(Identity, IdentityClass), Refusal> {
        let found = self.find_iccid(holder.iccid).ok_or(Refusal::UnknownSim)?;
        if !found.active {
            return Err(Refusal::InactiveSim(found.identity));
        }
        let is_own = listener == ListenerTrust::TrustedApn && found.identity.ip == Some(holder.ip);
        match (is_own, holder.needs_address) {
            (true, _) => Ok((found.identity, IdentityClass::DtlsPskSimIp)),
            (false, false) => Ok((found.identity, IdentityClass::DtlsPsk)),
            (false, true) => Err(Refusal::OtherAddress(found.identity)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryChange;

    #[test]
    fn only_a_known_active_sim_on_a_trusted_listener_may_speak() {
        let directory = SimDirectory::new();
        let [known, inactive, unknown] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let set = |iccid: &str, ip, active| DirectoryChange::Set {
            iccid: iccid.parse().unwrap(),
            imsi: None,
            ip: Some(ip),
            active,
        };
        directory.apply(&[
            set("8988280666000000001", known, true),
            set("8988280666000000002", inactive, false),
        ]);
        let trusted = |ip| directory.authenticate(ip, ListenerTrust::TrustedApn);
        assert_eq!(trusted(known).unwrap().iccid.to_string(), "8988280666000000001");
        assert_eq!(trusted(unknown), Err(Refusal::UnknownAddress));
        let refused = trusted(inactive).unwrap_err();
        assert!(matches!(refused, Refusal::InactiveSim(sim) if sim.ip == Some(inactive)));
        let refused = directory.authenticate(known, ListenerTrust::Untrusted);
        assert_eq!(refused, Err(Refusal::UntrustedListener));
    }

    #[test]
    fn a_key_counts_with_or_without_the_address_as_the_listener_says() {
        let directory = SimDirectory::new();
        let [own, foreign] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let iccid: Iccid = "8988280666000000001".parse().unwrap();
        let set = |active| DirectoryChange::Set { iccid, imsi: None, ip: Some(own), active };
        directory.apply(&[set(true)]);
        let (trusted, open) = (ListenerTrust::TrustedApn, ListenerTrust::Untrusted);
        let class = |ip, needs_address, listener| {
            let holder = KeyHolder { iccid, ip, needs_address };
            directory.authenticate_key(holder, listener).map(|(_, class)| class)
        };
        assert_eq!(class(own, false, trusted), Ok(IdentityClass::DtlsPskSimIp));
        assert_eq!(class(own, true, trusted), Ok(IdentityClass::DtlsPskSimIp));
        assert_eq!(class(own, false, open), Ok(IdentityClass::DtlsPsk));
        assert_eq!(class(foreign, false, trusted), Ok(IdentityClass::DtlsPsk));
        assert!(matches!(class(foreign, true, trusted), Err(Refusal::OtherAddress(_))));
        directory.apply(&[set(false)]);
        assert!(matches!(class(own, false, trusted), Err(Refusal::InactiveSim(_))));
        let stranger = "8988280666000000009".parse().unwrap();
        let holder = KeyHolder { iccid: stranger, ip: own, needs_address: false };
        assert_eq!(directory.authenticate_key(holder, trusted), Err(Refusal::UnknownSim));
    }
}
