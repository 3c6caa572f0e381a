//! Lists of networks: which addresses are allowed and which are denied. The longest matching network decides, whatever
//! the order, and a look-up costs the same for ten networks as for ten thousand.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Allowed and denied networks, for clients of either family and on Unix sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Addresses {
    /// Where the decision changes, in ascending order: from this address to the next entry it is `true` (allowed) or
    /// `false`. IPv4 addresses are in their mapped form. The first entry is the lowest address.
    ranges: Box<[(u128, bool)]>,
    /// Whether clients without an address are allowed.
    unix: bool,
}

/// The networks of one list; `unix` stands for clients on Unix sockets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Networks {
    /// Networks of addresses.
    pub(crate) networks: Vec<IpNet>,
    /// Whether the list has `unix`.
    pub(crate) unix: bool,
}

impl Default for Addresses {
    /// Allows everybody.
    fn default() -> Self {
        Self::new(&Networks::default(), &Networks::default())
    }
}

/// The prefix of IPv4-mapped addresses.
const MAPPED: u128 = 0xffff << 32;

/// An address as one number; IPv4 in the mapped form.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number.
fn address(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(number)).to_canonical()
}

/// The first address of a network, the last one, and how long its prefix is as an IPv6 network.
fn span(network: &IpNet) -> (u128, u128, u8) {
    match network {
        IpNet::V4(v4) => {
            let (first, last) = (v4.network().to_bits(), v4.broadcast().to_bits());
            let mapped = |bits: u32| MAPPED | u128::from(bits);
            (mapped(first), mapped(last), v4.prefix_len() + 96)
        }
        IpNet::V6(v6) => (
            v6.network().to_bits(),
            v6.broadcast().to_bits(),
            v6.prefix_len(),
        ),
    }
}

/// A network in its usual form: what is written as IPv4-mapped IPv6 is an IPv4 network, as the clients' addresses are.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let mapped = v6.network().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(96);
    match (mapped, length) {
        (Some(v4), Some(length)) => IpNet::new(v4.into(), length).unwrap_or(network),
        (_, _) => network,
    }
}

impl Addresses {
    /// The rule of two lists: the longest network decides; an address in neither is allowed unless something is in
    /// `allow`. A network in both lists is denied; that is an error of the configuration.
    pub(crate) fn new(allow: &Networks, deny: &Networks) -> Self {
        let only = !allow.networks.is_empty() || allow.unix;
        // IPv4 has its own default, so that a network of IPv6 around the mapped addresses does not decide for it.
        let v4 = (MAPPED, MAPPED | u128::from(u32::MAX), 96);
        let mut spans = vec![(v4, !only)];
        let allowed = allow.networks.iter().map(|network| (span(network), true));
        let denied = deny.networks.iter().map(|network| (span(network), false));
        spans.extend(allowed.chain(denied));
        // Outer networks first. Of equal ones the last decides, and the sort is stable: a denied one.
        spans.sort_by_key(|((first, _, length), _)| (*first, *length));
        let mut ranges: Vec<(u128, bool)> = vec![(0, !only)];
        // The networks around the current address, the innermost last: where each ends, and what it says.
        let mut around: Vec<(u128, bool)> = Vec::new();
        let close = |ranges: &mut Vec<(u128, bool)>, around: &mut Vec<(u128, bool)>, before| {
            while let Some((last, _)) = around.last().copied()
                && before > last
            {
                around.pop();
                let outer = around.last().map_or(!only, |(_, allowed)| *allowed);
                if let Some(next) = last.checked_add(1) {
                    put(ranges, next, outer);
                }
            }
        };
        for ((first, last, _), allowed) in spans {
            close(&mut ranges, &mut around, first);
            put(&mut ranges, first, allowed);
            around.push((last, allowed));
        }
        close(&mut ranges, &mut around, u128::MAX);
        ranges.dedup_by_key(|(_, allowed)| *allowed);
        Self {
            ranges: ranges.into(),
            unix: match (allow.unix, deny.unix) {
                (_, true) => false,
                (true, false) => true,
                (false, false) => !only,
            },
        }
    }

    /// Whether a client is allowed; `None` is one on a Unix socket whose address nobody reports.
    pub(crate) fn allows(&self, client: Option<IpAddr>) -> bool {
        let Some(ip) = client else {
            return self.unix;
        };
        let number = number(ip);
        let behind = self.ranges.partition_point(|(first, _)| *first <= number);
        let at = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        at.is_some_and(|(_, allowed)| *allowed)
    }

    /// A client that this list allows and the other one does not, if there is any.
    pub(crate) fn more_than(&self, other: &Self) -> Option<String> {
        let ranges = self.ranges.iter().chain(&other.ranges);
        let gained = |ip: &Option<IpAddr>| self.allows(*ip) && !other.allows(*ip);
        let mut clients = ranges.map(|(first, _)| Some(address(*first)));
        if let Some(client) = clients.find(gained).flatten() {
            return Some(client.to_string());
        }
        gained(&None).then(|| "unix".to_owned())
    }
}

