//! A session as the body of an HTTP answer, driven by hyper.
//!
//! Law: hyper asks for more only when its own buffer has room, so a client that
//! does not read stops its session, and nothing piles up but the lag.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};
use tokio_stream::{Stream, wrappers::WatchStream};

use crate::{
    model::Seq,
    transport::{Session, Step},
};

/// The body of a streamed answer.
pub struct SessionBody {
    session: Session,
    wakes: Option<WatchStream<Seq>>,
    timer: Pin<Box<Sleep>>,
}

impl SessionBody {
    /// A body that delivers what `session` says.
    pub fn new(session: Session) -> SessionBody {
        let wakes = session.subscription().wakes().map(WatchStream::from_changes);
        let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        SessionBody { session, wakes, timer }
    }
}

impl Body for SessionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut turn = this.session.turn();
        loop {
            match this.session.step(Instant::now().into_std(), &mut turn) {
                Step::Write(write) => return Poll::Ready(Some(Ok(Frame::data(write.bytes)))),
                Step::End(_) => return Poll::Ready(None),
                Step::Yield => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Wait { until } => {
                    this.timer.as_mut().reset(Instant::from_std(until));
                    let is_due = this.timer.as_mut().poll(context).is_ready();
                    // Both are asked, so that both will wake this task.
                    let is_woken = match &mut this.wakes {
                        Some(wakes) => Pin::new(wakes).poll_next(context).is_ready(),
                        None => false,
                    };
                    if !is_due && !is_woken {
                        return Poll::Pending;
                    }
                    // What came since is not in what was prepared before.
                    turn.finish();
                }
            }
        }
    }
}

impl fmt::Debug for SessionBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBody").field("session", &self.session).finish_non_exhaustive()
    }
}
