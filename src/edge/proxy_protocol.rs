//! The PROXY protocol, versions 1 and 2: a proxy's first bytes, which say whose connection it
//! passes on (haproxy.org, `proxy-protocol.txt`).
//!
//! Law: decided as soon as it can be, and within [`BYTES_MAX`]: bytes that cannot become a header
//! are refused at the first one that differs. What follows the header is not looked at.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Longest header of version 1, its line end included: the specification's own worst case.
pub const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is read: its 16 bytes, the largest addresses (216, of UNIX
/// sockets), and 304 for extensions, which proxies fill with a name and a few numbers.
pub const V2_BYTES_MAX: usize = 536;
/// Longest header of either.
pub const BYTES_MAX: usize = V2_BYTES_MAX;

const V1_BEGINNING: &[u8] = b"PROXY ";
const V2_BEGINNING: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 up to its addresses: the beginning, command, family, and the length of the rest.
const V2_HEAD_BYTES: usize = 16;

const _: () = assert!(V1_BYTES_MAX < V2_BYTES_MAX);

/// A header that was read in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes it took. Those after it are the client's.
    pub bytes: usize,
    /// Who is behind the proxy.
    pub client: Client,
}

/// Who is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A client with this address.
    At(SocketAddr),
    /// A client without an address that means anything here: the proxy did not know it, or it
    /// came by a UNIX socket.
    Unknown,
    /// The proxy itself, to see whether the broker is well.
    Proxy,
}

/// Bytes that are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They begin in another way.
    Absent,
    /// They go on for longer than [`V1_BYTES_MAX`] or [`V2_BYTES_MAX`].
    TooLong,
    /// They begin as one and go on as none.
    Malformed,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Fault::Absent => "the connection does not begin with a PROXY header",
            Fault::TooLong => "the PROXY header is too long",
            Fault::Malformed => "the PROXY header is malformed",
        })
    }
}

impl std::error::Error for Fault {}

/// Reads the header that a connection begins with. None: it may become one with more bytes.
///
/// # Errors
/// If it cannot, however many follow.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    if begins(bytes, V1_BEGINNING) {
        v1(bytes)
    } else if begins(bytes, V2_BEGINNING) {
        v2(bytes)
    } else {
        Err(Fault::Absent)
    }
}

/// True if `bytes` begin with `beginning`, or are a part of it.
fn begins(bytes: &[u8], beginning: &[u8]) -> bool {
    let length = bytes.len().min(beginning.len());
    bytes[..length] == beginning[..length]
}

fn v1(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() == V1_BYTES_MAX { Err(Fault::TooLong) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&within[..end]).map_err(|_| Fault::Malformed)?;
    let client = v1_client(line).ok_or(Fault::Malformed)?;
    Ok(Some(Header { bytes: end + 2, client }))
}

fn v1_client(line: &str) -> Option<Client> {
    let mut words = line.split(' ');
    words.next();
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Client::Unknown);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _) = (address()?, address()?);
    let mut port = || words.next().and_then(port);
    let (source_port, _) = (port()?, port()?);
    words.next().is_none().then_some(Client::At(SocketAddr::new(source, source_port)))
}

/// Digits without a zero before them, as the specification has it.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit())
        && (word.len() == 1 || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

fn v2(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let at = V2_BEGINNING.len();
    // Each byte is judged as it comes.
    let is_proxy = match bytes.get(at) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Fault::Malformed),
    };
    let family = match bytes.get(at + 1) {
        None => return Ok(None),
        Some(byte) if byte >> 4 <= 3 && byte & 15 <= 2 => *byte,
        Some(_) => return Err(Fault::Malformed),
    };
    let Some(&[high, low]) = bytes.get(at + 2..V2_HEAD_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = V2_HEAD_BYTES + length;
    if end > V2_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let addresses_bytes = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    // What the proxy says of itself has no addresses that count.
    if !is_proxy && length < addresses_bytes {
        return Err(Fault::Malformed);
    }
    let Some(rest) = bytes.get(V2_HEAD_BYTES..end) else { return Ok(None) };
    let client = if is_proxy { Client::Proxy } else { v2_client(family, rest) };
    Ok(Some(Header { bytes: end, client }))
}

fn v2_client(family: u8, rest: &[u8]) -> Client {
    match family {
        // Over TCP.
        0x11 => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) => {
                at(Ipv4Addr::new(a, b, c, d).into(), [high, low])
            }
            None => Client::Unknown,
        },
        0x21 => match (rest.first_chunk::<16>(), rest.get(32..34)) {
            (Some(source), Some(&[high, low])) => at(Ipv6Addr::from(*source).into(), [high, low]),
            _ => Client::Unknown,
        },
        // Datagrams do not come by a connection, and UNIX sockets have no address.
        _ => Client::Unknown,
    }
}

