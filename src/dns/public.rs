//! Distinguishes public addresses from those of this host and of private or local networks.
//!
//! The networks for special purposes are those of the registries of IANA (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 networks from which no address is reached over the Internet, apart from those for
/// documentation.
const LOCAL_IPV4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Between a provider and its customers (carrier-grade NAT).
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    // Protocols.
    ([192, 0, 0, 0], 24),
    // Relays of 6to4 (RFC 7526).
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    // Benchmarks.
    ([198, 18, 0, 0], 15),
    // Multicast, reserved networks, and broadcast.
    ([224, 0, 0, 0], 3),
];

/// The IPv4 networks for examples in documentation.
const DOCUMENTATION_IPV4: &[([u8; 4], u32)] = &[([192, 0, 2, 0], 24), ([198, 51, 100, 0], 24), ([203, 0, 113, 0], 24)];

/// Returns whether an address is public: neither of this host nor of a private or local network.
/// Addresses for documentation count as public, because no host is reached at them.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => is_public_ipv6(address),
    }
}

/// Returns whether an address is only for examples in documentation.
pub fn is_documentation(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_in(address, DOCUMENTATION_IPV4),
        IpAddr::V6(address) => matches!(address.segments(), [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..]),
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    !is_in(address, LOCAL_IPV4)
}

fn is_in(address: Ipv4Addr, networks: &[([u8; 4], u32)]) -> bool {
    networks.iter().any(|(network, prefix)| (u32::from_be_bytes(*network) ^ address.to_bits()) >> (32 - prefix) == 0)
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    // Some IPv6 addresses contain an IPv4 address, and a connection to the former may reach the
    // latter: NAT64 (RFC 6052) and 6to4.
    let inside = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => (high, low),
        // Protocols, such as Teredo, benchmarks, and identifiers that are not routed.
        [0x2001, 0..0x200, ..] => return false,
        // All hosts in the Internet have addresses in 2000::/3.
        [first, ..] => return first & 0xe000 == 0x2000,
    };
    is_public_ipv4(Ipv4Addr::from_bits(u32::from(inside.0) << 16 | u32::from(inside.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last address of each network, and an address inside.
    #[test]
    fn addresses_of_special_networks_are_not_public() {
        for range in [
            "0.0.0.0 0.1.2.3 0.255.255.255",
            "10.0.0.0 10.1.2.3 10.255.255.255",
            "100.64.0.0 100.64.0.1 100.127.255.255",
            "127.0.0.0 127.0.0.1 127.255.255.255",
            "169.254.0.0 169.254.0.1 169.254.255.255",
            "172.16.0.0 172.16.0.1 172.31.255.255",
            "192.0.0.0 192.0.0.1 192.0.0.255",
            "192.88.99.0 192.88.99.1 192.88.99.255",
            "192.168.0.0 192.168.1.1 192.168.255.255",
            "198.18.0.0 198.18.0.1 198.19.255.255",
            "224.0.0.0 239.1.2.3 240.0.0.1 255.255.255.255",
            ":: ::1 ::127.0.0.1 ::808:808",
            "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:100.64.0.1",
            "64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::a00:1 64:ff9b:1::808:808",
            "100::1 100:0:0:1::1",
            "2001:: 2001::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff:ffff::1",
            "2002:7f00:1:: 2002:a00:1::1 2002:c058:6301::1",
            "1fff:ffff::1 4000:: 4000::1 5f00::1",
            "fc00::1 fd00::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1",
        ] {
            for address in range.split(' ') {
                assert!(!is_public(address.parse().expect("an address")), "{address}");
                assert!(!is_documentation(address.parse().expect("an address")), "{address}");
            }
        }
    }

    #[test]
    fn addresses_beside_special_networks_are_public() {
        for address in [
            "1.0.0.0",
            "8.8.8.8",
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
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:db7::1",
            "2001:db9::1",
            "2003::1",
            "2a00::1",
            "3fff:1000::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(address.parse().expect("an address")), "{address}");
            assert!(!is_documentation(address.parse().expect("an address")), "{address}");
        }
    }

    #[test]
    fn addresses_for_documentation_are_told_apart() {
        for address in [
            "192.0.2.0",
            "192.0.2.255",
            "198.51.100.1",
            "203.0.113.1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "3fff::1",
            "3fff:fff::1",
            "::ffff:192.0.2.1",
        ] {
            let address = address.parse().expect("an address");
            assert!(is_documentation(address) && is_public(address), "{address}");
        }
    }
}
