//! Finds, in the bytes a connection receives, what is counted: stamps or positions, and
//! control events that tell of losses.
//!
//! Law: a plain search for bytes, whatever stands around them (blocks, frames, JSON), so
//! that every broker is read alike. What is split over two reads is found once: a match
//! counts in the read that brings its last byte.

use std::fmt;

use memchr::memmem::Finder;

use super::{Protocol, Watch};

/// The bytes of earlier reads that a connection keeps: one less than the longest match.
pub(super) const TAIL_BYTES_MAX: usize = 63;
const _: () = assert!(STAMP.len() + 2 * (DIGITS + 1) <= TAIL_BYTES_MAX + 1);
const _: () =
    assert!("\nid: ".len() + EPOCH + 1 + DIGITS + 1 + CONTROL.len() <= TAIL_BYTES_MAX + 1);

const STAMP: &str = "fl1:";
/// Those of the largest seq.
const DIGITS: usize = 20;
/// Characters of an epoch.
const EPOCH: usize = 8;
/// What stands after the id of a control event.
const CONTROL: &[u8] = b"event: fanlight.";

/// What an event of a measurement holds somewhere in its data: `fl1:SEQ:NANOS:`, both
/// with 20 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its number, dense from 1.
    pub seq: u64,
    /// When it was sent, by [`wall_nanos`](super::wall_nanos).
    pub nanos: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { seq, nanos } = self;
        write!(f, "{STAMP}{seq:020}:{nanos:020}:")
    }
}

/// Something that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// An event with a stamp.
    Stamp(Stamp),
    /// An event with this seq in its position.
    Event(u64),
    /// `fanlight.gap`: what comes next need not follow on what came before.
    Gap,
    /// `fanlight.bye`: the broker is about to close.
    Bye,
}

/// Searches for one kind of event.
#[derive(Debug)]
pub(super) struct Scanner {
    event: Finder<'static>,
    read: fn(&[u8]) -> Option<(usize, Sight)>,
    control: Finder<'static>,
}

impl Scanner {
    pub(super) fn new(watch: Watch, protocol: Protocol) -> Scanner {
        type Read = fn(&[u8]) -> Option<(usize, Sight)>;
        let (needle, read): (&[u8], Read) = match (watch, protocol) {
            (Watch::Stamps, _) => (STAMP.as_bytes(), stamp),
            (Watch::Positions, Protocol::Sse) => (b"\nid: ", sse_event),
            (Watch::Positions, Protocol::WebSocket) => (b"{\"id\":\"", json_event),
        };
        Scanner { event: Finder::new(needle), read, control: Finder::new("fanlight") }
    }

    /// Shows everything in `window` that ends in what is new, `window[new_from..]`, in
    /// its order.
    pub(super) fn scan(&self, window: &[u8], new_from: usize, mut see: impl FnMut(Sight)) {
        let whole = |at: usize, read: fn(&[u8]) -> Option<(usize, Sight)>| {
            let (bytes, sight) = read(&window[at..])?;
            (at + bytes > new_from).then_some((at, sight))
        };
        let controls = self.control.find_iter(window);
        let mut controls = controls.filter_map(|at| whole(at, control)).peekable();
        for (at, event) in self.event.find_iter(window).filter_map(|at| whole(at, self.read)) {
            while let Some((_, control)) = controls.next_if(|(before, _)| *before < at) {
                see(control);
            }
            see(event);
        }
        controls.for_each(|(_, control)| see(control));
    }
}

// Each reads what begins with its needle: how many bytes it took to know, and what it is;
// none if it is something else, or not whole yet.

fn stamp(bytes: &[u8]) -> Option<(usize, Sight)> {
    let rest = bytes.strip_prefix(STAMP.as_bytes())?;
    let (seq, rest) = rest.split_at_checked(DIGITS)?;
    let (nanos, rest) = rest.strip_prefix(b":")?.split_at_checked(DIGITS)?;
    rest.strip_prefix(b":")?;
    let stamp = Stamp { seq: number(seq)?, nanos: number(nanos)? };
    Some((STAMP.len() + 2 * (DIGITS + 1), Sight::Stamp(stamp)))
}

fn sse_event(bytes: &[u8]) -> Option<(usize, Sight)> {
    let (seq, rest) = position(bytes.strip_prefix(b"\nid: ")?)?;
    let rest = rest.strip_prefix(b"\n")?;
    let same = rest.iter().zip(CONTROL).take_while(|(byte, control)| byte == control).count();
    // One byte that differs says that it is none of the broker's own.
    let is_event = same < CONTROL.len() && same < rest.len();
    is_event.then_some((bytes.len() - rest.len() + same + 1, Sight::Event(seq)))
}

