//! Drift in a member record: opened once, closed once, and what is watched after the end. Pure.
//!
//! Owns the recognition of a login through SSO that overwrote roles, and what follows for the grants. Never removes
//! anything: what reappears after its end may be standing access.

use std::collections::BTreeSet;

use super::Settings;
use super::plan::{Expected, Plan, Snapshot};
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::drift::{DriftAction, DriftKind, OpenDrift, Reapplied, Watched};
use crate::domain::event::EventKind;
use crate::domain::grant::{Certainty, EndCause};
use crate::domain::ids::GrantId;
use crate::domain::member::{MemberRecord, Owned, Phase, WriteKind};

/// Whether what was overwritten is added again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reapply {
    /// Whoever took it away is not fought: the grant ends.
    #[default]
    Never,
    /// With the marks of a login through SSO it is added again, a bounded number of times.
    Sso,
}

/// What is decided about the assignments that a plan found missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// The grants end.
    #[default]
    End,
    /// They are added again, as often as that is allowed for each grant.
    Again,
    /// An operator decides, because more members than this lost roles at once.
    Hold {
        /// The most members that are repaired at once.
        limit: u32,
    },
}

/// What one step changed in the roles of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overwritten {
    /// What is gone.
    pub gone: Vec<Assignment>,
    /// What is new.
    pub appeared: Vec<Assignment>,
}

/// Whether a read bears the marks of a login through SSO: against the read before it several roles changed, some of
/// them are gone, and the member still has roles. Somebody who takes everything away is not a login.
#[must_use]
pub fn overwritten(record: &MemberRecord, snapshot: &Snapshot) -> Option<Overwritten> {
    let before = record.last_seen.as_ref()?;
    if !snapshot.complete || !snapshot.shown || snapshot.assignments.is_empty() {
        return None;
    }
    // What our own calls may have changed since is no mark of anybody else.
    let ours = |assignment: &&Assignment| {
        record.owned.iter().any(|row: &Owned| {
            let sent_since = row.last_write.at >= before.at;
            let removing = row.last_write.kind == WriteKind::Remove;
            let touched = row.assignment == **assignment
                || (removing && assignment.is_neighbour_of(&row.assignment));
            touched && (sent_since || row.echo_until.is_some())
        })
    };
    let difference = |from: &BTreeSet<Assignment>, without: &BTreeSet<Assignment>| {
        let changed = from.difference(without).filter(|one| !ours(one));
        changed.cloned().collect::<Vec<_>>()
    };
    let gone = difference(&before.assignments, &snapshot.assignments);
    let appeared = difference(&snapshot.assignments, &before.assignments);
    (!gone.is_empty() && gone.len() + appeared.len() >= 2).then_some(Overwritten { gone, appeared })
}

impl Draft {
    /// Notes a difference: an event when it opens, and when something else is done about it.
    pub fn open_drift(
        &mut self,
        now: Timestamp,
        kind: DriftKind,
        assignment: &Assignment,
        action: DriftAction,
    ) {
        let open = self
            .record
            .drifts
            .iter_mut()
            .find(|open| open.kind == kind && open.assignment == *assignment);
        match open {
            Some(open) => {
                open.last_seen = now;
                if open.action == action {
                    return;
                }
                open.action = action;
            }
            None => self.record.drifts.push(OpenDrift {
                kind,
                assignment: assignment.clone(),
                first_seen: now,
                last_seen: now,
                action,
            }),
        }
        self.note(
            now,
            EventKind::Drift {
                kind: kind.as_str().to_owned(),
                assignment: assignment.to_string(),
                action: action.words().to_owned(),
            },
        );
    }

    /// Closes what the condition names, with an event for each.
    fn close_drifts(
        &mut self,
        now: Timestamp,
        mut over: impl FnMut(&MemberRecord, &OpenDrift) -> Option<&'static str>,
    ) {
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for open in std::mem::take(&mut self.record.drifts) {
            match over(&self.record, &open) {
                Some(outcome) => ended.push((open, outcome)),
                None => kept.push(open),
            }
        }
        self.record.drifts = kept;
        for (open, outcome) in ended {
            self.note(
                now,
                EventKind::DriftEnded {
                    kind: open.kind.as_str().to_owned(),
                    assignment: open.assignment.to_string(),
                    first_seen: open.first_seen,
                    outcome: outcome.to_owned(),
                },
            );
        }
    }

    /// What follows for grants whose access somebody else took away.
    pub(super) fn settle_missing(&mut self, plan: &Plan, now: Timestamp, settings: &Settings) {
        if plan.missing.is_empty() {
            return;
        }
        if let Verdict::Hold { limit } = self.verdict {
            for assignment in &plan.missing {
                self.open_drift(
                    now,
                    DriftKind::Missing,
                    assignment,
                    DriftAction::Held { limit },
                );
            }
            return;
        }
        let again = self.verdict == Verdict::Again;
        let mut spared = Vec::new();
        let reapplied = self.record.reapplied.clone();
        let times = |id: GrantId| {
            let known = reapplied.iter().find(|one| one.grant == id);
            known.map_or(0, |one| one.times)
        };
        self.each_grant(now, |grant| {
            let stripped = grant.expects_access(now)
                && grant
                    .assignments
                    .iter()
                    .any(|held| plan.missing.contains(&held.assignment));
            if !stripped {
                return false;
            }
            grant.externally_modified = true;
            if again && times(grant.id) < settings.reapply_limit {
                spared.push(grant.id);
                grant.certainty = Certainty::Unknown;
            } else {
                grant.begin_revoke(EndCause::Superseded, now);
            }
            true
        });
        for grant in spared {
            let known = self
                .record
                .reapplied
                .iter_mut()
                .find(|one| one.grant == grant);
            match known {
                Some(one) => one.times += 1,
                None => self.record.reapplied.push(Reapplied { grant, times: 1 }),
            }
        }
        let expected = Expected::of(&self.record, now);
        for assignment in &plan.missing {
            let wanted = expected.0.contains_key(assignment);
            if wanted && let Some(row) = self.record.owned_mut(assignment) {
                // As if it had never been seen: the next round adds it, with an intent of its own.
                row.seen = false;
                row.attempts = 0;
            }
            let action = if wanted {
                DriftAction::AddedAgain
            } else {
                DriftAction::GrantEnds
            };
            self.open_drift(now, DriftKind::Missing, assignment, action);
        }
    }

