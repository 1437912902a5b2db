//! Connections that a proxy introduces, by the PROXY protocol.
//!
//! Law: whoever may introduce others may name any address, so only the networks of
//! `server.trusted_proxies` do. A connection that is not introduced in time is closed unheard, and
//! those that still may be are bounded: they are not counted as anybody's yet.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    edge::{
        network::Network,
        proxy_protocol::{self, BYTES_MAX, Client, Header},
    },
    telemetry::{Limit, Telemetry},
};

/// Time for the header. A proxy sends it before anything else, with the connection itself.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections at a time whose header is yet to come. Each has a second, so some thousand are
/// still taken in each one while as many say nothing.
const WAITING_MAX: usize = 1024;

/// The proxies that introduce connections.
#[derive(Debug)]
pub(super) struct Proxies {
    trusted: Vec<Network>,
    waiting: Arc<Semaphore>,
}

/// A connection whose header is yet to come.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Proxies {
    /// Those in these networks.
    pub(super) fn new(trusted: Vec<Network>) -> Proxies {
        Proxies { trusted, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// A turn for a connection of `peer`; none, and counted, if it is to be closed.
    pub(super) fn turn(&self, peer: IpAddr, telemetry: &Telemetry) -> Option<Turn> {
        if !self.trusted.iter().any(|network| network.contains(peer)) {
            tracing::debug!(%peer, "connection closed: it is of none of server.trusted_proxies");
            telemetry.limit_reached(Limit::ProxyHeader);
            return None;
        }
        let Ok(permit) = self.waiting.clone().try_acquire_owned() else {
            telemetry.limit_reached(Limit::Accept);
            return None;
        };
        Some(Turn { _permit: permit })
    }
}

impl Turn {
    /// Who the proxy says is behind its connection, and what was read past that; none if it does
    /// not say so in time. The proxy itself is who it is where it speaks for itself, or cannot say.
    pub(super) async fn introduced(
        self,
        io: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
    ) -> Option<(SocketAddr, Bytes)> {
        match tokio::time::timeout(HEADER_TIMEOUT, header(io)).await {
            Ok(Ok((Client::At(client), ahead))) => Some((client, ahead)),
            Ok(Ok((Client::Unknown | Client::Proxy, ahead))) => Some((peer, ahead)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "connection closed");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "connection closed: its PROXY header came too late");
                None
            }
        }
    }
}

async fn header(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Client, Bytes)> {
    let mut bytes = BytesMut::with_capacity(BYTES_MAX);
    loop {
        // Never full: with as many bytes there is an answer.
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed = proxy_protocol::parse(&bytes)
            .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        if let Some(Header { bytes: length, client }) = parsed {
            // Copied, since a view of a few bytes would hold all.
            return Ok((client, Bytes::copy_from_slice(&bytes[length..])));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    const PEER: ([u8; 4], u16) = ([10, 0, 0, 1], 7);

    fn proxies() -> Proxies {
        Proxies::new(vec!["10.0.0.0/8".parse().unwrap()])
    }

    fn turn(proxies: &Proxies, peer: IpAddr) -> Option<Turn> {
        proxies.turn(peer, &Telemetry::new())
    }

    async fn introduced(parts: &[&[u8]]) -> Option<(SocketAddr, Bytes)> {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let peer = SocketAddr::from(PEER);
        let turn = turn(&proxies(), peer.ip()).unwrap();
        let writing = async {
            for part in parts {
                near.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            near
        };
        let (heard, _near) = tokio::join!(turn.introduced(&mut far, peer), writing);
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_the_header_is_the_clients() {
        let line: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n";
        let client = SocketAddr::from(([192, 0, 2, 1], 56324));
        let heard = introduced(&[&line[..9], &line[9..], b"late"]).await;
        assert_eq!(heard, Some((client, Bytes::new())));
        let heard = introduced(&[&[line, b"GET /"].concat()]).await;
        assert_eq!(heard, Some((client, "GET /".into())));
        let heard = introduced(&[b"PROXY UNKNOWN\r\nGET /"]).await;
        assert_eq!(heard, Some((PEER.into(), "GET /".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_introduced_is_not_heard() {
        assert_eq!(introduced(&[b"GET / HTTP/1.1\r\n"]).await, None);
        assert_eq!(introduced(&[&[b'P'; 4096]]).await, None);
        let started = Instant::now();
        assert_eq!(introduced(&[b"PROXY TCP4"]).await, None);
        assert_eq!(started.elapsed(), HEADER_TIMEOUT);
    }

    #[tokio::test]
    async fn strangers_introduce_nobody_and_those_who_wait_are_bounded() {
        let proxies = proxies();
        assert!(turn(&proxies, IpAddr::from([192, 0, 2, 1])).is_none());
        let peer = IpAddr::from(PEER.0);
        let turns: Vec<_> = (0..WAITING_MAX).filter_map(|_| turn(&proxies, peer)).collect();
        assert_eq!(turns.len(), WAITING_MAX);
        assert!(turn(&proxies, peer).is_none());
        drop(turns);
        assert!(turn(&proxies, peer).is_some());
    }
}
