//! Who is behind the proxies, by what they wrote into a request: `Forwarded` (RFC 7239) or
//! `X-Forwarded-For`.
//!
//! Law: read from the right, where the proxy at hand wrote, and no further left than trust goes.
//! Everything left of that came from the client, who may write what he likes: it is not parsed, and
//! cannot change how the right of it reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Proxies in a row that are looked past. More is no chain that anybody built.
const HOPS_MAX: usize = 16;

/// Which header the proxies write. One is chosen: of two, a client could write the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`.
    XForwardedFor,
}

impl Field {
    /// Its name, as HTTP has it in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Field::Forwarded => "forwarded",
            Field::XForwardedFor => "x-forwarded-for",
        }
    }

    /// Who sent a request that came from `peer` with these lines of the field, in their order:
    /// the first from the right that is not trusted, or the last that could be read.
    pub fn client<'a>(
        self,
        peer: IpAddr,
        lines: impl DoubleEndedIterator<Item = &'a [u8]>,
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> IpAddr {
        let elements = lines.rev().flat_map(|line| Parts { rest: Some(line), at: b',' });
        let mut client = peer.to_canonical();
        for element in elements.take(HOPS_MAX) {
            if !is_trusted(client) {
                break;
            }
            let Some(address) = self.address(element) else { break };
            client = address.to_canonical();
        }
        client
    }

    fn address(self, element: &[u8]) -> Option<IpAddr> {
        match self {
            Field::XForwardedFor => node(trim(std::str::from_utf8(element).ok()?)),
            Field::Forwarded => {
                let mut found = Parts { rest: Some(element), at: b';' }.filter_map(|pair| {
                    let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
                    trim(name).eq_ignore_ascii_case("for").then(|| trim(value))
                });
                let (value, second) = (found.next()?, found.next());
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                node(quoted.unwrap_or(value)).filter(|_| second.is_none())
            }
        }
    }
}

/// What stands between separators outside of quotes, the last part first. From the right in
/// quotes too, so that one a client left open is not closed by a proxy's.
struct Parts<'a> {
    rest: Option<&'a [u8]>,
    at: u8,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest?;
        let mut is_quoted = false;
        for (index, byte) in text.iter().enumerate().rev() {
            if *byte == b'"' && !is_escaped(&text[..index]) {
                is_quoted = !is_quoted;
            } else if *byte == self.at && !is_quoted {
                self.rest = Some(&text[..index]);
                return Some(&text[index + 1..]);
            }
        }
        self.rest.take()
    }
}

/// True if a quote behind `before` stands for itself: an odd number of backslashes is before it.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// An address, with or without a port; IPv6 in brackets or, without a port, bare.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_end).map(IpAddr::V6);
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port) = text.split_once(':')?;
    address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
}

