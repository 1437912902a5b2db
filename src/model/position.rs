//! Where an event stands: `EPOCH-SEQ`, for example `6n3k2ahq-1042`.
//!
//! Law: one text form only. What parses prints the same again, so a position can
//! be compared as text by clients that do not look inside.

use std::{fmt, str::FromStr};

/// Place within an epoch. Strictly increasing; dense only where a log engine says so.
///
/// The first record of an epoch has seq 1, so that 0 can mean "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The seq of the first record of an epoch.
    pub const FIRST: Seq = Seq(1);

    /// The seq after this one.
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    /// The seq before this one; 0 stays 0.
    pub fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    /// Seqs in `[from, self)`; zero if `from` is not below.
    pub fn distance_from(self, from: Seq) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a log: 40 random bits as 8 lower-case Crockford base32 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 8]);

/// Crockford's alphabet: no i, l, o, u (<https://www.crockford.com/base32.html>).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl Epoch {
    /// The epoch made of the low 40 bits of `bits`.
    pub fn from_bits(bits: u64) -> Epoch {
        let mut text = [0; 8];
        for (index, byte) in text.iter_mut().enumerate() {
            *byte = ALPHABET[(bits >> (35 - 5 * index) & 31) as usize];
        }
        Epoch(text)
    }

    /// The eight characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is made of ASCII")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Epoch and seq: the SSE id, the `id` of JSON forms, and what a client hands back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The life of the log that gave the seq.
    pub epoch: Epoch,
    /// The place within it.
    pub seq: Seq,
}

impl Position {
    /// Longest text form: 8 characters, a hyphen, and the 20 digits of `u64::MAX`.
    pub const TEXT_BYTES_MAX: usize = 8 + 1 + 20;
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected 8 base32 characters, a hyphen and a decimal number")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let bytes = text.as_bytes();
        if bytes.len() < 10 || bytes.len() > Position::TEXT_BYTES_MAX || bytes[8] != b'-' {
            return Err(PositionError);
        }
        let mut epoch = [0; 8];
        epoch.copy_from_slice(&bytes[..8]);
        if !epoch.iter().all(|byte| ALPHABET.contains(byte)) {
            return Err(PositionError);
        }
        let digits = &text[9..];
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'));
        if !canonical {
            return Err(PositionError);
        }
        let seq = digits.parse().map_err(|_| PositionError)?;
        Ok(Position { epoch: Epoch(epoch), seq: Seq(seq) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        let position: Position = "6n3k2ahq-1042".parse().unwrap();
        assert_eq!(position.seq, Seq(1042));
        assert_eq!(position.to_string(), "6n3k2ahq-1042");
        let wrong = [
            "",
            "-",
            "6n3k2ahq",
            "6n3k2ahq-",
            "6n3k2ahq-01",
            "6n3k2ahq-+1",
            "6n3k2ahq- 1",
            "6n3k2ahq-1 ",
            "6N3K2AHQ-1",
            "6n3k2ahu-1",
            "6n3k2ah-12",
            "6n3k2ahqq-1",
            "6n3k2ahq-18446744073709551616",
            "6n3k2ahq-1\n",
            "6n3k2aé-12",
            "6n3k2ahq-١",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
        }
        assert!("6n3k2ahq-18446744073709551615".parse::<Position>().is_ok());
        assert!("6n3k2ahq-0".parse::<Position>().is_ok());
    }

    proptest! {
        #[test]
        fn what_prints_parses(bits: u64, seq: u64) {
            let position = Position { epoch: Epoch::from_bits(bits), seq: Seq(seq) };
            let text = position.to_string();
            prop_assert!(text.len() <= Position::TEXT_BYTES_MAX);
            prop_assert_eq!(text.parse(), Ok(position));
        }

        #[test]
        fn what_parses_prints_the_same(text in "[0-9a-z]{7,9}-?[0-9]{0,21}|.{0,40}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
