//! Rebuilding what a ledger should know, from the witness and from the audit. Pure.
//!
//! Owns the two kinds of evidence, and which is the later word. Never takes for ours what the evidence does not say
//! is, and never ends access earlier than the evidence says.

use std::collections::{BTreeMap, BTreeSet};

use super::shapes::{ECHO, assignments_of, beneficiary, owned};
use super::story::Story;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::authority::{Closing, Review};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{CallerName, GrantId, RequestId};
use crate::domain::member::{
    Due, DueKind, LastWrite, MemberKey, MemberRecord, Phase, Subject, WriteKind, WriteOutcome,
};
use crate::domain::ttl::Ttl;
use crate::ports::ledger::StoredEvent;
use crate::ports::witness::Intent;

/// The caller of grants that stand for access whose grant is not known any more.
pub const RECOVERED_CALLER: &str = "latchkey-recovery";

fn recovered_caller() -> CallerName {
    CallerName::parse(RECOVERED_CALLER).expect("a constant that is well formed")
}

/// Takes assignments that the record does not know, or knows with an earlier end, over from intents. Access whose end
/// has not come gets a grant that stands for it. Answers the events; none when there was nothing to take over.
pub(super) fn take_over(
    record: &mut MemberRecord,
    intents: &[&Intent],
    now: Timestamp,
    mut entropy: impl FnMut() -> [u8; 10],
    source: &str,
) -> Vec<AuditEvent> {
    let mut audit = Vec::new();
    for intent in intents {
        match record.owned_mut(&intent.assignment) {
            Some(row) if row.must_end_by >= intent.must_end_by => continue,
            Some(row) => {
                row.must_end_by = intent.must_end_by;
                if row.phase != Phase::Live || row.last_write.kind == WriteKind::Remove {
                    // Given again after what the ledger knows of it.
                    row.last_write = LastWrite {
                        kind: WriteKind::Add,
                        at: now,
                        outcome: WriteOutcome::Unknown,
                    };
                    row.seen = false;
                }
                row.phase = Phase::Live;
                row.echo_until = row.echo_until.max(Some(now + ECHO));
            }
            None => {
                let (since, end) = (intent.at, intent.must_end_by);
                let mut row = owned(&intent.assignment, since, end, WriteOutcome::Unknown);
                // The intent is the first of perhaps several calls; the last may have been sent just now.
                row.echo_until = row.echo_until.max(Some(now + ECHO));
                record.owned.push(row);
            }
        }
        audit.push(AuditEvent::member(
            now,
            &record.key,
            EventKind::Recovered {
                assignment: intent.assignment.to_string(),
                must_end_by: intent.must_end_by,
                source: source.to_owned(),
            },
        ));
        for grant in &mut record.grants {
            bound(grant, intent);
        }
        if let Some(end) = intent.must_end_by.filter(|end| *end > now) {
            let id = GrantId::new(now, entropy());
            let grant = stand_in(id, &record.key, intent, end, now);
            let accepted = EventKind::GrantAccepted {
                state: grant.state.name().to_owned(),
                assignments: vec![intent.assignment.to_string()],
                duration_s: grant.duration.seconds(),
                requester: String::new(),
                justification: grant.justification.clone(),
                policies: Vec::new(),
            };
            audit.push(AuditEvent::grant(now, &grant, accepted));
            record.grants.push(grant);
        }
    }
    audit
}

/// What was given for a grant that waits for it has had its end since it was sent, although the record does not know.
fn bound(grant: &mut Grant, intent: &Intent) {
    if let GrantState::Activating {
        since,
        must_end_by: None,
    } = grant.state
        && assignments_of(grant).contains(&intent.assignment)
    {
        grant.bound_before_send(since.max(intent.at));
        grant.version += 1;
    }
}

/// A grant for access that is known to last until `end`, by a caller of its own.
fn stand_in(
    id: GrantId,
    key: &MemberKey,
    intent: &Intent,
    end: Timestamp,
    now: Timestamp,
) -> Grant {
    let seconds = (end - intent.at).num_seconds().clamp(1, Ttl::MAX_SECONDS);
    Grant {
        id,
        integration: key.integration.clone(),
        subject: key.subject.clone(),
        caller: recovered_caller(),
        request_id: RequestId::parse(format!("recovered-{id}")).expect("an id is printable ASCII"),
        beneficiary: beneficiary(&key.subject),
        requester: String::new(),
        justification: "recovered: its grant is not known any more".to_owned(),
        assignments: vec![GrantedAssignment {
            assignment: intent.assignment.clone(),
            holding: Holding::Owned,
        }],
        duration: Ttl::from_seconds(seconds).expect("clamped to its bounds"),
        starts_at: None,
        not_after: Some(end),
        created_at: now,
        state: GrantState::Active {
            activated_at: intent.at,
            expires_at: end,
        },
        version: 1,
        certainty: Certainty::Unknown,
        externally_modified: false,
        invited: false,
        attempts: 0,
        last_error: None,
        verified_at: None,
        removal_sent_at: None,
        authority: None,
    }
}

