//! A client's socket that joins the runtime's reactor when it has to wait, and not before.
//!
//! Law: the kernel is asked first. Most subscribers have sent their request by the time they
//! are accepted, and their socket then goes on to a shard, which waits in its own way: to have
//! joined and left the reactor in between would have been for nothing.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream as StdStream},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use mio::net::TcpListener as MioListener;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::TcpStream,
};

/// A port that listens.
#[derive(Debug)]
pub struct Listener(AsyncFd<MioListener>);

/// A connection that was accepted. Reads and writes as tokio's sockets do.
#[derive(Debug)]
pub struct Socket(State);

#[derive(Debug)]
enum State {
    /// Unknown to the reactor.
    Fresh(StdStream),
    Joined(TcpStream),
    /// It could not join; the error was told.
    Failed,
}

/// What can be told that its far end takes nothing.
pub trait Forsake {
    /// Closing is to drop what the far end has not taken.
    fn forsake(&self);
}

/// Has the kernel reset the connection when it is closed. In good order it would go on offering
/// what is unsent, and hold it without anybody's place being taken by that, to a client which
/// has shown that it takes nothing.
pub(super) fn forsake(socket: &impl AsFd) {
    // Should that fail, the kernel gives it up by itself, if later.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

// === impl Listener ===

impl Listener {
    /// Takes over a socket that listens, bound and in non-blocking mode.
    ///
    /// # Errors
    /// If the reactor does not take it.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Listener> {
        let listener = MioListener::from_std(listener);
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and asks for a descriptor that stays open and the \
                      same for as long as its owner lives, as a listener's does"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Listener(listener))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// The next connection, and who it is from. Cancel-safe. Gives way to others now and then,
    /// however many are waiting.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        tokio::task::coop::consume_budget().await;
        let (stream, address) = self.0.async_io(Interest::READABLE, MioListener::accept).await?;
        Ok((Socket(State::Fresh(OwnedFd::from(stream).into())), address))
    }
}

// === impl Socket ===

impl Socket {
    /// The socket itself, in non-blocking mode, and no longer in the reactor.
    ///
    /// # Errors
    /// If the reactor does not let go of it.
    pub fn into_std(self) -> io::Result<StdStream> {
        match self.0 {
            State::Fresh(stream) => Ok(stream),
            State::Joined(stream) => stream.into_std(),
            State::Failed => Err(failed()),
        }
    }

    /// Asks the kernel with `ask` while the reactor does not know of the socket; makes it known
    /// if the answer is that it would have to wait. None: `ask` it through the reactor.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut StdStream) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let State::Fresh(stream) = &mut self.0 else { return None };
        match ask(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => return Some(answer),
        }
        if let State::Fresh(stream) = std::mem::replace(&mut self.0, State::Failed) {
            match TcpStream::from_std(stream) {
                Ok(stream) => self.0 = State::Joined(stream),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    fn joined(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.0 {
            State::Joined(stream) => Ok(Pin::new(stream)),
            State::Fresh(_) | State::Failed => Err(failed()),
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("the socket could not join the reactor")
}

impl Forsake for Socket {
    fn forsake(&self) {
        match &self.0 {
            State::Fresh(stream) => forsake(stream),
            State::Joined(stream) => forsake(stream),
            State::Failed => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.ask(|stream| stream.read(buffer.initialize_unfilled())) {
            Some(read) => Poll::Ready(read.map(|bytes| buffer.advance(bytes))),
            None => self.joined()?.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.ask(|stream| stream.write(bytes)) {
            Some(written) => Poll::Ready(written),
            None => self.joined()?.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.ask(|stream| stream.write_vectored(buffers)) {
            Some(written) => Poll::Ready(written),
            None => self.joined()?.poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            State::Fresh(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            State::Joined(stream) => Pin::new(stream).poll_shutdown(context),
            State::Failed => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection, accepted after `first` was sent into it.
    async fn pair(first: &[u8]) -> (TcpStream, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        near.write_all(first).await.unwrap();
        let (far, address) = listener.accept().await.unwrap();
        assert_eq!(address, near.local_addr().unwrap());
        (near, far)
    }

    fn is_fresh(socket: &Socket) -> bool {
        matches!(socket.0, State::Fresh(_))
    }

    #[tokio::test]
    async fn what_need_not_wait_does_not_join() {
        let (mut near, mut far) = pair(b"request").await;
        let mut request = [0; 7];
        far.read_exact(&mut request).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(&request, b"request");
        assert!(is_fresh(&far));
        far.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        near.write_all(b"more").await.unwrap();
        let mut std = far.into_std().unwrap();
        std.set_nonblocking(false).unwrap();
        let mut more = [0; 4];
        std.read_exact(&mut more).unwrap();
        assert_eq!(&more, b"more");
    }

    #[tokio::test]
    async fn what_waits_is_woken() {
        let (mut near, mut far) = pair(b"").await;
        let mut request = [0; 7];
        let (read, ()) = tokio::join!(far.read_exact(&mut request), async {
            tokio::task::yield_now().await;
            near.write_all(b"request").await.unwrap();
        });
        assert_eq!((read.unwrap(), &request), (7, b"request"));
        assert!(!is_fresh(&far));
        // More than the kernel takes at once.
        let many = vec![b'x'; 16 << 20];
        let mut received = vec![0; many.len()];
        let (sent, got) = tokio::join!(far.write_all(&many), near.read_exact(&mut received));
        sent.unwrap();
        got.unwrap();
        assert!(received == many);
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }

    /// The first write that would have to wait joins as well.
    #[tokio::test]
    async fn a_write_that_waits_is_woken() {
        let (mut near, mut far) = pair(b"").await;
        let many = vec![b'x'; 16 << 20];
        let mut received = vec![0; many.len()];
        let (sent, got) = tokio::join!(far.write_all(&many), near.read_exact(&mut received));
        sent.unwrap();
        got.unwrap();
        assert!(received == many && !is_fresh(&far));
    }
}