fn at(address: IpAddr, port: [u8; 2]) -> Client {
    Client::At(SocketAddr::new(address, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_BEGINNING, &[command, family], &length, rest].concat()
    }

    /// The specification's layout, put together the other way round.
    fn v2_of(source: SocketAddr, target: SocketAddr, extension: &[u8]) -> Vec<u8> {
        let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
        match (source.ip(), target.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => v2_header(
                0x21,
                0x11,
                &[&from.octets(), &to.octets(), &ports[..], extension].concat(),
            ),
            (IpAddr::V6(from), IpAddr::V6(to)) => v2_header(
                0x21,
                0x21,
                &[&from.octets()[..], &to.octets(), &ports, extension].concat(),
            ),
            _ => unreachable!("one family"),
        }
    }

    fn client(bytes: &[u8]) -> Result<Client, Fault> {
        parse(bytes).map(|header| header.expect("the header is whole").client)
    }

    #[test]
    fn version_1() {
        let at = |text: &str| Ok(Client::At(text.parse().unwrap()));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443", at("192.0.2.1:56324")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", at("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::1 2001:db8::9 0 443", at("[2001:db8::1]:0")),
            ("PROXY UNKNOWN", Ok(Client::Unknown)),
            ("PROXY UNKNOWN anything at all", Ok(Client::Unknown)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 1", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 ", Err(Fault::Malformed)),
            ("PROXY TCP4  192.0.2.1 192.0.2.9 56324 443", Err(Fault::Malformed)),
            ("PROXY TCP4 2001:db8::1 2001:db8::9 1 2", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.01 192.0.2.9 1 2", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 01 2", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 +1 2", Err(Fault::Malformed)),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 65536 2", Err(Fault::Malformed)),
            ("PROXY TCP5 192.0.2.1 192.0.2.9 1 2", Err(Fault::Malformed)),
            ("PROXY tcp4 192.0.2.1 192.0.2.9 1 2", Err(Fault::Malformed)),
            ("PROXY ", Err(Fault::Malformed)),
            ("proxy TCP4 192.0.2.1 192.0.2.9 1 2", Err(Fault::Absent)),
            ("GET / HTTP/1.1", Err(Fault::Absent)),
        ] {
            assert_eq!(client(format!("{line}\r\nGET /").as_bytes()), expected, "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
        assert_eq!(parse(longest.as_bytes()).unwrap().unwrap().bytes, V1_BYTES_MAX);
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
        assert_eq!(parse(longer.as_bytes()), Err(Fault::TooLong));
    }

    #[test]
    fn version_2() {
        let unix = [0; 216];
        for (bytes, expected) in [
            (v2_header(0x20, 0x00, &[]), Ok(Client::Proxy)),
            (v2_header(0x20, 0x11, &[1; 5]), Ok(Client::Proxy)),
            (v2_header(0x21, 0x00, &[1; 5]), Ok(Client::Unknown)),
            (v2_header(0x21, 0x31, &unix), Ok(Client::Unknown)),
            (v2_header(0x21, 0x12, &[0; 12]), Ok(Client::Unknown)),
            (v2_header(0x21, 0x31, &unix[1..]), Err(Fault::Malformed)),
            (v2_header(0x21, 0x11, &[0; 11]), Err(Fault::Malformed)),
            (v2_header(0x21, 0x21, &[0; 35]), Err(Fault::Malformed)),
            (v2_header(0x21, 0x41, &[0; 36]), Err(Fault::Malformed)),
            (v2_header(0x21, 0x13, &[0; 36]), Err(Fault::Malformed)),
            (v2_header(0x22, 0x11, &[0; 12]), Err(Fault::Malformed)),
            (v2_header(0x11, 0x11, &[0; 12]), Err(Fault::Malformed)),
            (v2_header(0x21, 0x11, &[0; V2_BYTES_MAX - 15]), Err(Fault::TooLong)),
        ] {
            assert_eq!(client(&bytes), expected, "{bytes:?}");
        }
        let longest = v2_header(0x20, 0x00, &[0; V2_BYTES_MAX - 16]);
        assert_eq!(parse(&longest).unwrap().unwrap().bytes, V2_BYTES_MAX);
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<[([u8; 4], u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from).into()),
            any::<[([u8; 16], u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from).into()),
        ]
    }

    proptest! {
        /// Of a good header each part is too little, and all of it enough, whatever follows.
        #[test]
        fn what_proxies_write_is_read(
            (source, target) in addresses(),
            extension in proptest::collection::vec(any::<u8>(), 0..300),
            after in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to, port) = (source.ip(), target.ip(), source.port());
            let v1 = format!("PROXY {family} {from} {to} {port} {}\r\n", target.port());
            for header in [v1.into_bytes(), v2_of(source, target, &extension)] {
                for length in 0..header.len() {
                    prop_assert_eq!(parse(&header[..length]), Ok(None));
                }
                let read = Header { bytes: header.len(), client: Client::At(source) };
                prop_assert_eq!(parse(&[&header[..], &after].concat()), Ok(Some(read)));
            }
        }

        /// An answer, once given, is not changed by what follows; and there is one within the bound.
        #[test]
        fn answers_stand(
            beginning in prop_oneof![Just(V1_BEGINNING), Just(V2_BEGINNING), Just(&b"PROXY TCP4 "[..]), Just(&[][..])],
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            let bytes = [beginning, &bytes].concat();
            let mut answer = Ok(None);
            for length in 0..=bytes.len() {
                let next = parse(&bytes[..length]);
                prop_assert!(answer == Ok(None) || next == answer, "{:?} then {:?}", answer, next);
                answer = next;
            }
            prop_assert!(bytes.len() < BYTES_MAX || answer != Ok(None));
        }
    }
}
