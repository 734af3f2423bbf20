//! Following grants.
//!
//! Owns a stream of grants that misses no change and can be resumed. Never promises one message per change: a
//! grant is sent as it stands, and changes in quick succession may come as one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::sync::watch;

use crate::domain::caller::Caller;
use crate::domain::grant::Grant;
use crate::domain::ids::GrantId;
use crate::ports::ledger::{EventFilter, GrantFilter};

use super::Service;
use super::error::{Result, ServiceError};

/// Rows and events read at a time.
const BATCH: usize = 256;

/// What one item of a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// A grant as it stood when the watch began.
    Snapshot(Box<Grant>),
    /// The snapshot is complete.
    Synced,
    /// A grant after a change.
    Changed(Box<Grant>),
    /// Nothing happened for a while.
    Alive,
}

/// One item of a watch and where to go on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What happened.
    pub item: WatchItem,
    /// Sequence to resume after; `None` within a snapshot.
    pub resume_after: Option<u64>,
}

enum Phase {
    Begin,
    Resume {
        after: u64,
    },
    Snapshot {
        /// Sequence from before the first page.
        from: u64,
        before: Option<GrantId>,
    },
    Live {
        after: u64,
    },
    Over,
}

struct Watch {
    service: Arc<Service>,
    caller: Caller,
    filter: GrantFilter,
    events: EventFilter,
    changes: watch::Receiver<u64>,
    heartbeat: Duration,
    phase: Phase,
    ready: VecDeque<Watched>,
}

impl Service {
    /// Follows the caller's grants: from a snapshot, or from the changes after a sequence.
    ///
    /// The states of the filter limit the snapshot only, so that a grant's way out of them is seen.
    ///
    /// # Errors
    /// Failures of the ledger end the stream; resume with the last sequence.
    pub fn watch_grants(
        self: &Arc<Self>,
        caller: &Caller,
        filter: GrantFilter,
        resume_after: Option<u64>,
    ) -> impl Stream<Item = Result<Watched>> + Send + use<> {
        let caller = caller.clone();
        let own = (!caller.reads_all()).then(|| caller.name.clone());
        let watch = Watch {
            service: Arc::clone(self),
            caller,
            events: EventFilter {
                caller: own.clone(),
                integration: filter.integration.clone(),
                ..EventFilter::default()
            },
            filter: GrantFilter {
                caller: own,
                ..filter
            },
            changes: self.ledger.changes(),
            heartbeat: self.settings.heartbeat,
            phase: resume_after.map_or(Phase::Begin, |after| Phase::Resume { after }),
            ready: VecDeque::new(),
        };
        stream::unfold(watch, |mut watch| async move {
            let item = watch.next().await?;
            Some((item, watch))
        })
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Watched>> {
        loop {
            if let Some(watched) = self.ready.pop_front() {
                return Some(Ok(watched));
            }
            if let Err(error) = self.step().await {
                self.phase = Phase::Over;
                return Some(Err(error));
            }
            if matches!(self.phase, Phase::Over) && self.ready.is_empty() {
                return None;
            }
        }
    }

    async fn step(&mut self) -> Result<()> {
        match self.phase {
            Phase::Over => Ok(()),
            Phase::Begin => {
                self.service.known(&self.filter)?;
                self.may_look().await?;
                self.phase = Phase::Snapshot {
                    from: self.service.ledger.last_sequence().await?,
                    before: None,
                };
                Ok(())
            }
            Phase::Snapshot { from, before } => {
                let page = self
                    .service
                    .ledger
                    .list_grants(&self.filter, before, BATCH)
                    .await?;
                self.ready
                    .extend(page.items.into_iter().map(|grant| Watched {
                        item: WatchItem::Snapshot(Box::new(grant)),
                        resume_after: None,
                    }));
                self.phase = if page.next.is_some() {
                    Phase::Snapshot {
                        from,
                        before: page.next,
                    }
                } else {
                    self.ready.push_back(Watched {
                        item: WatchItem::Synced,
                        resume_after: Some(from),
                    });
                    Phase::Live { after: from }
                };
                Ok(())
            }
            Phase::Resume { after } => {
                self.may_look().await?;
                // A token from beyond the end is from another ledger: what happened since cannot be told.
                if after > self.service.ledger.last_sequence().await? {
                    return Err(ServiceError::bad_resume_token());
                }
                self.phase = Phase::Live { after };
                Ok(())
            }
            Phase::Live { after } => self.follow(after).await,
        }
    }

    async fn may_look(&self) -> Result<()> {
        self.service
            .check_reading(&self.caller, self.filter.integration.as_ref(), "grants")
            .await
    }

    async fn follow(&mut self, after: u64) -> Result<()> {
        // Taken before the read: what becomes visible during it is found by the next one.
        let newest = *self.changes.borrow_and_update();
        let events = self
            .service
            .ledger
            .events(&self.events, after, BATCH)
            .await?;
        let last = events.last().map_or(after, |event| event.sequence);
        let seen_all = events.len() < BATCH;
        let reached = if seen_all { last.max(newest) } else { last };
        self.phase = Phase::Live { after: reached };
        let changed: BTreeSet<GrantId> = events
            .iter()
            .filter_map(|stored| stored.event.grant_id)
            .collect();
        for id in changed {
            if let Some(grant) = self.service.ledger.grant(id).await?
                && matches(&self.filter, &grant)
            {
                // Until the last of a batch was sent, the batch has to be read again.
                self.ready.push_back(Watched {
                    item: WatchItem::Changed(Box::new(grant)),
                    resume_after: Some(after),
                });
            }
        }
        if let Some(watched) = self.ready.back_mut() {
            watched.resume_after = Some(reached);
            return Ok(());
        }
        if !seen_all {
            return Ok(());
        }
        match tokio::time::timeout(self.heartbeat, self.changes.changed()).await {
            Ok(Ok(())) => {}
            // The ledger is closing.
            Ok(Err(_)) => self.phase = Phase::Over,
            Err(_) => self.ready.push_back(Watched {
                item: WatchItem::Alive,
                resume_after: Some(reached),
            }),
        }
        Ok(())
    }
}

/// Whether a grant belongs to a watch; its state does not matter.
fn matches(filter: &GrantFilter, grant: &Grant) -> bool {
    let GrantFilter {
        caller,
        integration,
        states: _,
        subject,
        target,
    } = filter;
    caller.as_ref().is_none_or(|caller| *caller == grant.caller)
        && integration
            .as_ref()
            .is_none_or(|integration| *integration == grant.integration)
        && subject.as_ref().is_none_or(|subject| {
            *subject == grant.subject.to_string() || *subject == grant.beneficiary
        })
        && target.as_ref().is_none_or(|target| {
            grant
                .assignments
                .iter()
                .any(|held| held.assignment.target == *target)
        })
}

impl ServiceError {
    /// A resume token that no watch gave.
    #[must_use]
    pub fn bad_resume_token() -> Self {
        Self::invalid(
            "resume_token",
            "is not a token of WatchGrants on this ledger; leave it empty to begin with a snapshot",
        )
    }
}
