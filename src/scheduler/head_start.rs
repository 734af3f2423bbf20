//! The first moments after a start: removals that are due go before everything else that wants to begin.
//!
//! Owns who goes first and how long the others wait for them. Never holds anybody up for longer than [`LONGEST`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Longest wait for those who go first: a secret store or a ledger that does not answer holds up nobody else.
pub const LONGEST: Duration = Duration::from_secs(1);

/// A head start of some over others. Clones share it.
#[derive(Debug, Clone)]
pub struct HeadStart {
    left: Arc<watch::Sender<usize>>,
    ends: Instant,
}

/// One who goes first, until dropped.
#[derive(Debug)]
pub struct Runner(Arc<watch::Sender<usize>>);

impl HeadStart {
    /// A head start that begins now; nobody has it yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            left: Arc::new(watch::Sender::new(0)),
            ends: Instant::now() + LONGEST,
        }
    }

    /// One more who goes first.
    #[must_use]
    pub fn runner(&self) -> Runner {
        self.left.send_modify(|left| *left += 1);
        Runner(Arc::clone(&self.left))
    }

    /// Waits until everybody who goes first has gone, and at most [`LONGEST`] from the beginning.
    pub async fn over(&self) {
        let mut left = self.left.subscribe();
        // Either way it is over.
        drop(timeout_at(self.ends, left.wait_for(|left| *left == 0)).await);
    }
}

impl Default for HeadStart {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left = left.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(head: &HeadStart) -> Duration {
        let began = Instant::now();
        head.over().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_until_the_last_of_the_first_has_gone() {
        let head = HeadStart::new();
        assert_eq!(waited(&head).await, Duration::ZERO, "nobody goes first");
        let (one, other) = (head.runner(), head.runner());
        let going = async {
            drop(one);
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(other);
        };
        let (took, ()) = tokio::join!(waited(&head), going);
        assert_eq!(took, Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_get_going_holds_nobody_up_for_long() {
        let head = HeadStart::new();
        let _stuck = head.runner();
        assert_eq!(waited(&head).await, LONGEST);
        assert_eq!(waited(&head).await, Duration::ZERO, "it was over before");
    }
}
