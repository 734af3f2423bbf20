//! Named tasks under one supervisor.
//!
//! Owns starting work, noticing how it ends, and the exit of the process. Never restarts a task: what fails stops
//! the process, whose next start recovers from the ledger.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

use super::shutdown::Shutdown;

/// What a task may fail with.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// How long tasks may take to notice an abort before they are dropped where they wait.
pub const ABORT_GRACE: Duration = Duration::from_secs(5);

/// The first thing that went wrong; it becomes the exit code.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    /// A task ended although nobody asked the process to stop.
    #[error("task {name} ended although nothing asked it to stop")]
    EndedEarly {
        /// Which.
        name: String,
    },
    /// A task gave up.
    #[error("task {name} failed")]
    Failed {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: TaskError,
    },
    /// A task panicked: a bug.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// Which.
        name: String,
        /// What it said.
        message: String,
    },
    /// A task did not notice the abort in time and was dropped where it waited.
    #[error("task {name} did not stop in time and was dropped")]
    Stuck {
        /// Which.
        name: String,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    attends: bool,
}

/// The tasks of the process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<Result<(), TaskError>>,
    entries: HashMap<Id, Entry>,
    shutdown: Shutdown,
    working: usize,
}

impl Tasks {
    /// An empty set that obeys `shutdown`.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            set: JoinSet::new(),
            entries: HashMap::new(),
            shutdown,
            working: 0,
        }
    }

    /// Starts work. It must go on until draining begins; ending before that, with or without an error, stops the
    /// process. Everything it logs carries its name.
    pub fn spawn<F>(&mut self, name: impl Into<String>, work: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.working += 1;
        self.start(name.into(), false, work);
    }

    /// Starts a task that watches the others, such as the health endpoint: it goes on through the drain and is
    /// asked to stop by [`Shutdown::closing`] when all other tasks have ended.
    pub fn attend<F>(&mut self, name: impl Into<String>, work: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.start(name.into(), true, work);
    }

    fn start<F>(&mut self, name: String, attends: bool, work: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let span = tracing::info_span!("task", task.name = %name);
        let handle = self.set.spawn(work.instrument(span));
        self.entries.insert(handle.id(), Entry { name, attends });
    }

    /// Runs until every task has ended. The first signal starts the drain, the second the abort; a failure starts
    /// the drain as well. A drain over its limit turns into an abort, and an abort over [`ABORT_GRACE`] drops what
    /// is left.
    ///
    /// # Errors
    /// The first [`TaskFailure`], also one that happened while stopping.
    pub async fn supervise(
        mut self,
        mut signals: impl Stream<Item = &'static str> + Unpin,
    ) -> Result<(), TaskFailure> {
        let mut failure: Option<TaskFailure> = None;
        let mut signals_open = true;
        let mut closing = false;
        let shutdown = self.shutdown.clone();
        let drain_limit = async {
            shutdown.draining().await;
            tokio::time::sleep(shutdown.drain_limit()).await;
        };
        let abort_limit = async {
            shutdown.aborted().await;
            tokio::time::sleep(ABORT_GRACE).await;
        };
        // After the work has ended the watchers get the same grace, whether or not there was an abort.
        let mut close_by: Option<Instant> = None;
        tokio::pin!(drain_limit, abort_limit);
        let (mut drained_out, mut aborted_out) = (false, false);
        loop {
            if self.working == 0 && !closing {
                closing = true;
                close_by = Some(Instant::now() + ABORT_GRACE);
                self.shutdown.close();
            }
            let close_limit = async {
                match close_by {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = self.set.join_next_with_id() => match ended {
                    None => break,
                    Some(ended) => {
                        if let Some(found) = self.ended(ended) {
                            tracing::error!(error = &found as &dyn std::error::Error, "A task ended in failure, stopping");
                            failure.get_or_insert(found);
                            self.shutdown.drain();
                        }
                    }
                },
                signal = signals.next(), if signals_open => match signal {
                    None => signals_open = false,
                    Some(signal) if self.shutdown.is_draining() => {
                        tracing::warn!(signal, "Asked to stop again, aborting");
                        self.shutdown.abort();
                    }
                    Some(signal) => {
                        tracing::info!(signal, limit = ?self.shutdown.drain_limit(), "Asked to stop, draining");
                        self.shutdown.drain();
                    }
                },
                () = &mut drain_limit, if !drained_out => {
                    drained_out = true;
                    if !self.shutdown.is_aborted() && self.working > 0 {
                        tracing::warn!(tasks = ?self.names(), "Draining took too long, aborting");
                        self.shutdown.abort();
                    }
                }
                () = &mut abort_limit, if !aborted_out => {
                    aborted_out = true;
                    self.set.abort_all();
                }
                () = close_limit => {
                    close_by = None;
                    self.set.abort_all();
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.entries.values().map(|e| e.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn ended(
        &mut self,
        ended: Result<(Id, Result<(), TaskError>), JoinError>,
    ) -> Option<TaskFailure> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Entry { name, attends } = self
            .entries
            .remove(&id)
            .expect("every task of the set was entered when it was started");
        if !attends {
            self.working -= 1;
        }
        match ended {
            Ok((_, Ok(()))) if self.shutdown.is_draining() => None,
            Ok((_, Ok(()))) => Some(TaskFailure::EndedEarly { name }),
            Ok((_, Err(source))) => Some(TaskFailure::Failed { name, source }),
            Err(error) => Some(match error.try_into_panic() {
                Ok(panic) => TaskFailure::Panicked {
                    name,
                    message: panic_message(panic.as_ref()),
                },
                Err(_) => TaskFailure::Stuck { name },
            }),
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn tasks() -> (Tasks, Shutdown) {
        let shutdown = Shutdown::new(Duration::from_secs(30));
        (Tasks::new(shutdown.clone()), shutdown)
    }

    async fn until_drained(shutdown: Shutdown) -> Result<(), TaskError> {
        shutdown.draining().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_the_set_with_a_failure_that_names_the_task() {
        let (mut tasks, shutdown) = tasks();
        tasks.spawn("steady", until_drained(shutdown));
        tasks.spawn("broken", async { panic!("out of paper") });
        let failure = tasks.supervise(stream::pending()).await;
        assert!(
            matches!(&failure, Err(TaskFailure::Panicked { name, message }) if name == "broken" && message == "out of paper"),
            "{failure:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ending_early_and_failing_are_failures_and_stop_the_rest() {
        let (mut set, shutdown) = tasks();
        set.spawn("steady", until_drained(shutdown.clone()));
        set.spawn("short", async { Ok(()) });
        let failure = set.supervise(stream::pending()).await;
        assert!(
            matches!(&failure, Err(TaskFailure::EndedEarly { name }) if name == "short"),
            "{failure:?}"
        );
        assert!(shutdown.is_draining());

        let (mut set, shutdown) = tasks();
        set.spawn("steady", until_drained(shutdown));
        set.spawn("listener", async { Err("address in use".into()) });
        let failure = set.supervise(stream::pending()).await;
        assert!(
            matches!(&failure, Err(TaskFailure::Failed { name, .. }) if name == "listener"),
            "{failure:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_drains_and_the_second_aborts() {
        let (mut tasks, shutdown) = tasks();
        let slow = shutdown.clone();
        tasks.spawn("slow", async move {
            slow.aborted().await;
            Ok(())
        });
        let begun = Instant::now();
        let signals = stream::iter(["SIGTERM", "SIGINT"]).chain(stream::pending());
        let ended = tasks.supervise(Box::pin(signals)).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert!(shutdown.is_aborted());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_over_its_limit_aborts_and_a_deaf_task_is_dropped() {
        let (mut tasks, shutdown) = tasks();
        tasks.spawn("deaf", std::future::pending());
        shutdown.drain();
        let begun = Instant::now();
        let failure = tasks.supervise(stream::pending()).await;
        assert!(
            matches!(&failure, Err(TaskFailure::Stuck { name }) if name == "deaf"),
            "{failure:?}"
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(30) + ABORT_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_attend_outlive_the_drain_and_go_last() {
        let (mut tasks, shutdown) = tasks();
        let (work, watcher) = (shutdown.clone(), shutdown.clone());
        tasks.spawn("work", async move {
            work.draining().await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(())
        });
        tasks.attend("health", async move {
            watcher.closing().await;
            Ok(())
        });
        let begun = Instant::now();
        shutdown.drain();
        let ended = tasks.supervise(stream::pending()).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
    }
}
