//! Who may send accounting, from where, and with which secret.

use std::fmt;
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a secret at least: RFC 2865 §3 asks for 16, against guessing with a captured packet.
const SECRET_BYTES_MIN: usize = 16;

/// What manuals print and people leave as it is. Compared in lower case and without what is
/// repeated: `testing123testing123` is no better than `testing123`.
const KNOWN_SECRETS: [&str; 14] = [
    "testing123",
    "secret",
    "radius",
    "password",
    "sharedsecret",
    "shared-secret",
    "shared_secret",
    "changeme",
    "changethis",
    "cisco",
    "admin",
    "1234567890",
    "0123456789abcdef",
    "simgate",
];

/// What a client and the server share. Never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// A secret that could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WeakSecret {
    /// Nothing, which no permission allows.
    #[error("the secret is empty")]
    Empty,
    /// Short.
    #[error("the secret has {found} bytes, allowed: at least {SECRET_BYTES_MIN}")]
    Short {
        /// Its bytes.
        found: usize,
    },
    /// Printed in a manual.
    #[error("the secret is one of those that everybody tries first")]
    Known,
}

/// Who may send.
#[derive(Debug, Clone)]
pub struct Client {
    name: String,
    network: IpNet,
    pub(crate) secret: Secret,
    pub(crate) needs_message_authenticator: bool,
    pub(crate) needs_event_timestamp: bool,
}

/// A client that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidClient {
    /// Neither an address nor a network.
    #[error("{0:?} is no address and no network such as 10.1.0.0/24")]
    Address(String),
    /// A network with bits behind its prefix.
    #[error("{found} is no network, its network is {network}")]
    HostBits {
        /// What was found.
        found: IpNet,
        /// What may have been meant.
        network: IpNet,
    },
    /// Two clients with the same network.
    #[error("clients {first:?} and {second:?} have the same address {network}")]
    Twice {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// What both have.
        network: IpNet,
    },
    /// Two clients with the same name.
    #[error("two clients are named {0:?}: each needs a name of its own")]
    Name(String),
}

/// The clients of a server. Where several networks hold an address, the smallest counts.
#[derive(Debug, Clone, Default)]
pub struct Clients {
    clients: Vec<Client>,
    by_network: HashMap<IpNet, usize>,
    /// The prefix lengths of `by_network`, longest first: of IPv4, of IPv6.
    lengths: [Vec<u8>; 2],
}

