//! What the operator allows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use super::address::special_purpose;
use super::host::Host;

/// What the gateway may reach for its customers, beside the public Internet on the usual ports.
#[derive(Debug, Clone, Default)]
pub struct NetworkPolicy {
    /// Networks that may be reached although they are not of the public Internet. Where there is
    /// one, names such as `hook.internal` are looked up too, also with the system's search list,
    /// and their addresses decide.
    pub allow_networks: Vec<Network>,
    /// Ports that may be reached beside the usual ones of a protocol.
    pub allow_ports: Vec<u16>,
    /// Whether this machine itself may be reached, on any port and without TLS, by an address of
    /// its own or as `localhost`: for tests and demonstrations.
    pub allow_http_loopback: bool,
    /// The name servers to ask, instead of the system's.
    pub dns_servers: Vec<SocketAddr>,
}

/// A network, as `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is no network. The configuration of the gateway is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkTextError {
    /// Neither an address nor an address with a length.
    #[error("{0:?} is no network, allowed: an address such as 10.0.0.5 or 10.0.0.0/8")]
    Form(String),
    /// Bits that the length says do not count.
    #[error("{text:?} has bits beyond its length, the network is {network}")]
    HostBits {
        /// The text.
        text: String,
        /// What may be meant.
        network: IpNet,
    },
}

/// Why an endpoint is not reached. The customer, or the network of the gateway, is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Blocked {
    /// Neither a name nor an address.
    #[error("{0:?} is neither the name of a host nor an address")]
    Host(String),
    /// A port for something else.
    #[error("port {port} must not be reached, allowed: {allowed}; an operator can allow others")]
    Port {
        /// The port.
        port: u16,
        /// Those that may.
        allowed: String,
    },
    /// A name that has no meaning in the public Internet.
    #[error(
        "{0} is a name inside of a network, which the gateway must not reach; an operator can allow the network"
    )]
    Name(String),
    /// An address that is not of the public Internet.
    #[error(
        "{host} is {kind}, which the gateway must not reach; an operator can allow its network"
    )]
    Literal {
        /// The address.
        host: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// A name of which all addresses are such. Which ones is for the operator alone: a customer
    /// could ask for the names of the gateway's network one by one.
    #[error(
        "{0} has no address that the gateway may reach; an operator can allow networks beside the \
         public Internet"
    )]
    Address(String),
}

impl NetworkPolicy {
    /// Checks all that can be known of an endpoint before its name is looked up. `usual_ports` are
    /// those of its protocol.
    pub fn check(&self, host: &str, port: u16, usual_ports: &[u16]) -> Result<(), Blocked> {
        let host = self.checked_host(host)?;
        let is_known = usual_ports.contains(&port) || self.allow_ports.contains(&port);
        if is_known || self.opens_loopback(&host) {
            return Ok(());
        }
        let allowed: Vec<String> =
            usual_ports.iter().chain(&self.allow_ports).map(u16::to_string).collect();
        Err(Blocked::Port { port, allowed: allowed.join(", ") })
    }

    /// Whether `host` is this machine itself by its spelling, and open: the one place that may be
    /// reached without TLS.
    pub fn allows_plain(&self, host: &str) -> bool {
        Host::parse(host).is_some_and(|host| self.opens_loopback(&host))
    }

    /// Whether an operator opened the place of `host`: this machine, an address in a network that is
    /// allowed, or a name inside where there is such a network. A public name can lead there too,
    /// but its owner can turn it away at any time.
    pub(crate) fn opens(&self, host: &str) -> bool {
        let Some(host) = Host::parse(host) else { return false };
        self.opens_loopback(&host)
            || match host {
                Host::Address(address) => self.allows_address(address),
                Host::Name(_) => host.is_name_inside() && !self.allow_networks.is_empty(),
            }
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.allow_networks.iter().any(|network| network.contains(address))
    }

    /// A host that may be looked up, or reached where it is an address.
    pub(super) fn checked_host(&self, text: &str) -> Result<Host, Blocked> {
        let host = Host::parse(text)
            .ok_or_else(|| Blocked::Host(text.chars().take(HOST_CHARS_SHOWN).collect()))?;
        if self.opens_loopback(&host) {
            return Ok(host);
        }
        if host.is_name_inside() && self.allow_networks.is_empty() {
            return Err(Blocked::Name(host.to_string()));
        }
        if let Host::Address(address) = host {
            self.check_address(&host, address)?;
        }
        Ok(host)
    }

