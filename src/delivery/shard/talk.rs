//! The reading side of a WebSocket in a shard, which the library does.
//!
//! Law: the library reads from the socket and writes into memory: what it has to say goes
//! out between our own frames, never inside one.

use std::{
    io::{self, Read},
    time::Instant,
};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketContext},
};

use crate::model::{CloseReason, Filter};

use super::super::conversation::{self, Conversation, Due, End};

/// A WebSocket's client, as far as it talks.
#[derive(Debug)]
pub struct Talk {
    context: WebSocketContext,
    conversation: Conversation,
    /// Bytes read since the end of its last message.
    unfinished_bytes: usize,
    /// The library lost its place in what the client sends: it must not read on.
    is_broken: bool,
}

/// Bytes read from one client in a row. A client that sends more than that at once has to
/// wait for its turn, as all do.
const HEARD_BYTES_MAX: usize = 16 << 10;

/// What a client had to say.
#[derive(Debug)]
pub struct Heard {
    /// What answers it: pongs, a closing handshake.
    pub answers: Bytes,
    /// The filter to go on with; each is confirmed before the next one is heard.
    pub new_filter: Option<Filter>,
    /// It may have more to say.
    pub more: bool,
    /// Why it is over, if it is.
    pub end: Option<End>,
}

/// Reads from the socket, writes into memory.
struct Pipe<'a, R> {
    socket: Option<&'a mut R>,
    readable_bytes: usize,
    written: Vec<u8>,
}

impl Talk {
    /// A talk that begins with what was read after the request.
    pub fn new(config: &conversation::Config, read_ahead: &[u8], now: Instant) -> Talk {
        let limits = Some(config.limits());
        // Copied, since its bytes lie in a buffer of 8 KiB that would stay.
        let context =
            WebSocketContext::from_partially_read(read_ahead.to_vec(), Role::Server, limits);
        Talk {
            context,
            conversation: Conversation::new(config, now),
            unfinished_bytes: 0,
            is_broken: false,
        }
    }

    /// No answer to a closing handshake can be understood any more.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Hears what there is to hear, up to a bound. With the closing handshake begun, only
    /// its answer counts.
    pub fn hear<R: Read>(
        &mut self,
        socket: &mut R,
        config: &conversation::Config,
        now: Instant,
        is_closing: bool,
    ) -> Heard {
        let mut new_filter = None;
        let mut pipe =
            Pipe { socket: Some(socket), readable_bytes: HEARD_BYTES_MAX, written: Vec::new() };
        let mut readable_bytes = pipe.readable_bytes;
        let end = loop {
            if self.is_broken {
                break pipe.read_to_the_end().err().map(|_| End::because(CloseReason::Gone));
            }
            let message = match self.context.read(&mut pipe) {
                Ok(message) => {
                    (self.unfinished_bytes, readable_bytes) = (0, pipe.readable_bytes);
                    if is_closing {
                        continue;
                    }
                    message
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unfinished_bytes += readable_bytes - pipe.readable_bytes;
                    let is_over = self.unfinished_bytes > config.unfinished_bytes_max();
                    break (is_over && !is_closing).then(End::in_parts);
                }
                Err(error) => {
                    self.is_broken = true;
                    break Some(End::broken(&error, config));
                }
            };
            match self.conversation.heard(message, now) {
                Ok(None) => {}
                Ok(filter) => {
                    new_filter = filter;
                    break None;
                }
                Err(end) => break Some(end),
            }
        };
        let more = pipe.readable_bytes == 0 || new_filter.is_some();
        Heard { answers: self.flush(pipe), new_filter, more, end }
    }

    /// A ping if it is time for one, and when to ask again.
    pub fn keep_up(
        &mut self,
        config: &conversation::Config,
        now: Instant,
    ) -> Result<(Bytes, Instant), End> {
        let mut bytes = Bytes::new();
        loop {
            match self.conversation.due(config, now) {
                Due::Wait(until) => return Ok((bytes, until)),
                Due::Silent => return Err(Due::silent()),
                Due::Ping => bytes = self.say(Message::Ping(Bytes::new())),
            }
        }
    }

    /// The close frame that says why.
    pub fn close(&mut self, end: &End) -> Bytes {
        self.say(Message::Close(Some(end.frame())))
    }

    fn say(&mut self, message: Message) -> Bytes {
        let mut pipe =
            Pipe { socket: None::<&mut io::Empty>, readable_bytes: 0, written: Vec::new() };
        // Fails only if the library has closed already: then there is nothing to say.
        let _ = self.context.write(&mut pipe, message);
        self.flush(pipe)
    }

    fn flush<R: Read>(&mut self, mut pipe: Pipe<'_, R>) -> Bytes {
        // The same: writing into memory does not fail.
        let _ = self.context.flush(&mut pipe);
        Bytes::from(pipe.written)
    }
}

impl<R: Read> Pipe<'_, R> {
    /// Reads what no one wants; an error if the client has gone.
    fn read_to_the_end(&mut self) -> io::Result<()> {
        let mut scratch = [0; 4096];
        loop {
            match self.read(&mut scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for Pipe<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes_max = buffer.len().min(self.readable_bytes);
        match &mut self.socket {
            Some(socket) if bytes_max > 0 => {
                let bytes = socket.read(&mut buffer[..bytes_max])?;
                self.readable_bytes -= bytes;
                Ok(bytes)
            }
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<R> io::Write for Pipe<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
