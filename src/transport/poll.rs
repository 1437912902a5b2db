//! A poll: everything after a position, at once, as one JSON object.
//!
//! Law: `next` always goes into the next call's `after`, and nothing lies between
//! what this answer holds and where the next one begins.

use std::{fmt::Write as _, time::Duration};

use crate::{
    hub::{Budget, Examined, Subscription},
    model::{Format, Gap, Position, Record, frame::control_json, record::Kind},
};

use super::Account;

/// Bounds of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest wait; a client that asks for more gets this.
    pub timeout_max: Duration,
    /// Events in one answer.
    pub events_max: u64,
    /// Bytes of the events of one answer. One event may be larger.
    pub bytes_max: usize,
}

/// How long a poll waits if the client does not say: below the 30 s after which many
/// HTTP clients and proxies give up.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(25);
/// Events in one answer if the client does not say.
pub const EVENTS_DEFAULT: u64 = 500;

/// An answer in the making.
#[derive(Debug)]
pub struct Answer {
    events: String,
    count: u64,
    bytes: usize,
    events_max: u64,
    bytes_max: usize,
    control: bool,
    gap: Option<Gap>,
    next: Option<Position>,
}

impl Answer {
    /// An empty answer that begins with what was missed before it.
    pub fn new(gap: Option<Gap>, events_max: u64, bytes_max: usize, control: bool) -> Answer {
        Answer {
            events: String::new(),
            count: 0,
            bytes: 0,
            events_max,
            bytes_max,
            control,
            gap,
            next: None,
        }
    }

    /// Takes what there is. `true` if the answer has something to tell, so that it
    /// should be sent now.
    pub fn fill(&mut self, subscription: &mut Subscription) -> bool {
        while subscription.examine_snapshot(self.budget(), |record| self.push(record)) {
            // A snapshot is sent whole: what it would leave out could not be asked for.
        }
        loop {
            if self.is_full() {
                return true;
            }
            // One record at a time near the bound: what does not fit stays for the next call.
            let before = subscription.position();
            match subscription
                .examine(Budget { records: self.room(), bytes: 1 }, |record| self.push(record))
            {
                Examined::All => break,
                Examined::More => {}
                Examined::Gap(gap) if self.gap.is_none() && self.count == 0 => self.gap = Some(gap),
                Examined::Gap(_) => {
                    // There is room for one gap only: the next call begins before this one.
                    self.next = Some(before);
                    return true;
                }
            }
        }
        self.count > 0 || self.gap.is_some()
    }

    /// The finished answer, and how many events are in it.
    pub fn finish(self, subscription: &Subscription, account: &mut Account) -> String {
        let next = self.next.unwrap_or_else(|| subscription.position());
        let mut text = String::with_capacity(self.events.len() + 128);
        text.push_str("{\"events\":[");
        text.push_str(&self.events);
        let gap = match &self.gap {
            Some(gap) => {
                account.gap(gap);
                let id = gap.id(subscription.epoch()).to_string();
                control_json("gap", Some(&id), |object| gap.fields(object))
            }
            None => "null".to_owned(),
        };
        let written = write!(text, "],\"next\":\"{next}\",\"gap\":{}}}", gap.trim_end());
        written.expect("writing to a String cannot fail");
        account.wrote(self.count, text.len(), None);
        text
    }

    fn push(&mut self, record: &Record) -> usize {
        if record.kind() == Kind::Control && !self.control {
            return 0;
        }
        let frame = record.frame(Format::Json);
        let json = frame.strip_suffix(b"\n").unwrap_or(&frame);
        if !self.events.is_empty() {
            self.events.push(',');
        }
        self.events.push_str(std::str::from_utf8(json).expect("frames are text"));
        self.count += 1;
        self.bytes += json.len();
        json.len()
    }

    fn is_full(&self) -> bool {
        self.count >= self.events_max || self.bytes >= self.bytes_max
    }

    fn budget(&self) -> Budget {
        Budget { records: 1024, bytes: self.bytes_max }
    }

    fn room(&self) -> usize {
        usize::try_from(self.events_max - self.count).unwrap_or(usize::MAX).min(1024)
    }
}
