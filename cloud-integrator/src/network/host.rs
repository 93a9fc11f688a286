//! A host as a customer writes it, in its one canonical form.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    /// However it was spelled.
    Address(IpAddr),
}

/// Names that mean something inside of a network only, with all names below them (RFC 6761, RFC
/// 6762 appendix G, RFC 8375; clouds and clusters).
const INSIDE: [&str; 12] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "home.arpa",
    "lan",
    "svc",
    "test",
];

impl Host {
    /// Reads a host as URLs have it: IPv6 addresses may be in brackets, and IPv4 addresses in any
    /// of the spellings that a URL's parser takes, also where the scheme is none of the web's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = literal.unwrap_or(text).parse() {
            return Some(Self::Address(address));
        }
        let breaks_out = |character: char| {
            matches!(character, '/' | '\\' | '?' | '#' | '@' | ':')
                || character.is_whitespace()
                || character.is_control()
        };
        if text.is_empty() || text.chars().any(breaks_out) {
            return None;
        }
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        let host = url.host_str()?;
        if let Ok(address) = host.parse() {
            return Some(Self::Address(address));
        }
        // RFC 1035 §2.3.4 has the lengths.
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_dns =
            name.len() <= 253 && name.split('.').all(|label| matches!(label.len(), 1..=63));
        is_dns.then_some(Self::Name(name))
    }

    /// Whether it is this machine by its very spelling (RFC 6761 §6.3).
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => is_below(name, "localhost"),
            Self::Address(address) => address.is_loopback(),
        }
    }

    /// Whether it is a name that means something inside of a network only.
    pub(super) fn is_name_inside(&self) -> bool {
        match self {
            Self::Name(name) => {
                !name.contains('.') || INSIDE.iter().any(|inside| is_below(name, inside))
            }
            Self::Address(_) => false,
        }
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However an address is spelled, it is judged by its bits.
        #[test]
        fn numbers_are_addresses(four in any::<u32>(), six in any::<u128>()) {
            let address = Ipv4Addr::from(four);
            let [a, b, c, d] = address.octets();
            for text in [
                format!("{four}"),
                format!("0x{four:X}"),
                format!("0{four:o}"),
                format!("{a}.{}", four & 0x00ff_ffff),
                format!("{a}.0x{b:x}.{}", four & 0xffff),
                format!("0{a:o}.{b}.0{c:o}.0x{d:x}."),
            ] {
                prop_assert_eq!(Host::parse(&text), Some(Host::Address(address.into())), "{}", text);
            }
            let address = Ipv6Addr::from(six);
            let [a, b, c, d, e, f, g, h] = address.segments();
            for text in [
                format!("{address}"),
                format!("[{address}]"),
                format!("[{a:04X}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:04x}]"),
            ] {
                prop_assert_eq!(Host::parse(&text), Some(Host::Address(address.into())), "{}", text);
            }
        }

        /// What is no address is a name that a name server can be asked for, or nothing.
        #[test]
        fn anything_else_is_a_name_or_nothing(text in "\\PC{0,40}") {
            if let Some(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(!name.is_empty() && name.len() <= 253, "{}", name);
                prop_assert!(name.parse::<IpAddr>().is_err(), "{}", name);
                prop_assert!(name.bytes().all(|byte| matches!(byte, b'!'..=b'~')), "{}", name);
                prop_assert!(!name.contains(['/', ':', '@', '?', '#', '%']), "{}", name);
            }
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_the_address() {
        for text in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0x7F.0x0.0x0.0x1",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "127。0。0。1",
        ] {
            let expected = Host::Address("127.0.0.1".parse().unwrap());
            assert_eq!(Host::parse(text), Some(expected), "{text}");
        }
        let six = Some(Host::Address("::1".parse().unwrap()));
        assert_eq!(Host::parse("::1"), six);
        assert_eq!(Host::parse("[0:0:0:0:0:0:0:1]"), six);
    }

    #[test]
    fn names_are_canonical_and_what_is_no_host_is_refused() {
        assert_eq!(Host::parse("Hook.Example."), Some(Host::Name("hook.example".to_owned())));
        assert_eq!(Host::parse("bücher.example").unwrap().to_string(), "xn--bcher-kva.example");
        for text in [
            "",
            ".",
            "a/b",
            "a@b",
            "a:1",
            "a b",
            "a\\b",
            "a?b",
            "a#b",
            "[::1",
            "fe80::1%eth0",
            "1.2.3.4.5",
            "256.0.0.1",
            "a\r\nb",
            "a..b",
            "1234567890123456789012345678901234567890123456789012345678901234.example",
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_inside_of_a_network_are_known() {
        for text in [
            "localhost",
            "a.LOCALHOST",
            "db.internal",
            "printer.local",
            "metadata.google.internal",
            "metadata",
            "redis",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "router.home.arpa",
        ] {
            assert!(Host::parse(text).unwrap().is_name_inside(), "{text}");
        }
        for text in
            ["hook.example", "local.example", "mylocal.example", "xlocalhost.de", "10.0.0.1"]
        {
            assert!(!Host::parse(text).unwrap().is_name_inside(), "{text}");
        }
        assert!(Host::parse("x.localhost").unwrap().is_loopback());
        assert!(!Host::parse("localhost.example").unwrap().is_loopback());
    }
}
