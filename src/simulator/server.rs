//! The simulated cloud's port: connections, and the clock of devices and faults.
//!
//! hyper reads the request heads and writes the plain answers. Once a stream is granted, the socket
//! is taken out of hyper and [`stream::write`] owns it, head and all: a body can then end, break or
//! be reset at any byte. After a clean end the connection goes back to hyper for the next request.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    api::answer,
    cloud::{Cloud, STREAMS_MAX},
    stream::{self, After, Framing, Mailbox},
};

/// Connections at once: every stream, and some for control. More are closed as they come.
const CONNECTIONS_MAX: usize = STREAMS_MAX + 200;
/// For a request's head to arrive.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Where no connection can be accepted (no file descriptors left), a pause before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The devices are never further behind their rate than this; after a pause of the process they do
/// not catch up.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// The cloud, and what its tasks and handles share.
pub(super) struct Shared {
    cloud: Mutex<Cloud>,
    wall: fn() -> Timestamp,
    keepalive: Duration,
    pub(super) streams_open: watch::Sender<usize>,
    pub(super) opens_total: watch::Sender<u64>,
    next_due: watch::Sender<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(cloud: Cloud, wall: fn() -> Timestamp, keepalive: Duration) -> Shared {
        Shared {
            cloud: Mutex::new(cloud),
            wall,
            keepalive,
            streams_open: watch::Sender::new(0),
            opens_total: watch::Sender::new(0),
            next_due: watch::Sender::new(None),
        }
    }

    /// Does something with the cloud, now, and tells those who wait for it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Cloud, Instant, Timestamp) -> T) -> T {
        let mut cloud = self.cloud.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut cloud, Instant::now(), (self.wall)());
        update(&self.streams_open, cloud.streams_open());
        update(&self.opens_total, cloud.opens_total());
        update(&self.next_due, cloud.next_due());
        result
    }
}

fn update<T: PartialEq>(watch: &watch::Sender<T>, value: T) {
    watch.send_if_modified(|current| {
        let changed = *current != value;
        *current = value;
        changed
    });
}

/// A listener that can follow upon one that was just closed.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(1_024)
}

/// Accepts until told to stop, then closes the port and resets every connection. `done` becomes
/// true after that.
pub(super) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    done: watch::Sender<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => match accepted {
                Err(_) => sleep(ACCEPT_PAUSE).await,
                Ok((socket, _)) => if let Ok(place) = places.clone().try_acquire_owned() {
                    let (shared, stop) = (shared.clone(), stop.clone());
                    connections.spawn(async move {
                        connection(socket, &shared, stop).await;
                        drop(place);
                    });
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    done.send_replace(true);
}

/// The devices' clock, and that of the faults.
pub(super) async fn conduct(
    shared: Arc<Shared>,
    events_per_second: f64,
    mut stop: watch::Receiver<bool>,
) {
    let mut due = shared.next_due.subscribe();
    let mut since = Instant::now();
    let mut published = 0_u32;
    loop {
        let fault_at = *due.borrow_and_update();
        let event_at = since + seconds((f64::from(published) + 1.0) / events_per_second);
        tokio::select! {
            () = stopped(&mut stop) => return,
            _ = due.changed() => {}
            () = sleep_until(fault_at.unwrap_or(since)), if fault_at.is_some() => {
                shared.with(|cloud, now, wall| cloud.settle(now, wall));
            }
            () = sleep_until(event_at), if events_per_second > 0.0 => {
                let elapsed = Instant::now().duration_since(since);
                // The timer has fired, so there is one, whatever the rounding says.
                let owed = ((elapsed.as_secs_f64() * events_per_second) as u32).saturating_sub(published).max(1);
                let owed_max = ((BEHIND_MAX.as_secs_f64() * events_per_second) as u32).max(1);
                let count = owed.min(owed_max);
                shared.with(|cloud, now, wall| cloud.devices_publish(count, now, wall));
                published = published.saturating_add(count);
                // Counted anew each hour, and after a pause.
                if owed > owed_max || elapsed > Duration::from_secs(3_600) {
                    (since, published) = (Instant::now(), 0);
                }
            }
        }
    }
}

/// At most a day, so that a very small rate is still a time.
fn seconds(seconds: f64) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    Duration::try_from_secs_f64(seconds).map_or(DAY, |time| time.min(DAY))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the last handle is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

// === connections ===

/// What a connection becomes when it is taken out of hyper.
pub(super) enum Takeover {
    Stream { mailbox: Arc<Mailbox>, framing: Framing, lease: Lease },
    Hang,
}

/// A stream's place in the cloud; given back when dropped.
pub(super) struct Lease {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.with(|cloud, _, _| cloud.closed(self.number));
    }
}

async fn connection(mut socket: TcpStream, shared: &Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let _ = socket.set_nodelay(true);
    let mut after = After::Reusable;
    while after == After::Reusable {
        let (taken, mut takeover) = mpsc::channel(1);
        let service = service_fn(|request| answer(shared.clone(), request, taken.clone()));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .serve_connection(TokioIo::new(socket), service);
        let taken = tokio::select! {
            biased;
            () = stopped(&mut stop) => None,
            taken = takeover.recv() => taken,
            _ = &mut connection => return,
        };
        socket = connection.into_parts().io.into_inner();
        after = tokio::select! {
            biased;
            () = stopped(&mut stop) => After::Reset,
            after = run(&mut socket, taken, shared.keepalive) => after,
        };
    }
    if after == After::Reset {
        let _ = socket.set_zero_linger();
    }
}

async fn run(socket: &mut TcpStream, taken: Option<Takeover>, keepalive: Duration) -> After {
    match taken {
        None => After::Reset,
        Some(Takeover::Hang) => {
            let mut scrap = [0_u8; 512];
            while matches!(socket.read(&mut scrap).await, Ok(1..)) {}
            After::Close
        }
        Some(Takeover::Stream { mailbox, framing, lease }) => {
            let written = stream::write(socket, head(framing), framing, &mailbox, keepalive).await;
            drop(lease);
            written.unwrap_or(After::Close)
        }
    }
}

fn head(framing: Framing) -> Vec<u8> {
    let rest = match framing {
        Framing::Chunked => "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        Framing::Plain => "Connection: close\r\n\r\n",
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
        Access-Control-Allow-Origin: *\r\n";
    [head, rest].concat().into_bytes()
}
