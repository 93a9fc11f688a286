//! Addresses that are not of the public Internet: the registries of special-purpose addresses
//! (RFC 6890 and its later entries), and what else leads inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The address that the virtual machines of Azure reach their host by: public by its number.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

const NETWORKS_V4: [(Ipv4Net, &str); 20] = [
    (v4([0, 0, 0, 0], 8), "an address of this network"),
    (v4([10, 0, 0, 0], 8), "a private address"),
    (v4([100, 64, 0, 0], 10), "a shared address of a carrier's network"),
    (v4([127, 0, 0, 0], 8), "a loopback address"),
    (v4([169, 254, 0, 0], 16), "a link-local address"),
    (v4([172, 16, 0, 0], 12), "a private address"),
    (v4([192, 0, 0, 0], 24), "a special-purpose address"),
    (v4([192, 0, 2, 0], 24), "an address for documentation"),
    (v4([192, 31, 196, 0], 24), "a special-purpose address"),
    (v4([192, 52, 193, 0], 24), "a special-purpose address"),
    (v4([192, 88, 99, 0], 24), "a deprecated address of 6to4 relays"),
    (v4([192, 168, 0, 0], 16), "a private address"),
    (v4([192, 175, 48, 0], 24), "a special-purpose address"),
    (v4([198, 18, 0, 0], 15), "an address for benchmarks"),
    (v4([198, 51, 100, 0], 24), "an address for documentation"),
    (v4([203, 0, 113, 0], 24), "an address for documentation"),
    (v4([224, 0, 0, 0], 4), "a multicast address"),
    (v4([255, 255, 255, 255], 32), "the broadcast address"),
    (v4([240, 0, 0, 0], 4), "a reserved address"),
    (Ipv4Net::new_assert(AZURE_HOST, 32), "an address of the cloud's own services"),
];

/// Those that embed an IPv4 address come first: their texts say most.
const NETWORKS_V6: [(Ipv6Net, &str); 23] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "the unspecified address"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "a loopback address"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "an IPv4 address in the form of IPv6"),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "an IPv4 address in the form of IPv6"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "a deprecated address with an IPv4 address in it"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "an IPv4 address behind NAT64"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "an IPv4 address behind NAT64"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a 6to4 address"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "a Teredo address"),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), "an address for benchmarks"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "an address for documentation"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "a special-purpose address"),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "a special-purpose address"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "an address for documentation"),
    (v6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), "a deprecated address"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "an address that discards"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "a segment identifier"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "a private address"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "a link-local address"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "a deprecated site-local address"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "a multicast address"),
    // All that IANA has given out as global unicast lies in 2000::/3.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 3), "no global address"),
    (v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2), "no global address"),
];
/// The upper half of all IPv6 addresses is not global unicast either.
const UPPER_HALF_V6: (Ipv6Net, &str) = (v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1), "no global address");

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// What makes an address one that is not of the public Internet; `None` for all others.
pub(super) fn special_purpose(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            NETWORKS_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, kind)| *kind)
        }
        IpAddr::V6(address) => NETWORKS_V6
            .iter()
            .chain([&UPPER_HALF_V6])
            .find(|(net, _)| net.contains(&address))
            .map(|(_, kind)| *kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<&'static str> {
        special_purpose(text.parse().unwrap())
    }

    #[test]
    fn public_addresses_pass() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450:4001:800::200e",
            "3ffd::1",
            "3ffe:0:0:0:0:0:0:0",
        ] {
            let expected = text.starts_with("3ffe").then_some("a deprecated address");
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn the_edges_of_every_special_network_are_in_it() {
        for (network, kind) in NETWORKS_V4 {
            assert!(special_purpose(network.network().into()).is_some(), "{network} {kind}");
            assert!(special_purpose(network.broadcast().into()).is_some(), "{network} {kind}");
        }
        for (network, kind) in NETWORKS_V6.into_iter().chain([UPPER_HALF_V6]) {
            assert!(special_purpose(network.network().into()).is_some(), "{network} {kind}");
            assert!(special_purpose(network.broadcast().into()).is_some(), "{network} {kind}");
        }
    }

    #[test]
    fn an_address_says_what_it_is() {
        for (text, expected) in [
            ("169.254.169.254", "a link-local address"),
            ("255.255.255.255", "the broadcast address"),
            ("255.255.255.254", "a reserved address"),
            ("::1", "a loopback address"),
            ("::", "the unspecified address"),
            ("::2", "a deprecated address with an IPv4 address in it"),
            ("::7f00:1", "a deprecated address with an IPv4 address in it"),
            ("::ffff:127.0.0.1", "an IPv4 address in the form of IPv6"),
            ("64:ff9b::7f00:1", "an IPv4 address behind NAT64"),
            ("64:ff9b:1::7f00:1", "an IPv4 address behind NAT64"),
            ("2002:7f00:1::", "a 6to4 address"),
            ("2001:0:1::1", "a Teredo address"),
            ("fd00:ec2::254", "a private address"),
            ("fec0::1", "a deprecated site-local address"),
            ("4000::1", "no global address"),
            ("168.63.129.16", "an address of the cloud's own services"),
        ] {
            assert_eq!(kind(text), Some(expected), "{text}");
        }
    }
}
