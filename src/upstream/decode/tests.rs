//! The standard's rules and the bounds, each row whole, byte by byte, and torn at each place.

use super::*;

/// Every item of a stream fed in pieces, as `name|data`, `retry N` or `oversize N name`; then what
/// ended it.
pub(super) fn said<'a>(
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<String>, Decoder) {
    let mut decoder = Decoder::new(limits);
    let mut items = Vec::new();
    for piece in pieces {
        decoder.feed(piece, |item| {
            items.push(match item {
                Item::Event { name, data } => format!("{name}|{data}"),
                Item::Retry(milliseconds) => format!("retry {milliseconds}"),
                Item::Oversize { name, bytes } => format!("oversize {bytes} {name}"),
            });
        });
        assert!(decoder.buffered_bytes() <= limits.held_bytes_max(), "held too much: {decoder:?}");
    }
    (items, decoder)
}

/// Checks a stream whole, byte by byte and torn in two at each place. Returns the decoder as the
/// whole left it.
fn check(
    rule: &str,
    limits: Limits,
    stream: &[u8],
    expected: &[&str],
    last_event_id: &str,
) -> Decoder {
    let (items, whole) = said(limits, [stream]);
    assert_eq!(items, expected, "{rule}");
    assert_eq!(whole.last_event_id(), last_event_id, "{rule}");
    let mut cuts: Vec<Vec<&[u8]>> =
        (0..=stream.len()).map(|at| stream.split_at(at)).map(|(a, b)| vec![a, b]).collect();
    cuts.push(stream.chunks(1).collect());
    cuts.push(stream.chunks(1).flat_map(|byte| [byte, b""]).collect());
    for pieces in cuts {
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        let (items, torn) = said(limits, pieces);
        assert_eq!(items, expected, "{rule}, torn {lengths:?}");
        assert_eq!(torn.last_event_id(), last_event_id, "{rule}, torn {lengths:?}");
        assert_eq!(torn.comments(), whole.comments(), "{rule}, torn {lengths:?}");
    }
    whole
}

/// (rule, stream, items, last event id). Names in brackets are the web platform test that pins the
/// rule.
type Rule = (&'static str, &'static [u8], &'static [&'static str], &'static str);

/// The same under bounds: (rule, limits, stream, items, last event id).
type Bound<'a> = (&'a str, Limits, &'a [u8], &'a [&'a str], &'a str);

