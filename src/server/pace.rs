//! How fast connections are taken.
//!
//! Law: time comes in as an argument. Over the pace of all the loop waits, and the kernel keeps the
//! rest in line: refused, they would all come back, and a herd that returns after a restart would
//! be as large the second time. Over the pace of one address its connections are closed unheard,
//! which is what a browser's event stream comes back from; to wait for one would hold up all.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::limits::counted_as;

/// Addresses whose buckets are not full, at most. Beyond that only the pace of all holds.
const ADDRESSES_MAX: usize = 10_000;
/// When there are so many, those that are full are looked for this often and no more: to look through
/// all for each connection of a flood would be a load of its own.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// An address may come this many times as often at once as in a second: a page with its streams, or
/// a few of them.
const BURST_OF_ADDRESS: f64 = 3.0;

/// How fast connections are taken; none for as fast as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Connections a second, and as many at once.
    pub per_second: Option<u32>,
    /// Connections a second of one address (IPv6: of one /64), and three times as many at once.
    pub of_address_per_second: Option<u32>,
}

/// Who has come how often lately.
#[derive(Debug)]
pub(super) struct Pace {
    all: Option<(Rate, Bucket)>,
    each: Option<Rate>,
    addresses: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// What was left at a time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Pace {
    /// Nobody has come yet.
    pub(super) fn new(config: Config, now: Instant) -> Pace {
        let rate = |per_second: u32, times: f64| {
            let per_second = f64::from(per_second);
            Rate { per_second, burst: per_second * times }
        };
        let all = config.per_second.map(|per_second| {
            let rate = rate(per_second, 1.0);
            (rate, Bucket { left: rate.burst, at: now })
        });
        let each =
            config.of_address_per_second.map(|per_second| rate(per_second, BURST_OF_ADDRESS));
        Pace { all, each, addresses: HashMap::new(), swept: None }
    }

    /// Takes the next connection; or says how long the loop has to wait for it.
    pub(super) fn next(&mut self, now: Instant) -> Result<(), Duration> {
        match &mut self.all {
            Some((rate, bucket)) => bucket.take(*rate, now),
            None => Ok(()),
        }
    }

    /// True if a connection of this address is served, false if it is to be closed.
    pub(super) fn admits(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(rate) = self.each else { return true };
        let address = counted_as(address);
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.sweep(rate, now);
            if self.addresses.len() >= ADDRESSES_MAX {
                return true;
            }
        }
        let full = Bucket { left: rate.burst, at: now };
        self.addresses.entry(address).or_insert(full).take(rate, now).is_ok()
    }

    /// Forgets those whose buckets are full, unless that has just been done.
    fn sweep(&mut self, rate: Rate, now: Instant) {
        let is_due = |swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL;
        if self.swept.is_none_or(is_due) {
            self.addresses.retain(|_, bucket| bucket.filled(rate, now).left < rate.burst);
            self.swept = Some(now);
        }
    }
}

impl Bucket {
    fn filled(self, rate: Rate, now: Instant) -> Bucket {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second;
        Bucket { left: (self.left + more).min(rate.burst), at: now }
    }

    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        *self = self.filled(rate, now);
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / rate.per_second));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn at(ms: u64) -> Instant {
        Clock::anchored(0).instant(0) + Duration::from_millis(ms)
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn over_the_pace_of_all_the_loop_waits() {
        let start = at(0);
        let config = Config { per_second: Some(100), of_address_per_second: None };
        let mut pace = Pace::new(config, start);
        for _ in 0..100 {
            assert_eq!(pace.next(start), Ok(()));
        }
        let wait = pace.next(start).unwrap_err();
        assert!((9..=10).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(pace.next(start + Duration::from_millis(11)), Ok(()));
        assert!(pace.next(start + Duration::from_millis(12)).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!(
            (0..200).filter(|_| pace.next(later).is_ok()).count(),
            100,
            "no more than a second's"
        );
    }

    #[test]
    fn one_address_does_not_slow_another_down() {
        let start = at(0);
        let config = Config { per_second: None, of_address_per_second: Some(2) };
        let mut pace = Pace::new(config, start);
        let taken = |pace: &mut Pace, number, now| {
            (0..20).filter(|_| pace.admits(address(number), now)).count()
        };
        assert_eq!(taken(&mut pace, 1, start), 6);
        assert_eq!(taken(&mut pace, 2, start), 6);
        assert_eq!(taken(&mut pace, 1, start + Duration::from_secs(1)), 2);
        let network = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        assert_eq!((0..20).filter(|host| pace.admits(network(*host), start)).count(), 6, "one /64");
        assert_eq!(pace.next(start), Ok(()));
    }

    #[test]
    fn quiet_addresses_are_forgotten_and_many_do_not_shut_others_out() {
        let start = at(0);
        let config = Config { per_second: None, of_address_per_second: Some(1) };
        let mut pace = Pace::new(config, start);
        for number in 0..20_000 {
            assert!(pace.admits(address(number), start));
        }
        assert_eq!(pace.addresses.len(), ADDRESSES_MAX);
        assert!(pace.admits(address(30_000), start + Duration::from_secs(10)));
        assert_eq!(pace.addresses.len(), 1);
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_it_look_through_all_each_time() {
        let start = at(0);
        let config = Config { per_second: None, of_address_per_second: Some(10) };
        let mut pace = Pace::new(config, start);
        assert!((0..=10_000).all(|number| pace.admits(address(number), start)));
        // All are full again, and are looked at when it is time.
        for (ms, remembered) in [(500, ADDRESSES_MAX), (999, ADDRESSES_MAX), (1000, 1)] {
            assert!(pace.admits(address(20_000), start + Duration::from_millis(ms)));
            assert_eq!(pace.addresses.len(), remembered, "{ms} ms");
        }
    }

    #[test]
    fn without_a_pace_nothing_waits() {
        let mut pace = Pace::new(Config::default(), at(0));
        assert!((0..100_000).all(|_| pace.next(at(0)).is_ok() && pace.admits(address(1), at(0))));
        assert!(pace.addresses.is_empty());
    }
}