    /// Checks an address that `host` has at this moment.
    pub(super) fn check_address(&self, host: &Host, address: IpAddr) -> Result<(), Blocked> {
        let Some(kind) = special_purpose(address) else { return Ok(()) };
        if self.allows_address(address) || (address.is_loopback() && self.opens_loopback(host)) {
            return Ok(());
        }
        Err(match host {
            Host::Name(name) => {
                tracing::debug!(name, %address, kind, "an address that must not be reached");
                Blocked::Address(name.clone())
            }
            Host::Address(host) => Blocked::Literal { host: *host, kind },
        })
    }

    fn opens_loopback(&self, host: &Host) -> bool {
        self.allow_http_loopback && host.is_loopback()
    }
}

/// Characters of a wrong host in an error: names have at most 253.
const HOST_CHARS_SHOWN: usize = 253;

impl Network {
    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = NetworkTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let network: IpNet =
            text.parse().map_err(|_| NetworkTextError::Form(text.chars().take(64).collect()))?;
        if network.trunc() != network {
            let network = network.trunc();
            return Err(NetworkTextError::HostBits { text: text.to_owned(), network });
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [u16; 2] = [443, 8443];

    fn says(policy: &NetworkPolicy, host: &str, port: u16) -> String {
        policy.check(host, port, &PORTS).unwrap_err().to_string()
    }

    #[test]
    fn by_default_only_the_public_internet_is_reached_on_usual_ports() {
        let policy = NetworkPolicy::default();
        for host in ["hook.example", "1.1.1.1", "[2606:4700::1111]"] {
            assert_eq!(policy.check(host, 443, &PORTS), Ok(()), "{host}");
            assert!(!policy.allows_plain(host));
        }
        assert_eq!(
            says(&policy, "hook.example", 22),
            "port 22 must not be reached, allowed: 443, 8443; an operator can allow others"
        );
        assert_eq!(
            says(&policy, "0xa9fea9fe", 443),
            "169.254.169.254 is a link-local address, which the gateway must not reach; an \
             operator can allow its network"
        );
        assert_eq!(
            says(&policy, "db.internal", 443),
            "db.internal is a name inside of a network, which the gateway must not reach; an \
             operator can allow the network"
        );
        assert!(matches!(policy.check("a b", 443, &PORTS), Err(Blocked::Host(_))));
    }

    #[test]
    fn an_operator_opens_networks_and_ports() {
        let policy = NetworkPolicy {
            allow_networks: vec!["10.1.0.0/16".parse().unwrap()],
            allow_ports: vec![9000],
            ..NetworkPolicy::default()
        };
        assert_eq!(policy.check("10.1.2.3", 9000, &PORTS), Ok(()));
        assert_eq!(policy.check("hook.internal", 443, &PORTS), Ok(()));
        for host in ["10.2.0.1", "127.0.0.1", "[::ffff:10.1.2.3]", "[::1]"] {
            assert!(
                matches!(policy.check(host, 443, &PORTS), Err(Blocked::Literal { .. })),
                "{host}"
            );
        }
        assert!(matches!(policy.check("10.1.2.3", 80, &PORTS), Err(Blocked::Port { .. })));
    }

    #[test]
    fn loopback_opens_for_this_machine_alone() {
        let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
        for host in ["localhost", "x.localhost", "127.0.0.1", "127.9.9.9", "0x7f.1", "[::1]"] {
            assert_eq!(policy.check(host, 9, &PORTS), Ok(()), "{host}");
            assert!(policy.allows_plain(host), "{host}");
        }
        for host in ["10.0.0.1", "0.0.0.0", "[::]", "hook.internal", "hook.local"] {
            assert!(policy.check(host, 443, &PORTS).is_err(), "{host}");
            assert!(!policy.allows_plain(host), "{host}");
        }
        // A name that is none of this machine's may not lead to it.
        let host = Host::parse("hook.example").unwrap();
        let address = "127.0.0.1".parse().unwrap();
        assert!(matches!(policy.check_address(&host, address), Err(Blocked::Address(_))));
    }

    #[test]
    fn networks_are_read_strictly() {
        let network = |text: &str| text.parse::<Network>();
        assert_eq!(network("10.0.0.5").unwrap().to_string(), "10.0.0.5/32");
        assert!(network("fd00::/8").unwrap().contains("fd12::1".parse().unwrap()));
        assert_eq!(
            network("10.0.0.5/8").unwrap_err().to_string(),
            "\"10.0.0.5/8\" has bits beyond its length, the network is 10.0.0.0/8"
        );
        for text in ["", "10/8", "10.0.0.0/33", "hook.example", "10.0.0.0/"] {
            assert!(matches!(network(text), Err(NetworkTextError::Form(_))), "{text}");
        }
    }
}
