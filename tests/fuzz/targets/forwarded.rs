//! Any header of a proxy: who is not trusted says nothing, and what a proxy adds on the right reads
//! the same whatever a client wrote to the left of it.

use std::net::{IpAddr, Ipv4Addr};

use fanlight::edge::{forwarded::Field, network::Network};

use super::numbers;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

pub(super) fn forwarded(input: &[u8]) {
    let Some(([a, b, c], written)) = numbers(input) else { return };
    let trusted: Network = "10.0.0.0/8".parse().expect("a network");
    let is_trusted = |address| trusted.contains(address);
    let client: IpAddr = format!("2001:db8:{a:x}::{b:x}:{c:x}").parse().expect("an address");
    for (field, added) in [
        (Field::Forwarded, format!("for=\"[{client}]:1\"")),
        (Field::XForwardedFor, client.to_string()),
    ] {
        let lines: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
        let read = |peer, lines: &[&[u8]]| field.client(peer, lines.iter().copied(), is_trusted);
        assert_eq!(read(client, &lines), client, "of itself");
        // In a line of its own, or behind what is there.
        assert_eq!(read(PROXY, &[&lines[..], &[added.as_bytes()]].concat()), client);
        let behind = [written, b",", added.as_bytes()].concat();
        assert_eq!(read(PROXY, &[&behind]), client);
        // Found in the text, or the proxy itself.
        let found = read(PROXY, &lines);
        assert!(found == PROXY || !written.is_empty(), "{found} out of nothing");
    }
}
