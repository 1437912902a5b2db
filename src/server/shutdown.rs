//! The end of the broker, in order.
//!
//! Law: everything that runs is counted here, so the end can wait for it; and the end
//! comes within the drain window whatever clients do.
//!
//! ```text
//!  signal ─▶ not ready, port closed ─▶ goodbyes, each at its own time ─▶ all gone, or
//!                                                      the window is over: the rest is cut
//! ```

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Tells tasks to finish, then to stop, and waits for them. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    // One allocation for all three: to clone a token takes its lock.
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    finish: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nothing runs yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Runs a task until it ends, or is stopped at the end of the drain window.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token();
        self.spawn_held(async move {
            let _token = token;
            task.await;
        });
    }

    /// The same for a task that holds a [`Shutdown::token`] of its own or passes it on: it
    /// is not to be counted twice.
    pub fn spawn_held(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shared = self.shared.clone();
        // On the heap, once: moved into what waits for either, it would be there twice.
        let task = Box::pin(task);
        tokio::spawn(async move {
            // The task first: most have ended, or gone elsewhere, before they would have to wait.
            tokio::select! {
                biased;
                () = task => {}
                () = shared.stop.cancelled() => {}
            }
        });
    }

    /// Counts as running for as long as it is held.
    pub fn token(&self) -> TaskTrackerToken {
        self.shared.tasks.token()
    }

    /// Completes when tasks are to finish.
    pub async fn finishing(&self) {
        self.shared.finish.cancelled().await;
    }

    /// A token that is cancelled when tasks are to finish.
    pub fn finish_token(&self) -> CancellationToken {
        self.shared.finish.clone()
    }

    /// Tells every task to finish, and stops those that have not after `window`; `cut_rest` is
    /// called then to end what runs elsewhere. Returns how many had to be stopped.
    pub async fn run(&self, window: Duration, cut_rest: impl FnOnce()) -> usize {
        self.shared.finish.cancel();
        self.shared.tasks.close();
        let finished = tokio::time::timeout(window, self.shared.tasks.wait()).await;
        let cut = if finished.is_ok() { 0 } else { self.shared.tasks.len() };
        self.shared.stop.cancel();
        cut_rest();
        self.shared.tasks.wait().await;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_finish_is_cut_at_the_end_of_the_window() {
        let shutdown = Shutdown::new();
        let started = tokio::time::Instant::now();
        shutdown.spawn(std::future::pending());
        let token = shutdown.token();
        shutdown.spawn_held(async move {
            let _token = token;
            std::future::pending().await
        });
        let finishing = shutdown.clone();
        shutdown.spawn(async move { finishing.finishing().await });
        assert_eq!(shutdown.run(Duration::from_secs(10), || ()).await, 2);
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_all_have_finished() {
        let shutdown = Shutdown::new();
        let started = tokio::time::Instant::now();
        let finishing = shutdown.clone();
        shutdown.spawn(async move { finishing.finishing().await });
        assert_eq!(shutdown.run(Duration::from_secs(10), || ()).await, 0);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
