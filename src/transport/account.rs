//! A subscriber's account: counted while it is served, closed with one line of trace.
//!
//! Law: presence is a guard. Whatever ends a subscriber, dropping its account
//! settles the gauges and says why and how much, once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    clock::Clock,
    model::{CloseReason, Format, Gap, GapReason, Moment, Transport},
    telemetry::Telemetry,
};

use super::Turn;

/// The far end of a client connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// Set when the connection was given up because the client took no bytes.
    pub is_stalled: AtomicBool,
}

impl Peer {
    /// A connection from `addr`.
    pub fn new(addr: SocketAddr) -> Peer {
        Peer { addr, is_stalled: AtomicBool::new(false) }
    }
}

/// Where every account is kept.
#[derive(Debug)]
pub struct Ledger {
    /// The broker's numbers.
    pub telemetry: Arc<Telemetry>,
    /// The broker's clock.
    pub clock: Clock,
}

/// One subscriber's totals.
#[derive(Debug)]
pub struct Account {
    ledger: Arc<Ledger>,
    peer: Arc<Peer>,
    transport: Transport,
    format: Format,
    since: Moment,
    events: u64,
    bytes: u64,
    gaps: u64,
    reason: CloseReason,
}

impl Account {
    /// Opens an account; the subscriber counts as connected until it is dropped.
    pub fn open(
        ledger: Arc<Ledger>,
        peer: Arc<Peer>,
        transport: Transport,
        format: Format,
    ) -> Account {
        ledger.telemetry.subscriber_opened(transport, format);
        let since = ledger.clock.now();
        let reason = CloseReason::Gone;
        Account { ledger, peer, transport, format, since, events: 0, bytes: 0, gaps: 0, reason }
    }

    /// Where this account is kept.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The far end.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// A write was handed to the connection. `ingested` is when the oldest live event in
    /// it had been taken in.
    pub fn wrote(&mut self, events: u64, bytes: usize, ingested: Option<Moment>, turn: &mut Turn) {
        self.events += events;
        self.bytes += bytes as u64;
        if events > 0 {
            turn.delivered(self.transport, events, bytes, ingested);
        }
    }

    /// A gap was declared to the subscriber.
    pub fn gap(&mut self, gap: &Gap) {
        self.gaps += 1;
        self.ledger.telemetry.gap(gap.reason);
        if gap.reason == GapReason::Overtaken {
            tracing::info!(
                peer = %self.peer.addr, from = gap.from.0, to = gap.to.0, oldest = gap.oldest.0,
                "subscriber overtaken: it was told what it missed"
            );
        }
    }

    /// Why the connection is about to end.
    pub fn close(&mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.peer.is_stalled.load(Ordering::Relaxed) {
            self.reason = CloseReason::Slow;
        }
        self.ledger.telemetry.subscriber_closed(self.transport, self.format, self.reason);
        let seconds = self.ledger.clock.now().since(self.since).as_secs();
        let Account { peer, transport, reason, events, bytes, gaps, .. } = self;
        // A polling client leaves every few seconds: that is no news.
        if *reason == CloseReason::Answered {
            tracing::debug!(
                peer = %peer.addr, %transport, %reason, seconds, events, bytes, gaps, "poll answered"
            );
        } else {
            tracing::info!(
                peer = %peer.addr, %transport, %reason, seconds, events, bytes, gaps, "subscriber left"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Readings;

    #[test]
    fn a_stalled_client_is_counted_as_slow() {
        let telemetry = Arc::new(Telemetry::new());
        let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
        let clock = Clock::anchored(0);
        let ledger = Arc::new(Ledger { telemetry: telemetry.clone(), clock });
        let (transport, format) = (Transport::Sse, Format::Message);
        let account = Account::open(ledger, peer.clone(), transport, format);
        peer.is_stalled.store(true, Ordering::Relaxed);
        drop(account);
        let text = telemetry.render(&Readings::default());
        for sample in [
            "fanlight_subscribers_closed_total{reason=\"slow\"} 1",
            "fanlight_subscribers{transport=\"sse\",format=\"message\"} 0",
        ] {
            assert!(text.contains(sample), "{sample}: {text}");
        }
    }
}
