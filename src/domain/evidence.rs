//! What a member aggregate remembers for receipts and for its operators.
//!
//! Owns the evidence of what is ours now, the proposals to give something up, and what was given up. Never decides about
//! access.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::ids::GrantId;
use super::receipt::{GivenUp, Look, Receipt, Sighting, Trail};

/// What is remembered of a grant that has not ended, for its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantTrail {
    /// Which grant.
    pub id: GrantId,
    /// What the member held before anything was added for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Sighting>,
    /// The end that was last promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When its removal became due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Times its end was moved.
    #[serde(default)]
    pub extensions: u32,
}

/// A proposal to give an assignment up, waiting for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Which.
    pub assignment: Assignment,
    /// Who proposes, as told by the caller.
    pub by: String,
    /// Who proposes, as proven to us; `None` where nobody had to prove anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Until when somebody else can confirm it.
    pub expires_at: Timestamp,
}

/// An assignment that was given up and is watched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub assignment: Assignment,
    /// When.
    pub at: Timestamp,
    /// Who proposed it.
    pub by: String,
    /// Who confirmed it.
    pub confirmed_by: String,
    /// Why.
    pub reason: String,
    /// When it was last reported as still there.
    #[serde(default)]
    pub reported_at: Option<Timestamp>,
}

/// What a member aggregate remembers for receipts and for its operators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Of assignments that are ours, or that a grant which has not ended names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trails: Vec<Trail>,
    /// Of grants that have not ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantTrail>,
    /// Receipts that are written and still owe a second look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Receipt>,
    /// Proposals to give something up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<Proposal>,
    /// What was given up and is watched for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<Forgotten>,
    /// Receipts to write with the next commit. Like grants that ended, they leave the aggregate with it.
    #[serde(skip)]
    pub outbox: Vec<Receipt>,
}

impl Evidence {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The trail of an assignment.
    #[must_use]
    pub fn trail(&self, assignment: &Assignment) -> Option<&Trail> {
        self.trails
            .iter()
            .find(|trail| trail.assignment == *assignment)
    }

    /// The trail of an assignment, begun where there is none.
    pub fn trail_mut(&mut self, assignment: &Assignment) -> &mut Trail {
        let known = self
            .trails
            .iter()
            .position(|trail| trail.assignment == *assignment);
        let index = known.unwrap_or_else(|| {
            self.trails.push(Trail::new(assignment.clone()));
            self.trails.len() - 1
        });
        &mut self.trails[index]
    }

    /// What is remembered of a grant.
    #[must_use]
    pub fn grant(&self, id: GrantId) -> Option<&GrantTrail> {
        self.grants.iter().find(|grant| grant.id == id)
    }

    /// What is remembered of a grant, begun where there is nothing.
    pub fn grant_mut(&mut self, id: GrantId) -> &mut GrantTrail {
        let known = self.grants.iter().position(|grant| grant.id == id);
        let index = known.unwrap_or_else(|| {
            self.grants.push(GrantTrail {
                id,
                before: None,
                expires_at: None,
                due_at: None,
                extensions: 0,
            });
            self.grants.len() - 1
        });
        &mut self.grants[index]
    }

    /// The proposal to give an assignment up that still counts at `now`.
    #[must_use]
    pub fn proposal(&self, assignment: &Assignment, now: Timestamp) -> Option<&Proposal> {
        self.proposals
            .iter()
            .find(|proposal| proposal.assignment == *assignment && proposal.expires_at > now)
    }

    /// What is known of an assignment that was given up.
    #[must_use]
    pub fn forgotten(&self, assignment: &Assignment) -> Option<&Forgotten> {
        self.forgotten
            .iter()
            .find(|forgotten| forgotten.assignment == *assignment)
    }

