//! Any bytes as a position, and any position as text: one text for each position, and one position
//! for each text.

use fanlight::model::{Epoch, Position, Seq, resume::Requested};

use super::split;

pub(super) fn position(input: &[u8]) {
    let text = std::str::from_utf8(input).ok();
    let parsed = text.and_then(|text| text.parse::<Position>().ok());
    assert_eq!(parsed.map(|position| position.to_string()), text.and_then(naive));
    assert_eq!(Requested::parse(input).is_position(), parsed.is_some());

    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (bits, rest) = split(input, 8);
    let (one, rest) = split(rest, 8);
    let (other, _) = split(rest, 8);
    let epoch = Epoch::from_bits(number(bits));
    let [one, other] = [one, other].map(|seq| Position { epoch, seq: Seq(number(seq)) });
    let print = one.to_string();
    assert!(print.len() <= Position::TEXT_BYTES_MAX);
    assert_eq!(print.parse(), Ok(one));
    assert_eq!(naive(&print).as_deref(), Some(&*print));
    assert!(Requested::parse(print.as_bytes()).is_position());
    // As texts of equal length they have the order of the numbers, and only equal ones are equal.
    let other_print = other.to_string();
    assert_eq!(one == other, print == other_print);
    if print.len() == other_print.len() {
        assert_eq!(one.seq.cmp(&other.seq), print.cmp(&other_print));
    }
    // 40 bits of an epoch count.
    assert_eq!(Epoch::from_bits(number(bits) & 0xff_ffff_ffff), epoch);
}

/// The text, if it is a position by the words of docs/protocol.md.
fn naive(text: &str) -> Option<String> {
    let (epoch, seq) = text.split_once('-')?;
    let is_epoch = epoch.len() == 8
        && epoch.chars().all(|c| matches!(c, '0'..='9' | 'a'..='z') && !"ilou".contains(c));
    // What a number prints as is its only spelling.
    let number: u64 = seq.parse().ok()?;
    (is_epoch && number.to_string() == seq).then(|| text.to_owned())
}
