//! The decision about one datagram of a listener without DTLS.

use std::net::IpAddr;

use thiserror::Error;
use vocabulary::Identity;

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
}