    /// Closes what no longer differs, and notices what reappears after its end.
    pub(super) fn settle_drifts(
        &mut self,
        plan: &Plan,
        snapshot: Option<&Snapshot>,
        now: Timestamp,
        settings: &Settings,
    ) {
        for assignment in &plan.resurrected {
            self.open_drift(
                now,
                DriftKind::Resurrected,
                assignment,
                DriftAction::RemovedAgain,
            );
        }
        if let Some(snapshot) = snapshot {
            self.watch(snapshot, now);
        }
        let expected = Expected::of(&self.record, now);
        let mut repaired = false;
        let there = |assignment: &Assignment, since: Timestamp| {
            snapshot.is_some_and(|snapshot| {
                snapshot.started_at >= since && snapshot.assignments.contains(assignment)
            })
        };
        self.close_drifts(now, |record, open| {
            let assignment = &open.assignment;
            let row = record.owned(assignment);
            match open.kind {
                DriftKind::Missing => {
                    let back = plan.present.contains(assignment)
                        || plan.covered.contains(assignment)
                        || row.is_none() && there(assignment, open.first_seen);
                    let live = row.is_some_and(|row| row.phase == Phase::Live);
                    if back {
                        repaired |= open.action == DriftAction::AddedAgain;
                        return Some("there again");
                    }
                    (!live && !expected.0.contains_key(assignment)).then_some("no longer wanted")
                }
                DriftKind::Resurrected => match row {
                    None => Some("gone"),
                    Some(_) if expected.0.contains_key(assignment) => Some("wanted again"),
                    Some(row) if row.phase != Phase::Live => Some("gone"),
                    Some(_) => None,
                },
                DriftKind::SurvivorMissing => {
                    let owed = record
                        .owned
                        .iter()
                        .flat_map(|row| &row.must_survive)
                        .any(|survivor| survivor.assignment == *assignment);
                    if plan.survived.contains(assignment)
                        || (!owed && there(assignment, open.first_seen))
                    {
                        return Some("there again");
                    }
                    let given_up = open.action == DriftAction::GivenUp;
                    let over =
                        open.last_seen + settings.watch.max(settings.bounds.request_lifetime);
                    if owed || (given_up && over > now) {
                        return None;
                    }
                    Some(if given_up {
                        "given up"
                    } else {
                        "no longer owed"
                    })
                }
                // Those are closed where they are noticed.
                DriftKind::Reappeared => None,
            }
        });
        if repaired {
            let at = now + settings.first_check;
            let check_at = &mut self.record.check_at;
            *check_at = Some(check_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Looks for what ended and is there again. It is reported for a while and never taken away.
    pub fn watch(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let MemberRecord { watched, owned, .. } = &mut self.record;
        let before = watched.len();
        let is_owned =
            |assignment: &Assignment| owned.iter().any(|row| row.assignment == *assignment);
        watched.retain(|watched| watched.until > now && !is_owned(&watched.assignment));
        self.changed |= watched.len() != before;
        let there: Vec<Assignment> = watched
            .iter()
            .filter(|watched| {
                snapshot.started_at > watched.gone_at
                    && snapshot.assignments.contains(&watched.assignment)
            })
            .map(|watched| watched.assignment.clone())
            .collect();
        for assignment in &there {
            self.open_drift(
                now,
                DriftKind::Reappeared,
                assignment,
                DriftAction::LeftAlone,
            );
        }
        self.close_drifts(now, |record, open| {
            if open.kind != DriftKind::Reappeared {
                return None;
            }
            let assignment = &open.assignment;
            if record.owned(assignment).is_some() {
                Some("given again by a grant")
            } else if !record
                .watched
                .iter()
                .any(|one| one.assignment == *assignment)
            {
                Some("no longer watched")
            } else if snapshot.complete && !snapshot.assignments.contains(assignment) {
                Some("gone")
            } else {
                None
            }
        });
    }

    /// Begins to watch what was closed.
    pub(super) fn watch_closed(
        &mut self,
        assignment: &Assignment,
        now: Timestamp,
        settings: &Settings,
    ) {
        let Some(Phase::Closing { gone_at, .. }) =
            self.record.owned(assignment).map(|row| row.phase)
        else {
            return;
        };
        let until = gone_at + settings.watch;
        if until <= now {
            return;
        }
        self.record
            .watched
            .retain(|watched| watched.assignment != *assignment);
        self.record.watched.push(Watched {
            assignment: assignment.clone(),
            gone_at,
            until,
        });
    }

    /// Forgets how often grants were added again that are no longer open.
    pub(super) fn forget_reapplied(&mut self) {
        let MemberRecord {
            grants, reapplied, ..
        } = &mut self.record;
        reapplied.retain(|one| {
            grants
                .iter()
                .any(|grant| grant.id == one.grant && !grant.state.is_ended())
        });
    }
}
