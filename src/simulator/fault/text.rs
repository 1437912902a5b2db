//! The text form of a fault, to and from. Pure.
//!
//! Each word is taken out as it is understood, so that what is left over is what is wrong, and can
//! be named.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    BURST_MAX, FAULT_COUNT_MAX, FAULT_PERIOD_MIN, FAULT_TIME_MAX, Fault, FaultError, FaultKind,
    OVERSIZE_BYTES_MAX, REFUSAL_STATUSES, RetryAfter,
};

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let (head, raw) = match text.find("raw=") {
            Some(at) if text[..at].chars().next_back().is_none_or(char::is_whitespace) => {
                (&text[..at], Some(&text[at + 4..]))
            }
            _ => (text, None),
        };
        let mut words: Vec<(String, Option<String>)> = head
            .split_whitespace()
            .map(|word| match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            })
            .collect();
        if let Some(raw) = raw {
            words.push(("raw".to_owned(), Some(raw.trim_end_matches(['\r', '\n']).to_owned())));
        }
        Words::new(words)?.fault()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `raw=` takes the rest of the line, so the words of time come first.
        let Fault { kind, after, every } = self;
        if !after.is_zero() {
            write!(f, "after={} ", DurationText(*after))?;
        }
        if let Some(every) = every {
            write!(f, "every={} ", DurationText(*every))?;
        }
        match kind {
            FaultKind::Stall { lasting, sticky } => {
                write!(f, "stall{}{}", For(*lasting), if *sticky { " sticky" } else { "" })
            }
            FaultKind::Cut => write!(f, "cut"),
            FaultKind::CutMidEvent { at: None } => write!(f, "cut mid-event"),
            FaultKind::CutMidEvent { at: Some(at) } => write!(f, "cut mid-event at={at}"),
            FaultKind::Reset => write!(f, "reset"),
            FaultKind::Refuse { status, retry_after, count } => {
                write!(f, "status={status}")?;
                match retry_after {
                    Some(RetryAfter::Seconds(seconds)) => write!(f, " retry-after={seconds}")?,
                    Some(RetryAfter::Date(seconds)) => write!(f, " retry-after=date+{seconds}")?,
                    None => {}
                }
                write!(f, " count={count}")
            }
            FaultKind::Html { count } => write!(f, "html count={count}"),
            FaultKind::Redirect { url, count } => write!(f, "redirect={url} count={count}"),
            FaultKind::Hang { count } => write!(f, "hang count={count}"),
            FaultKind::Drip { bytes, every, lasting } => {
                write!(f, "drip bytes={bytes} every={}{}", DurationText(*every), For(*lasting))
            }
            FaultKind::Duplicate { count } => write!(f, "duplicate count={count}"),
            FaultKind::Burst { count } => write!(f, "burst count={count}"),
            FaultKind::Oversize { bytes } => write!(f, "oversize bytes={bytes}"),
            FaultKind::Raw { bytes } => write!(f, "raw={}", Escaped(bytes)),
        }
    }
}

// === words ===

pub(super) const KINDS_ALLOWED: &str = "stall, cut, reset, status=CODE, html, redirect=URL, hang, drip, duplicate, burst, oversize, raw=BYTES";

/// Kind of fault, whether the word has a value of its own, and what goes with it.
const KINDS: [(&str, bool, &str); 12] = [
    ("stall", false, "for=TIME, sticky, after=TIME, every=TIME"),
    ("cut", false, "mid-event, at=BYTES (with mid-event), after=TIME, every=TIME"),
    ("reset", false, "after=TIME, every=TIME"),
    (
        "status",
        true,
        "retry-after=SECONDS, retry-after=date+SECONDS, count=N, after=TIME, every=TIME",
    ),
    ("html", false, "count=N, after=TIME, every=TIME"),
    ("redirect", true, "count=N, after=TIME, every=TIME"),
    ("hang", false, "count=N, after=TIME, every=TIME"),
    ("drip", false, "bytes=N, every=TIME (between two pieces), for=TIME, after=TIME"),
    ("duplicate", false, "count=N, after=TIME, every=TIME"),
    ("burst", false, "count=N, after=TIME, every=TIME"),
    ("oversize", false, "bytes=N, after=TIME, every=TIME"),
    ("raw", true, "after=TIME, every=TIME (before raw=)"),
];