/// One assignment of a rebuilt ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuiltAssignment {
    /// Whose.
    pub key: MemberKey,
    /// Which.
    pub assignment: Assignment,
    /// Until when it stays at the latest.
    pub must_end_by: Option<Timestamp>,
    /// When a pass removes it: now where no grant wants it any more.
    pub due: Timestamp,
    /// `audit`, `witness`, or `audit+witness`.
    pub source: &'static str,
}

/// What could be rebuilt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Members with their grants and what is owned, ready for an empty ledger.
    pub members: Vec<MemberRecord>,
    /// Every assignment that is owned, in order of member.
    pub assignments: Vec<RebuiltAssignment>,
    /// Reviews that emergency grants owe, also those of grants that have ended; closed ones stand for used tokens.
    pub reviews: Vec<Review>,
    /// What was known and is not rebuilt, in words.
    pub left_out: Vec<String>,
    /// Events that were read.
    pub events: usize,
    /// Whether witness and audit agree on every assignment, so that nobody has to look.
    pub is_proven: bool,
}

/// Rebuilds members from an audit export and from the witness, as far as each is there. Where both are, the witness is
/// the later word on what is ours.
#[must_use]
pub fn rebuild(
    events: impl IntoIterator<Item = StoredEvent>,
    witness: Option<&[Intent]>,
    now: Timestamp,
    mut entropy: impl FnMut() -> [u8; 10],
) -> Rebuilt {
    let mut stories: BTreeMap<MemberKey, Story> = BTreeMap::new();
    let mut rebuilt = Rebuilt::default();
    let mut closed: BTreeMap<GrantId, Closing> = BTreeMap::new();
    for StoredEvent { event, .. } in events {
        rebuilt.events += 1;
        if let (EventKind::ReviewClosed { by, note }, Some(id)) = (&event.kind, event.grant_id) {
            let closing = Closing {
                at: event.at,
                by: by.clone(),
                caller: event.caller.clone().unwrap_or_else(recovered_caller),
                note: note.clone(),
            };
            closed.entry(id).or_insert(closing);
        }
        let (Some(integration), Some(subject)) = (&event.integration, &event.subject) else {
            continue;
        };
        let Ok(subject) = Subject::parse(subject) else {
            continue;
        };
        let key = MemberKey {
            integration: integration.clone(),
            subject,
        };
        if let EventKind::MemberJoined { email, .. } = &event.kind {
            join(&mut stories, &key, email, event.at);
            continue;
        }
        stories
            .entry(key.clone())
            .or_insert_with(|| Story::new(key))
            .take(&event);
    }
    let has_audit = rebuilt.events > 0;
    let mut open: BTreeMap<MemberKey, Vec<&Intent>> = BTreeMap::new();
    for intent in witness.unwrap_or_default() {
        let key = intent.key();
        stories
            .entry(key.clone())
            .or_insert_with(|| Story::new(key.clone()));
        open.entry(key).or_default().push(intent);
    }
    rebuilt.is_proven = has_audit && witness.is_some();
    for (key, mut story) in stories {
        for mut review in story.reviews.drain(..) {
            review.closed = closed.remove(&review.grant_id);
            rebuilt.reviews.push(review);
        }
        let mut mine = open.remove(&key).unwrap_or_default();
        story.leave_out_given_up(&mut mine, &mut rebuilt.left_out);
        story.leave_out_waiting(&mut rebuilt.left_out);
        if witness.is_some() {
            story.leave_out_ended(&mine, &mut rebuilt.left_out);
        }
        let by_audit: BTreeSet<Assignment> = story
            .record
            .owned
            .iter()
            .map(|row| row.assignment.clone())
            .collect();
        let taken = take_over(&mut story.record, &mine, now, &mut entropy, "witness");
        rebuilt.is_proven &= taken.is_empty();
        let mut record = story.record;
        // What was given up is watched for.
        if record.is_quiet() && record.evidence.forgotten.is_empty() {
            continue;
        }
        for row in &record.owned {
            let witnessed = mine.iter().any(|one| one.assignment == row.assignment);
            let wanted = record
                .grants
                .iter()
                .filter(|grant| assignments_of(grant).contains(&row.assignment))
                .filter_map(Grant::ends_at)
                .max();
            rebuilt.assignments.push(RebuiltAssignment {
                key: key.clone(),
                assignment: row.assignment.clone(),
                must_end_by: row.must_end_by,
                due: wanted.map_or(now, |end| end.max(now)),
                source: match (by_audit.contains(&row.assignment), witnessed) {
                    (true, true) => "audit+witness",
                    (true, false) => "audit",
                    (false, _) => "witness",
                },
            });
        }
        record.due = Some(Due {
            at: now,
            kind: DueKind::Verify,
            weight: 0,
        });
        rebuilt.members.push(record);
    }
    rebuilt.is_proven &= rebuilt.left_out.is_empty();
    rebuilt
}

/// The grants of an address move to the member who joined.
fn join(stories: &mut BTreeMap<MemberKey, Story>, into: &MemberKey, email: &str, at: Timestamp) {
    let Ok(subject) = Subject::parse(&format!("email:{email}")) else {
        return;
    };
    let from = MemberKey {
        integration: into.integration.clone(),
        subject,
    };
    let Some(waited) = stories.remove(&from) else {
        return;
    };
    stories
        .entry(into.clone())
        .or_insert_with(|| Story::new(into.clone()))
        .join(waited, at);
}
