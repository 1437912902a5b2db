//! Durations and sizes as people write them: `20s`, `1m30s`, `64MiB`.
//!
//! A bare number is refused: `20` may mean seconds to one reader and milliseconds to another.
//! What [`duration_text`] and [`size_text`] print, the parsers read back to the same value.

use std::time::Duration;

/// Units of a duration with their length in milliseconds, longest first.
const DURATION_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of a size with their bytes. The order is the order of preference in print.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Spellings that are not read but whose meaning is plain, for the remedy in the message.
const MEANT: &[(&str, &str)] = &[
    ("msec", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("k", "KiB"),
    ("m", "MiB"),
    ("g", "GiB"),
    ("bytes", "B"),
    ("byte", "B"),
];

/// Why a text is no duration or no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// A bare number.
    #[error("needs a unit")]
    UnitMissing,
    /// The unit is not one of the list; `meant` is the unit it looks like.
    #[error("has the unknown unit {unit:?}")]
    UnitUnknown {
        /// The unit as written.
        unit: String,
        /// The unit that was probably meant.
        meant: Option<&'static str>,
    },
    /// Something else than whole numbers, each directly followed by a unit.
    #[error("is not made of whole numbers that are each followed by a unit")]
    Malformed,
    /// The units do not run from long to short, or one is repeated.
    #[error("does not name its units from long to short, each once")]
    Order,
    /// More than 64 bits can count.
    #[error("is too large to count")]
    Overflow,
}

/// Reads a duration: one or more whole numbers, each followed by `d`, `h`, `m`, `s` or `ms`, from
/// long to short and each unit once, such as `1m30s`.
///
/// # Errors
///
/// [`UnitError`] says what is wrong; nothing is rounded or assumed.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut total_ms: u64 = 0;
    let mut unit_ms_previous = u64::MAX;
    let mut rest = text;
    if rest.is_empty() {
        return Err(UnitError::Empty);
    }
    while !rest.is_empty() {
        let (number, unit, after) = split_part(rest)?;
        let unit_ms = unit_value(unit, DURATION_UNITS)?;
        if unit_ms >= unit_ms_previous {
            return Err(UnitError::Order);
        }
        unit_ms_previous = unit_ms;
        let part_ms = number.checked_mul(unit_ms).ok_or(UnitError::Overflow)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(UnitError::Overflow)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes: one whole number followed by `B`, `KiB`, `MiB`, `GiB` (powers of 1024) or
/// `KB`, `MB`, `GB` (powers of 1000).
///
/// # Errors
///
/// As [`parse_duration`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (number, unit, rest) = split_part(text)?;
    let unit_bytes = unit_value(unit, SIZE_UNITS)?;
    if !rest.is_empty() {
        return Err(UnitError::Malformed);
    }
    number.checked_mul(unit_bytes).ok_or(UnitError::Overflow)
}

/// Writes a duration in the form [`parse_duration`] reads; what is below a millisecond is cut off.
pub fn duration_text(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in DURATION_UNITS {
        let number = rest_ms / unit_ms;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
            rest_ms %= unit_ms;
        }
    }
    text
}

/// Writes a size in the form [`parse_size`] reads, with the largest unit that divides it.
pub fn size_text(bytes: u64) -> String {
    let (unit, unit_bytes) = SIZE_UNITS
        .iter()
        .find(|(_, unit_bytes)| bytes >= *unit_bytes && bytes.is_multiple_of(*unit_bytes))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / unit_bytes)
}

/// Splits the leading number and its unit off; what follows comes last.
fn split_part(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Malformed);
    }
    if rest.is_empty() {
        return Err(UnitError::UnitMissing);
    }
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(UnitError::Malformed);
    }
    let number = number.parse().map_err(|_| UnitError::Overflow)?;
    Ok((number, unit, after))
}

fn unit_value(unit: &str, units: &[(&'static str, u64)]) -> Result<u64, UnitError> {
    if let Some((_, value)) = units.iter().find(|(name, _)| *name == unit) {
        return Ok(*value);
    }
    let lower = unit.to_lowercase();
    let other_case = units.iter().find(|(name, _)| name.to_lowercase() == lower);
    let plain = || {
        let mut spellings = MEANT.iter().filter(|(spelling, _)| *spelling == lower);
        spellings.find_map(|(_, meant)| units.iter().find(|(name, _)| name == meant))
    };
    let meant = other_case.or_else(plain).map(|(name, _)| *name);
    Err(UnitError::UnitUnknown { unit: unit.to_owned(), meant })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0s", 0),
            ("1ms", 1),
            ("20s", 20_000),
            ("300s", 300_000),
            ("1m30s", 90_000),
            ("1h2m3s4ms", 3_723_004),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("16KiB", 16_384),
            ("64MiB", 1 << 26),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let unknown = |unit: &str, meant| UnitError::UnitUnknown { unit: unit.to_owned(), meant };
        assert_eq!(parse_duration(""), Err(UnitError::Empty));
        assert_eq!(parse_duration("20"), Err(UnitError::UnitMissing));
        assert_eq!(parse_duration("1m30"), Err(UnitError::UnitMissing));
        assert_eq!(parse_duration("20 s"), Err(UnitError::Malformed));
        assert_eq!(parse_duration("1.5s"), Err(UnitError::Malformed));
        assert_eq!(parse_duration("-5s"), Err(UnitError::Malformed));
        assert_eq!(parse_duration("30s1m"), Err(UnitError::Order));
        assert_eq!(parse_duration("1s1s"), Err(UnitError::Order));
        assert_eq!(parse_duration("20sec"), Err(unknown("sec", Some("s"))));
        assert_eq!(parse_duration("20S"), Err(unknown("S", Some("s"))));
        assert_eq!(parse_duration("5µs"), Err(unknown("µs", None)));
        assert_eq!(parse_duration("99999999999999999999s"), Err(UnitError::Overflow));
        assert_eq!(parse_duration("999999999999999999d"), Err(UnitError::Overflow));
        assert_eq!(parse_size("64"), Err(UnitError::UnitMissing));
        assert_eq!(parse_size("64M"), Err(unknown("M", Some("MiB"))));
        assert_eq!(parse_size("64mib"), Err(unknown("mib", Some("MiB"))));
        assert_eq!(parse_size("1MiB512KiB"), Err(UnitError::Malformed));
        assert_eq!(parse_size("99999999999GiB"), Err(UnitError::Overflow));
    }

    #[test]
    fn print_prefers_the_largest_unit() {
        assert_eq!(duration_text(Duration::from_millis(90_500)), "1m30s500ms");
        assert_eq!(duration_text(Duration::ZERO), "0s");
        assert_eq!(size_text(1 << 26), "64MiB");
        assert_eq!(size_text(3_000_000), "3MB");
        assert_eq!(size_text(0), "0B");
    }

    proptest! {
        #[test]
        fn durations_round_trip(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }

        #[test]
        fn sizes_round_trip(number in 0u64..1 << 20, unit in 0..SIZE_UNITS.len()) {
            let bytes = number * SIZE_UNITS[unit].1;
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text in "[0-9dhmsKMGiB. µ-]{0,12}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