    /// Ownership ends without a removal: on its trail, and on receipts that still wait for it.
    pub fn give_up(&mut self, assignment: &Assignment, how: &GivenUp) {
        self.proposals
            .retain(|proposal| proposal.assignment != *assignment);
        self.trail_mut(assignment).given_up = Some(how.clone());
        for receipt in &mut self.open {
            let mut changed = false;
            for line in &mut receipt.lines {
                if line.trail.assignment == *assignment && line.trail.look.is_open() {
                    line.fate = how.fate();
                    line.trail.given_up = Some(how.clone());
                    line.trail.look = Look::NotOwed;
                    changed = true;
                }
            }
            if changed {
                self.outbox.push(receipt.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::grant::EndCause;
    use crate::domain::ids::{CallerName, IntegrationName, RequestId, UserId};
    use crate::domain::member::Subject;
    use crate::domain::receipt::{Fate, Line};
    use crate::domain::ttl::Ttl;
    use chrono::TimeDelta;

    #[test]
    fn a_proposal_counts_for_its_assignment_until_it_expires() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().expect("an instant");
        let one = Assignment::parse("deployment-viewer on deployment/a").expect("well formed");
        let other = Assignment::parse("deployment-viewer on deployment/b").expect("well formed");
        let mut evidence = Evidence::default();
        evidence.proposals.push(Proposal {
            assignment: one.clone(),
            by: "ada".to_owned(),
            identity: None,
            reason: "the deployment is gone".to_owned(),
            at: now,
            expires_at: now + TimeDelta::hours(1),
        });
        let counts = |assignment, after| evidence.proposal(assignment, now + after).is_some();
        assert!(counts(&one, TimeDelta::minutes(59)));
        assert!(!counts(&one, TimeDelta::hours(1)));
        assert!(!counts(&one, TimeDelta::hours(2)));
        assert!(!counts(&other, TimeDelta::zero()));
    }

    /// A receipt of a grant of these, all of them seen gone and to be looked at again.
    fn waiting(now: Timestamp, number: u8, assignments: &[&Assignment]) -> Receipt {
        let lines = assignments.iter().map(|assignment| {
            let mut trail = Trail::new((*assignment).clone());
            trail.look = Look::Owed { from: now };
            Line {
                fate: Fate::Removed,
                trail,
            }
        });
        Receipt {
            grant_id: GrantId::new(now, [number; 10]),
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::Member(UserId::parse("1").expect("well formed")),
            caller: CallerName::parse("local").expect("well formed"),
            request_id: RequestId::parse("r").expect("well formed"),
            beneficiary: "1".to_owned(),
            requester: "ada".to_owned(),
            justification: String::new(),
            duration: Ttl::from_seconds(60).expect("a minute"),
            starts_at: None,
            not_after: None,
            created_at: now,
            verified_at: Some(now),
            extensions: 0,
            due_at: Some(now),
            ended_at: now,
            cause: EndCause::Expired,
            before: None,
            after: None,
            lines: lines.collect(),
            membership_outlives: false,
            externally_modified: false,
        }
    }

    #[test]
    fn what_is_given_up_is_told_to_the_receipts_that_wait_for_it_and_to_no_other() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().expect("an instant");
        let one = Assignment::parse("deployment-viewer on deployment/a").expect("well formed");
        let other = Assignment::parse("deployment-viewer on deployment/b").expect("well formed");
        let proposal = |assignment: &Assignment| Proposal {
            assignment: assignment.clone(),
            by: "ada".to_owned(),
            identity: None,
            reason: String::new(),
            at: now,
            expires_at: now + TimeDelta::hours(1),
        };
        let forgotten = |assignment: &Assignment| Forgotten {
            assignment: assignment.clone(),
            at: now,
            by: "ada".to_owned(),
            confirmed_by: "bob".to_owned(),
            reason: String::new(),
            reported_at: None,
        };
        let mut evidence = Evidence {
            proposals: vec![proposal(&one), proposal(&other)],
            forgotten: vec![forgotten(&other)],
            open: vec![waiting(now, 1, &[&one, &other]), waiting(now, 2, &[&other])],
            ..Evidence::default()
        };
        let mut closed = waiting(now, 3, &[&one]);
        closed.lines[0].trail.look = Look::Done { at: now };
        evidence.open.push(closed.clone());
        assert!(evidence.forgotten(&one).is_none());
        assert_eq!(
            evidence.forgotten(&other).map(|found| &found.assignment),
            Some(&other)
        );
        let how = GivenUp::Adopted {
            by: "ada".to_owned(),
            at: now,
            reason: String::new(),
        };
        evidence.give_up(&one, &how);
        assert!(evidence.proposal(&one, now).is_none(), "decided");
        assert!(evidence.proposal(&other, now).is_some());
        let given_up: Vec<_> = evidence
            .trails
            .iter()
            .map(|trail| (&trail.assignment, trail.given_up.as_ref()))
            .collect();
        assert_eq!(given_up, [(&one, Some(&how))]);
        let told: Vec<GrantId> = evidence.outbox.iter().map(|told| told.grant_id).collect();
        assert_eq!(told, [evidence.open[0].grant_id]);
        let [mine, neighbour] = evidence.open[0].lines.as_slice() else {
            panic!("two lines");
        };
        assert_eq!((mine.fate, mine.trail.look), (how.fate(), Look::NotOwed));
        assert_eq!(neighbour.fate, Fate::Removed, "it is still watched");
        assert!(neighbour.trail.look.is_open());
        assert_eq!(
            evidence.open[2], closed,
            "what was seen gone twice stays so"
        );
    }
}
