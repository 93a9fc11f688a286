//! The decision about one datagram.

use std::net::IpAddr;
use std::sync::Arc;

use data_sessions::{Lease, Sessions};
use thiserror::Error;
use vocabulary::{Iccid, Identity, IdentityClass, Imsi, Timestamp};

use crate::{Found, SimDirectory};

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
    /// The network said whose the address was too long ago.
    #[error("the data session that held the address was not heard for too long")]
    StaleSession,
    /// The network contradicts itself.
    #[error("data sessions of two sims claim the address")]
    ContestedAddress,
    /// The network says whose the address is, and no SIM of ours is that.
    #[error("the data session that holds the address is of no known sim")]
    UnknownHolder,
    /// The network names another subscriber for the card than the registry.
    #[error("the data session that holds the address names another imsi than the registry")]
    OtherSubscriber(Identity),
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

/// What makes a source address the address of a SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// The static address in the SIM registry alone.
    Registry,
    /// A live data session alone.
    Sessions,
    /// A live data session, and the registry for addresses that no feed says another SIM has had.
    Both,
}

/// A SIM that an address speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributed {
    /// The SIM, with this address.
    pub identity: Identity,
    /// Whether it may speak.
    pub active: bool,
    /// The data session that says so; without one it was the registry.
    pub session: Option<u64>,
}

/// Says which SIM an address speaks for. One rule for everybody who asks, and never a wrong answer:
/// what is not certain is refused.
#[derive(Clone)]
pub struct Attribution {
    source: AddressSource,
    directory: Arc<SimDirectory>,
    sessions: Sessions,
}

impl Attribution {
    /// From the sources that `source` says.
    pub fn new(source: AddressSource, directory: Arc<SimDirectory>, sessions: Sessions) -> Self {
        Self { source, directory, sessions }
    }

    /// All SIMs.
    pub fn directory(&self) -> &Arc<SimDirectory> {
        &self.directory
    }

    /// The SIM that `ip` speaks for.
    pub fn find(&self, ip: IpAddr, now: Timestamp) -> Result<Attributed, Refusal> {
        if self.source == AddressSource::Registry {
            return self.registered(ip);
        }
        match self.sessions.find(ip, now) {
            Lease::Live { session, iccid, imsi } => {
                let found = self.holder(iccid, imsi)?;
                let identity = Identity { ip: Some(ip.to_canonical()), ..found.identity };
                Ok(Attributed { identity, active: found.active, session: Some(session) })
            }
            Lease::Contested => Err(Refusal::ContestedAddress),
            Lease::Stale { iccid, imsi } => self.agreed(ip, (iccid, imsi)),
            // Whoever came after may be anybody, unless the address is always the same SIM's.
            Lease::Ended { iccid, imsi } => {
                self.agreed(ip, (iccid, imsi)).map_err(|_| Refusal::UnknownAddress)
            }
            Lease::None if self.source == AddressSource::Both => self.registered(ip),
            Lease::None => Err(Refusal::UnknownAddress),
        }
    }

    /// Decides whether a datagram from `ip`, received by a listener of this trust, is a device's.
    /// The identity's class is [`vocabulary::IdentityClass::SimIp`].
    ///
    /// An untrusted listener learns nothing about which addresses are known.
    pub fn authenticate(
        &self,
        ip: IpAddr,
        listener: ListenerTrust,
        now: Timestamp,
    ) -> Result<Attributed, Refusal> {
        if listener == ListenerTrust::Untrusted {
            return Err(Refusal::UntrustedListener);
        }
        let found = self.find(ip, now)?;
        if found.active { Ok(found) } else { Err(Refusal::InactiveSim(found.identity)) }
    }

