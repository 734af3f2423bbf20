//! Deciding about access that somebody else took away, and learning what removals do to neighbours.
//!
//! Owns when a login through SSO is believed, and when too many repairs at once stop for an operator. Never fights
//! for a single role that vanished alone.

use super::drift::{Reapply, Verdict, overwritten};
use super::pass::Reconciler;
use super::plan::{Plan, Snapshot};
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::drift::{DriftAction, DriftKind};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::member::{MemberRecord, Phase};

impl Reconciler {
    /// Whether missing access is added again, held, or the end of its grants.
    pub(super) fn judge_missing(
        &self,
        draft: &mut Draft,
        plan: &Plan,
        snapshot: Option<&Snapshot>,
        now: Timestamp,
    ) -> Verdict {
        let Some(snapshot) = snapshot.filter(|_| !plan.missing.is_empty()) else {
            return Verdict::End;
        };
        let marks = overwritten(&draft.record, snapshot);
        if let Some(marks) = &marks {
            self.observer.board().note_overwritten();
            let list = |assignments: &[crate::domain::assignment::Assignment]| {
                assignments.iter().map(ToString::to_string).collect()
            };
            let event = EventKind::RolesOverwritten {
                gone: list(&marks.gone),
                appeared: list(&marks.appeared),
            };
            draft.note(now, event);
        }
        if self.settings.reapply == Reapply::Never {
            return Verdict::End;
        }
        let actions: Vec<DriftAction> = plan
            .missing
            .iter()
            .filter_map(|assignment| draft.record.drift(DriftKind::Missing, assignment))
            .map(|open| open.action)
            .collect();
        if actions.contains(&DriftAction::Confirmed) {
            return Verdict::Again;
        }
        let max = self.settings.reapply_max_members;
        let held = actions.iter().find_map(|action| {
            if let DriftAction::Held { limit } = action {
                Some(*limit)
            } else {
                None
            }
        });
        match held {
            // The configuration allows more now than when this was held.
            Some(limit) if limit < max => Verdict::Again,
            Some(limit) => {
                self.observer.board().open_breaker();
                Verdict::Hold { limit }
            }
            None if marks.is_none() => Verdict::End,
            None => self.ask_breaker(draft, now, max),
        }
    }

    fn ask_breaker(&self, draft: &mut Draft, now: Timestamp, max: u32) -> Verdict {
        let board = self.observer.board();
        let was_open = board.is_breaker_open();
        let window = self.settings.reapply_window;
        if board.may_repair(&draft.record.key, now, max, window) {
            return Verdict::Again;
        }
        if !was_open {
            tracing::error!(
                integration = %self.integration,
                limit = max,
                "Roles of many members were overwritten at once; nothing more is added again until an operator \
                 confirms it with `latchkey drift --confirm`"
            );
            super::metrics::breaker(&self.integration, true);
            draft.audit.push(AuditEvent::integration(
                now,
                &self.integration,
                EventKind::Breaker {
                    action: "opened".to_owned(),
                    members: u64::from(max) + 1,
                    by: String::new(),
                    reason: String::new(),
                },
            ));
        }
        Verdict::Hold { limit: max }
    }

    /// What a read after a removal tells of removals in general.
    pub(super) fn learn_of_neighbours(
        &self,
        record: &MemberRecord,
        plan: &Plan,
        snapshot: Option<&Snapshot>,
    ) {
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.complete && snapshot.shown) else {
            return;
        };
        for row in &record.owned {
            let gone =
                matches!(row.phase, Phase::Closing { .. }) || plan.gone.contains(&row.assignment);
            for survivor in &row.must_survive {
                let kept = &survivor.assignment;
                let same_target = kept.target == row.assignment.target;
                if plan.restore.contains(kept) {
                    self.observer.board().note_removal(same_target, false);
                } else if gone
                    && survivor.restores == 0
                    && plan.survived.contains(kept)
                    && snapshot.assignments.contains(kept)
                {
                    self.observer.board().note_removal(same_target, true);
                }
            }
        }
    }
}
