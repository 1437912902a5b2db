//! Publishes numbered events through a simulated cloud, at a steady rate or in bursts.
//!
//! Law: it runs on a thread of its own, so that neither it nor the subscribers wait for the
//! other. Requests go out together and their answers are read after, at most
//! [`PIPELINED_MAX`], so that a burst is one.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use url::Url;

use crate::load::{self, Stamp};

use super::address::host;

/// Requests on their way at a time: so few that neither side's socket is full of them.
const PIPELINED_MAX: u64 = 100;
/// For the simulated cloud to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer body of an answer is none of the simulated cloud.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What to publish.
#[derive(Clone, Debug)]
pub(super) struct Publishing {
    pub(super) target: SocketAddr,
    pub(super) url: Url,
    /// Of the events.
    pub(super) name: String,
    /// Events in a second.
    pub(super) rate: f64,
    /// Events at once.
    pub(super) burst: u64,
}

/// The thread that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    thread: JoinHandle<anyhow::Result<()>>,
    stop: mpsc::SyncSender<()>,
    published: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Publisher {
    /// Begins to publish, at once.
    pub(super) fn start(publishing: Publishing) -> anyhow::Result<Publisher> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let published = Arc::new(AtomicU64::new(0));
        let failed = Arc::new(AtomicBool::new(false));
        let socket = TcpStream::connect_timeout(&publishing.target, ANSWER_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let (counter, failure) = (published.clone(), failed.clone());
        let thread = std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            let done = publish(&publishing, socket, &stopped, &counter);
            failure.store(done.is_err(), Ordering::Relaxed);
            done.with_context(|| format!("cannot publish at {}", host(&publishing.url)))
        })?;
        Ok(Publisher { thread, stop, published, failed })
    }

    /// True once it could not go on.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends it; the number of the last event.
    pub(super) fn stop(self) -> anyhow::Result<u64> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the publisher panicked"))??;
        Ok(self.published.load(Ordering::Relaxed))
    }
}

/// Publishes until told to stop: burst `n` is due after `n` bursts' time, and one that is
/// late follows at once.
fn publish(
    publishing: &Publishing,
    socket: TcpStream,
    stopped: &mpsc::Receiver<()>,
    published: &AtomicU64,
) -> anyhow::Result<()> {
    let mut line = Line { reader: BufReader::new(socket), publishing };
    let begun = load::now();
    let pause = publishing.burst as f64 / publishing.rate;
    for bursts in 0_u64.. {
        let due = begun + Duration::from_secs_f64(pause * bursts as f64);
        let wait = due.saturating_duration_since(load::now());
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) | Ok(()) => break,
        }
        let mut left = publishing.burst;
        while left > 0 {
            let count = left.min(PIPELINED_MAX);
            let last = published.load(Ordering::Relaxed);
            line.send(last + 1, count)?;
            published.store(last + count, Ordering::Relaxed);
            left -= count;
        }
    }
    Ok(())
}

/// The connection to the simulated cloud.
struct Line<'a> {
    reader: BufReader<TcpStream>,
    publishing: &'a Publishing,
}

impl Line<'_> {
    /// Publishes `count` events, the first with number `first`, and reads the answers.
    fn send(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let Publishing { url, name, .. } = self.publishing;
        let base = url.path().trim_end_matches('/');
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut requests = String::new();
        for seq in first..first + count {
            let data = Stamp { seq, nanos: load::wall_nanos() };
            let body = serde_json::json!({ "name": name, "data": data.to_string() }).to_string();
            let _ = write!(
                requests,
                "POST {base}/v1/devices/events{query} HTTP/1.1\r\nHost: {}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                host(url),
                body.len(),
            );
        }
        self.reader.get_mut().write_all(requests.as_bytes())?;
        (0..count).try_for_each(|_| self.answer())
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let mut status = String::new();
        let mut body_bytes = 0;
        for number in 0.. {
            let mut line = String::new();
            if (&mut self.reader).take(ANSWER_BYTES_MAX).read_line(&mut line)? == 0 {
                bail!("the connection was closed");
            }
            let line = line.trim_end();
            match line.split_once(':') {
                _ if number == 0 => status = line.to_owned(),
                _ if line.is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    body_bytes = value.trim().parse().unwrap_or(0);
                }
                _ => {}
            }
        }
        let mut body = String::new();
        (&mut self.reader)
            .take(u64::min(body_bytes, ANSWER_BYTES_MAX))
            .read_to_string(&mut body)?;
        match status.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => bail!("it answers {status}: {}; is that a simulated cloud?", body.trim()),
        }
    }
}
