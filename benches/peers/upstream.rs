//! What stands behind a broker: the stream that Fanlight connects to, a server of one
//! `text/event-stream` as plain as can be; and the backend that Pushpin asks for each subscriber.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::clock;

/// A line feed each nine seconds, as the cloud sends it.
const KEEPALIVE: Duration = Duration::from_secs(9);
/// How often the thread looks whether it is to end or to keep alive.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time the broker may leave what is written unread.
const WRITE_MAX: Duration = Duration::from_secs(20);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Serves the newest connection; an older one is dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connection: Mutex<Option<TcpStream>>,
    over: AtomicBool,
}

impl Upstream {
    /// Listens, and serves until dropped.
    pub(crate) fn start() -> Result<Upstream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || serve(&listener, &serving))?;
        Ok(Upstream { address, shared })
    }

    /// What to give the broker as its upstream.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// True once the broker has asked for the stream.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connection().is_some()
    }

    /// Sends bytes of the stream in one write, as far as the broker takes them.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut connection = self.shared.connection();
        let connection = connection.as_mut().context("the broker has left the upstream")?;
        connection.write_all(bytes).context("the broker takes no events")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn connection(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(listener: &TcpListener, shared: &Shared) {
    let mut next = clock::now() + KEEPALIVE;
    while !shared.over.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept()
            && let Ok(stream) = open(stream)
        {
            *shared.connection() = Some(stream);
        }
        if clock::now() >= next {
            next += KEEPALIVE;
            if let Some(connection) = shared.connection().as_mut() {
                let _ = connection.write_all(b"\n");
            }
        }
        thread::sleep(LOOK);
    }
}

/// Reads the request and answers it with the head and the cloud's first line.
fn open(stream: TcpStream) -> Result<TcpStream> {
    answer(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n:ok\n\n",
    )
}

fn answer(mut stream: TcpStream, answer: &str) -> Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let mut head = Vec::new();
    let mut bytes = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut bytes)?;
        anyhow::ensure!(read > 0 && head.len() < HEAD_BYTES_MAX, "no request");
        head.extend_from_slice(&bytes[..read]);
    }
    stream.write_all(answer.as_bytes())?;
    Ok(stream)
}

/// Answers every request with what makes Pushpin hold the subscriber on the channel `bench`.
#[derive(Debug)]
pub(crate) struct Backend {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Backend {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Cache-Control: no-cache\r\nGrip-Hold: stream\r\nGrip-Channel: bench\r\n\
        Content-Length: 5\r\nConnection: close\r\n\r\n:ok\n\n";

    /// Listens, and serves until dropped.
    pub(crate) fn start() -> Result<Backend> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        thread::Builder::new().name("backend".to_owned()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                // A request that breaks off is the peer's to tell.
                let _ = answer(stream, Backend::ANSWER);
            }
        })?;
        Ok(Backend { address, over })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
    }
}
