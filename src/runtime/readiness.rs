//! Readiness: whether this process should be given work.
//!
//! Owns the list of components that must be up, and the rule that a draining process is not ready. Never checks a
//! component itself: each reports through its handle.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::watch;

use super::shutdown::Shutdown;

/// What is ready and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// Whether all components are ready and the process is not draining.
    pub ready: bool,
    /// Whether the process is stopping.
    pub draining: bool,
    /// What each component that is not ready waits for, by name.
    pub waiting_for: BTreeMap<String, String>,
}

/// The components of the process and whether each is ready. Clones share the list.
#[derive(Debug, Clone)]
pub struct Readiness {
    components: watch::Sender<BTreeMap<String, Option<String>>>,
    shutdown: Shutdown,
}

/// One component's place in the list; it starts as not ready. Dropping it takes nothing back: a component that
/// goes away without a word stays as it last said.
#[derive(Debug, Clone)]
pub struct ReadinessHandle {
    name: String,
    components: watch::Sender<BTreeMap<String, Option<String>>>,
}

impl Readiness {
    /// An empty list, which counts as ready until the first component is added.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            components: watch::Sender::new(BTreeMap::new()),
            shutdown,
        }
    }

    /// Adds a component, not ready yet. Names are for people: short, lower case.
    #[must_use]
    pub fn component(&self, name: impl Into<String>) -> ReadinessHandle {
        let handle = ReadinessHandle {
            name: name.into(),
            components: self.components.clone(),
        };
        handle.set_waiting("starting");
        handle
    }

    /// How it stands now.
    #[must_use]
    pub fn report(&self) -> ReadinessReport {
        let waiting_for: BTreeMap<String, String> = self
            .components
            .borrow()
            .iter()
            .filter_map(|(name, waiting)| Some((name.clone(), waiting.clone()?)))
            .collect();
        let draining = self.shutdown.is_draining();
        ReadinessReport {
            ready: !draining && waiting_for.is_empty(),
            draining,
            waiting_for,
        }
    }

    /// Waits until the answer may have changed since the receiver last looked; see [`Readiness::watch`].
    #[must_use]
    pub fn watch(&self) -> ReadinessWatch {
        ReadinessWatch {
            readiness: self.clone(),
            changes: self.components.subscribe(),
            told_of_draining: false,
        }
    }
}

/// Follows readiness, for those who pass it on.
#[derive(Debug)]
pub struct ReadinessWatch {
    readiness: Readiness,
    changes: watch::Receiver<BTreeMap<String, Option<String>>>,
    told_of_draining: bool,
}

impl ReadinessWatch {
    /// Waits for the next change, draining included, and answers how it stands then. After draining has begun
    /// only components can change it.
    pub async fn changed(&mut self) -> ReadinessReport {
        if self.told_of_draining {
            // The sender lives in `readiness`, so the channel cannot be closed.
            drop(self.changes.changed().await);
        } else {
            tokio::select! {
                () = self.readiness.shutdown.draining() => self.told_of_draining = true,
                changed = self.changes.changed() => drop(changed),
            }
        }
        self.readiness.report()
    }
}

impl ReadinessHandle {
    /// The component can do its work.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// The component cannot do its work; `reason` is short and holds no secret.
    pub fn set_waiting(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, waiting: Option<String>) {
        self.components
            .send_if_modified(|components| match components.get_mut(&self.name) {
                Some(now) if *now == waiting => false,
                Some(now) => {
                    *now = waiting;
                    true
                }
                None => {
                    components.insert(self.name.clone(), waiting);
                    true
                }
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ready_means_every_component_is_ready() {
        let readiness = Readiness::new(Shutdown::new(Duration::ZERO));
        let ledger = readiness.component("ledger");
        let elastic = readiness.component("elastic production");
        ledger.set_ready();
        elastic.set_waiting("first read of the members");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(
            report.waiting_for.into_iter().collect::<Vec<_>>(),
            [(
                "elastic production".to_owned(),
                "first read of the members".to_owned()
            )]
        );
        elastic.set_ready();
        assert!(readiness.report().ready);
    }

    #[tokio::test]
    async fn readiness_ends_the_moment_draining_begins_and_watchers_are_told() {
        let shutdown = Shutdown::new(Duration::ZERO);
        let readiness = Readiness::new(shutdown.clone());
        readiness.component("ledger").set_ready();
        let mut watch = readiness.watch();
        assert!(readiness.report().ready);
        shutdown.drain();
        assert!(!readiness.report().ready);
        let report = watch.changed().await;
        assert!(report.draining && !report.ready && report.waiting_for.is_empty());
    }
}
