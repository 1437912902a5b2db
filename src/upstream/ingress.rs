//! The way of webhooks to the one task that writes: a queue with a bound, and an answer for each.
//!
//! Law: a webhook is answered well once its event has its position, and not before. When there is no
//! room it is refused at once, so that the cloud sends it again.

use tokio::sync::{mpsc, oneshot};

use super::{paths::Paths, webhook::Delivery};

/// Deliveries that wait for the writer, which takes all of them at its next turn.
pub const WAITING_MAX: usize = 256;

/// Where deliveries are handed in. Clones share it.
#[derive(Clone, Debug)]
pub struct Ingress {
    sender: mpsc::Sender<Posted>,
}

/// The other end, for the upstream's task.
#[derive(Debug)]
pub struct Deliveries {
    pub(super) posted: mpsc::Receiver<Posted>,
    pub(super) paths: Paths,
}

/// A delivery, and who waits to hear of it.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) delivery: Delivery,
    /// Told true if it was passed on, false if it was a copy.
    pub(super) answer: oneshot::Sender<bool>,
}

/// Why a delivery was not taken: the writer is behind, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another webhook's event")]
pub struct Busy;

/// A queue of at most [`WAITING_MAX`] deliveries.
pub fn ingress() -> (Ingress, Deliveries) {
    let (sender, posted) = mpsc::channel(WAITING_MAX);
    (Ingress { sender }, Deliveries { posted, paths: Paths::new() })
}

impl Ingress {
    /// Hands an event in. True if it was passed on, false if it was there already.
    ///
    /// # Errors
    /// If there is no room for it, or the broker is ending.
    pub async fn hand_in(&self, delivery: Delivery) -> Result<bool, Busy> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send(Posted { delivery, answer }).map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }
}
