//! When to connect again: backoff, Retry-After and the budget of opens.
//!
//! The law: a refusal that names a time is never answered earlier, and whatever
//! the stream does, no window holds more opens than the budget allows.
//! Pure: time and randomness are passed in.

use std::{collections::VecDeque, time::Duration};

use jiff::{Timestamp, fmt::rfc2822, fmt::strtime, tz::TimeZone};

use crate::model::Moment;

/// A stream that lived this long was healthy: the ladders start at the bottom again.
///
/// Above the cloud's longest keep-alive interval (13 s), so that it was more than a greeting. And
/// so that a stream that is cut this often costs 15 opens in 300 s: less than half the default
/// budget. With a minute, a cloud that cuts each minute had us wait a minute each time.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(20);
/// First rung after a server error (500, 502, 504 …): the server asks for rest.
pub const SERVER_ERROR_MIN: Duration = Duration::from_secs(5);
/// First rung of a rate limit that names no time.
pub const RATE_LIMIT_MIN: Duration = Duration::from_secs(60);
/// Last rung of a rate limit that names no time; also the Particle cloud's window.
pub const RATE_LIMIT_MAX: Duration = Duration::from_secs(300);
/// Between two tries that a person has to help: wrong token, wrong address. ± 20 %.
pub const SLOW_RETRY: Duration = Duration::from_secs(300);
/// A Retry-After below this is read as this.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// A Retry-After above this is read as this, so that one odd answer does not silence a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);
/// Most stamps kept for one authority, and so the most a budget can allow.
pub const STAMPS_MAX: usize = 1024;

const _: () = assert!(RATE_LIMIT_MIN.as_secs() <= RATE_LIMIT_MAX.as_secs());

/// What went wrong, as far as the wait depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The stream ended, or the connection never came about.
    Network,
    /// Status 5xx other than 503 and 529.
    ServerError {
        /// What the answer's Retry-After said.
        retry_after: Option<Duration>,
    },
    /// Status 429, 503 or 529.
    RateLimited {
        /// What the answer's Retry-After said.
        retry_after: Option<Duration>,
    },
    /// Status 401, or no readable token.
    Unauthorized,
    /// An answer that only another configuration can mend.
    Misconfigured,
}

/// The ladders: how often each kind of trouble came in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    floor: Duration,
    attempts: u32,
    limits: u32,
    quick_retry_used: bool,
}

impl Backoff {
    /// Ladders that climb from `min` (first ceiling) to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let floor = Duration::ZERO;
        Backoff { min, max, floor, attempts: 0, limits: 0, quick_retry_used: false }
    }

    /// How long to wait now, and one rung up.
    ///
    /// Network and server errors: full jitter, uniform between zero and the rung
    /// (the rung doubles, to `max`). Rate limits: never below what was told, or
    /// 60–300 s where nothing was. 401: one quick retry, then 300 s ± 20 %.
    pub fn delay(&mut self, trouble: Trouble, rng: &mut fastrand::Rng) -> Duration {
        match trouble {
            Trouble::Network => self.climb(self.min, rng),
            Trouble::ServerError { retry_after } => {
                let drawn = self.climb(self.min.max(SERVER_ERROR_MIN), rng);
                retry_after.map_or(drawn, |told| drawn.max(told_delay(told, rng)))
            }
            Trouble::RateLimited { retry_after: Some(told) } => told_delay(told, rng),
            Trouble::RateLimited { retry_after: None } => {
                let rung = doubled(RATE_LIMIT_MIN, self.limits).min(RATE_LIMIT_MAX);
                self.limits = self.limits.saturating_add(1);
                // The top rung is drawn from 250..300 s: jitter, yet inside the stated bounds.
                let low = rung.min(RATE_LIMIT_MAX * 5 / 6);
                between(low, low * 6 / 5, rng)
            }
            Trouble::Unauthorized if !self.quick_retry_used => {
                self.quick_retry_used = true;
                between(self.min, self.min * 2, rng)
            }
            Trouble::Unauthorized | Trouble::Misconfigured => {
                between(SLOW_RETRY * 4 / 5, SLOW_RETRY * 6 / 5, rng)
            }
        }
    }

    /// A stream went live: the token and the address were right.
    pub fn went_live(&mut self) {
        self.quick_retry_used = false;
    }

    /// A live stream is over after `lived`; the ladders restart only if it was healthy.
    pub fn stream_over(&mut self, lived: Duration) {
        if lived >= HEALTHY_AFTER {
            self.attempts = 0;
            self.limits = 0;
        }
    }

    /// Another token: the quick retry is allowed again.
    pub fn token_changed(&mut self) {
        self.quick_retry_used = false;
    }

    /// The least wait after trouble of the network, as the stream's `retry:` asks.
    /// Read as 15 min at most.
    pub fn floor(&mut self, floor: Duration) {
        self.floor = floor.min(RETRY_AFTER_MAX);
    }

    fn climb(&mut self, first: Duration, rng: &mut fastrand::Rng) -> Duration {
        let rung = doubled(first, self.attempts).min(self.max.max(first));
        self.attempts = self.attempts.saturating_add(1);
        let drawn = between(Duration::ZERO, rung, rng);
        // Clients told the same floor must not return together, hence the jitter above it.
        if drawn < self.floor { between(self.floor, self.floor * 6 / 5, rng) } else { drawn }
    }
}

