//! Connections that a proxy introduces, and those that only say so.

use std::net::SocketAddr;

use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::harness::{
    Answer, answer_in, broker, get, metric, publish, quiet_cloud, raw, raw_until_closed, request,
    within,
};

const FLAGS: [&str; 4] = [
    "--server-proxy-protocol=on",
    "--server-trusted-proxies=127.0.0.0/8",
    "--server-admin-listen=127.0.0.1:0",
    "--limits-connections-per-ip-max=1",
];
const REFUSED: &str = r#"fanlight_limits_reached_total{limit="proxy-header"}"#;

/// What proxies write for a client with this last number in its address.
fn v1(client: u8) -> Vec<u8> {
    format!("PROXY TCP4 192.0.2.{client} 203.0.113.1 56324 443\r\n").into_bytes()
}

fn v2(client: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, client, 203, 0, 113, 1, 0xdc, 0x04, 0x01, 0xbb];
    // With an extension: no operation, of one byte.
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10", &addresses[..], b"\x04\0\x01\0"].concat()
}

fn asking(header: &[u8], path: &str) -> Vec<u8> {
    [header, request("GET", path, &[], "close").as_bytes()].concat()
}

async fn answer(addr: SocketAddr, header: &[u8], path: &str) -> (String, Vec<u8>) {
    answer_in(raw_until_closed(addr, &asking(header, path)).await.as_bytes())
}

/// A stream, once it has begun.
async fn stream(addr: SocketAddr, header: &[u8]) -> TcpStream {
    let mut socket = raw(addr, &asking(header, "/events")).await;
    read_until(&mut socket, "event: fanlight.hello").await;
    socket
}

async fn read_until(socket: &mut TcpStream, text: &str) {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(text) {
        let read = within(text, socket.read_buf(&mut bytes)).await.unwrap();
        assert!(read > 0, "ended before {text}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn limits_of_an_address_have_the_client_that_the_proxy_names() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &FLAGS).await;
    let addr = broker.addr();
    let mut first = stream(addr, &v1(1)).await;
    let mut second = stream(addr, &v2(2)).await;
    for header in [v1(1), v2(1), v2(2)] {
        let (head, body) = answer(addr, &header, "/last").await;
        assert!(head.starts_with("http/1.1 429 "), "{head}");
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("limits.connections_per_ip_max"), "{body}");
    }
    let (head, _) = answer(addr, &v1(3), "/last").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    publish(&cloud, &broker, "greenhouse/temp", "21.5").await;
    read_until(&mut first, "greenhouse/temp").await;
    read_until(&mut second, "greenhouse/temp").await;
    broker.shutdown().await;
}

/// The proxy asks how the broker is, and passes on those whom it does not know.
#[tokio::test]
async fn a_proxy_that_names_nobody_is_who_it_is() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &FLAGS).await;
    let unknown = b"PROXY UNKNOWN\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [&unknown[..], local] {
        let (head, _) = answer(broker.addr(), header, "/healthz").await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn who_is_not_introduced_is_closed_unheard_and_counted() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &FLAGS).await;
    let admin = broker.admin_addr().unwrap();
    let bad = [
        &b""[..],
        b"PROXY TCP4 192.0.2.1\r\n",
        // It may go on, and does not.
        b"PROXY TCP4 192.0.2.1 203.0.113.1 56324 4",
    ];
    let mut refused = 0.0;
    for header in bad {
        let sent =
            if header.ends_with(b"4") { header.to_vec() } else { asking(header, "/healthz") };
        assert_eq!(raw_until_closed(broker.addr(), &sent).await, "");
        refused += 1.0;
        assert_eq!(metric(admin, REFUSED).await, refused);
    }
    // While one says nothing, others are served.
    let _silent = raw(broker.addr(), b"PROXY").await;
    let (head, _) = answer(broker.addr(), &v1(1), "/healthz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    broker.shutdown().await;
}

#[tokio::test]
async fn strangers_introduce_nobody() {
    let cloud = quiet_cloud().await;
    let flags = [FLAGS[0], "--server-trusted-proxies=10.0.0.0/8", FLAGS[2]];
    let broker = broker(&cloud, &flags).await;
    assert_eq!(raw_until_closed(broker.addr(), &asking(&v1(1), "/healthz")).await, "");
    assert_eq!(metric(broker.admin_addr().unwrap(), REFUSED).await, 1.0);
    broker.shutdown().await;
}

/// Headers that name a client are anybody's to write.
#[tokio::test]
async fn what_a_request_says_of_its_address_changes_nothing() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &FLAGS[3..]).await;
    let _kept = stream(broker.addr(), b"").await;
    for header in [("X-Forwarded-For", "192.0.2.9"), ("Forwarded", "for=192.0.2.9")] {
        let answer: Answer = get(broker.addr(), "/last", &[header]).await;
        assert_eq!(answer.status, 429, "{answer:?}");
    }
    broker.shutdown().await;
}