#[rustfmt::skip]
const RULES: &[Rule] = &[
    ("a keep-alive is nothing", b"\n\n\n\n", &[], ""),
    ("the Particle cloud's preamble", b":ok\n\n\nevent: a/b\ndata: {}\n\n\n", &["a/b|{}"], ""),
    ("one mark is dropped, a later one is not [format-bom]",
        b"\xEF\xBB\xBFdata:1\n\n\xEF\xBB\xBFdata:2\n\ndata:3\n\n", &["message|1", "message|3"], ""),
    ("a second mark makes another field [format-bom-2]",
        b"\xEF\xBB\xBF\xEF\xBB\xBFdata:1\n\ndata:2\n\ndata:3\n\n", &["message|2", "message|3"], ""),
    ("half a mark makes another field", b"\xEF\xBBdata:1\n\ndata:2\n\n", &["message|2"], ""),
    ("a mark, then line ends", b"\xEF\xBB\xBF\r\n\ndata:1\n\n", &["message|1"], ""),
    ("comments change nothing [format-comments]",
        b"data:1\r:\0\n:\r\ndata:2\n:long\rdata:3\n:data:fail\r:long\ndata:4\n\n",
        &["message|1\n2\n3\n4"], ""),
    ("an unterminated block is not dispatched, nor its id [format-data-before-final-empty-line]",
        b"retry:1000\ndata:test1\n\nid:test\ndata:test2", &["retry 1000", "message|test1"], ""),
    ("nor with its line ended", b"id:test\ndata:test2\n", &[], ""),
    ("data without value or colon [format-field-data]",
        b"data:\n\ndata\ndata\n\ndata:test\n\n", &["message|", "message|\n", "message|test"], ""),
    ("a name is for its block [format-field-event]",
        b"event:test\ndata:x\n\ndata:x\n\n", &["test|x", "message|x"], ""),
    ("a name of one space is none [format-field-event-empty]",
        b"event: \ndata:data\n\n", &["message|data"], ""),
    ("the last name counts", b"event:a\nevent:b\ndata:x\n\n", &["b|x"], ""),
    ("an empty name takes an earlier one back", b"event:a\nevent\ndata:x\n\n", &["message|x"], ""),
    ("a name without data is forgotten", b"event:a\n\ndata:x\n\n", &["message|x"], ""),
    ("data before its name", b"data:x\nevent:a\n\n", &["a|x"], ""),
    ("an id beyond ASCII [format-field-id]",
        b"id: \xE2\x80\xA6\ndata:hello\n\n", &["message|hello"], "\u{2026}"),
    ("an id stays [format-field-id-3]",
        b"id: 1\ndata:a\n\ndata:b\n\n", &["message|a", "message|b"], "1"),
    ("an empty id takes it back [format-field-id-3]",
        b"id: 1\ndata:a\n\nid:\ndata:b\n\n", &["message|a", "message|b"], ""),
    ("so does a bare one [format-field-id-3]",
        b"id: 1\ndata:a\n\nid\ndata:b\n\n", &["message|a", "message|b"], ""),
    ("an id counts without data", b"id: 7\n\n", &[], "7"),
    ("an id with NUL is none [format-field-id-null]",
        b"id: 1\nid: \0\0\nid: x\0\nid:\0x\nid: x\0x\nid:  \0\ndata:a\n\n",
        &["message|a"], "1"),
    ("only field names to the letter [format-field-parsing]",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\n\
          da-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        &["message|\0\n 2\n1\n3\n\n4"], ""),
    ("names that begin like a field",
        b"database:1\ndat:2\nd\nevents:3\nidx:4\nretry1:5\ndata:x\n\n", &["message|x"], ""),
    ("retry is decimal [format-field-retry]",
        b"retry:03000\ndata:x\n\n", &["retry 3000", "message|x"], ""),
    ("retry takes digits only [format-field-retry-bogus]",
        b"retry:3000\nretry:1000x\nretry: +5\nretry:-5\nretry:  5\nretry:5 \n\
          retry:0x5\nretry:\xD9\xA1\n",
        &["retry 3000"], ""),
    ("retry wants a value [format-field-retry-empty]",
        b"retry\nretry:\nretry: \ndata:test\n\n", &["message|test"], ""),
    ("retry saturates", b"retry:99999999999999999999999\n", &["retry 18446744073709551615"], ""),
    ("unknown lines are skipped [format-field-unknown]",
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        &["message|test\n\ntest"], ""),
    ("one space and no tab is stripped [format-leading-space]",
        b"data:\ttest\rdata: \ndata:test\n\n", &["message|\ttest\n\ntest"], ""),
    ("line ends mix [format-newlines]",
        b"data:test\r\ndata\ndata:test\r\n\r\n", &["message|test\n\ntest"], ""),
    ("CR alone, also at the end", b"event:a\rdata:1\r\rdata:2\r\r", &["a|1", "message|2"], ""),
    ("LF CR is two line ends",
        b"data:1\n\rdata:2\r\n\n\rdata:3\n\r", &["message|1", "message|2", "message|3"], ""),
    ("a block without data is no event [event-data]",
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\n\
          Data:data\n\ndata\n\ndata:end\n\n",
        &["message|msg\nmsg", "message|", "message|end"], ""),
    ("NUL is data [format-null-character]", b"data:\0\n\n\n\n", &["message|\0"], ""),
    ("always UTF-8 [format-utf-8]", b"data:ok\xE2\x80\xA6\n\n", &["message|ok\u{2026}"], ""),
    ("invalid UTF-8 is replaced as in the Encoding Standard",
        b"event:\xC0\xAF\ndata:a\xFFb\ndata:\xF0\x9F\x8C\ndata:\xED\xA0\x80\ndata:\xE2\n\n",
        &["\u{FFFD}\u{FFFD}|a\u{FFFD}b\n\u{FFFD}\n\u{FFFD}\u{FFFD}\u{FFFD}\n\u{FFFD}"], ""),
    ("colons after the first are value", b"data::a:b\nevent:: \n\n", &[": |:a:b"], ""),
];

