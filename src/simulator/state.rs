//! What the simulator tells about itself: for tests through its handle, for people as JSON under
//! `/sim`.
//!
//! The law here: no secret. Of a token there is a fingerprint.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};

use super::device::Account;

/// What has happened so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Since the start.
    pub uptime: Duration,
    /// Streams open now. One that a fault ended is not, even if its last bytes are still on the
    /// way.
    pub streams_open: usize,
    /// Streams opened so far.
    pub streams_opened: u64,
    /// Streams reset because their reader did not keep up.
    pub streams_overrun: u64,
    /// Opens asked for so far, with those refused.
    pub opens_total: u64,
    /// The newest 1,000 of them, oldest first.
    pub opens: Vec<Open>,
    /// Events published so far: by devices, through the API, by faults, through the handle.
    pub events_published: u64,
    /// Events put on a stream, summed over the streams, repeats included.
    pub events_sent: u64,
    /// Faults that wait for their time, for a stream or for an open, and sticky stalls, in their
    /// text form.
    pub faults_pending: Vec<String>,
    /// Faults that have happened; a repeated one counts each time.
    pub faults_fired: u64,
    /// Faults not taken on, because 256 were pending.
    pub faults_refused: u64,
}

/// A request for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Since the start.
    pub at: Duration,
    /// The path as sent, without its query.
    pub route: String,
    /// What it was answered; none if it was not.
    pub status: Option<u16>,
    /// The [`fingerprint`] of its token, if it had one.
    pub token: Option<String>,
    /// Its `Last-Event-ID`, which is ignored.
    pub last_event_id: Option<String>,
}

/// The newest opens are remembered in full, so many of them.
const OPENS_KEPT: usize = 1_000;

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) opens: VecDeque<Open>,
    pub(super) opens_total: u64,
    pub(super) streams_opened: u64,
    pub(super) streams_overrun: u64,
    pub(super) events_published: u64,
    pub(super) events_sent: u64,
    pub(super) faults_fired: u64,
    pub(super) faults_refused: u64,
}

impl Tally {
    pub(super) fn remember(&mut self, open: Open) {
        if self.opens.len() == OPENS_KEPT {
            self.opens.pop_front();
        }
        self.opens.push_back(open);
        self.opens_total += 1;
    }

    pub(super) fn state(
        &self,
        uptime: Duration,
        streams_open: usize,
        faults_pending: Vec<String>,
    ) -> State {
        State {
            uptime,
            streams_open,
            streams_opened: self.streams_opened,
            streams_overrun: self.streams_overrun,
            opens_total: self.opens_total,
            opens: self.opens.iter().cloned().collect(),
            events_published: self.events_published,
            events_sent: self.events_sent,
            faults_pending,
            faults_fired: self.faults_fired,
            faults_refused: self.faults_refused,
        }
    }
}

/// Eight hex digits that tell one token from another and do not give it away (FNV-1a, folded to 32
/// bits).
pub fn fingerprint(token: &str) -> String {
    let hash = token.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

impl State {
    /// As under `GET /sim`. Times are milliseconds since the start.
    pub fn to_json(&self) -> Value {
        let opens = self.opens.iter().map(|open| {
            json!({
                "at_ms": millis(open.at),
                "route": open.route,
                "status": open.status,
                "token": open.token,
                "last_event_id": open.last_event_id,
            })
        });
        json!({
            "uptime_ms": millis(self.uptime),
            "streams_open": self.streams_open,
            "streams_opened": self.streams_opened,
            "streams_overrun": self.streams_overrun,
            "opens_total": self.opens_total,
            "opens": opens.collect::<Vec<_>>(),
            "events_published": self.events_published,
            "events_sent": self.events_sent,
            "faults_pending": self.faults_pending,
            "faults_fired": self.faults_fired,
            "faults_refused": self.faults_refused,
        })
    }
}

/// As under `GET /sim/devices`.
pub(super) fn account_json(account: &Account) -> Value {
    let devices = account.devices().iter().map(|device| {
        json!({
            "id": device.id,
            "name": device.name,
            "kind": device.kind,
            "claimed": device.ownership.claimed,
            "product": device.ownership.on_product,
            "online": device.online,
        })
    });
    json!({
        "userid": account.userid,
        "product": { "id": account.product_id, "slug": account.product_slug },
        "org": account.org,
        "devices": devices.collect::<Vec<_>>(),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_tokens_apart_and_is_short() {
        assert_ne!(fingerprint("not-a-token-1"), fingerprint("not-a-token-2"));
        assert_eq!(fingerprint("").len(), 8);
        assert_eq!(fingerprint("not-a-token-1"), fingerprint("not-a-token-1"));
    }
}
