//! What holds for every stream, tried on random ones and on the samples of the Particle cloud's
//! wire.

use proptest::prelude::*;

use super::tests::said;
use super::*;

const SAMPLES: &[u8] = include_bytes!("../../../tests/data/particle-wire-samples.txt");

/// Pieces that matter to the grammar, so that random streams of them reach every branch.
const PIECES: &[&[u8]] = &[
    b"data",
    b"data:",
    b"data: ",
    b"event",
    b"event:",
    b"event: a",
    b"id",
    b"id:",
    b"id: 1",
    b"retry",
    b"retry:",
    b"retry: 20",
    b":",
    b": ",
    b"::",
    b" ",
    b"\t",
    b"\n",
    b"\n",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"\0",
    b"0",
    b"7",
    b"x",
    b"+",
    b"Data:",
    b"\xEF\xBB\xBF",
    b"\xEF",
    b"\xBB",
    b"\xBF",
    b"\xC3\xA9",
    b"\xC3",
    b"\xE2\x80\xA6",
    b"\xE2\x80",
    b"\x80",
    b"\xF0\x9F\x8C\xA1",
    b"\xF0\x9F",
    b"\xFF",
    b"\xED\xA0\x80",
    b"data: {}\n\n",
    b"data:long line of data\n",
    b"event: x\ndata: y\n\n",
];

fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(PIECES), 0..48).prop_map(|pieces| pieces.concat())
}

/// The stream torn into pieces of these lengths, over and over.
fn torn<'a>(stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    for length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..24, 1..12).prop_filter("some length must not be 0", |lengths| {
        lengths.iter().any(|length| *length > 0)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn where_a_stream_is_torn_does_not_show(
        stream in stream(),
        lengths in lengths(),
        line_bytes_max in 0_usize..40,
        event_bytes_max in 0_usize..40,
    ) {
        for limits in [Limits::default(), Limits { line_bytes_max, event_bytes_max }] {
            let (whole_items, mut whole) = said(limits, [stream.as_slice()]);
            let (torn_items, mut torn) = said(limits, torn(&stream, &lengths));
            prop_assert_eq!(torn_items, whole_items);
            prop_assert_eq!(torn.last_event_id(), whole.last_event_id());
            prop_assert_eq!(torn.comments(), whole.comments());
            prop_assert_eq!(torn.buffered_bytes(), whole.buffered_bytes());
            prop_assert_eq!(torn.reset(), whole.reset());
        }
    }

    /// The standard decodes the stream, then cuts it into lines; this decoder does it the other way
    /// round.
    #[test]
    fn lines_decoded_alone_equal_the_stream_decoded_first(stream in stream()) {
        let decoded = String::from_utf8_lossy(&stream);
        let (items_first, first) = said(Limits::default(), [decoded.as_bytes()]);
        let (items_alone, alone) = said(Limits::default(), [stream.as_slice()]);
        prop_assert_eq!(items_alone, items_first);
        prop_assert_eq!(alone.last_event_id(), first.last_event_id());
    }

    /// The two agree wherever no bound is reached: on all of the standard. They differ by design in
    /// what random streams of this length cannot reach: `sse-parse` ignores a `retry` over 64 bits
    /// (here it saturates), keeps ids of any length, and reports a `retry` with the next event
    /// rather than in its place.
    #[test]
    fn another_decoder_agrees(stream in stream(), lengths in lengths()) {
        let mut other = sse_parse::SseParser::new();
        other.feed(&stream);
        let mut other_events = Vec::new();
        while let Some(event) = other.next_event() {
            other_events.push(format!("{}|{}", event.event, event.data));
        }
        let retries_wide = |item: &String| item == &format!("retry {}", u64::MAX);

        let (items, decoder) = said(Limits::default(), torn(&stream, &lengths));
        let (retries, events): (Vec<String>, Vec<String>) =
            items.into_iter().partition(|item| item.starts_with("retry ") && !item.contains('|'));
        prop_assert_eq!(events, other_events);
        prop_assert_eq!(decoder.last_event_id(), other.last_event_id());
        if !retries.iter().any(retries_wide) {
            let other_retry = other.retry().map(|retry| format!("retry {}", retry.as_millis()));
            prop_assert_eq!(retries.last(), other_retry.as_ref());
        }
    }
}

/// Names and data as the sample file's own lines have them.
fn sample_events() -> Vec<(&'static str, &'static str)> {
    let text = str::from_utf8(SAMPLES).expect("the samples are UTF-8");
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    names.zip(text.lines().filter_map(|line| line.strip_prefix("data: "))).collect()
}

#[test]
fn the_samples_come_out_byte_for_byte() {
    let events = sample_events();
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "greenhouse/bay-2/temperature",
            "spark/status",
            "env/reading",
            "env/reading",
            "spark/flash/status",
            "display/text",
            "display/text",
            "log/raw",
            "button/pressed",
            "motion-detected",
            "blob/1k",
            "blob/16k",
            "hook-sent/greenhouse",
            "e00fce680000000000000002/hook-response/weather/0",
            "hook-error/greenhouse/0",
            "frame/raw",
            "camera/thumb",
            "sensor/structured",
            "legacy/minimal",
            "a/very-long-event-name-very-long-event-name-very-long-event-namZ",
        ]
    );
    for at in 0..=SAMPLES.len() {
        let (before, after) = SAMPLES.split_at(at);
        let mut decoder = Decoder::new(Limits::default());
        let mut expected = events.iter();
        for piece in [before, after] {
            decoder.feed(piece, |item| {
                let (name, data) = *expected.next().expect("20 events");
                assert!(item == Item::Event { name, data }, "torn at {at}: {item:?}");
            });
        }
        assert_eq!(expected.len(), 0, "torn at {at}");
        assert_eq!((decoder.comments(), decoder.buffered_bytes()), (1, 0), "torn at {at}");
    }
    for piece_bytes in 1..48 {
        let (items, _) = said(Limits::default(), SAMPLES.chunks(piece_bytes));
        assert!(items.iter().eq(
            events.iter().map(|(name, data)| format!("{name}|{data}")).collect::<Vec<_>>().iter()
        ));
    }
}
