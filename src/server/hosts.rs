//! Which names the broker answers to: what keeps other people's pages out of a port that only
//! their visitors can reach.
//!
//! A page of `evil.example` may read whatever `evil.example` serves, and its owner decides which
//! address that is: for the second request it can be 127.0.0.1 (DNS rebinding). The request says so
//! itself, in `Host`, which no page can set.
//!
//! Law: asked before anything else, for every route alike, and without an allocation. A name that
//! anybody in the world can own is answered only where the operator listed it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, StatusCode, Uri, header};

use super::error::Error;

/// Longest name of the DNS (RFC 1035), without the dot at its end.
const NAME_BYTES_MAX: usize = 253;
/// Characters of a refused name that the answer repeats.
const SHOWN_CHARS_MAX: usize = 100;

/// The names of the broker, beside those that it has in any case.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    is_any: bool,
    names: Vec<Box<str>>,
    /// What follows the one label that a star stands for, without its dot.
    parents: Vec<Box<str>>,
}

/// What a `Host` says, its port left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<'a> {
    Address(IpAddr),
    /// Without the dot at its end.
    Name {
        name: &'a str,
        is_rooted: bool,
    },
}

impl Hosts {
    /// Names as `server.hosts` has them: without port, international ones in their ASCII form;
    /// `*.example.org` for all one label below, `*` for any at all.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Hosts {
        let mut hosts = Hosts::default();
        for name in names {
            match name.strip_prefix("*.") {
                _ if name == "*" => hosts.is_any = true,
                Some(parent) => hosts.parents.push(parent.into()),
                None => hosts.names.push(name.into()),
            }
        }
        hosts
    }

    /// Whether a request with this target and these headers is answered. One without any host is:
    /// browsers always name one.
    ///
    /// # Errors
    /// What it is answered in place of all else.
    pub(super) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
        let mut fields = headers.get_all(header::HOST).iter();
        let (field, second) = (fields.next(), fields.next());
        if second.is_some() {
            return Err(Error::HostUnclear);
        }
        // A target in absolute form, or HTTP/2's. Both have to be good where there are two.
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        let field = field.map(|field| field.as_bytes()).filter(|field| !field.is_empty());
        [target, field].into_iter().flatten().try_for_each(|text| self.judge(text))
    }

    /// What a request with this `Host` alone is answered: 200 where it goes on.
    #[doc(hidden)]
    pub fn judge_status(&self, host: &[u8]) -> StatusCode {
        self.judge(host).map_or_else(|error| error.status(), |()| StatusCode::OK)
    }

    fn judge(&self, text: &[u8]) -> Result<(), Error> {
        let host = parse(text).ok_or(Error::HostUnclear)?;
        if self.has(host) {
            return Ok(());
        }
        let host = String::from_utf8_lossy(text).chars().take(SHOWN_CHARS_MAX).collect();
        Err(Error::HostUnknown { host })
    }

    fn has(&self, host: Host<'_>) -> bool {
        let Host::Name { name, is_rooted } = host else { return true };
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.rsplit_once('.') {
            _ if self.is_any => true,
            // Nobody can own it (RFC 6761), and browsers look it up nowhere.
            None if is("localhost") => true,
            Some((_, last)) if last.eq_ignore_ascii_case("localhost") => true,
            // A container, or a machine of the network at hand. With a dot at its end it would be
            // a top-level domain, and those have owners.
            None if !is_rooted => true,
            _ => {
                let parent = name.split_once('.').map_or("", |(_, parent)| parent);
                self.names.iter().any(|listed| is(listed))
                    || self.parents.iter().any(|listed| parent.eq_ignore_ascii_case(listed))
            }
        }
    }
}

/// Takes the value of a `Host` header apart; none if it is malformed.
fn parse(text: &[u8]) -> Option<Host<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port.then_some(Host::Address(address.into()));
    }
    let name = match text.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return None,
        None => text,
    };
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Some(Host::Address(address.into()));
    }
    let (name, is_rooted) = match name.strip_suffix('.') {
        Some(name) => (name, true),
        None => (name, false),
    };
    // Labels with an underscore are none of the DNS, but Docker gives them to containers.
    let is_label = |label: &[u8]| {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.iter().all(is_letter)
    };
    let is_name =
        name.len() <= NAME_BYTES_MAX && name.as_bytes().split(|byte| *byte == b'.').all(is_label);
    is_name.then_some(Host::Name { name, is_rooted })
}