    /// Decides whether whoever holds a key is a device, and how well that is vouched for: only on
    /// a trusted listener the address adds to the key.
    pub fn authenticate_key(
        &self,
        holder: KeyHolder,
        listener: ListenerTrust,
        now: Timestamp,
    ) -> Result<(Attributed, IdentityClass), Refusal> {
        let known = self.directory.find_iccid(holder.iccid).ok_or(Refusal::UnknownSim)?;
        if !known.active {
            return Err(Refusal::InactiveSim(known.identity));
        }
        let at_address = match listener {
            ListenerTrust::TrustedApn => self.find(holder.ip, now).ok(),
            ListenerTrust::Untrusted => None,
        };
        match at_address.filter(|found| found.identity.iccid == holder.iccid) {
            Some(own) => Ok((own, IdentityClass::DtlsPskSimIp)),
            None if holder.needs_address => Err(Refusal::OtherAddress(known.identity)),
            None => {
                let attributed =
                    Attributed { identity: known.identity, active: true, session: None };
                Ok((attributed, IdentityClass::DtlsPsk))
            }
        }
    }

    /// Where a SIM is: the address that [`Attribution::find`] finds it under.
    pub fn address_of(&self, iccid: Iccid, now: Timestamp) -> Option<IpAddr> {
        let registered = || self.directory.find_iccid(iccid).and_then(|found| found.identity.ip);
        let leased = || self.sessions.address_of(iccid, now);
        let address = match self.source {
            AddressSource::Registry => return registered(),
            AddressSource::Sessions => leased(),
            AddressSource::Both => leased().or_else(registered),
        }?;
        let speaks_for = self.find(address, now).ok()?;
        (speaks_for.identity.iccid == iccid).then_some(address)
    }

    fn registered(&self, ip: IpAddr) -> Result<Attributed, Refusal> {
        let found = self.directory.find(ip).ok_or(Refusal::UnknownAddress)?;
        Ok(Attributed { identity: found.identity, active: found.active, session: None })
    }

    /// The SIM of a session. A feed that names card and subscriber must agree with the registry.
    fn holder(&self, iccid: Option<Iccid>, imsi: Option<Imsi>) -> Result<Found, Refusal> {
        let found = match (iccid, imsi) {
            (Some(iccid), _) => self.directory.find_iccid(iccid),
            (None, Some(imsi)) => self.directory.find_imsi(imsi),
            (None, None) => None,
        };
        let found = found.ok_or(Refusal::UnknownHolder)?;
        let iccid = found.identity.iccid;
        let is_other = match (imsi, found.identity.imsi) {
            (Some(told), Some(known)) => told != known,
            // What the registry does not know of this card it may know of another.
            (Some(told), None) => {
                self.directory.find_imsi(told).is_some_and(|sim| sim.identity.iccid != iccid)
            }
            (None, _) => false,
        };
        if is_other { Err(Refusal::OtherSubscriber(found.identity)) } else { Ok(found) }
    }

    /// A feed that has fallen silent, and a session that has ended, are no reason to refuse a SIM
    /// whose address is its own in the registry as well.
    fn agreed(
        &self,
        ip: IpAddr,
        (iccid, imsi): (Option<Iccid>, Option<Imsi>),
    ) -> Result<Attributed, Refusal> {
        let registered = self.registered(ip).ok().filter(|_| self.source == AddressSource::Both);
        let registered = registered.ok_or(Refusal::StaleSession)?;
        let leased = self.holder(iccid, imsi).map_err(|_| Refusal::StaleSession)?;
        let agree = leased.identity.iccid == registered.identity.iccid;
        agree.then_some(registered).ok_or(Refusal::StaleSession)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_sessions::Settings;
    use vocabulary::{SessionChange, SessionReport};

    use super::*;
    use crate::DirectoryChange;

    const ONE: &str = "8988280666000000001";
    const TWO: &str = "8988280666000000002";

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
    }

    /// Two SIMs: the first with address 1 and active, the second with address 2 and disabled.
    fn attribution(source: AddressSource) -> Attribution {
        let directory = SimDirectory::new();
        let set = |iccid: &str, imsi: &str, ip, active| DirectoryChange::Set {
            iccid: iccid.parse().unwrap(),
            imsi: Some(imsi.parse().unwrap()),
            ip: Some(ip),
            active,
        };
        directory.apply(&[
            set(ONE, "901405100000001", ip(1), true),
            set(TWO, "901405100000002", ip(2), false),
        ]);
        let stale_after = Duration::from_secs(60);
        let sessions = Sessions::new(Settings { stale_after, ..Settings::default() });
        Attribution::new(source, Arc::new(directory), sessions)
    }