/// The words of one fault; each is taken out as it is understood, so that what is left is what is
/// wrong.
pub(super) struct Words {
    kind: &'static str,
    allowed: &'static str,
    value: String,
    rest: Vec<(String, Option<String>)>,
}

impl Words {
    pub(super) fn new(mut rest: Vec<(String, Option<String>)>) -> Result<Words, FaultError> {
        let first = rest.first().ok_or(FaultError::Empty)?;
        let found = rest.iter().enumerate().find_map(|(index, (key, value))| {
            let kind =
                KINDS.iter().find(|(kind, valued, _)| kind == key && *valued == value.is_some())?;
            Some((index, kind))
        });
        let Some((index, (kind, _, allowed))) = found else {
            return Err(FaultError::UnknownKind { word: joined(&first.0, first.1.as_deref()) });
        };
        let (_, value) = rest.remove(index);
        Ok(Words { kind, allowed, value: value.unwrap_or_default(), rest })
    }

    pub(super) fn fault(mut self) -> Result<Fault, FaultError> {
        let after = self.time("after", Duration::ZERO)?.unwrap_or_default();
        let every = match self.kind {
            "drip" => None,
            _ => self.time("every", FAULT_PERIOD_MIN)?,
        };
        let kind = self.fault_kind()?;
        match self.rest.first() {
            Some((key, value)) => Err(FaultError::UnknownWord {
                word: joined(key, value.as_deref()),
                kind: self.kind,
                allowed: self.allowed,
            }),
            None => Ok(Fault { kind, after, every }),
        }
    }

    fn fault_kind(&mut self) -> Result<FaultKind, FaultError> {
        let events_max = FAULT_COUNT_MAX as usize;
        Ok(match self.kind {
            "stall" => FaultKind::Stall {
                lasting: self.time("for", Duration::ZERO)?,
                sticky: self.flag("sticky"),
            },
            "cut" => match self.flag("mid-event") {
                true => FaultKind::CutMidEvent { at: self.number("at", 0, OVERSIZE_BYTES_MAX)? },
                false => FaultKind::Cut,
            },
            "reset" => FaultKind::Reset,
            "status" => FaultKind::Refuse {
                status: self.status()?,
                retry_after: self.retry_after()?,
                count: self.count(events_max)?.unwrap_or(1),
            },
            "html" => FaultKind::Html { count: self.count(events_max)?.unwrap_or(1) },
            "redirect" => FaultKind::Redirect {
                url: self.location()?,
                count: self.count(events_max)?.unwrap_or(1),
            },
            "hang" => FaultKind::Hang { count: self.count(events_max)?.unwrap_or(1) },
            "drip" => FaultKind::Drip {
                bytes: self.number("bytes", 1, OVERSIZE_BYTES_MAX)?.unwrap_or(1),
                every: self.time("every", FAULT_PERIOD_MIN)?.unwrap_or(Duration::from_secs(1)),
                lasting: self.time("for", Duration::ZERO)?,
            },
            "duplicate" => FaultKind::Duplicate { count: self.count(events_max)?.unwrap_or(1) },
            "burst" => {
                let count = self.count(BURST_MAX as usize)?;
                FaultKind::Burst {
                    count: count.ok_or(FaultError::Missing { kind: "burst", word: "count=N" })?,
                }
            }
            "oversize" => {
                let bytes = self.number("bytes", 1, OVERSIZE_BYTES_MAX)?;
                FaultKind::Oversize {
                    bytes: bytes
                        .ok_or(FaultError::Missing { kind: "oversize", word: "bytes=N" })?,
                }
            }
            _ => FaultKind::Raw { bytes: unescaped(&self.value)? },
        })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let index = self.rest.iter().position(|(name, value)| name == key && value.is_some())?;
        self.rest.remove(index).1
    }

    fn flag(&mut self, key: &str) -> bool {
        let index = self.rest.iter().position(|(name, value)| name == key && value.is_none());
        index.map(|index| self.rest.remove(index)).is_some()
    }

