//! What a measurement found, for people and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::load::{Missing, Opened, Protocol, Tally};

/// The findings.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) url: String,
    pub(super) transport: Protocol,
    /// Asked for.
    pub(super) subscribers: usize,
    pub(super) opened: Opened,
    /// From when all were open to the last event that was waited for.
    pub(super) elapsed: Duration,
    /// Events of our own; none if others' were watched.
    pub(super) published: Option<u64>,
    pub(super) tally: Tally,
    /// Of our own events, at the end.
    pub(super) missing: Missing,
    /// Ended before its time.
    pub(super) is_interrupted: bool,
}

impl Report {
    /// Why the measurement counts as failed.
    pub(super) fn failure(&self) -> Option<String> {
        if self.is_interrupted && self.tally.deliveries == 0 {
            return None;
        }
        if self.opened.open == 0 {
            return Some("no subscriber could connect".to_owned());
        }
        let Tally { closed, byes, deliveries, .. } = self.tally;
        if closed as usize == self.opened.open && deliveries == 0 {
            return Some("every subscriber was sent away: is the broker full?".to_owned());
        }
        let lost = self.lost();
        if deliveries == 0 && lost > 0 {
            let text = "nothing that was published arrived: does the broker read from that simulated \
                cloud, and does the filter pass it?";
            return Some(text.to_owned());
        }
        if lost > 0 {
            return Some(format!("{} deliveries were lost, and nothing told of it", count(lost)));
        }
        let cut = closed.saturating_sub(byes);
        (cut > 0).then(|| format!("{} subscribers were cut off without a goodbye", count(cut)))
    }

    /// Lost on the way and at the end.
    fn lost(&self) -> u64 {
        self.tally.lost + self.missing.deliveries
    }

    fn events(&self) -> u64 {
        self.published.unwrap_or(self.tally.events)
    }

    fn per_second(&self, number: u64) -> f64 {
        number as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// For people, with aligned lines.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<14}{value}");
        let Report { tally, opened, .. } = self;
        let all = count(self.subscribers as u64);
        let over = self.transport_name();
        line(
            "subscribers",
            format!("{} of {all} connected, over {over}", count(opened.open as u64)),
        );
        for (reason, failed) in &opened.reasons {
            line("  failed", format!("{}: {reason}", count(*failed as u64)));
        }
        if opened.open > 0 {
            let at = |quantile| milliseconds(opened.time.value_at_quantile(quantile));
            let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
            let max = milliseconds(opened.time.max());
            line("connect time", format!("p50 {p50}, p90 {p90}, p99 {p99}, max {max} ms"));
        }
        let ended = if self.is_interrupted { ", ended early" } else { "" };
        line("measured", format!("{:.1} s{ended}", self.elapsed.as_secs_f64()));
        let whose = if self.published.is_some() { "published" } else { "seen" };
        let rate = self.per_second(self.events());
        line("events", format!("{} {whose}, {rate:.1} a second", count(self.events())));
        let rate = self.per_second(tally.deliveries) as u64;
        line("deliveries", format!("{}, {} a second", count(tally.deliveries), count(rate)));
        let rate = self.per_second(tally.bytes) as u64;
        line("bytes", format!("{}, {} a second", size(tally.bytes), size(rate)));
        if !tally.latency.is_empty() {
            let at = |quantile| milliseconds(tally.latency.value_at_quantile(quantile));
            let (min, max) = (milliseconds(tally.latency.min()), milliseconds(tally.latency.max()));
            let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
            let list =
                format!("min {min}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max} ms");
            line("latency", list);
            line("", format!("({})", self.latency_from()));
        }
        let Missing { subscribers, deliveries } = self.missing;
        let at_end = match deliveries {
            0 => String::new(),
            missing => format!(
                ", {} of them at the end, by {} subscribers",
                count(missing),
                count(subscribers as u64)
            ),
        };
        line("lost", format!("{}{at_end}", count(self.lost())));
        let (late, repeated) = (count(tally.out_of_order), count(tally.repeated));
        line("out of order", format!("{late}, and {repeated} repeated"));
        line("gaps told", format!("{}, of {} deliveries", count(tally.gaps), count(tally.told)));
        let (closed, byes) = (count(tally.closed), count(tally.byes));
        line("closed", format!("{closed}, of them {byes} with a goodbye"));
        text
    }

    /// One JSON object and a line feed. Times are in milliseconds where the name says so.
    pub(super) fn json(&self) -> String {
        let Report { tally, opened, missing, .. } = self;
        let ms = |nanos: u64| json!(nanos as f64 / 1e6);
        let percentiles = |times: &dyn Fn(f64) -> u64, min: u64, max: u64| {
            json!({
                "min_ms": ms(min), "p50_ms": ms(times(0.5)), "p90_ms": ms(times(0.9)),
                "p99_ms": ms(times(0.99)), "p99_9_ms": ms(times(0.999)), "max_ms": ms(max),
            })
        };
        let connect = match opened.open {
            0 => Value::Null,
            _ => percentiles(
                &|quantile| opened.time.value_at_quantile(quantile),
                opened.time.min(),
                opened.time.max(),
            ),
        };
        let latency = match tally.latency.len() {
            0 => Value::Null,
            _ => percentiles(
                &|quantile| tally.latency.value_at_quantile(quantile),
                tally.latency.min(),
                tally.latency.max(),
            ),
        };
        let report = json!({
            "url": self.url,
            "transport": self.transport_name(),
            "subscribers": self.subscribers,
            "connected": opened.open,
            "failed": opened.failed,
            "reasons": opened.reasons,
            "connect": connect,
            "seconds": self.elapsed.as_secs_f64(),
            "interrupted": self.is_interrupted,
            "published": self.published,
            "events": self.events(),
            "deliveries": tally.deliveries,
            "deliveries_per_second": self.per_second(tally.deliveries),
            "bytes": tally.bytes,
            "bytes_per_second": self.per_second(tally.bytes),
            "latency": latency,
            "latency_from": self.latency_from(),
            "lost": self.lost(),
            "lost_at_end": missing.deliveries,
            "out_of_order": tally.out_of_order,
            "repeated": tally.repeated,
            "gaps_told": tally.gaps,
            "deliveries_told_missing": tally.told,
            "closed": tally.closed,
            "goodbyes": tally.byes,
        });
        report.to_string() + "\n"
    }

    fn transport_name(&self) -> &'static str {
        match self.transport {
            Protocol::Sse => "sse",
            Protocol::WebSocket => "websocket",
        }
    }

    fn latency_from(&self) -> &'static str {
        match self.published {
            Some(_) => "from publishing to arrival",
            None => "after the first subscriber that got it",
        }
    }
}

// === numbers for people ===

/// With commas: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as milliseconds: two digits behind the point for small ones.
pub(super) fn milliseconds(nanos: u64) -> String {
    match nanos as f64 / 1e6 {
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

/// In the largest unit of which there is at least one: `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut shown) = (bytes as f64, "bytes");
    for unit in units {
        if number < 1024.0 {
            break;
        }
        (number, shown) = (number / 1024.0, unit);
    }
    if shown == "bytes" { format!("{bytes} bytes") } else { format!("{number:.1} {shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let nanos = [0, 1_234_000, 12_340_000, 1_234_000_000];
        assert_eq!(nanos.map(milliseconds), ["0.00", "1.23", "12.3", "1234"]);
        assert_eq!([1023, 1536, 5 << 20].map(size), ["1023 bytes", "1.5 KiB", "5.0 MiB"]);
    }
}
