//! Any first bytes of a connection: an answer stands whatever follows, comes within the bound, and
//! names an address that reads the same when a proxy writes it.

use std::net::{IpAddr, SocketAddr};

use fanlight::edge::proxy_protocol::{BYTES_MAX, Client, Header, parse};

pub(super) fn proxy_protocol(input: &[u8]) {
    let mut answer = Ok(None);
    for length in 0..=input.len().min(BYTES_MAX) {
        let next = parse(&input[..length]);
        assert!(answer == Ok(None) || next == answer, "{answer:?} became {next:?} at {length}");
        answer = next;
    }
    assert_eq!(parse(input), answer, "decided within the bound");
    assert!(input.len() < BYTES_MAX || answer != Ok(None));
    let Ok(Some(Header { bytes, client })) = answer else { return };
    assert!(bytes <= input.len());
    assert_eq!(parse(&input[..bytes]), answer);
    assert_eq!(parse(&input[..bytes - 1]), Ok(None), "not a byte more than it takes");
    let Client::At(address) = client else { return };
    for written in [v1(address), v2(address)] {
        assert_eq!(parse(&written), Ok(Some(Header { bytes: written.len(), client })));
    }
}

fn v1(address: SocketAddr) -> Vec<u8> {
    let (ip, port) = (address.ip(), address.port());
    let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {ip} {ip} {port} {port}\r\n").into_bytes()
}

fn v2(address: SocketAddr) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
        IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
    };
    let port = address.port().to_be_bytes();
    let rest = [&ip[..], &ip, &port, &port].concat();
    let length = u8::try_from(rest.len()).expect("at most 36");
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family, 0, length], &rest].concat()
}
