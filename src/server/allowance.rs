//! How often a client may publish: a bucket of tokens for each address, and one for all.
//!
//! Law: time comes in as an argument. An address that has been quiet for long enough costs
//! no memory, and there are never more than [`ADDRESSES_MAX`].

use std::{collections::HashMap, net::IpAddr, time::Duration};

use crate::model::Moment;

use super::limits::counted_as;

/// Addresses whose buckets are not full, at most. Beyond that a new address is refused.
const ADDRESSES_MAX: usize = 10_000;

/// All clients together, per second. The cloud allows one public address 10,000 calls in
/// 5 minutes, which is 33 a second; three fifths leave room for the broker's own opens and
/// for other programs.
const TOTAL_PER_SECOND: f64 = 20.0;
/// All clients together at once.
const TOTAL_BURST: f64 = 200.0;

/// Who has published how much lately.
#[derive(Debug)]
pub(super) struct Allowance {
    each: Rate,
    buckets: HashMap<IpAddr, Bucket>,
    total: Bucket,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

const TOTAL: Rate = Rate { per_second: TOTAL_PER_SECOND, burst: TOTAL_BURST };

/// What was left at a time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Moment,
}

impl Allowance {
    /// `per_second` for each address, and `burst` at once.
    pub(super) fn new(per_second: f64, burst: u32, now: Moment) -> Allowance {
        let each = Rate { per_second, burst: f64::from(burst) };
        let total = Bucket { left: TOTAL_BURST, at: now };
        Allowance { each, buckets: HashMap::new(), total }
    }

    /// Takes one for `address`.
    ///
    /// # Errors
    /// How long to wait, if there is none.
    pub(super) fn take(&mut self, address: IpAddr, now: Moment) -> Result<(), Duration> {
        let address = counted_as(address);
        let each = self.each;
        if !self.buckets.contains_key(&address) && self.buckets.len() >= ADDRESSES_MAX {
            self.buckets.retain(|_, bucket| bucket.filled(each, now).left < each.burst);
            if self.buckets.len() >= ADDRESSES_MAX {
                return Err(Duration::from_secs_f64(1.0 / each.per_second));
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket { left: each.burst, at: now });
        *bucket = bucket.filled(each, now);
        self.total = self.total.filled(TOTAL, now);
        // Looked at before either is taken from: who is refused by one has used up neither.
        bucket.has_one(each)?;
        self.total.has_one(TOTAL)?;
        bucket.left -= 1.0;
        self.total.left -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn filled(self, rate: Rate, now: Moment) -> Bucket {
        let more = now.since(self.at).as_secs_f64() * rate.per_second;
        Bucket { left: (self.left + more).min(rate.burst), at: now }
    }

    fn has_one(self, rate: Rate) -> Result<(), Duration> {
        if self.left >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / rate.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { wall_ms: 0, mono_us: ms * 1000 }
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let mut allowance = Allowance::new(2.0, 3, at(0));
        for _ in 0..3 {
            assert_eq!(allowance.take(address(1), at(0)), Ok(()));
        }
        assert_eq!(allowance.take(address(1), at(0)), Err(Duration::from_millis(500)));
        assert_eq!(allowance.take(address(2), at(0)), Ok(()), "each for itself");
        assert_eq!(allowance.take(address(1), at(499)), Err(Duration::from_millis(1)));
        assert_eq!(allowance.take(address(1), at(500)), Ok(()));
        assert!(allowance.take(address(1), at(500)).is_err());
        for _ in 0..3 {
            assert_eq!(allowance.take(address(1), at(60_000)), Ok(()));
        }
        assert!(allowance.take(address(1), at(60_000)).is_err(), "no more than the burst");
    }

    #[test]
    fn all_together_have_a_bound() {
        let mut allowance = Allowance::new(1000.0, 1000, at(0));
        let taken = (0..1000).filter(|n| allowance.take(address(*n), at(0)).is_ok()).count();
        assert_eq!(taken, 200);
        assert_eq!(allowance.take(address(7), at(50)), Ok(()));
    }

    #[test]
    fn quiet_addresses_are_forgotten() {
        let mut allowance = Allowance::new(0.001, 1, at(0));
        let busy = Bucket { left: 0.0, at: at(0) };
        allowance.buckets = (0..10_000).map(|number| (address(number), busy)).collect();
        assert!(allowance.take(address(20_000), at(0)).is_err());
        assert_eq!(allowance.take(address(20_000), at(1_000_000)), Ok(()));
        assert_eq!(allowance.buckets.len(), 1);
    }
}