    fn lease(attribution: &Attribution, place: u64, imsi: &str, address: u8) {
        let mut report = SessionReport::new("radius", SessionChange::Start, "pgw", at(0));
        report.session = place.to_string();
        report.imsi = Some(imsi.parse().unwrap());
        report.ipv4 = Some([10, 0, 0, address].into());
        attribution.sessions.apply((place, at(0)), &report);
    }

    fn iccid_at(attribution: &Attribution, last: u8, seconds: i64) -> Result<String, Refusal> {
        attribution.find(ip(last), at(seconds)).map(|found| found.identity.iccid.to_string())
    }

    #[test]
    fn only_a_known_active_sim_on_a_trusted_listener_may_speak() {
        let attribution = attribution(AddressSource::Both);
        let trusted = |ip| attribution.authenticate(ip, ListenerTrust::TrustedApn, at(0));
        assert_eq!(trusted(ip(1)).unwrap().identity.iccid.to_string(), ONE);
        assert_eq!(trusted(ip(3)), Err(Refusal::UnknownAddress));
        let refused = trusted(ip(2)).unwrap_err();
        assert!(matches!(refused, Refusal::InactiveSim(sim) if sim.ip == Some(ip(2))));
        let refused = attribution.authenticate(ip(1), ListenerTrust::Untrusted, at(0));
        assert_eq!(refused, Err(Refusal::UntrustedListener));
    }

    #[test]
    fn a_live_session_wins_over_the_registry_where_sessions_count() {
        for source in [AddressSource::Sessions, AddressSource::Both] {
            let attribution = attribution(source);
            lease(&attribution, 7, "901405100000002", 1);
            let found = attribution.find(ip(1), at(1)).unwrap();
            assert_eq!((found.identity.iccid.to_string().as_str(), found.session), (TWO, Some(7)));
            assert_eq!(found.identity.ip, Some(ip(1)));
            // The SIM whose address it was in the registry is there no more.
            assert_eq!(attribution.address_of(ONE.parse().unwrap(), at(1)), None);
        }
        let attribution = attribution(AddressSource::Registry);
        lease(&attribution, 7, "901405100000002", 1);
        assert_eq!(iccid_at(&attribution, 1, 1).as_deref(), Ok(ONE));
        assert_eq!(attribution.address_of(ONE.parse().unwrap(), at(1)), Some(ip(1)));
    }

    #[test]
    fn without_a_session_only_a_registry_that_counts_knows_an_address() {
        assert_eq!(iccid_at(&attribution(AddressSource::Both), 1, 0).as_deref(), Ok(ONE));
        let refused = iccid_at(&attribution(AddressSource::Sessions), 1, 0);
        assert_eq!(refused, Err(Refusal::UnknownAddress));
    }

    #[test]
    fn a_stale_session_counts_where_the_registry_says_the_same() {
        let both = attribution(AddressSource::Both);
        lease(&both, 1, "901405100000001", 1);
        lease(&both, 2, "901405100000001", 9);
        lease(&both, 3, "901405100000001", 2);
        assert_eq!(iccid_at(&both, 1, 61).as_deref(), Ok(ONE));
        assert_eq!(iccid_at(&both, 9, 61), Err(Refusal::StaleSession));
        assert_eq!(iccid_at(&both, 2, 61), Err(Refusal::StaleSession), "it was another SIM's");
        let sessions = attribution(AddressSource::Sessions);
        lease(&sessions, 1, "901405100000001", 1);
        assert_eq!(iccid_at(&sessions, 1, 61), Err(Refusal::StaleSession));
    }