fn json_event(bytes: &[u8]) -> Option<(usize, Sight)> {
    let (seq, rest) = position(bytes.strip_prefix(b"{\"id\":\"")?)?;
    let rest = rest.strip_prefix(b"\"")?;
    Some((bytes.len() - rest.len(), Sight::Event(seq)))
}

fn control(bytes: &[u8]) -> Option<(usize, Sight)> {
    let kinds: [(&[u8], Sight); 4] = [
        (b"fanlight.gap", Sight::Gap),
        (b"fanlight\":\"gap\"", Sight::Gap),
        (b"fanlight.bye", Sight::Bye),
        (b"fanlight\":\"bye\"", Sight::Bye),
    ];
    let kind = kinds.iter().find(|(text, _)| bytes.starts_with(text));
    kind.map(|(text, sight)| (text.len(), *sight))
}

/// The seq of `EPOCH-SEQ`, and what follows it: none if nothing does, since another digit
/// may come.
fn position(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (epoch, rest) = bytes.split_at_checked(EPOCH)?;
    if !epoch.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
        return None;
    }
    let rest = rest.strip_prefix(b"-")?;
    let digits = rest.iter().take(DIGITS + 1).position(|byte| !byte.is_ascii_digit())?;
    let (seq, rest) = rest.split_at(digits);
    Some((number(seq)?, rest))
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen if `text` comes in pieces that end at `cuts`.
    fn seen(scanner: &Scanner, text: &[u8], cuts: &[usize]) -> Vec<Sight> {
        let (mut sights, mut from) = (Vec::new(), 0);
        for to in cuts.iter().copied().chain([text.len()]) {
            let kept = from - from.min(TAIL_BYTES_MAX);
            scanner.scan(&text[kept..to], from - kept, |sight| sights.push(sight));
            from = to;
        }
        sights
    }

    fn is_seen_however_it_is_cut(scanner: &Scanner, text: &str, expected: &[Sight]) {
        let text = text.as_bytes();
        assert_eq!(seen(scanner, text, &[]), expected);
        let every: Vec<usize> = (1..text.len()).collect();
        assert_eq!(seen(scanner, text, &every), expected, "byte by byte");
        for cut in every {
            assert_eq!(seen(scanner, text, &[cut]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn stamps() {
        let scanner = Scanner::new(Watch::Stamps, Protocol::Sse);
        let one = Stamp { seq: 1, nanos: 5 };
        let two = Stamp { seq: u64::MAX, nanos: u64::MAX };
        let text = format!(
            "1a\r\nid: 0\ndata: \"{one}xxxx\"\n\nevent: fanlight.gap\ndata: fl1:zz {two}{one}fl1:"
        );
        let expected = [Sight::Stamp(one), Sight::Gap, Sight::Stamp(two), Sight::Stamp(one)];
        is_seen_however_it_is_cut(&scanner, &text, &expected);
        assert_eq!(one.to_string(), "fl1:00000000000000000001:00000000000000000005:");
    }

    #[test]
    fn positions_in_sse() {
        let scanner = Scanner::new(Watch::Positions, Protocol::Sse);
        let text = "\nid: 6n3k2ahq-7\nevent: fanlight.hello\ndata: {}\n\n\
            \nid: 6n3k2ahq-8\ndata: {\"id\": \"no\"}\n\nid: 6n3k2ahq-10\nevent: fanlight.gap\n\n\
            id: 6n3k2ahq-18446744073709551615\nevent: fan\ndata: id: 6n3k2ahq-3\n\n\
            id: 12\ndata: another broker's\n\nevent: fanlight.bye\ndata: {}\n\n";
        let expected = [Sight::Event(8), Sight::Gap, Sight::Event(u64::MAX), Sight::Bye];
        is_seen_however_it_is_cut(&scanner, text, &expected);
    }

    #[test]
    fn positions_in_json() {
        let scanner = Scanner::new(Watch::Positions, Protocol::WebSocket);
        let text = "{\"fanlight\":\"hello\",\"id\":\"6n3k2ahq-7\"}..{\"id\":\"6n3k2ahq-8\",\"name\":1}\
            {\"fanlight\":\"gap\",\"id\":\"6n3k2ahq-9\"}{\"id\":\"6n3k2ahq-10\"}{\"fanlight\":\"bye\"}";
        let expected = [Sight::Event(8), Sight::Gap, Sight::Event(10), Sight::Bye];
        is_seen_however_it_is_cut(&scanner, text, &expected);
    }
}