#[test]
fn the_standards_rules_hold_however_torn() {
    for (rule, stream, items, last_event_id) in RULES {
        check(rule, Limits::default(), stream, items, last_event_id);
    }
}

const TIGHT: Limits = Limits { line_bytes_max: 12, event_bytes_max: 10 };

#[test]
fn what_is_over_a_bound_is_dropped_whole_and_the_next_event_is_not() {
    let long_id = format!("id:{}\ndata:x\n\n", "i".repeat(ID_BYTES_MAX + 1));
    let grown_id = [b"id:\xFF".as_slice(), &vec![b'i'; ID_BYTES_MAX - 1], b"\ndata:x\n\n"].concat();
    let full_id = format!("id: {}\ndata:x\n\n", "i".repeat(ID_BYTES_MAX));
    #[rustfmt::skip]
    let rows: &[Bound<'_>] = &[
        ("a line at its bound", TIGHT, b"data:1234567\n\n", &["message|1234567"], ""),
        ("a line over it", TIGHT,
            b"data:12345678\n\ndata:ok\n\n", &["oversize 14 message", "message|ok"], ""),
        ("with its name, CRLF", TIGHT,
            b"\r\nevent:a\r\ndata:12345678\r\n\r\ndata:ok\r\n\r\n",
            &["oversize 24 a", "message|ok"], ""),
        ("name after data, comments counted too", TIGHT,
            b"\xEF\xBB\xBF:c\ndata:12345678\nevent:a\n\ndata:ok\n\n",
            &["oversize 25 a", "message|ok"], ""),
        ("a name over its bound", TIGHT,
            b"event:1234567\ndata:1\n\nevent:123456\ndata:2\n\n",
            &["oversize 21 message", "123456|2"], ""),
        ("and after the data", TIGHT,
            b"event:b\ndata:1\nevent:1234567\n\ndata:2\n\n", &["oversize 29 b", "message|2"], ""),
        ("a long name without data loses nothing", TIGHT,
            b"event:1234567\n\ndata:2\n\n", &["message|2"], ""),
        ("data at its bound", TIGHT,
            b"data:1234\ndata:56789\n\n", &["message|1234\n56789"], ""),
        ("data over it", TIGHT,
            b"data:1234\ndata:567890\ndata:1\n\ndata:ok\n\n",
            &["oversize 29 message", "message|ok"], ""),
        ("empty data lines count", TIGHT,
            b"data:1234567\ndata\ndata\ndata\n\ndata\ndata:1234567\ndata\ndata\ndata\n\n",
            &["message|1234567\n\n\n", "oversize 33 message"], ""),
        ("comments and unknown fields have no bound", TIGHT,
            b"data:1\n:123456789012345\nunknown:1234567890\nunknown9012345\ndata:2\n\n",
            &["message|1\n2"], ""),
        ("retry and id over the bound are ignored", TIGHT,
            b"id:1\nid:0123456789\nretry:0000001\ndata:1\n\n", &["message|1"], "1"),
        ("the id of a dropped event counts", TIGHT,
            b"id:9\ndata:12345678\nretry:5\n\n", &["retry 5", "oversize 27 message"], "9"),
        ("a dropped event without its blank line is not told", TIGHT,
            b"data:12345678\nid:9\n", &[], ""),
        ("nothing fits", Limits { line_bytes_max: 0, event_bytes_max: 0 },
            b"data\n\nd\ndata:\n\n", &["oversize 5 message", "oversize 8 message"], ""),
        ("only empty data fits", Limits { event_bytes_max: 0, ..TIGHT },
            b"data\n\ndata:\n\ndata\ndata\n\ndata:1\n\n",
            &["message|", "message|", "oversize 10 message", "oversize 7 message"], ""),
        ("a long id is ignored", Limits::default(), long_id.as_bytes(), &["message|x"], ""),
        ("also one that grows long as text", Limits::default(), &grown_id, &["message|x"], ""),
        ("an id at its bound", Limits::default(),
            full_id.as_bytes(), &["message|x"], &"i".repeat(ID_BYTES_MAX)),
    ];
    for (rule, limits, stream, items, last_event_id) in rows {
        check(rule, *limits, stream, items, last_event_id);
    }
}