/// From this address on. What begins at the same address as something before it replaces that.
fn put(ranges: &mut Vec<(u128, bool)>, first: u128, allowed: bool) {
    match ranges.last_mut() {
        Some((known, before)) if *known == first => *before = allowed,
        Some(_) | None => ranges.push((first, allowed)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let listed = texts.iter().filter(|text| **text != "unix");
        Networks {
            networks: listed.map(|text| text.parse().unwrap()).collect(),
            unix: texts.contains(&"unix"),
        }
    }

    #[track_caller]
    fn check(allow: &[&str], deny: &[&str], allowed: &[&str], refused: &[&str]) {
        let list = Addresses::new(&networks(allow), &networks(deny));
        for (clients, expected) in [(allowed, true), (refused, false)] {
            for client in clients {
                let ip = client.parse().ok();
                assert!(ip.is_some() || *client == "unix", "{client}");
                assert_eq!(list.allows(ip), expected, "{client}");
            }
        }
    }

    #[test]
    fn the_longest_network_decides() {
        check(
            &["10.0.0.0/8", "192.0.2.7/32", "10.9.9.0/24"],
            &["10.9.0.0/16"],
            &["10.0.0.1", "192.0.2.7", "10.9.9.255", "::ffff:10.0.0.1"],
            &["10.9.0.1", "10.9.10.0", "192.0.2.8", "2001:db8::1", "unix"],
        );
        check(
            &[],
            &["192.0.2.0/24", "2001:db8::/32"],
            &["192.0.1.255", "192.0.3.0", "2001:db9::", "unix"],
            &["192.0.2.0", "192.0.2.255", "2001:db8:ffff::1"],
        );
        check(&["unix"], &[], &["unix"], &["127.0.0.1", "::1"]);
        check(&[], &["unix"], &["127.0.0.1", "::1"], &["unix"]);
        check(
            &["0.0.0.0/0"],
            &[],
            &["0.0.0.0", "255.255.255.255"],
            &["::1"],
        );
        check(&["::/0"], &[], &["::", "::1"], &["10.0.0.1"]);
        check(
            &["::/0"],
            &["0.0.0.0/0"],
            &["ffff::"],
            &["10.0.0.1", "0.0.0.0"],
        );
        check(
            &["255.255.255.255/32", "ffff::/16"],
            &["ffff:ffff::/32"],
            &["255.255.255.255", "ffff:fffe::1"],
            &["ffff:ffff::1", "255.255.255.254"],
        );
        check(&[], &[], &["10.0.0.1", "::1", "unix"], &[]);
    }

    #[test]
    fn mapped_networks_are_of_ipv4() {
        let canon = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canon("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(canon("::ffff:10.0.0.1/128"), "10.0.0.1/32");
        assert_eq!(canon("::/0"), "::/0");
        assert_eq!(canon("2001:db8::/32"), "2001:db8::/32");
    }

    #[test]
    fn a_wider_list_is_found_by_a_client() {
        let list =
            |allow: &[&str], deny: &[&str]| Addresses::new(&networks(allow), &networks(deny));
        let all = list(&[], &[]);
        let narrow = list(&["10.0.0.0/8"], &["10.9.0.0/16"]);
        let wide = list(&["10.0.0.0/8"], &[]);
        assert_eq!(wide.more_than(&narrow).as_deref(), Some("10.9.0.0"));
        assert_eq!(narrow.more_than(&wide), None);
        assert_eq!(narrow.more_than(&all), None);
        assert!(all.more_than(&narrow).is_some());
        let local = list(&["10.0.0.0/8", "unix"], &[]);
        assert_eq!(local.more_than(&wide).as_deref(), Some("unix"));
        assert_eq!(wide.more_than(&wide), None);
    }

    proptest! {
        /// Beside a naive oracle: of all networks that hold the address, the one with the longest prefix.
        #[test]
        fn any_list_decides_as_a_search_through_it(
            listed in prop::collection::vec((0..=255_u8, 0..=255_u8, 0..=16_u8, any::<bool>(), any::<bool>()), 0..12),
            client in (any::<bool>(), 0..=255_u8, 0..=255_u8),
        ) {
            let ip_of = |six: bool, one: u8, two: u8| -> IpAddr {
                if six {
                    Ipv6Addr::from_bits(u128::from(u16::from_be_bytes([one, two])) << 112).into()
                } else {
                    [one, two, 0, 0].into()
                }
            };
            let (mut allow, mut deny) = (Networks::default(), Networks::default());
            for (one, two, length, six, allowed) in listed {
                let network = IpNet::new(ip_of(six, one, two), length).unwrap().trunc();
                let (list, other) = if allowed { (&mut allow, &deny) } else { (&mut deny, &allow) };
                if !other.networks.contains(&network) {
                    list.networks.push(network);
                }
            }
            let ip = ip_of(client.0, client.1, client.2);
            let longest = |list: &Networks| {
                let holding = list.networks.iter().filter(|network| network.contains(&ip));
                holding.map(|network| i16::from(network.prefix_len())).max().unwrap_or(-1)
            };
            let (yes, no) = (longest(&allow), longest(&deny));
            let expected = if yes == no { allow.networks.is_empty() } else { yes > no };
            prop_assert_eq!(Addresses::new(&allow, &deny).allows(Some(ip)), expected);
        }
    }
}