/// A port, or nothing where one should be, which is allowed (RFC 3986, section 3.2.3).
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn hosts(names: &[&str]) -> Hosts {
        Hosts::new(names.iter().copied())
    }

    /// The status of a request with this `Host`; 200 if it is answered.
    fn status(hosts: &Hosts, host: &str) -> u16 {
        hosts.judge(host.as_bytes()).map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn names_that_nobody_can_own_are_good_in_any_case() {
        let hosts = hosts(&[]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.7:",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1]",
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "a.localhost",
            "a.b.LOCALHOST.:1",
            "fanlight",
            "fanlight:8080",
            "my_service_1:80",
        ] {
            assert_eq!(status(&hosts, host), 200, "{host}");
        }
    }

    #[test]
    fn names_that_anybody_can_own_are_not() {
        let hosts = hosts(&[]);
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost.example",
            "evil.localhost.example",
            "ai.",
            "127.0.0.1.",
            "127.1",
            "0x7f.0.0.1",
            "raspberrypi.local",
        ] {
            assert_eq!(status(&hosts, host), 421, "{host}");
        }
    }

    #[test]
    fn listed_names_are_good_as_they_are_written() {
        let hosts = hosts(&["events.example.org", "*.lan.example", "xn--bcher-kva.example", "ai"]);
        for host in [
            "events.example.org",
            "EVENTS.example.ORG:443",
            "events.example.org.",
            "a.lan.example",
            "a.Lan.Example:80",
            "xn--bcher-kva.example",
            "ai.",
        ] {
            assert_eq!(status(&hosts, host), 200, "{host}");
        }
        for host in [
            "example.org",
            "x.events.example.org",
            "xevents.example.org",
            "events.example.org.evil.example",
            "lan.example",
            "a.b.lan.example",
            "alan.example",
        ] {
            assert_eq!(status(&hosts, host), 421, "{host}");
        }
        assert_eq!(status(&self::hosts(&["*"]), "anything.example"), 200);
    }

    #[test]
    fn what_is_no_host_is_told_so() {
        for host in [
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "a:b",
            "a:80:80",
            "a:123456",
            "::1",
            "[::1",
            "[::1]x",
            "[::1%25eth0]",
            "[127.0.0.1]",
            ".",
            ".a",
            "a..b",
            "a..",
            ":80",
            "http://a",
            "*.example.org",
            "bücher.example",
            "\u{0}",
        ] {
            assert_eq!(status(&hosts(&["*"]), host), 400, "{host}");
        }
        assert_eq!(status(&hosts(&["*"]), &"a".repeat(254)), 400);
    }

    #[test]
    fn target_and_header_are_both_asked() {
        let asks = |target: &str, fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::HOST, HeaderValue::from_static(field));
            }
            let answer = hosts(&[]).admit(&target.parse().unwrap(), &headers);
            answer.map_or_else(|error| error.status().as_u16(), |()| 200)
        };
        assert_eq!(asks("/", &[]), 200, "a program");
        assert_eq!(asks("/", &[""]), 200);
        assert_eq!(asks("/", &["localhost"]), 200);
        assert_eq!(asks("/", &["localhost", "localhost"]), 400);
        assert_eq!(asks("http://localhost/", &[]), 200);
        assert_eq!(asks("http://evil.example/", &[]), 421);
        assert_eq!(asks("http://evil.example/", &["localhost"]), 421);
        assert_eq!(asks("http://localhost/", &["evil.example"]), 421);
        assert_eq!(asks("http://user@localhost/", &[]), 400);
        assert_eq!(asks("evil.example:443", &["localhost"]), 421, "CONNECT");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = hosts(&["a.b"]).judge(&bytes);
        }

        #[test]
        fn nothing_with_a_dot_is_good_by_itself(name in "[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){1,4}") {
            prop_assume!(name.parse::<IpAddr>().is_err());
            prop_assert_eq!(status(&hosts(&[]), &name), 421);
        }
    }
}
