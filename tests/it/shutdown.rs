//! The end of the program: everyone is told, and it comes within the drain window.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::harness::{
    Process, Stream, WebSocket, answer_in, eventually, get, quiet_cloud, raw, read_head, request,
    within,
};

const QUIET: &str = "--trace-level=warn,fanlight::cli=info";

async fn open(addr: SocketAddr) -> TcpStream {
    let accept = [("Accept", "text/event-stream")];
    let text = request("GET", "/events", &accept, "keep-alive");
    let mut socket = raw(addr, text.as_bytes()).await;
    read_head(&mut socket, &mut Vec::new()).await;
    socket
}

/// A stream that reads nothing, with data waiting for it.
async fn stuck(addr: SocketAddr) -> TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 << 10).unwrap();
    let mut socket = within("connect", socket.connect(addr)).await.unwrap();
    let text = request("GET", "/events?since=earliest", &[], "keep-alive");
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

/// Publishes more than the buffers of a stuck stream hold, and waits for it to be taken in.
async fn flood(cloud: &fanlight::simulator::Simulator, addr: SocketAddr) {
    let data = "x".repeat(600);
    (0..400).for_each(|_| cloud.publish("a", Some(&data)));
    eventually("taken in", async || {
        let status = get(addr, "/status", &[]).await.json();
        (status["ring"]["tail"].as_u64()? > 400).then_some(())
    })
    .await;
}

