//! Giving up ownership of an assignment whose removal still owes something to its neighbours.
//!
//! Owns that what is owed does not vanish with the row that owes it. Pure. Never takes anything away, and never takes a
//! neighbour for safe: a read that proves it has taken it from what is owed already.

use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::drift::{DriftAction, DriftKind};
use crate::domain::member::{Owned, Survivor};

impl Draft {
    /// Takes an assignment out of what is ours. Neighbours that its removal may have taken along go over to another row
    /// of the same role, which sees to them; where there is none they are reported, for somebody to give back.
    pub fn disown(&mut self, assignment: &Assignment, now: Timestamp) {
        let Some(at) = self
            .record
            .owned
            .iter()
            .position(|row| row.assignment == *assignment)
        else {
            return;
        };
        let given_up = self.record.owned.remove(at);
        self.changed = true;
        let mut owed = given_up.must_survive.clone();
        owed.retain(
            |survivor| match self.record.owned_mut(&survivor.assignment) {
                // Ours itself: as if it had never been seen, so that it is added where it is missing.
                Some(own) => {
                    own.seen = false;
                    false
                }
                None => true,
            },
        );
        let heir = self
            .record
            .owned
            .iter_mut()
            .find(|row| row.assignment.is_neighbour_of(assignment));
        if let Some(heir) = heir {
            inherit(heir, &given_up, owed);
            return;
        }
        for survivor in owed {
            let lost = &survivor.assignment;
            self.open_drift(now, DriftKind::SurvivorMissing, lost, DriftAction::GivenUp);
        }
    }
}

fn inherit(heir: &mut Owned, from: &Owned, owed: Vec<Survivor>) {
    if owed.is_empty() {
        return;
    }
    // The removal can still land, and take the heir along as well.
    heir.removal_echo_until = heir.removal_echo_until.max(from.removal_echo_until);
    heir.echo_until = heir.echo_until.max(from.removal_echo_until);
    for survivor in owed {
        // A read from before that removal tells nothing of it.
        let restored_at = survivor.restored_at.max(Some(from.last_write.at));
        let mut all = heir.must_survive.iter_mut();
        match all.find(|known| known.assignment == survivor.assignment) {
            Some(known) => known.restored_at = known.restored_at.max(restored_at),
            None => heir.must_survive.push(Survivor {
                restored_at,
                ..survivor
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::event::EventKind;
    use crate::domain::ids::IntegrationName;
    use crate::domain::member::{
        LastSeen, MemberKey, MemberRecord, Subject, WriteKind, WriteOutcome,
    };
    use crate::reconcile::Settings;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
    }

    fn viewer(id: &str) -> Assignment {
        Assignment::parse(&format!("deployment-viewer on deployment/{id}")).expect("well formed")
    }

    /// Ours is `a` and `more`; the removal of `a`, sent at second 20, may have taken `n` along.
    fn removing(more: &[&str]) -> Draft {
        let key = MemberKey {
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::parse("user:ada").expect("well formed"),
        };
        let settings = Settings::default();
        let mut draft = Draft::new(MemberRecord::new(key));
        let mut ours: Vec<Assignment> = more.iter().map(|id| viewer(id)).collect();
        ours.push(viewer("a"));
        draft.intend(WriteKind::Add, &ours, at(0), &settings);
        seen(&mut draft, 10, &["a", "n"]);
        let before = draft.record.clone();
        let removed = [viewer("a")];
        draft.intend(WriteKind::Remove, &removed, at(20), &settings);
        let (kind, done) = (WriteKind::Remove, WriteOutcome::Done);
        draft.sent(kind, done, &before, &removed, at(21), &settings);
        for row in &mut draft.record.owned {
            row.echo_until = None;
            row.removal_echo_until = None;
            row.seen = true;
        }
        draft.audit.clear();
        draft
    }

    fn seen(draft: &mut Draft, at_second: i64, ids: &[&str]) {
        draft.record.last_seen = Some(LastSeen {
            at: at(at_second),
            assignments: ids.iter().map(|id| viewer(id)).collect::<BTreeSet<_>>(),
        });
    }

    fn reported(draft: &Draft) -> usize {
        let lost = |kind: &EventKind| {
            matches!(kind, EventKind::Drift { kind, assignment, .. }
                if kind == "survivor_missing" && *assignment == viewer("n").to_string())
        };
        draft.audit.iter().filter(|one| lost(&one.kind)).count()
    }

    #[test]
    fn a_neighbour_that_may_be_lost_is_reported_when_nothing_of_ours_can_put_it_back() {
        let mut draft = removing(&[]);
        draft.disown(&viewer("a"), at(30));
        assert_eq!(draft.record.owned, []);
        assert_eq!(reported(&draft), 1);
        assert_eq!(draft.record.drifts[0].action, DriftAction::GivenUp);
    }

    #[test]
    fn a_read_that_came_too_early_to_prove_anything_saves_no_report() {
        let mut draft = removing(&[]);
        seen(&mut draft, 22, &["n"]);
        draft.disown(&viewer("a"), at(30));
        assert_eq!(reported(&draft), 1);
    }

    #[test]
    fn another_row_of_the_role_sees_to_what_is_owed() {
        let mut draft = removing(&["b"]);
        let row = draft.record.owned_mut(&viewer("a")).expect("ours");
        row.removal_echo_until = Some(at(600));
        draft.disown(&viewer("a"), at(30));
        assert_eq!(reported(&draft), 0);
        let heir = draft.record.owned(&viewer("b")).expect("ours");
        let [survivor] = heir.must_survive.as_slice() else {
            panic!("{heir:?}");
        };
        assert_eq!(survivor.assignment, viewer("n"));
        assert_eq!(
            survivor.restored_at,
            Some(at(21)),
            "older reads tell nothing"
        );
        assert_eq!(heir.removal_echo_until, Some(at(600)));
        assert_eq!(heir.echo_until, Some(at(600)));
    }

    #[test]
    fn what_is_ours_and_may_be_lost_is_looked_at_as_if_it_were_new() {
        let mut draft = removing(&["b"]);
        let row = draft.record.owned_mut(&viewer("a")).expect("ours");
        row.must_survive[0].assignment = viewer("b");
        draft.disown(&viewer("a"), at(30));
        let own = draft.record.owned(&viewer("b")).expect("ours");
        assert!(!own.seen);
        assert_eq!(own.must_survive, []);
    }

    #[test]
    fn what_the_other_row_owes_already_is_owed_once_and_by_a_read_after_both_removals() {
        // The other row's own removal put it back before, later, or never.
        for (known, expected) in [(None, 21), (Some(15), 21), (Some(40), 40)] {
            let mut draft = removing(&["b"]);
            let heir = draft.record.owned_mut(&viewer("b")).expect("ours");
            heir.must_survive = vec![Survivor {
                assignment: viewer("n"),
                restored_at: known.map(at),
                restores: 3,
            }];
            let row = draft.record.owned_mut(&viewer("a")).expect("ours");
            row.must_survive.push(Survivor {
                assignment: viewer("m"),
                restored_at: None,
                restores: 0,
            });
            draft.disown(&viewer("a"), at(30));
            let heir = draft.record.owned(&viewer("b")).expect("ours");
            let owed: Vec<_> = heir
                .must_survive
                .iter()
                .map(|one| (one.assignment.clone(), one.restored_at, one.restores))
                .collect();
            assert_eq!(
                owed,
                [
                    (viewer("n"), Some(at(expected)), 3),
                    (viewer("m"), Some(at(21)), 0)
                ]
            );
        }
    }
}