fn is_port(text: &str) -> bool {
    // RFC 7239 lets a proxy hide the port behind an underscore and a word.
    let is_number = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hidden = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    !text.is_empty() && (is_number || text.strip_prefix('_').is_some_and(is_hidden))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// Whatever begins with 10.
    fn is_trusted(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
    }

    fn client(field: Field, lines: &[&str]) -> String {
        let lines = lines.iter().map(|line| line.as_bytes());
        field.client(PEER, lines, is_trusted).to_string()
    }

    #[test]
    fn trusted_proxies_are_looked_past_and_no_one_else() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            (&["203.0.113.9,192.0.2.1,\t10.0.0.2 , 10.0.0.3"], "192.0.2.1"),
            (&["203.0.113.9", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.1,"], "10.0.0.1"),
            (&["192.0.2.1:"], "10.0.0.1"),
            (&["192.0.2.1:port"], "10.0.0.1"),
            (&["[2001:db8::1"], "10.0.0.1"),
        ] {
            assert_eq!(client(Field::XForwardedFor, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded() {
        for (lines, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For = \"192.0.2.1:4711\" ; proto=https"], "192.0.2.1"),
            (&["proto=https;for=\"[2001:db8::1]:_hidden\";by=10.0.0.1"], "2001:db8::1"),
            (&["for=203.0.113.9, for=192.0.2.1, for=10.0.0.2"], "192.0.2.1"),
            (&["for=192.0.2.1;by=\"a,b\""], "192.0.2.1"),
            (&["for=203.0.113.9, for=192.0.2.1;host=\"a;for=x, \\\";for=y\""], "192.0.2.1"),
            (&["for=192.0.2.1, for=unknown"], "10.0.0.1"),
            (&["for=_secret"], "10.0.0.1"),
            (&["by=192.0.2.1"], "10.0.0.1"),
            (&["for=192.0.2.1;for=192.0.2.2"], "10.0.0.1"),
            (&["192.0.2.1"], "10.0.0.1"),
            // A quote left open by the client.
            (&["for=\"203.0.113.9, for=192.0.2.1"], "192.0.2.1"),
            (&["for=\"203.0.113.9, for=\"[2001:db8::1]\""], "2001:db8::1"),
        ] {
            assert_eq!(client(Field::Forwarded, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn who_is_not_trusted_says_nothing() {
        let peer = IpAddr::from([192, 0, 2, 7]);
        for field in [Field::Forwarded, Field::XForwardedFor] {
            let lines: [&[u8]; 2] = [b"for=203.0.113.9", b"203.0.113.9"];
            assert_eq!(field.client(peer, lines.into_iter(), is_trusted), peer);
        }
    }

    #[test]
    fn a_chain_without_end_is_not_followed() {
        let line = ["192.0.2.1", &", 10.0.0.2".repeat(100_000)].concat();
        assert_eq!(client(Field::XForwardedFor, &[&line]), "10.0.0.2");
    }

    fn hops() -> impl Strategy<Value = Vec<IpAddr>> {
        let near = any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c]));
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        proptest::collection::vec(prop_oneof![near, v4, v6], 1..HOPS_MAX)
    }

    fn written(field: Field, hop: IpAddr) -> String {
        match (field, hop) {
            (Field::XForwardedFor, hop) => hop.to_string(),
            (Field::Forwarded, IpAddr::V4(hop)) => format!("for={hop}"),
            (Field::Forwarded, IpAddr::V6(hop)) => format!("for=\"[{hop}]\""),
        }
    }

    proptest! {
        /// The rule over a list of addresses: the last that is not trusted, or the first of all.
        #[test]
        fn as_a_naive_reader_has_it(hops in hops(), cuts: u16) {
            for field in [Field::Forwarded, Field::XForwardedFor] {
                let mut lines = vec![String::new()];
                for (at, hop) in hops.iter().enumerate() {
                    let last = lines.last_mut().unwrap();
                    if at > 0 && (cuts >> at) & 1 == 1 {
                        lines.push(written(field, *hop));
                    } else {
                        let comma = if at > 0 { ", " } else { "" };
                        last.push_str(&format!("{comma}{}", written(field, *hop)));
                    }
                }
                let hops: Vec<IpAddr> = hops.iter().map(IpAddr::to_canonical).collect();
                let naive = hops.iter().rfind(|hop| !is_trusted(**hop)).unwrap_or(&hops[0]);
                let lines = lines.iter().map(|line| line.as_bytes());
                prop_assert_eq!(field.client(PEER, lines, is_trusted), *naive);
            }
        }

        /// Whatever a client writes, what the proxy adds behind it reads the same.
        #[test]
        fn the_left_does_not_change_the_right(
            left in proptest::collection::vec(any::<u8>(), 0..100),
            quotes in "[\",;=\\\\]{0,9}",
            hop in any::<[u8; 16]>().prop_map(IpAddr::from),
        ) {
            for field in [Field::Forwarded, Field::XForwardedFor] {
                prop_assume!(!is_trusted(hop.to_canonical()));
                let line = [&left, quotes.as_bytes(), b", ", written(field, hop).as_bytes()].concat();
                let lines = std::iter::once(&line[..]);
                prop_assert_eq!(field.client(PEER, lines, is_trusted), hop.to_canonical());
            }
        }
    }
}