async fn subscribed(addr: SocketAddr, count: usize) {
    eventually("all are subscribed", async || {
        let status = get(addr, "/status", &[]).await.json();
        (status["subscribers"]["total"] == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_are_each_told_goodbye_and_end_in_good_order() {
    const STREAMS: usize = 2_000;
    let cloud = quiet_cloud().await;
    let (mut process, addr) = Process::serve_live(&cloud.url(), &[QUIET]).await;
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut socket = open(addr).await;
        streams.spawn(async move {
            let mut bytes = Vec::new();
            within("the end", socket.read_to_end(&mut bytes)).await.unwrap();
            bytes
        });
    }
    subscribed(addr, STREAMS).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    let mut retries = Vec::new();
    while let Some(bytes) = streams.join_next().await {
        let bytes = bytes.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (_, bye) = text.split_once("event: fanlight.bye\n").unwrap_or_else(|| panic!("{text}"));
        let retry = bye.split_once("data: {\"reason\":\"shutdown\",\"retry_ms\":").unwrap().1;
        retries.push(retry.split_once("}\n\n").unwrap().0.parse::<u64>().unwrap());
        assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
    }
    assert_eq!(retries.len(), STREAMS);
    assert!(retries.iter().all(|retry| (1_000..=30_000).contains(retry)));
    retries.sort_unstable();
    let (low, high) = (retries[STREAMS / 4], retries[STREAMS * 3 / 4]);
    assert!(high - low > 5_000, "they are not to come back together: {low} to {high}");
    assert_eq!(cut(&process), 0);
}

#[tokio::test]
async fn every_transport_is_told_in_its_own_way() {
    let cloud = quiet_cloud().await;
    let (mut process, addr) = Process::serve_live(&cloud.url(), &[QUIET]).await;
    let (mut sse, _) = Stream::live(addr, "/events").await;
    let mut bare = Stream::open(addr, "/events?control=off", &[]).await;
    let mut ndjson = Stream::open(addr, "/events", &[("Accept", "application/x-ndjson")]).await;
    let mut socket = WebSocket::open(addr, "/ws").await;
    assert_eq!(socket.next().await["fanlight"], "hello");
    let poll = tokio::spawn(async move { get(addr, "/poll?timeout=60", &[]).await });
    subscribed(addr, 5).await;
    process.signal("INT");
    let bye = sse.next().await;
    assert_eq!((bye.kind.as_str(), &bye.json()["reason"]), ("fanlight.bye", &"shutdown".into()));
    assert!(sse.rest().await.is_empty() && sse.ended_cleanly());
    bare.rest().await;
    let text = bare.text();
    assert!(text.lines().all(|line| line.starts_with("retry: ")), "{text}");
    assert_eq!((text.lines().count(), bare.ended_cleanly()), (2, true));
    assert_eq!(ndjson.object().await["fanlight"], "hello");
    assert_eq!(ndjson.object().await["fanlight"], "bye");
    assert_eq!(ndjson.line().await, None);
    let bye = socket.next().await;
    assert_eq!((&bye["fanlight"], &bye["reason"]), (&"bye".into(), &"shutdown".into()));
    assert_eq!(socket.closed().await, (1001, "shutdown".to_owned()));
    socket.drained().await;
    assert_eq!(poll.await.unwrap().json()["events"], serde_json::json!([]));
    assert_eq!(process.ended().await, Some(0));
}

#[tokio::test]
async fn the_port_is_closed_while_the_last_streams_are_still_there() {
    let cloud = quiet_cloud().await;
    let (mut process, addr) =
        Process::serve_live(&cloud.url(), &[QUIET, "--server-drain-window=10m"]).await;
    let stuck = stuck(addr).await;
    flood(&cloud, addr).await;
    process.signal("TERM");
    process.traced("shutting down").await;
    eventually("the port is closed", async || TcpStream::connect(addr).await.err()).await;
    assert!(process.is_running());
    drop(stuck);
    assert_eq!(process.ended().await, Some(0), "the last one has left");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let cloud = quiet_cloud().await;
    let (mut process, addr) =
        Process::serve_live(&cloud.url(), &[QUIET, "--server-drain-window=10m"]).await;
    let _stuck = stuck(addr).await;
    flood(&cloud, addr).await;
    process.signal("TERM");
    process.traced("shutting down").await;
    assert!(process.is_running());
    process.signal("TERM");
    process.traced("signalled again: ending at once").await;
    assert_eq!(process.ended().await, Some(0));
}

#[tokio::test]
async fn idle_connections_are_closed_and_do_not_hold_the_end() {
    let cloud = quiet_cloud().await;
    let flags = [QUIET, "--server-drain-window=10m", "--limits-header-timeout=2m"];
    let (mut process, addr) = Process::serve_live(&cloud.url(), &flags).await;
    let mut silent = raw(addr, b"").await;
    let mut idle = raw(addr, request("GET", "/healthz", &[], "keep-alive").as_bytes()).await;
    let mut answer = Vec::new();
    read_head(&mut idle, &mut answer).await;
    // The silent one has been accepted before this one, which is answered.
    assert_eq!(get(addr, "/healthz", &[]).await.status, 200);
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    assert_eq!(within("the end", silent.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    within("the end", idle.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer_in(&answer).1, br#"{"status":"ok"}"#);
}

#[tokio::test]
async fn what_is_stuck_does_not_hold_the_end_beyond_the_window() {
    const STUCK: usize = 20;
    let cloud = quiet_cloud().await;
    let flags = [QUIET, "--server-drain-window=2s", "--limits-header-timeout=2m"];
    let (mut process, addr) = Process::serve_live(&cloud.url(), &flags).await;
    let mut sockets = Vec::new();
    for _ in 0..STUCK {
        sockets.push(stuck(addr).await);
    }
    sockets.push(raw(addr, b"GET / HTTP/1.1\r\nHost: half").await);
    let (mut reading, _) = Stream::live(addr, "/events?name=nothing").await;
    flood(&cloud, addr).await;
    process.signal("TERM");
    let last = reading.rest().await.pop().unwrap();
    assert_eq!(last.kind, "fanlight.bye", "the others are told as ever");
    assert_eq!(process.ended().await, Some(0));
    assert!(cut(&process) >= STUCK as u64, "they were not stuck: {:#?}", process.trace);
}

/// How many connections had to be cut, as the program says at its end.
fn cut(process: &Process) -> u64 {
    let lines = process.trace.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = lines.rev().find(|line| line["message"] == "shut down");
    said.and_then(|line| line["cut"].as_u64()).unwrap_or_else(|| panic!("{:#?}", process.trace))
}
