//! Stopping in stages: drain first, abort when that takes too long, close what watched last.
//!
//! Owns the order of the stages and the signals that start them. Never stops a task itself: tasks look at the
//! stages and stop where it is safe.

use std::io;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// The stages of stopping. Clones share them.
///
/// * *draining*: take no new work, finish what was begun;
/// * *aborted*: stop at the next safe point, everything needed is in the ledger;
/// * *closing*: all work has ended, so what served health and metrics can go too.
#[derive(Debug, Clone)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    closing: CancellationToken,
    drain_limit: Duration,
}

impl Shutdown {
    /// Nothing is stopping yet. Draining may take `drain_limit` before it turns into an abort.
    #[must_use]
    pub fn new(drain_limit: Duration) -> Self {
        let hard = CancellationToken::new();
        Self {
            soft: hard.child_token(),
            closing: CancellationToken::new(),
            hard,
            drain_limit,
        }
    }

    /// How long draining may take.
    #[must_use]
    pub fn drain_limit(&self) -> Duration {
        self.drain_limit
    }

    /// Begins draining. Again is harmless.
    pub fn drain(&self) {
        self.soft.cancel();
    }

    /// Begins the abort, and with it draining where that has not begun.
    pub fn abort(&self) {
        self.hard.cancel();
    }

    /// Lets the watchers go. Called by the supervisor when all work has ended.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether the abort has begun.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Waits until draining begins.
    pub fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.soft.cancelled()
    }

    /// Waits until the abort begins.
    pub fn aborted(&self) -> WaitForCancellationFuture<'_> {
        self.hard.cancelled()
    }

    /// Waits until all work has ended.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.closing.cancelled()
    }

    /// The token of the first stage, for libraries that take one.
    #[must_use]
    pub fn soft_token(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// The token of the second stage, for libraries that take one.
    #[must_use]
    pub fn hard_token(&self) -> CancellationToken {
        self.hard.clone()
    }
}

/// The signals that ask this process to stop, by name, in the order they arrive.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn signals() -> io::Result<BoxStream<'static, &'static str>> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok(stream::unfold(
        (terminate, interrupt),
        |(mut terminate, mut interrupt)| async move {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return None,
            };
            Some((name, (terminate, interrupt)))
        },
    )
    .boxed())
}

/// Takes note of hang-ups (SIGHUP), which by default would end the process: nothing is lost when a terminal closes.
/// Files of keys, certificates and the law are read anew by themselves.
///
/// # Errors
/// When the operating system refuses the handler.
pub fn hang_ups(
    shutdown: Shutdown,
) -> io::Result<impl Future<Output = Result<(), super::tasks::TaskError>> + Send + 'static> {
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                () = shutdown.closing() => return Ok(()),
                Some(()) = hang_up.recv() => tracing::info!(
                    "SIGHUP was taken: rotated keys, certificates and the law are read by themselves, other settings at the next start"
                ),
                else => return Ok(()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_implies_draining_but_not_the_reverse() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        shutdown.drain();
        assert!(shutdown.is_draining() && !shutdown.is_aborted());
        let shutdown = Shutdown::new(Duration::from_secs(1));
        shutdown.abort();
        assert!(shutdown.is_draining() && shutdown.is_aborted());
    }
}