/// Reads a Retry-After header: seconds, or one of the three HTTP dates of RFC 9110 5.6.7.
///
/// A date is measured from `date` (the answer's own Date header, so that a wrong
/// clock here does no harm), or from `wall_ms` without one. The result is within
/// [`RETRY_AFTER_MIN`]`..=`[`RETRY_AFTER_MAX`]; `None` if the text is neither.
pub fn retry_after(text: &str, date: Option<&str>, wall_ms: u64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds is simply very long.
        let secs = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(secs).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX));
    }
    let told_ms = http_date_ms(text)?;
    let from_ms =
        date.and_then(http_date_ms).unwrap_or_else(|| i64::try_from(wall_ms).unwrap_or(i64::MAX));
    let wait_ms = u64::try_from(told_ms.saturating_sub(from_ms)).unwrap_or(0);
    Some(Duration::from_millis(wait_ms).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

/// A sliding window: at most `opens_max` opens in any `window`.
///
/// Within one process an open's age is measured by the monotonic clock, so a jump
/// of the wall clock changes nothing. Between processes it travels as a stamp in
/// wall-clock milliseconds; a stamp in the future counts as now.
#[derive(Debug, Clone)]
pub struct Budget {
    opens_max: usize,
    window_us: i64,
    /// Oldest first; at most [`STAMPS_MAX`].
    opens: VecDeque<Opened>,
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    /// The label under which the open is known outside.
    wall_ms: u64,
    /// Negative for opens before this process.
    mono_us: i64,
}

impl Budget {
    /// An empty window. `opens_max` is read as 1 to [`STAMPS_MAX`]; the window is kept a
    /// second longer than asked.
    pub fn new(opens_max: usize, window: Duration) -> Self {
        let opens_max = opens_max.clamp(1, STAMPS_MAX);
        // Longer by what the label of an open before a restart may be off.
        let window_us = micros(window.saturating_add(Duration::from_millis(LABEL_OFF_MS)));
        Budget { opens_max, window_us, opens: VecDeque::new() }
    }

    /// Counts the opens recorded outside that are not known here yet. A record is known
    /// if its label is within a second of a known one's, one for one: two processes with
    /// a slewing clock label the same open a little differently.
    pub fn merge(&mut self, stamps: &[u64], now: Moment) {
        let mut known: Vec<u64> = self.opens.iter().map(|open| open.wall_ms).collect();
        known.sort_unstable();
        let mut known = known.into_iter().peekable();
        let mut stamps = stamps.to_vec();
        stamps.sort_unstable();
        for wall_ms in stamps {
            while known
                .next_if(|known_ms| *known_ms < wall_ms.saturating_sub(LABEL_OFF_MS))
                .is_some()
            {}
            if known.next_if(|known_ms| *known_ms <= wall_ms.saturating_add(LABEL_OFF_MS)).is_some()
            {
                continue;
            }
            let age_ms = now.wall_ms.saturating_sub(wall_ms);
            let age_us = i64::try_from(age_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
            let mono_us = signed(now.mono_us).saturating_sub(age_us);
            self.opens.push_back(Opened { wall_ms, mono_us });
        }
        self.opens.make_contiguous().sort_by_key(|open| open.mono_us);
        self.prune(now);
    }

    /// Takes one open, or says how long until one is free.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        self.prune(now);
        self.opens.push_back(Opened { wall_ms: now.wall_ms, mono_us: signed(now.mono_us) });
        Ok(())
    }

    /// Takes one open if a quarter of the budget is left after it: for what can wait. Else
    /// says how long until then.
    pub fn take_spare(&mut self, now: Moment) -> Result<(), Duration> {
        match self.wait_for(self.spare_max(), now) {
            Some(wait) => Err(wait),
            None => self.take(now),
        }
    }

    /// True if [`take_spare`](Budget::take_spare) would take one.
    pub fn to_spare(&self, now: Moment) -> bool {
        self.wait_for(self.spare_max(), now).is_none()
    }

    /// Counts as if this many opens had just happened: for a record that cannot be read.
    pub fn presume(&mut self, opens: usize, now: Moment) {
        for _ in 0..opens.min(self.opens_max) {
            self.opens.push_back(Opened { wall_ms: now.wall_ms, mono_us: signed(now.mono_us) });
        }
        self.prune(now);
    }

    /// Opens allowed in a window.
    pub fn opens_max(&self) -> usize {
        self.opens_max
    }

    /// Opens counted in the window that ends now.
    pub fn used(&self, now: Moment) -> usize {
        let from_us = signed(now.mono_us).saturating_sub(self.window_us);
        self.opens.iter().filter(|open| open.mono_us > from_us).count()
    }

    /// The stamps to record outside, oldest first, labelled by the wall clock of `now`:
    /// after a jump of that clock they are labelled anew, so that a restart counts them right.
    pub fn stamps(&mut self, now: Moment) -> Vec<u64> {
        self.prune(now);
        for open in &mut self.opens {
            let age_us = signed(now.mono_us).saturating_sub(open.mono_us);
            let age_ms = u64::try_from(age_us / 1000).unwrap_or(0);
            let label_ms = now.wall_ms.saturating_sub(age_ms);
            if label_ms.abs_diff(open.wall_ms) > LABEL_ROUND_MS {
                open.wall_ms = label_ms;
            }
        }
        self.opens.iter().map(|open| open.wall_ms).collect()
    }

    fn spare_max(&self) -> usize {
        (self.opens_max * 3 / 4).max(1)
    }

    fn wait(&self, now: Moment) -> Option<Duration> {
        self.wait_for(self.opens_max, now)
    }

    fn wait_for(&self, opens_max: usize, now: Moment) -> Option<Duration> {
        let first = self.opens.len().checked_sub(opens_max)?;
        let free_us = self.opens[first].mono_us.saturating_add(self.window_us);
        match free_us.saturating_sub(signed(now.mono_us)) {
            wait_us if wait_us > 0 => Some(Duration::from_micros(wait_us.unsigned_abs())),
            _ => None,
        }
    }

    fn prune(&mut self, now: Moment) {
        let from_us = signed(now.mono_us).saturating_sub(self.window_us);
        while self.opens.len() > STAMPS_MAX
            || self.opens.front().is_some_and(|open| open.mono_us <= from_us)
        {
            self.opens.pop_front();
        }
    }
}

/// How far the label of an open may be off, in milliseconds; also the jump of the wall clock
/// that makes the ledger write its labels anew between opens.
pub(crate) const LABEL_OFF_MS: u64 = 1000;
/// When labels are written, one further off than this is corrected: rounding, and no more.
const LABEL_ROUND_MS: u64 = 2;

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

/// What was told, and 0–20 % on top: never earlier.
fn told_delay(told: Duration, rng: &mut fastrand::Rng) -> Duration {
    let told = told.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    between(told, told * 6 / 5, rng)
}

fn between(low: Duration, high: Duration, rng: &mut fastrand::Rng) -> Duration {
    let (low_us, high_us) = (micros(low).unsigned_abs(), micros(high).unsigned_abs());
    Duration::from_micros(rng.u64(low_us..=high_us.max(low_us)))
}

fn http_date_ms(text: &str) -> Option<i64> {
    let imf = || {
        let parser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
        parser.parse_timestamp(text.trim()).ok()
    };
    let obsolete = |format: &str| {
        let parsed = strtime::parse(format, text.trim()).ok()?.to_datetime().ok()?;
        parsed.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    imf()
        .or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|| obsolete("%a %b %e %H:%M:%S %Y"))
        .map(Timestamp::as_millisecond)
}

fn signed(mono_us: u64) -> i64 {
    i64::try_from(mono_us).unwrap_or(i64::MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