    fn time(&mut self, key: &str, min: Duration) -> Result<Option<Duration>, FaultError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match parse_time(&text).filter(|time| (min..=FAULT_TIME_MAX).contains(time)) {
            Some(time) => Ok(Some(time)),
            None => {
                let allowed =
                    format!("a time such as 500ms, 30s, 2m, 1h, from {} to 24h", DurationText(min));
                Err(FaultError::Value { word: joined(key, Some(&text)), allowed })
            }
        }
    }

    fn number(&mut self, key: &str, min: usize, max: usize) -> Result<Option<usize>, FaultError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match text.parse().ok().filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let allowed = format!("a whole number from {min} to {max}");
                Err(FaultError::Value { word: joined(key, Some(&text)), allowed })
            }
        }
    }

    fn count(&mut self, max: usize) -> Result<Option<u32>, FaultError> {
        let count = self.number("count", 1, max)?;
        Ok(count.map(|count| u32::try_from(count).unwrap_or(FAULT_COUNT_MAX)))
    }

    fn status(&self) -> Result<u16, FaultError> {
        let status = self.value.parse().ok().filter(|status| REFUSAL_STATUSES.contains(status));
        status.ok_or_else(|| FaultError::Value {
            word: joined("status", Some(&self.value)),
            allowed: format!("one of {REFUSAL_STATUSES:?}"),
        })
    }

    fn location(&self) -> Result<String, FaultError> {
        match self.value.is_empty() || self.value.contains(|c: char| !c.is_ascii_graphic()) {
            false => Ok(self.value.clone()),
            true => Err(FaultError::Value {
                word: joined("redirect", Some(&self.value)),
                allowed: "an address of visible ASCII characters".to_owned(),
            }),
        }
    }

    fn retry_after(&mut self) -> Result<Option<RetryAfter>, FaultError> {
        let Some(text) = self.take("retry-after") else { return Ok(None) };
        let parsed = match text.strip_prefix("date+") {
            Some(seconds) => seconds.parse().ok().map(RetryAfter::Date),
            None => text.parse().ok().map(RetryAfter::Seconds),
        };
        let in_bounds = |retry_after: &RetryAfter| {
            let (RetryAfter::Seconds(seconds) | RetryAfter::Date(seconds)) = retry_after;
            u64::from(*seconds) <= FAULT_TIME_MAX.as_secs()
        };
        parsed.filter(in_bounds).map(Some).ok_or_else(|| FaultError::Value {
            word: joined("retry-after", Some(&text)),
            allowed: "seconds such as 30, or date+30 for an HTTP date, up to 86400".to_owned(),
        })
    }
}

fn joined(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit_at].parse().ok()?;
    let millis_per_unit = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis_per_unit).map(Duration::from_millis)
}