    /// An operator who gives out addresses anew keeps the old ones in the registry. One SIM's
    /// session on such an address ended, the beginning of the next SIM's was lost, and the
    /// registry gave its messages to a third.
    #[test]
    fn an_address_that_another_sim_has_had_is_not_the_registry_s_any_more() {
        let end = |attribution: &Attribution, place: u64, name: &str| {
            let mut report = SessionReport::new("radius", SessionChange::Stop, "pgw", at(9));
            report.session = name.to_owned();
            attribution.sessions.apply((place, at(9)), &report);
        };
        let both = attribution(AddressSource::Both);
        lease(&both, 1, "901405100000002", 1);
        end(&both, 2, "1");
        assert_eq!(iccid_at(&both, 1, 10), Err(Refusal::UnknownAddress));
        assert_eq!(both.address_of(ONE.parse().unwrap(), at(10)), None);
        // Where it was the same SIM, its address is its own for ever.
        lease(&both, 3, "901405100000001", 1);
        end(&both, 4, "3");
        assert_eq!(iccid_at(&both, 1, 10).as_deref(), Ok(ONE));
        let sessions = attribution(AddressSource::Sessions);
        lease(&sessions, 1, "901405100000001", 1);
        end(&sessions, 2, "1");
        assert_eq!(iccid_at(&sessions, 1, 10), Err(Refusal::UnknownAddress));
    }

    /// The registry knew no IMSI of a card, and a feed named that of another SIM with it: the
    /// message was taken for the card's.
    #[test]
    fn a_card_with_the_subscriber_of_another_is_refused() {
        let attribution = attribution(AddressSource::Both);
        let card: Iccid = "8988280666000000003".parse().unwrap();
        let set = DirectoryChange::Set { iccid: card, imsi: None, ip: None, active: true };
        attribution.directory.apply(&[set]);
        let mut report = SessionReport::new("radius", SessionChange::Start, "pgw", at(0));
        report.session = "x".to_owned();
        report.iccid = Some(card);
        report.imsi = Some("901405100000002".parse().unwrap());
        report.ipv4 = Some([10, 0, 0, 8].into());
        attribution.sessions.apply((1, at(0)), &report);
        assert!(matches!(iccid_at(&attribution, 8, 1), Err(Refusal::OtherSubscriber(_))));
        report.change = SessionChange::Update;
        report.imsi = Some("901405100000077".parse().unwrap());
        report.happened_at = at(1);
        attribution.sessions.apply((2, at(1)), &report);
        assert_eq!(iccid_at(&attribution, 8, 2), Ok(card.to_string()));
    }

    #[test]
    fn a_session_of_nobody_that_is_known_is_refused() {
        let attribution = attribution(AddressSource::Both);
        lease(&attribution, 1, "901405100000009", 1);
        assert_eq!(iccid_at(&attribution, 1, 1), Err(Refusal::UnknownHolder));
        let mut report = SessionReport::new("radius", SessionChange::Start, "pgw", at(0));
        report.session = "x".to_owned();
        report.iccid = Some(ONE.parse().unwrap());
        report.imsi = Some("901405100000002".parse().unwrap());
        report.ipv4 = Some([10, 0, 0, 8].into());
        attribution.sessions.apply((2, at(0)), &report);
        assert!(matches!(iccid_at(&attribution, 8, 1), Err(Refusal::OtherSubscriber(_))));
    }

    #[test]
    fn a_key_counts_with_or_without_the_address_as_the_listener_says() {
        let (trusted, open) = (ListenerTrust::TrustedApn, ListenerTrust::Untrusted);
        let attribution = attribution(AddressSource::Both);
        lease(&attribution, 1, "901405100000001", 7);
        let class = |iccid: &str, ip, needs_address, listener| {
            let holder = KeyHolder { iccid: iccid.parse().unwrap(), ip, needs_address };
            attribution.authenticate_key(holder, listener, at(1)).map(|(_, class)| class)
        };
        for own in [ip(1), ip(7)] {
            assert_eq!(class(ONE, own, false, trusted), Ok(IdentityClass::DtlsPskSimIp));
            assert_eq!(class(ONE, own, true, trusted), Ok(IdentityClass::DtlsPskSimIp));
            assert_eq!(class(ONE, own, false, open), Ok(IdentityClass::DtlsPsk));
        }
        assert_eq!(class(ONE, ip(2), false, trusted), Ok(IdentityClass::DtlsPsk));
        assert!(matches!(class(ONE, ip(2), true, trusted), Err(Refusal::OtherAddress(_))));
        assert!(matches!(class(TWO, ip(2), false, trusted), Err(Refusal::InactiveSim(_))));
        let stranger = "8988280666000000009";
        assert_eq!(class(stranger, ip(1), false, trusted), Err(Refusal::UnknownSim));
    }
}
