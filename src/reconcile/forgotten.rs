//! Watching for access that two people gave up without seeing it gone.
//!
//! Owns the report that it is still there, and the end of the watch when it is not. Never removes it: it is not ours any
//! more.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::pass::Reconciler;
use crate::domain::ids::UserId;
use crate::domain::member::Subject;
use crate::domain::observation::Interest;
use crate::ports::ledger::LedgerError;
use crate::ports::provider::Priority;

/// Pause between two reports of the same access: often enough to be seen, rare enough to be read.
const REPORT_EVERY: TimeDelta = TimeDelta::hours(24);

/// What a look at access that was given up found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// Assignments that upstream still shows.
    pub present: usize,
    /// Assignments that are gone, and no longer watched for.
    pub gone: usize,
    /// Code of a read that failed.
    pub failure: Option<String>,
}

impl Reconciler {
    /// Looks whether access that was given up is still there, and writes down what it found.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger could not be read or written.
    pub async fn watch_forgotten(&self) -> Result<Watched, LedgerError> {
        let mut watched = Watched::default();
        let keys = self.ledger.forgotten(&self.integration).await?;
        let users: BTreeSet<UserId> = keys
            .iter()
            .filter_map(|key| match &key.subject {
                Subject::Member(user) => Some(user.clone()),
                Subject::Invitee(_) => None,
            })
            .collect();
        if users.is_empty() {
            return Ok(watched);
        }
        let interest = Interest {
            users,
            ..Interest::default()
        };
        let read = match self.observer.observe(interest, Priority::Verify).await {
            Ok(read) => read,
            Err(error) => {
                watched.failure = Some(error.code().to_owned());
                return Ok(watched);
            }
        };
        for key in keys {
            let Subject::Member(user) = &key.subject else {
                continue;
            };
            let member = read.member(user);
            let (mut present, mut gone) = (0, 0);
            self.update(&key, |draft, now| {
                (present, gone) = (0, 0);
                for known in draft.record.evidence.forgotten.clone() {
                    let assignment = &known.assignment;
                    let shown = member.is_some_and(|one| one.assignments.contains(assignment));
                    // It is ours again: its own row sees to its end.
                    let owned = draft.record.owned(assignment).is_some();
                    if owned || (!shown && read.is_complete() && read.started_at > known.at) {
                        gone += 1;
                        draft.drift(now, "forgotten_gone", assignment, "no longer watched for");
                        draft
                            .record
                            .evidence
                            .forgotten
                            .retain(|other| other.assignment != *assignment);
                        continue;
                    }
                    present += usize::from(shown);
                    let is_news = known
                        .reported_at
                        .is_none_or(|reported| reported + REPORT_EVERY <= now);
                    if shown && is_news {
                        tracing::error!(
                            integration = %self.integration, member = %user, %assignment,
                            "Access that was given up is still there; remove it in Elastic Cloud"
                        );
                        draft.drift(
                            now,
                            "forgotten_still_present",
                            assignment,
                            "given up: somebody has to remove it in Elastic Cloud",
                        );
                        let mut all = draft.record.evidence.forgotten.iter_mut();
                        if let Some(entry) = all.find(|other| other.assignment == *assignment) {
                            entry.reported_at = Some(now);
                        }
                    }
                }
            })
            .await?;
            watched.present += present;
            watched.gone += gone;
        }
        Ok(watched)
    }
}
