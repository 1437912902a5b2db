//! WebSocket on `/ws`.

use fanlight::{server::Broker, simulator::Simulator};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use crate::harness::{
    WebSocket, broker, eventually, get, metric, publish, publish_line, publish_many, quiet_cloud,
    raw, read_head, sample, subscribers, within,
};

const HANDSHAKE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "fanlight.v1"),
];

/// An open WebSocket that answers nothing, and the bytes already read of it. `message`
/// goes out together with the handshake.
async fn mute(broker: &Broker, message: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut text = "GET /ws HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\n".to_owned();
    for (name, value) in HANDSHAKE {
        text += &format!("{name}: {value}\r\n");
    }
    let mut request = (text + "\r\n").into_bytes();
    request.extend_from_slice(message);
    let mut socket = raw(broker.addr(), &request).await;
    let mut bytes = Vec::new();
    let end = read_head(&mut socket, &mut bytes).await;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    bytes.drain(..end + 4);
    (socket, bytes)
}

/// The next frame: its first byte and its payload (RFC 6455, section 5.2).
async fn frame(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> (u8, Vec<u8>) {
    loop {
        let extended = bytes.get(1).is_some_and(|length| *length == 126);
        let start = if extended { 4 } else { 2 };
        if bytes.len() >= start {
            let length = match extended {
                true => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
                false => usize::from(bytes[1]),
            };
            if bytes.len() >= start + length {
                let payload = bytes[start..start + length].to_vec();
                let first = bytes[0];
                bytes.drain(..start + length);
                return (first, payload);
            }
        }
        let read = within("a frame", socket.read_buf(bytes)).await.unwrap();
        assert!(read > 0, "closed in the middle: {bytes:?}");
    }
}

/// The broker's shutdown, with everything the socket gets meanwhile.
async fn rest(mut socket: WebSocket) -> (Vec<Value>, (u16, String)) {
    let mut messages = Vec::new();
    loop {
        match socket.message().await {
            Message::Text(text) => messages.push(serde_json::from_str(&text).unwrap()),
            Message::Close(Some(frame)) => {
                return (messages, (frame.code.into(), frame.reason.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn opened(broker: &Broker, path: &str) -> (WebSocket, Value) {
    let mut socket = WebSocket::open(broker.addr(), path).await;
    let hello = socket.next().await;
    assert_eq!(hello["fanlight"], "hello");
    (socket, hello)
}

async fn world(flags: &[&str]) -> (Simulator, Broker) {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, flags).await;
    (cloud, broker)
}

#[tokio::test]
async fn the_hello_and_each_event_are_one_text_frame_with_one_object() {
    let (cloud, broker) = world(&[]).await;
    let (mut socket, mut bytes) = mute(&broker, b"").await;
    let (first, payload) = frame(&mut socket, &mut bytes).await;
    let hello = format!(
        r#"{{"fanlight":"hello","id":"{}","version":"{}","upstream":"live","filter":{{"prefix":[],"name":[],"device":[]}}}}"#,
        broker.hub().head(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!((first, String::from_utf8(payload).unwrap()), (0x81, hello));
    let data = r#"{ "data":"2° \n",  "ttl":60}"#;
    let seq = publish_line(&cloud, &broker, "t", data).await;
    let (first, payload) = frame(&mut socket, &mut bytes).await;
    let rest = data.strip_prefix("{ ").unwrap();
    let event = format!(r#"{{"id":"{}-{seq}","name":"t",{rest}"#, broker.hub().epoch());
    assert_eq!((first, String::from_utf8(payload).unwrap()), (0x81, event));
    drop(socket);
    broker.shutdown().await;
}

#[tokio::test]
async fn prefix_name_and_device_pass_the_same_events_live_and_in_replay() {
    let (cloud, broker) = world(&[]).await;
    let mut sockets = Vec::new();
    let mut open = async |extra: &str| {
        for (query, expected) in sample::FILTERS {
            let path = format!("/ws?{extra}{query}");
            let (socket, _) = opened(&broker, &path).await;
            sockets.push((path, socket, *expected));
        }
    };
    open("").await;
    sample::publish_all(&cloud, &broker).await;
    open("since=earliest&").await;
    let ending = tokio::spawn(broker.shutdown());
    for (path, socket, expected) in sockets {
        let (mut messages, end) = rest(socket).await;
        assert_eq!(end, (1001, "shutdown".to_owned()), "{path}");
        let bye = messages.pop().unwrap();
        assert_eq!((&bye["fanlight"], &bye["reason"]), (&json!("bye"), &json!("shutdown")));
        assert!((1000..=30_000).contains(&bye["retry_ms"].as_u64().unwrap()), "{bye}");
        messages.retain(|message| message["fanlight"].is_null());
        assert_eq!(sample::places(&messages), expected, "{path}");
    }
    assert_eq!(ending.await.unwrap(), 0, "none had to be cut");
}

#[tokio::test]
async fn subscribe_replaces_the_filter_and_is_confirmed_by_a_hello() {
    let (cloud, broker) = world(&[]).await;
    let (mut socket, hello) = opened(&broker, "/ws?name=a").await;
    assert_eq!(hello["filter"], json!({"prefix": [], "name": ["a"], "device": []}));
    publish(&cloud, &broker, "b", "0").await;
    publish(&cloud, &broker, "a", "1").await;
    assert_eq!(socket.next().await["data"], "1");
    let subscribe = json!({"subscribe": {"prefix": ["b", "c"], "device": ["x", "d"]}});
    socket.send(Message::text(subscribe.to_string())).await;
    let hello = socket.next().await;
    assert_eq!(hello["filter"], json!({"prefix": ["b", "c"], "name": [], "device": ["d", "x"]}));
    assert_eq!(hello["id"], broker.hub().head().to_string(), "it goes on from where it was");
    let line = |data: &str, device: &str| format!(r#"{{"data":"{data}","coreid":"{device}"}}"#);
    publish_line(&cloud, &broker, "a", &line("2", "d")).await;
    publish_line(&cloud, &broker, "b1", &line("3", "e")).await;
    publish_line(&cloud, &broker, "b1", &line("4", "d")).await;
    assert_eq!(socket.next().await["data"], "4");
    socket.send(Message::text(r#"{"subscribe":{}}"#)).await;
    assert_eq!(socket.next().await["filter"], json!({"prefix": [], "name": [], "device": []}));
    publish(&cloud, &broker, "a", "5").await;
    assert_eq!(socket.next().await["data"], "5");
    socket.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_new_filter_loses_nothing_and_repeats_nothing_while_events_come() {
    let (cloud, broker) = world(&[]).await;
    let (mut socket, _) = opened(&broker, "/ws?prefix=a").await;
    let mut seqs = Vec::new();
    for round in 0..20 {
        publish_many(&cloud, &broker, "a", 10).await;
        // Wider and wider, so that every event passes all along.
        let names: Vec<String> = (0..round).map(|number| format!("z{number}")).collect();
        let subscribe = json!({"subscribe": {"prefix": ["a"], "name": names}});
        socket.send(Message::text(subscribe.to_string())).await;
        publish_many(&cloud, &broker, "a", 10).await;
    }
    let mut hellos = 0;
    while seqs.len() < 400 || hellos < 20 {
        let message = socket.next().await;
        match message["fanlight"].as_str() {
            Some("hello") => hellos += 1,
            Some(other) => panic!("{other}"),
            None => {
                let id = message["id"].as_str().unwrap();
                seqs.push(id.split_once('-').unwrap().1.parse::<u64>().unwrap());
            }
        }
    }
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    socket.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_message_that_is_not_understood_is_answered_1008_with_the_reason() {
    let (_cloud, broker) = world(&[]).await;
    let shape = r#"expected {"subscribe":{"prefix":[…],"name":[…],"device":[…]}}"#;
    let part = "subscribe takes prefix, name and device, each a list of strings";
    let long = json!({"subscribe": {"name": ["x".repeat(129)]}}).to_string();
    let many = json!({"subscribe": {"prefix": vec!["x"; 33]}}).to_string();
    let cases = [
        (Message::text("hello"), shape),
        (Message::text(""), shape),
        (Message::text(r#"{"subscribe":{},"and":1}"#), shape),
        (Message::text(r#"{"subscribe":{"prefix":"a"}}"#), part),
        (Message::text(r#"{"subscribe":{"topic":[]}}"#), part),
        (Message::text(long), "a `name` of 129 bytes, at most 128 are allowed"),
        (Message::text(many), "33 values of `prefix`, at most 32 are allowed"),
        (Message::binary(vec![1, 2, 3]), "only text messages are understood"),
    ];
    for (message, reason) in cases {
        let (mut socket, _) = opened(&broker, "/ws").await;
        socket.send(message.clone()).await;
        assert_eq!(socket.closed().await, (1008, reason.to_owned()), "{message:?}");
        socket.drained().await;
    }
    subscribers(&broker, 0).await;
    let closed = r#"fanlight_subscribers_closed_total{reason="protocol"}"#;
    assert_eq!(metric(broker.addr(), closed).await, 8.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_not_the_protocol_is_answered_1008() {
    use tokio::io::AsyncWriteExt as _;
    let (_cloud, broker) = world(&[]).await;
    // Not masked; text that is no UTF-8, masked with zeros; a reserved opcode.
    let wrongs: [&[u8]; 3] = [b"\x81\x02{}", b"\x81\x82\0\0\0\0\xff\xfe", b"\x83\x80\0\0\0\0"];
    for wrong in wrongs {
        let (mut socket, mut bytes) = mute(&broker, b"").await;
        frame(&mut socket, &mut bytes).await;
        socket.write_all(wrong).await.unwrap();
        let (first, payload) = frame(&mut socket, &mut bytes).await;
        assert_eq!((first, &payload[..2]), (0x88, &1008_u16.to_be_bytes()[..]), "{wrong:?}");
        assert_eq!(&payload[2..], b"this is not the WebSocket protocol");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_message_over_the_bound_is_answered_1009_and_one_at_it_is_read() {
    let (_cloud, broker) = world(&["--websocket-message-bytes-max=1KiB"]).await;
    let (mut socket, _) = opened(&broker, "/ws").await;
    let text = format!("{{\"subscribe\":{{}}{}}}", " ".repeat(1024 - 16));
    assert_eq!(text.len(), 1024);
    socket.send(Message::text(text.clone())).await;
    assert_eq!(socket.next().await["fanlight"], "hello");
    socket.send(Message::text(text + " ")).await;
    let reason = "messages have at most 1024 bytes".to_owned();
    assert_eq!(socket.closed().await, (1009, reason.clone()));
    for bytes in [60_000, 1_000_000] {
        let (mut socket, _) = opened(&broker, "/ws").await;
        socket.send(Message::text("x".repeat(bytes))).await;
        assert_eq!(socket.closed().await, (1009, reason.clone()), "{bytes}");
    }
    subscribers(&broker, 0).await;
    let closed = r#"fanlight_subscribers_closed_total{reason="too-big"}"#;
    assert_eq!(metric(broker.addr(), closed).await, 3.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_bytes() {
    let (_cloud, broker) = world(&[]).await;
    let (mut socket, _) = opened(&broker, "/ws").await;
    socket.send(Message::Ping("are you there".into())).await;
    assert_eq!(socket.frame().await, Message::Pong("are you there".into()));
    socket.close().await;
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_close_of_the_client_is_answered_so_that_it_was_clean() {
    let (_cloud, broker) = world(&[]).await;
    let (mut socket, _) = opened(&broker, "/ws").await;
    let frame = CloseFrame { code: 1000.into(), reason: "enough".into() };
    socket.send(Message::Close(Some(frame.clone()))).await;
    assert_eq!(socket.frame().await, Message::Close(Some(frame)));
    socket.drained().await;
    subscribers(&broker, 0).await;
    let closed = r#"fanlight_subscribers_closed_total{reason="gone"}"#;
    assert_eq!(metric(broker.addr(), closed).await, 1.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_filter_sent_along_with_the_handshake_is_confirmed_too() {
    let (cloud, broker) = world(&[]).await;
    let subscribe = br#"{"subscribe":{"name":["b"]}}"#;
    // A text frame, masked with zeros (RFC 6455, section 5.3).
    let mut message = vec![0x81, 0x80 | u8::try_from(subscribe.len()).unwrap(), 0, 0, 0, 0];
    message.extend_from_slice(subscribe);
    let (mut socket, mut bytes) = mute(&broker, &message).await;
    let filter = async |socket: &mut TcpStream, bytes: &mut Vec<u8>| {
        let (_, payload) = frame(socket, bytes).await;
        let hello: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(hello["fanlight"], "hello");
        hello["filter"]["name"].clone()
    };
    let mut name = filter(&mut socket, &mut bytes).await;
    if name == json!([]) {
        name = filter(&mut socket, &mut bytes).await;
    }
    assert_eq!(name, json!(["b"]));
    publish(&cloud, &broker, "a", "1").await;
    publish(&cloud, &broker, "b", "2").await;
    let (_, payload) = frame(&mut socket, &mut bytes).await;
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["data"], "2");
    drop(socket);
    broker.shutdown().await;
}

#[tokio::test]
async fn who_answers_pings_stays_and_who_does_not_is_closed_1013() {
    let flags = ["--websocket-ping-interval=1s", "--websocket-pong-timeout=1s"];
    let (_cloud, broker) = world(&flags).await;
    let (mut answering, _) = opened(&broker, "/ws").await;
    let (mut socket, mut bytes) = mute(&broker, b"").await;
    frame(&mut socket, &mut bytes).await;
    let silent = async {
        let mut pings = 0;
        loop {
            let (first, payload) = frame(&mut socket, &mut bytes).await;
            if first == 0x89 {
                pings += 1;
                continue;
            }
            assert!(pings > 0);
            assert_eq!((first, &payload[..2]), (0x88, &1013_u16.to_be_bytes()[..]));
            assert_eq!(&payload[2..], b"no answer to a ping");
            return;
        }
    };
    let lively = async {
        for _ in 0..3 {
            // Read, and so answered by the library.
            assert!(matches!(answering.frame().await, Message::Ping(_)));
        }
    };
    tokio::join!(silent, lively);
    subscribers(&broker, 1).await;
    let closed = r#"fanlight_subscribers_closed_total{reason="slow"}"#;
    assert_eq!(metric(broker.addr(), closed).await, 1.0);
    answering.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn the_path_without_a_handshake_says_that_an_upgrade_is_required() {
    let (_cloud, broker) = world(&[]).await;
    let answer = get(broker.addr(), "/ws", &[]).await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    assert_eq!(answer.json()["error"], "upgrade_required");
    let description = answer.json()["error_description"].as_str().unwrap().to_owned();
    assert!(description.starts_with("this path speaks WebSocket: "), "{description}");
    let wrong = get(broker.addr(), "/ws?topic=a", &[]).await;
    assert_eq!((wrong.status, &wrong.json()["error"]), (400, &json!("invalid_parameter")));
    let format = get(broker.addr(), "/ws?format=message", &[]).await;
    assert_eq!(format.status, 400, "{}", format.body);
    assert_eq!(broker.hub().subscribers(), 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_position_is_resumed_and_one_that_cannot_be_begins_with_a_gap() {
    let (cloud, broker) = world(&["--ring-events-max=16"]).await;
    publish_many(&cloud, &broker, "a", 40).await;
    let epoch = broker.hub().epoch();
    let (oldest, tail) = (broker.hub().status().oldest.0, broker.hub().status().tail.0);
    let path = format!("/ws?last_event_id={epoch}-{}&limit=2", tail - 3);
    let (messages, end) = rest(opened(&broker, &path).await.0).await;
    assert_eq!(sample::places(&messages), [38, 39]);
    assert_eq!(end, (1000, "limit".to_owned()));
    let path = format!("/ws?last_event_id={epoch}-1&limit=1");
    let (messages, _) = rest(opened(&broker, &path).await.0).await;
    let gap = json!({
        "fanlight": "gap", "id": format!("{epoch}-{}", oldest - 1), "reason": "evicted",
        "requested": format!("{epoch}-1"), "from": 2, "to": oldest, "count": oldest - 2,
        "oldest": oldest, "next": oldest,
    });
    assert_eq!(messages[0], gap);
    assert_eq!(messages[1]["id"], format!("{epoch}-{oldest}"));
    broker.shutdown().await;
}

#[tokio::test]
async fn snapshot_and_control_off_work_as_in_sse() {
    let (cloud, broker) = world(&[]).await;
    publish_many(&cloud, &broker, "a", 4).await;
    publish_many(&cloud, &broker, "b", 2).await;
    let mut socket = WebSocket::open(broker.addr(), "/ws?snapshot=true&control=off").await;
    let newest = [socket.next().await, socket.next().await];
    assert_eq!(sample::places(&newest), [3, 1]);
    let (mut told, _) = opened(&broker, "/ws?snapshot=true&name=b").await;
    assert_eq!(told.next().await["data"], "1");
    let checkpoint = json!({"fanlight": "checkpoint", "id": broker.hub().head().to_string()});
    assert_eq!(told.next().await, checkpoint);
    socket.close().await;
    told.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_that_is_overtaken_gets_its_gap_in_place_and_goes_on() {
    let (cloud, broker) = world(&["--ring-events-max=16"]).await;
    let (mut socket, hello) = opened(&broker, "/ws").await;
    let data = "x".repeat(600);
    for _ in 0..60 {
        for _ in 0..100 {
            cloud.publish("a", Some(&data));
        }
        publish(&cloud, &broker, "a", "end of a hundred").await;
    }
    let epoch = broker.hub().epoch().to_string();
    let last = eventually("all is taken in", async || {
        let ring = get(broker.addr(), "/status", &[]).await.json()["ring"].clone();
        (ring["tail"].as_u64()? > 60 * 101).then(|| ring["tail"].as_u64())?
    })
    .await
        - 1;
    let seq = |value: &Value| -> u64 {
        value.as_str().unwrap().strip_prefix(&format!("{epoch}-")).unwrap().parse().unwrap()
    };
    let (mut next, mut gaps) = (seq(&hello["id"]) + 1, 0);
    while next <= last {
        let message = socket.next().await;
        if message["fanlight"] == "gap" {
            gaps += 1;
            assert_eq!(message["reason"], "overtaken");
            assert_eq!(message["from"], next);
            let to = message["to"].as_u64().unwrap();
            assert_eq!(message["count"], to - next);
            assert_eq!((seq(&message["id"]), seq(&message["requested"])), (to - 1, next - 1));
            next = to;
        } else {
            assert_eq!(seq(&message["id"]), next);
            next += 1;
        }
    }
    assert!(gaps > 0, "it did not fall behind");
    publish(&cloud, &broker, "a", "on").await;
    assert_eq!(socket.next().await["data"], "on");
    socket.close().await;
    broker.shutdown().await;
}
