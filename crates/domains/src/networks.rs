//! Whose addresses are whose, as far as a look can tell from the address alone.
//!
//! Arrives: an address that a stranger's zone names. Leaves: the proxying CDN it belongs to, or that it belongs to nobody's public network.
//! Goes wrong: nothing; an address that is on no list is simply an address.

use std::net::IpAddr;

/// A network that answers requests in the place of whoever the name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its name, for people.
    pub name: &'static str,
    /// What its customer does to have the name lead past it.
    pub switch_off: &'static str,
    ranges: &'static [&'static str],
}

/// The proxies known, each with the ranges it publishes.
const PROXIES: &[Proxy] = &[
    Proxy {
        name: "Cloudflare",
        switch_off: "set the record's proxy status to DNS only (the cloud grey, not orange)",
        // Source: www.cloudflare.com/ips-v4 and ips-v6, as of 2026-11 from copies of the lists that agree (unchanged since 2023-11).
        ranges: &[
            "103.21.244.0/22",
            "103.22.200.0/22",
            "103.31.4.0/22",
            "104.16.0.0/13",
            "104.24.0.0/14",
            "108.162.192.0/18",
            "131.0.72.0/22",
            "141.101.64.0/18",
            "162.158.0.0/15",
            "172.64.0.0/13",
            "173.245.48.0/20",
            "188.114.96.0/20",
            "190.93.240.0/20",
            "197.234.240.0/22",
            "198.41.128.0/17",
            "2400:cb00::/32",
            "2405:8100::/32",
            "2405:b500::/32",
            "2606:4700::/32",
            "2803:f800::/32",
            "2a06:98c0::/29",
            "2c0f:f248::/32",
        ],
    },
    Proxy {
        name: "Fastly",
        switch_off: "remove the name from the Fastly service and lead it here",
        // Source: api.fastly.com/public-ip-list, as of 2026-11 from a copy of the list; its IPv4 part.
        ranges: &[
            "23.235.32.0/20",
            "43.249.72.0/22",
            "103.244.50.0/24",
            "103.245.222.0/23",
            "103.245.224.0/24",
            "104.156.80.0/20",
            "140.248.64.0/18",
            "140.248.128.0/17",
            "146.75.0.0/17",
            "151.101.0.0/16",
            "157.52.64.0/18",
            "167.82.0.0/17",
            "167.82.128.0/20",
            "167.82.160.0/20",
            "167.82.224.0/20",
            "172.111.64.0/18",
            "185.31.16.0/22",
            "199.27.72.0/21",
            "199.232.0.0/16",
        ],
    },
];

/// Networks that end at somebody's own door: private use, loopback, link-local, carrier-grade NAT.
///
/// Source: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 (read 2026-11).
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/127",
    "fc00::/7",
    "fe80::/10",
];

/// The proxy whose address this is.
pub fn proxy_of(address: IpAddr) -> Option<&'static Proxy> {
    PROXIES.iter().find(|proxy| proxy.ranges.iter().any(|range| holds(range, address)))
}

/// Whether nobody outside its own network reaches the address.
pub fn is_private(address: IpAddr) -> bool {
    PRIVATE.iter().any(|range| holds(range, address))
}

/// Whether `range`, written `network/bits`, holds the address; `false` for text that is no range.
fn holds(range: &str, address: IpAddr) -> bool {
    let Some((network, bits)) = range.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_one() {
        for range in PROXIES.iter().flat_map(|proxy| proxy.ranges).chain(PRIVATE) {
            let (network, _) = range.split_once('/').unwrap();
            assert!(holds(range, network.parse().unwrap()), "{range}");
        }
    }

    #[test]
    fn an_address_is_a_proxys_only_within_its_ranges() {
        let name = |address: &str| proxy_of(address.parse().unwrap()).map(|proxy| proxy.name);
        assert_eq!(name("104.21.7.9"), Some("Cloudflare"));
        assert_eq!(name("2606:4700:3030::1"), Some("Cloudflare"));
        assert_eq!(name("151.101.1.57"), Some("Fastly"));
        for other in ["104.32.0.1", "203.0.113.80", "2606:4701::1", "10.0.0.1"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn only_addresses_that_nobody_outside_reaches_are_private() {
        for inside in ["10.0.0.1", "127.0.0.1", "192.168.0.10", "172.31.0.1", "100.64.1.1", "169.254.169.254", "::1", "fd00::1", "fe80::1"]
        {
            assert!(is_private(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.113.80", "172.32.0.1", "2001:db8::1", "8.8.8.8", "::2"] {
            assert!(!is_private(outside.parse().unwrap()), "{outside}");
        }
    }
}
