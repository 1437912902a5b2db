//! Shards: threads that own the sockets of subscribers, and write to all of them.
//!
//! Law: a socket belongs to one shard for good. A shard shares nothing it would have to
//! wait for: it is woken once for whatever is new, prepares each write once for all who
//! stand at the same place, and gives those that are behind their turn in between.
//!
//! ```text
//!  arrivals ─▶ ┌ shard: one thread, one readiness loop ────────────────────────┐
//!  doorbell ─▶ │ groups with news: everyone who waits gets the write           │ ─▶ sockets
//!  sockets ──▶ │ sockets that are ready: the rest of a write; what clients say │
//!  wheel ────▶ │ keep-alive, stall, age, goodbye                               │
//!              │ those that are behind: a slice of their backlog               │
//!              └───────────────────────────────────────────────────────────────┘
//! ```

mod connection;
mod run;
mod talk;
mod wheel;

#[doc(hidden)]
pub use talk::Talk;

use std::{
    fmt, io,
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use mio::{Poll, Token, Waker};

use crate::{hub::Hub, transport::Ledger};

use super::{Offer, conversation};

/// Times and bounds of shards.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads, 1 to 64.
    pub count: usize,
    /// Time a client may take no bytes while some are waiting for it.
    pub write_stall: Duration,
    /// Times and bounds of WebSockets.
    pub websocket: conversation::Config,
}

/// A connection on its way into a shard. `P` is held until the connection ends.
#[derive(Debug)]
pub struct Arrival<P> {
    /// The socket, taken from HTTP; nothing waits to be written but the offer's head.
    pub socket: TcpStream,
    /// What it is owed, and how that is wrapped.
    pub offer: Offer,
    /// What was read after the request.
    pub read_ahead: Bytes,
    /// Given back at the end.
    pub place: P,
}

/// The running shards. Dropping them cuts every connection.
pub struct Shards<P> {
    shards: Vec<Shard<P>>,
}

/// A shard as others see it.
struct Shard<P> {
    inbox: Arc<Inbox<P>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// Where arrivals wait. Each has taken a place among the connections allowed, which
/// bounds it.
#[derive(Debug)]
struct Inbox<P> {
    arrivals: Mutex<Vec<Arrival<P>>>,
    /// Connections of the shard, those in the inbox included.
    connections: AtomicUsize,
    /// Those whose socket is full.
    blocked: AtomicUsize,
    /// As many of those are to be ended.
    surplus: AtomicUsize,
    is_stopped: AtomicBool,
}

/// The waker's own token; sockets have theirs from 0.
const WAKER: Token = Token(usize::MAX);

impl<P: Send + 'static> Shards<P> {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system has no room for a thread or its readiness loop.
    pub fn start(config: &Config, hub: &Hub, ledger: &Arc<Ledger>) -> io::Result<Shards<P>> {
        let mut shards = Vec::new();
        for number in 0..config.count {
            let mut poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            let inbox = Arc::new(Inbox {
                arrivals: Mutex::default(),
                connections: AtomicUsize::new(0),
                blocked: AtomicUsize::new(0),
                surplus: AtomicUsize::new(0),
                is_stopped: AtomicBool::new(false),
            });
            let ringing = waker.clone();
            // It can fail only if the loop is gone, and then there is no one to wake.
            let doorbell = hub.doorbell(move || drop(ringing.wake()));
            let (mailbox, config, ledger) = (inbox.clone(), config.clone(), ledger.clone());
            let thread =
                std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                    loop {
                        let run = AssertUnwindSafe(|| {
                            run::Run::new(&mut poll, &mailbox, &doorbell, &config, &ledger).run();
                        });
                        if catch_unwind(run).is_ok() {
                            mailbox.arrivals().clear();
                            return;
                        }
                        // A bug of ours has cost the shard its connections, which come back
                        // and are told what they missed; the broker goes on.
                        let waiting = mailbox.arrivals().len();
                        mailbox.connections.store(waiting, Ordering::Relaxed);
                        mailbox.blocked.store(0, Ordering::Relaxed);
                    }
                })?;
            shards.push(Shard { inbox, waker, thread: Some(thread) });
        }
        Ok(Shards { shards })
    }

    /// Hands a connection to the shard with the fewest.
    pub async fn adopt(&self, arrival: Arrival<P>) {
        let connections = |shard: &&Shard<P>| shard.inbox.connections.load(Ordering::Relaxed);
        let Some(shard) = self.shards.iter().min_by_key(connections) else { return };
        let is_first = {
            let mut arrivals = shard.inbox.arrivals();
            // Looked at under the lock: the thread empties the inbox when it ends.
            if shard.inbox.is_stopped.load(Ordering::Acquire) {
                return;
            }
            // Counted before the thread can take it out, and with it end it.
            shard.inbox.connections.fetch_add(1, Ordering::Relaxed);
            arrivals.push(arrival);
            arrivals.len() == 1
        };
        if is_first {
            // Others that are about to arrive go first, so that one wake-up does for all.
            tokio::task::yield_now().await;
            shard.wake();
        }
    }

    /// Connections of all shards.
    pub fn connections(&self) -> usize {
        self.sum(|inbox| &inbox.connections)
    }

    /// Those of them whose socket is full.
    pub fn blocked(&self) -> usize {
        self.sum(|inbox| &inbox.blocked)
    }

    /// Ends so many of those whose socket is full, or a few more: of each shard those that have taken
    /// nothing for longest.
    pub fn relieve(&self, surplus: usize) {
        let all = self.blocked().max(1);
        for shard in &self.shards {
            let blocked = shard.inbox.blocked.load(Ordering::Relaxed);
            let share = surplus.saturating_mul(blocked).div_ceil(all);
            if share > 0 {
                shard.inbox.surplus.store(share, Ordering::Relaxed);
                shard.wake();
            }
        }
    }

    fn sum(&self, count: impl Fn(&Inbox<P>) -> &AtomicUsize) -> usize {
        self.shards.iter().map(|shard| count(&shard.inbox).load(Ordering::Relaxed)).sum()
    }

    /// Cuts every connection. Later arrivals are dropped.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.inbox.is_stopped.store(true, Ordering::Release);
            shard.wake();
        }
    }
}

impl<P> Shard<P> {
    fn wake(&self) {
        // It can fail only if the loop is gone.
        let _ = self.waker.wake();
    }
}

impl<P> Inbox<P> {
    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival<P>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Drop for Shards<P> {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.inbox.is_stopped.store(true, Ordering::Release);
            shard.wake();
        }
        for thread in self.shards.iter_mut().filter_map(|shard| shard.thread.take()) {
            // It ends by itself: it has caught every panic.
            let _ = thread.join();
        }
    }
}

impl<P> fmt::Debug for Shards<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("count", &self.shards.len()).finish_non_exhaustive()
    }
}