#[test]
fn a_line_without_end_is_not_held() {
    let limits = Limits::default();
    let block = vec![b'7'; 64 * 1024];
    let mut long = Decoder::new(limits);
    for (line, expected) in [
        ("data: ", "oversize 67108871 a"),
        ("event: ", "oversize 67108872 a"),
        (":", "a|x"),
        ("unknown", "a|x"),
        ("id: ", "a|x"),
        ("retry: ", "a|x"),
    ] {
        long.feed(b"event: a\ndata: x\n", |item| panic!("{item:?}"));
        long.feed(line.as_bytes(), |item| panic!("{item:?}"));
        for _ in 0..1024 {
            long.feed(&block, |item| panic!("{item:?}"));
            assert!(
                long.buffered_bytes() <= limits.held_bytes_max(),
                "{line}: {}",
                long.buffered_bytes()
            );
        }
        assert!(long.buffered_bytes() <= "adata: x".len(), "{line}: {}", long.buffered_bytes());
        let mut items = Vec::new();
        long.feed(b"\n\n", |item| match item {
            Item::Event { name, data } => items.push(format!("{name}|{data}")),
            Item::Oversize { name, bytes } => items.push(format!("oversize {} {name}", bytes - 17)),
            Item::Retry(_) => panic!("{item:?}"),
        });
        assert_eq!(items, [expected]);
        assert_eq!(long.buffered_bytes(), 0);
    }
    assert_eq!(long.comments(), 1);
}

/// A decoder that looks at the line from its start for each piece would be here for hours.
#[test]
fn the_longest_line_byte_by_byte() {
    let stream = format!("data:{}\n\n", "x".repeat(LINE_BYTES_MAX - 5));
    let (items, _) = said(Limits::default(), stream.as_bytes().chunks(1));
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].len(), "message|".len() + LINE_BYTES_MAX - 5);
}

#[test]
fn comments_are_counted_once() {
    let decoder =
        check("comments", Limits::default(), b":\n:\r\n: x\r\ndata::\n:unfinished", &[], "");
    assert_eq!(decoder.comments(), 3);
}

#[test]
fn reset_discards_what_is_unfinished_and_keeps_the_id() {
    let mut decoder = Decoder::new(TIGHT);
    for (stream, in_progress) in [
        ("", false),
        ("\u{feff}", false),
        ("id:1\ndata:x\n\n", false),
        (":comm", false),
        ("unknown", false),
        ("data:x\n\r", false),
        ("event:a\ndata:x\n", true),
        ("dat", true),
        ("data:123456789", true),
        ("event:a\n", true),
        ("id:2\n", true),
        ("id:\n", true),
        ("data:x\r", true),
    ] {
        decoder.feed(stream.as_bytes(), |_| {});
        assert_eq!(decoder.reset(), in_progress, "{stream:?}");
        assert_eq!(decoder.buffered_bytes(), 0, "{stream:?}");
        // Bytes are counted from here, whether or not the new connection begins with a mark.
        let mut items = Vec::new();
        let again = if in_progress { "\u{feff}" } else { "" };
        let again = format!("{again}data:12345678\n\ndata:whole\n\n");
        decoder.feed(again.as_bytes(), |item| match item {
            Item::Event { name, data } => items.push(format!("{name}|{data}")),
            Item::Oversize { name, bytes } => items.push(format!("oversize {bytes} {name}")),
            Item::Retry(_) => panic!("{item:?}"),
        });
        assert_eq!(items, ["oversize 14 message", "message|whole"], "{stream:?}");
        assert!(!decoder.reset(), "{stream:?}");
    }
    assert_eq!(decoder.last_event_id(), "1");
}
