//! Any bytes, torn anywhere, under any bounds: the decoder does not panic, says the same as for the
//! whole stream, holds no more than it promises, and agrees with `sse-parse` where no bound is met.

use fanlight::upstream::decode::{Decoder, ID_BYTES_MAX, Item, Limits};

#[derive(Debug, PartialEq)]
enum Said {
    Event(String, String),
    Retry(u64),
    Oversize(String, u64),
}

pub(super) fn decode(input: &[u8]) {
    // The first bytes are the bounds and the lengths of the pieces, the rest is the stream.
    let Some((&[line_bytes_max, event_bytes_max, a, b, c, d], stream)) = input.split_first_chunk()
    else {
        return;
    };
    let lengths = [a, b, c, d].map(usize::from);
    let tight =
        Limits { line_bytes_max: line_bytes_max.into(), event_bytes_max: event_bytes_max.into() };
    for limits in [tight, Limits::default()] {
        let (whole_items, mut whole) = said(limits, [stream].into_iter());
        let (torn_items, mut torn) = said(limits, torn(stream, lengths));
        assert_eq!(torn_items, whole_items);
        assert_eq!(torn.last_event_id(), whole.last_event_id());
        assert_eq!(torn.comments(), whole.comments());
        assert_eq!(torn.buffered_bytes(), whole.buffered_bytes());
        assert_eq!(torn.reset(), whole.reset());
        assert_eq!(torn.buffered_bytes(), 0);
    }
    agrees_with_another(stream);
}

fn said<'a>(limits: Limits, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Said>, Decoder) {
    let mut decoder = Decoder::new(limits);
    let mut items = Vec::new();
    for piece in pieces {
        decoder.feed(piece, |item| {
            items.push(match item {
                Item::Event { name, data } => Said::Event(name.to_owned(), data.to_owned()),
                Item::Retry(milliseconds) => Said::Retry(milliseconds),
                Item::Oversize { name, bytes } => Said::Oversize(name.to_owned(), bytes),
            });
        });
        assert!(decoder.buffered_bytes() <= limits.held_bytes_max());
    }
    (items, decoder)
}

/// The stream in pieces of these lengths, over and over. Empty pieces are part of it.
fn torn(stream: &[u8], lengths: [usize; 4]) -> impl Iterator<Item = &[u8]> {
    let all_empty = lengths == [0; 4];
    let mut rest = stream;
    let mut lengths = lengths.into_iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = lengths.next().unwrap_or(1).min(rest.len());
        let (piece, after) = rest.split_at(if all_empty { 1 } else { length });
        rest = after;
        Some(piece)
    })
}

fn agrees_with_another(stream: &[u8]) {
    let (items, decoder) = said(Limits::default(), [stream].into_iter());
    let mut other = sse_parse::SseParser::new();
    other.feed(stream);
    let mut events = items.iter().filter(|item| matches!(item, Said::Event(..)));
    while let Some(event) = other.next_event() {
        assert_eq!(events.next(), Some(&Said::Event(event.event, event.data)));
    }
    assert_eq!(events.next(), None);
    // The other keeps ids of any length; a byte of one may become three.
    if stream.len() <= ID_BYTES_MAX / 3 {
        assert_eq!(decoder.last_event_id(), other.last_event_id());
    }
    // The other ignores what does not fit 64 bits, here it saturates; longer than 19 digits may not fit.
    if stream.len() < 20 + "retry:".len() {
        let last = items.iter().rev().find_map(|item| match item {
            Said::Retry(milliseconds) => Some(u128::from(*milliseconds)),
            _ => None,
        });
        assert_eq!(last, other.retry().map(|retry| retry.as_millis()));
    }
}