fn unescaped(text: &str) -> Result<Vec<u8>, FaultError> {
    let wrong = |word: &str| FaultError::Value {
        word: word.to_owned(),
        allowed: r"after a backslash: n, r, t, 0, another backslash, or x and two hex digits"
            .to_owned(),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at..];
        let (byte, length) = match escape.as_bytes().get(1) {
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'0') => (0, 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => {
                let digits = escape
                    .get(2..4)
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(|| wrong(r"\x"))?, 4)
            }
            _ => return Err(wrong(&escape.chars().take(2).collect::<String>())),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

struct DurationText(Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis if millis % 1_000 == 0 => write!(f, "{}s", millis / 1_000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

struct For(Option<Duration>);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(lasting) => write!(f, " for={}", DurationText(lasting)),
            None => Ok(()),
        }
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'\\' => f.write_str(r"\\"),
            b'\n' => f.write_str(r"\n"),
            byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte)),
            byte => write!(f, r"\x{byte:02x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> Fault {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_text_forms_mean_what_they_say() {
        let stall = parse("stall after=30s for=60s");
        assert_eq!(stall.after, Duration::from_secs(30));
        assert_eq!(
            stall.kind,
            FaultKind::Stall { lasting: Some(Duration::from_secs(60)), sticky: false }
        );
        assert_eq!(parse("cut mid-event").kind, FaultKind::CutMidEvent { at: None });
        assert_eq!(parse("reset every=2m").every, Some(Duration::from_secs(120)));
        assert_eq!(
            parse("status=529 retry-after=30 count=3").kind,
            FaultKind::Refuse { status: 529, retry_after: Some(RetryAfter::Seconds(30)), count: 3 }
        );
        assert_eq!(
            parse("status=401").kind,
            FaultKind::Refuse { status: 401, retry_after: None, count: 1 }
        );
        let drip = FaultKind::Drip { bytes: 1, every: Duration::from_secs(1), lasting: None };
        assert_eq!(parse("drip bytes=1 every=1s"), Fault::now(drip));
        assert_eq!(
            parse(r"after=1s raw=a b\n\x00\xFF").kind,
            FaultKind::Raw { bytes: b"a b\n\x00\xff".to_vec() }
        );
        assert_eq!(parse("after=1s cut"), parse("cut after=1s"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let all_bytes = (0..=255).collect();
        let kinds = [
            FaultKind::Stall { lasting: None, sticky: true },
            FaultKind::Stall { lasting: Some(Duration::from_millis(1_500)), sticky: false },
            FaultKind::Cut,
            FaultKind::CutMidEvent { at: None },
            FaultKind::CutMidEvent { at: Some(0) },
            FaultKind::Reset,
            FaultKind::Refuse { status: 503, retry_after: Some(RetryAfter::Date(7)), count: 2 },
            FaultKind::Html { count: 1 },
            FaultKind::Redirect { url: "http://127.0.0.1:9/x?raw=1&count=2".to_owned(), count: 3 },
            FaultKind::Hang { count: 4 },
            FaultKind::Drip {
                bytes: 3,
                every: Duration::from_secs(2),
                lasting: Some(Duration::from_secs(60)),
            },
            FaultKind::Duplicate { count: 5 },
            FaultKind::Burst { count: 1_000 },
            FaultKind::Oversize { bytes: 2_000_000 },
            FaultKind::Raw { bytes: all_bytes },
        ];
        for kind in kinds {
            let repeats = !matches!(kind, FaultKind::Drip { .. });
            for fault in [
                Fault::now(kind.clone()),
                Fault {
                    kind,
                    after: Duration::from_secs(3),
                    every: repeats.then_some(Duration::from_millis(2_500)),
                },
            ] {
                assert_eq!(parse(&fault.to_string()), fault, "{fault}");
            }
        }
    }

    #[test]
    fn an_error_names_the_word_and_what_is_allowed() {
        for (text, word, allowed) in [
            ("", "", "stall, cut"),
            ("stal", "\"stal\"", "stall, cut"),
            ("stall=1", "\"stall=1\"", "stall, cut"),
            ("status", "\"status\"", "status=CODE"),
            ("cut hard", "\"hard\"", "mid-event"),
            ("cut at=1", "\"at=1\"", "with mid-event"),
            ("cut cut", "\"cut\"", "each once"),
            ("status=200", "\"status=200\"", "529"),
            ("status=429 retry-after=soon", "\"retry-after=soon\"", "date+30"),
            ("stall after=30", "\"after=30\"", "30s"),
            ("reset every=1ms", "\"every=1ms\"", "from 10ms"),
            ("reset after=99999999999999999999h", "after=", "24h"),
            ("burst", "burst", "count=N"),
            ("burst count=0", "\"count=0\"", "100000"),
            ("oversize bytes=99999999999", "\"bytes=99999999999\"", "16777216"),
            (r"raw=a\q", r#""\\q""#, "backslash"),
            (r"raw=a\x+1", r"\\x", "hex"),
        ] {
            let message = text.parse::<Fault>().expect_err(text).to_string();
            assert!(message.contains(word) && message.contains(allowed), "{text}: {message}");
        }
    }

    #[test]
    fn words_may_come_from_an_object() {
        let fault =
            Fault::from_words([("after", Some("5s")), ("kind", Some("stall")), ("sticky", None)]);
        assert_eq!(fault, Ok(parse("stall sticky after=5s")));
        assert_eq!(
            Fault::from_words([("count", Some("2")), ("status", Some("429"))]),
            Ok(parse("status=429 count=2"))
        );
    }
}
