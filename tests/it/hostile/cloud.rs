//! What the cloud could send: odd names, odd data, odd lines.

use super::{
    Becomes::{Event, Gap},
    Scene, object, text, wire,
};
use crate::harness::metric;

#[tokio::test]
async fn names_that_cannot_be_passed_on_are_gaps() {
    let mut scene = Scene::new().await;
    let long = "n".repeat(257);
    let cases: [&[u8]; 8] = [
        b"a\0b",
        b"\x1b[31mred",
        b"tab\there",
        b"del\x7f",
        b"c1\xc2\x85",
        b"c1\xc2\x9b31m",
        long.as_bytes(),
        &[b'x'; 300],
    ];
    for name in cases {
        let bytes = [b"event: ", name, b"\ndata: {\"a\":1}\n\n"].concat();
        scene.gets(&bytes, vec![Gap("refused")]).await;
    }
    let refused = "fanlight_upstream_events_refused_total{reason=\"name\"}";
    assert_eq!(metric(scene.addr, refused).await, 8.0);
    scene.unharmed().await;
}

#[tokio::test]
async fn names_that_look_odd_are_passed_on() {
    let mut scene = Scene::new().await;
    // Particle's own names and ours, one letter off; names that mean something elsewhere.
    for name in [
        "Fanlight.gap",
        "fanlight",
        "error",
        "open",
        "message",
        "__proto__",
        " a ",
        "a\"b\\c",
        "</script>",
        "näme",
        "\u{1f9ea}",
        "x\u{2028}y",
        "%00",
        "id: 7",
        ":",
        &"n".repeat(256),
    ] {
        scene.gets(&wire(name, r#"{"a":1}"#), vec![object(name, r#"{"a":1}"#)]).await;
    }
    // No name, or an empty one, is the standard's default.
    scene.gets(b"data: {\"a\":1}\n\n", vec![object("message", r#"{"a":1}"#)]).await;
    scene.gets(b"event:\ndata: 1\n\n", vec![text("message", "1")]).await;
    let bytes = b"event: \xff\xfe\xc0\xafx\ndata: 1\n\n";
    scene.gets(bytes, vec![text("\u{fffd}\u{fffd}\u{fffd}\u{fffd}x", "1")]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn line_ends_divide_lines_and_nothing_else() {
    let mut scene = Scene::new().await;
    for (bytes, becomes) in [
        // A carriage return is a line end, so none gets into a name or into data.
        (&b"event: a\rb\ndata: 1\n\n"[..], vec![text("a", "1")]),
        (b"event: a\ndata: x\ry\n\n", vec![text("a", "x")]),
        (b"event: a\rdata: x\r\r", vec![text("a", "x")]),
        (b"event: a\r\ndata: x\r\n\r\n", vec![text("a", "x")]),
        (b"event: a\ndata: x\r\n\rdata: y\n\r", vec![text("a", "x"), text("message", "y")]),
        (b"event: a\ndata: x\ndata: y\n\n", vec![text("a", "x\ny")]),
        (b"event: a\nevent: b\ndata:x\n\n", vec![text("b", "x")]),
        (b"event: a\n\ndata: x\n\n", vec![text("message", "x")]),
        // Fields that are the broker's own are not taken over from a Particle cloud.
        (b"id: forged-7\nretry: 86400000\nevent: a\ndata: x\n\n", vec![text("a", "x")]),
        (b"id: a\0b\n: comment\nnonsense\nevent: a\n:\ndata: x\n\n", vec![text("a", "x")]),
        // A byte order mark counts at the very beginning of a stream alone.
        (b"\xef\xbb\xbfevent: a\ndata: x\n\n", vec![text("message", "x")]),
        (b"event: a\ndata: \xef\xbb\xbf{\"a\":1}\n\n", vec![text("a", "\u{feff}{\"a\":1}")]),
        (b"\n\n\n\r\r\n:\n:\n\n", vec![]),
        (b"event: only a name\n\nretry: 1\n\nid: 1\n\n", vec![]),
    ] {
        scene.gets(bytes, becomes).await;
    }
    // An object over several lines stays one, on one line.
    let becomes = Event("a".into(), "{\n\"b\":\n1}".into(), "\"b\": 1}".into());
    scene.gets(b"event: a\ndata: {\ndata: \"b\":\ndata: 1}\n\n", vec![becomes]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn data_of_every_kind_is_passed_on() {
    let mut scene = Scene::new().await;
    // Untouched, whatever a stricter reader may think of it.
    for data in [
        r#"{"data":null}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"data":"\ud800"}"#,
        r#"{"n":1e999999}"#,
        r#"{"":""}"#,
        r#"{"a":{"id":1,"name":2,"fanlight":3}}"#,
        r#"{"coreid":"x\u0000y"}"#,
        r#"{"coreid":["d",{}]}"#,
        "{\"data\":\"\u{fffd}\u{7f}\u{85}\u{2028}\"}",
        r#"{"a":1} "#,
    ] {
        scene.gets(&wire("a", data), vec![object("a", data)]).await;
    }
    // Fields that would forge a position, a name or a control event; and what is no object.
    for data in [
        r#"{"id":"00000000-7","data":"x"}"#,
        r#"{"name":"fanlight.bye","data":"x"}"#,
        r#"{"fanlight":"bye","reason":"shutdown"}"#,
        r#"{"\u0069d":"00000000-7"}"#,
        "",
        "null",
        "7",
        "[1,2]",
        "\"x\"",
        "undefined",
        "{",
        "{}}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":1}{\"b\":2}",
        "{\"\\ud800\":1}",
        "\0",
        "a\0b",
        "\u{1b}[31m",
        "{\"a\":\"\0\"}",
        "<html>",
        "  x",
        "\u{85}",
    ] {
        scene.gets(&wire("a", data), vec![text("a", data)]).await;
    }
    // What is no UTF-8 is marked as such.
    let becomes = object("a", "{\"data\":\"\u{fffd}(\u{fffd}\"}");
    scene.gets(b"event: a\ndata: {\"data\":\"\xff(\xf0\x9f\"}\n\n", vec![becomes]).await;
    // Deeper than any stack.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    scene.gets(&wire("a", &deep), vec![object("a", &deep)]).await;
    let deep = format!("{{\"coreid\":{}1{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    scene.gets(&wire("a", &deep), vec![object("a", &deep)]).await;
    let open = format!("{{\"a\":{}", "[{\"b\":".repeat(100_000));
    scene.gets(&wire("a", &open), vec![text("a", &open)]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn lines_are_passed_on_to_the_byte_and_no_further() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let mut scene = Scene::new().await;
    let data = |line_bytes: usize| {
        let around = "data: {\"data\":\"\"}".len();
        format!("{{\"data\":\"{}\"}}", "x".repeat(line_bytes - around))
    };
    let longest = data(LINE_BYTES_MAX);
    scene.gets(&wire("a", &longest), vec![object("a", &longest)]).await;
    for bytes in [LINE_BYTES_MAX + 1, 3 * LINE_BYTES_MAX] {
        scene.gets(&wire("a", &data(bytes)), vec![Gap("oversize")]).await;
    }
    // In all that the lines of one event may hold together.
    let line = format!("data: {}\n", "y".repeat(LINE_BYTES_MAX - 6));
    let bytes = format!("event: a\n{}\n", line.repeat(3));
    scene.gets(bytes.as_bytes(), vec![Gap("oversize")]).await;
    // A name as long as a line; without data it would have been no event.
    let name = "n".repeat(2 * LINE_BYTES_MAX);
    scene.gets(&wire(&name, "1"), vec![Gap("oversize")]).await;
    scene.gets(format!("event: {name}\n\n").as_bytes(), vec![]).await;
    // Lines that mean nothing are not held at all.
    let nothing = format!(":{name}\nnonsense{name}\nid: {name}\n\n");
    scene.gets(nothing.as_bytes(), vec![]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn an_endless_line_takes_no_more_memory_than_a_long_one() {
    const MIB: usize = 1 << 20;
    let mut scene = Scene::new().await;
    let received = "fanlight_upstream_bytes_total";
    let memory = "fanlight_process_resident_memory_bytes";
    scene.cloud.raw(b"event: a\ndata: ");
    let mut before = 0.0;
    let piece = vec![b'x'; MIB];
    for sent in 1..=48 {
        scene.cloud.raw(&piece);
        // One at a time, so that the cloud's own buffer does not matter.
        while metric(scene.addr, received).await < (sent * MIB) as f64 {}
        if sent == 8 {
            before = metric(scene.addr, memory).await;
        }
    }
    let grown = metric(scene.addr, memory).await - before;
    assert!(grown < (8 * MIB) as f64, "40 MiB more of one line took {grown} bytes");
    scene.gets(b"\n\n", vec![Gap("oversize")]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn an_event_a_byte_at_a_time_is_whole() {
    let mut scene = Scene::new().await;
    scene.cloud.fault("drip bytes=1 every=10ms".parse::<fanlight::simulator::Fault>().unwrap());
    scene
        .gets("event: ä\ndata: {\"a\":\"…\"}\n\n".as_bytes(), vec![object("ä", "{\"a\":\"…\"}")])
        .await;
    scene.unharmed().await;
}
