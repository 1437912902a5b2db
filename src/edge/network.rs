//! Networks of addresses, as an operator lists them: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.1`.
//!
//! Law: an IPv4 address in IPv6 clothes is the IPv4 address, in a network and in the question.

use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// Bits that all of them share.
    prefix: u32,
}

/// Text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What stands before the slash is no address.
    Address,
    /// What stands after the slash is no number, or more than the address has bits.
    Prefix,
    /// The address has bits past the prefix: which network is meant is a guess.
    Host,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Fault::Address => "which does not begin with an IP address",
            Fault::Prefix => "which has no number of bits after its slash, 0 to 32 or to 128",
            Fault::Host => "which has bits set past its prefix",
        })
    }
}

impl std::error::Error for Fault {}

impl Network {
    /// Whether an address is one of these.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                beyond(u128::from(u32::from(first) ^ u32::from(address)), 32 - self.prefix) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                beyond(u128::from(first) ^ u128::from(address), 128 - self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// What is left of `bits` without the last `count`, of which there may be as many as there are.
fn beyond(bits: u128, count: u32) -> u128 {
    bits.checked_shr(count).unwrap_or(0)
}

impl FromStr for Network {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Network, Fault> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| Fault::Address)?;
        let bits: u32 = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= bits).ok_or(Fault::Prefix)?
            }
            Some(_) => return Err(Fault::Prefix),
            None => bits,
        };
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`. Shorter, it is more than IPv4, and stays.
        let network = match first.to_canonical() {
            first @ IpAddr::V4(_) if bits == 128 && prefix >= 96 => {
                Network { first, prefix: prefix - 96 }
            }
            _ => Network { first, prefix },
        };
        let is_first = match network.first {
            IpAddr::V4(first) => u32::from(first).checked_shl(network.prefix).unwrap_or(0) == 0,
            IpAddr::V6(first) => u128::from(first).checked_shl(network.prefix).unwrap_or(0) == 0,
        };
        is_first.then_some(network).ok_or(Fault::Host)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_begins_alike() {
        for (of, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            assert!(network(of).contains(address(inside)), "{inside} in {of}");
            assert!(!network(of).contains(address(outside)), "{outside} not in {of}");
        }
    }

    #[test]
    fn what_is_no_network_is_told_apart() {
        for (text, fault) in [
            ("", Fault::Address),
            ("proxy.example", Fault::Address),
            ("10.0.0/8", Fault::Address),
            ("10.0.0.0/", Fault::Prefix),
            ("10.0.0.0/33", Fault::Prefix),
            ("10.0.0.0/+8", Fault::Prefix),
            ("::/129", Fault::Prefix),
            ("::/99999999999", Fault::Prefix),
            ("10.0.0.1/8", Fault::Host),
            ("2001:db8::1/64", Fault::Host),
        ] {
            assert_eq!(text.parse::<Network>(), Err(fault), "{text}");
        }
    }

    proptest! {
        /// Compared bit for bit.
        #[test]
        fn contains_is_what_it_says(first: u128, other: u128, prefix in 0_u32..=128, near: bool) {
            let bit = |bits: u128, at: u32| (bits >> (127 - at)) & 1;
            let first = (0..prefix).fold(0, |bits, at| bits | (bit(first, at) << (127 - at)));
            let set = |bits, at| bits | (bit(other, at) << (127 - at));
            let other = if near { (prefix..128).fold(first, set) } else { other };
            let (first, other) = (IpAddr::V6(first.into()), IpAddr::V6(other.into()));
            // What is IPv4 in truth has its own cases above.
            prop_assume!(first.to_canonical().is_ipv6() && other.to_canonical().is_ipv6());
            let naive = match (first, other) {
                (IpAddr::V6(first), IpAddr::V6(other)) => {
                    (0..prefix).all(|at| bit(first.into(), at) == bit(other.into(), at))
                }
                _ => false,
            };
            let network = network(&format!("{first}/{prefix}"));
            prop_assert_eq!(network.contains(other), naive);
            prop_assert_eq!(network.to_string().parse(), Ok(network));
        }
    }
}