impl Secret {
    /// Takes a secret; one that is short or known only with `allow_weak`.
    pub fn new(secret: &[u8], allow_weak: bool) -> Result<Self, WeakSecret> {
        if secret.is_empty() {
            return Err(WeakSecret::Empty);
        }
        if !allow_weak {
            check(secret)?;
        }
        Ok(Self(Zeroizing::new(secret.to_vec())))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Refuses what could be guessed.
fn check(secret: &[u8]) -> Result<(), WeakSecret> {
    let lower = Zeroizing::new(secret.to_ascii_lowercase());
    let is_known = KNOWN_SECRETS
        .iter()
        .any(|known| lower.chunks(known.len()).all(|piece| known.as_bytes().starts_with(piece)));
    let is_one_letter = lower.iter().all(|byte| lower.first() == Some(byte));
    if is_known || is_one_letter {
        return Err(WeakSecret::Known);
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(WeakSecret::Short { found: secret.len() });
    }
    Ok(())
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Client {
    /// A client named `name` at `address`, which is an address or a network (`10.1.0.0/24`).
    pub fn new(name: &str, address: &str, secret: Secret) -> Result<Self, InvalidClient> {
        let network = match address.parse::<IpAddr>() {
            Ok(one) => IpNet::from(one.to_canonical()),
            Err(_) => {
                let unreadable = |_| InvalidClient::Address(address.to_owned());
                address.parse().map_err(unreadable)?
            }
        };
        if network.trunc() != network {
            return Err(InvalidClient::HostBits { found: network, network: network.trunc() });
        }
        Ok(Self {
            name: name.to_owned(),
            network,
            secret,
            needs_message_authenticator: false,
            needs_event_timestamp: false,
        })
    }

    /// Drops packets without a Message-Authenticator.
    #[must_use]
    pub fn require_message_authenticator(mut self, is_required: bool) -> Self {
        self.needs_message_authenticator = is_required;
        self
    }

    /// Drops packets without an Event-Timestamp, which alone shows how old a packet is.
    #[must_use]
    pub fn require_event_timestamp(mut self, is_required: bool) -> Self {
        self.needs_event_timestamp = is_required;
        self
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn network(&self) -> IpNet {
        self.network
    }
}

impl Clients {
    /// Refuses two clients of one name or one network.
    pub fn new(clients: Vec<Client>) -> Result<Self, InvalidClient> {
        let mut by_network: HashMap<IpNet, usize> = HashMap::new();
        let mut lengths = [Vec::new(), Vec::new()];
        for (index, client) in clients.iter().enumerate() {
            if clients.iter().take(index).any(|other| other.name == client.name) {
                return Err(InvalidClient::Name(client.name.clone()));
            }
            if let Some(first) = by_network.insert(client.network, index) {
                return Err(InvalidClient::Twice {
                    first: clients.get(first).map(|other| other.name.clone()).unwrap_or_default(),
                    second: client.name.clone(),
                    network: client.network,
                });
            }
            let [v4, v6] = &mut lengths;
            let family = if client.network.addr().is_ipv4() { v4 } else { v6 };
            family.push(client.network.prefix_len());
        }
        for family in &mut lengths {
            family.sort_unstable_by(|left, right| right.cmp(left));
            family.dedup();
        }
        Ok(Self { clients, by_network, lengths })
    }

    /// Whose address this is, with its place.
    pub(crate) fn find(&self, address: IpAddr) -> Option<(usize, &Client)> {
        let address = address.to_canonical();
        let [v4, v6] = &self.lengths;
        let lengths = if address.is_ipv4() { v4 } else { v6 };
        let place = lengths.iter().find_map(|length| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            self.by_network.get(&network).copied()
        })?;
        self.clients.get(place).map(|client| (place, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, address: &str) -> Client {
        Client::new(name, address, Secret::new(b"x1", true).unwrap()).unwrap()
    }

    #[test]
    fn secrets_that_can_be_guessed_are_refused() {
        let refusal = |secret: &str| Secret::new(secret.as_bytes(), false).unwrap_err();
        assert_eq!(refusal("testing123"), WeakSecret::Known);
        assert_eq!(refusal("Testing123testing123"), WeakSecret::Known);
        assert_eq!(refusal("aaaaaaaaaaaaaaaaaaaaaaaa"), WeakSecret::Known);
        assert_eq!(refusal("k7Gq-2mfPz"), WeakSecret::Short { found: 10 });
        assert_eq!(
            refusal("k7Gq-2mfPz").to_string(),
            "the secret has 10 bytes, allowed: at least 16"
        );
        assert!(Secret::new(b"k7Gq-2mfPz-x81Lk", false).is_ok());
        assert!(Secret::new(b"testing123", true).is_ok());
        assert_eq!(Secret::new(b"", true).unwrap_err(), WeakSecret::Empty);
        assert_eq!(format!("{:?}", Secret::new(b"k7Gq-2mfPz-x81Lk", false)), "Ok(Secret(..))");
    }

    #[test]
    fn the_smallest_network_counts() {
        let clients = Clients::new(vec![
            client("everybody", "0.0.0.0/0"),
            client("site", "10.1.0.0/16"),
            client("gateway", "10.1.2.3"),
            client("six", "2001:db8::/32"),
        ])
        .unwrap();
        let found = |address: &str| {
            clients.find(address.parse().unwrap()).map(|(_, client)| client.name().to_owned())
        };
        assert_eq!(found("10.1.2.3").as_deref(), Some("gateway"));
        assert_eq!(found("::ffff:10.1.2.3").as_deref(), Some("gateway"));
        assert_eq!(found("10.1.2.4").as_deref(), Some("site"));
        assert_eq!(found("10.2.2.4").as_deref(), Some("everybody"));
        assert_eq!(found("2001:db8::1").as_deref(), Some("six"));
        assert_eq!(found("2001:db9::1"), None);
    }

    #[test]
    fn what_is_no_client_is_named() {
        let secret = || Secret::new(b"x1", true).unwrap();
        let refused = |address: &str| Client::new("a", address, secret()).unwrap_err().to_string();
        assert_eq!(refused("ten"), "\"ten\" is no address and no network such as 10.1.0.0/24");
        assert_eq!(refused("10.1.0.1/24"), "10.1.0.1/24 is no network, its network is 10.1.0.0/24");
        let twice = Clients::new(vec![client("a", "10.0.0.1"), client("b", "10.0.0.1/32")]);
        assert!(matches!(twice.unwrap_err(), InvalidClient::Twice { .. }));
        let named = Clients::new(vec![client("a", "10.0.0.1"), client("a", "10.0.0.2")]);
        assert_eq!(named.unwrap_err(), InvalidClient::Name("a".to_owned()));
    }
}
