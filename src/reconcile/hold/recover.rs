//! Rebuilding what a ledger should know, from the witness and from the audit. Pure.
//!
//! Owns what each event says about ownership. Never takes for ours what the evidence does not say is, and never
//! ends access earlier than the evidence says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::authority::{Approval, BreakGlass, Closing, Review};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{CallerName, GrantId, RequestId};
use crate::domain::member::{
    Due, DueKind, LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
    WriteOutcome,
};
use crate::domain::ttl::Ttl;
use crate::ports::ledger::StoredEvent;
use crate::ports::witness::Intent;

/// The caller of grants that stand for access whose grant is not known any more.
pub const RECOVERED_CALLER: &str = "latchkey-recovery";

fn recovered_caller() -> CallerName {
    CallerName::parse(RECOVERED_CALLER).expect("a constant that is well formed")
}

/// How long after an intent its call may still land.
const ECHO: TimeDelta = TimeDelta::minutes(10);

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
                row.phase = Phase::Live;
            }
            None => record.owned.push(owned(
                &intent.assignment,
                intent.at,
                intent.must_end_by,
                WriteOutcome::Unknown,
            )),
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

fn owned(
    assignment: &Assignment,
    at: Timestamp,
    must_end_by: Option<Timestamp>,
    outcome: WriteOutcome,
) -> Owned {
    Owned {
        assignment: assignment.clone(),
        phase: Phase::Live,
        since: at,
        must_end_by,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at,
            outcome,
        },
        seen: false,
        echo_until: Some(at + ECHO),
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
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

/// An approval as the audit names it: `NAME (PERSON)`.
fn approval(who: &str, id: &str, at: Timestamp) -> Approval {
    let named = who.split_once(" (");
    let named = named.and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?)));
    let (approver, person) = named.unwrap_or((who, who));
    Approval {
        approver: approver.to_owned(),
        person: person.to_owned(),
        id: id.to_owned(),
        // Used up by a request that no ledger will take twice.
        token: String::new(),
        until: at,
    }
}

fn beneficiary(subject: &Subject) -> String {
    match subject {
        Subject::Member(user) => user.to_string(),
        Subject::Invitee(email) => email.to_string(),
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

/// One subject while its events are read.
#[derive(Debug)]
struct Story {
    record: MemberRecord,
    /// Grants that wait for a start or a person that the events do not name.
    waiting: BTreeSet<GrantId>,
    /// Assignments that the last intent made ours; a refusal takes them back.
    fresh: Vec<Assignment>,
    /// Neighbours that are about to be put back; they are not ours.
    restoring: BTreeSet<Assignment>,
    /// Reviews that were opened by grants of this subject.
    reviews: Vec<Review>,
}

impl Story {
    fn new(key: MemberKey) -> Self {
        Self {
            record: MemberRecord::new(key),
            waiting: BTreeSet::new(),
            fresh: Vec::new(),
            restoring: BTreeSet::new(),
            reviews: Vec::new(),
        }
    }

    fn grant(&mut self, id: Option<GrantId>) -> Option<&mut Grant> {
        self.record
            .grants
            .iter_mut()
            .find(|grant| Some(grant.id) == id)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of many kinds of events only some are of interest"
    )]
    fn take(&mut self, event: &AuditEvent) {
        let at = event.at;
        match &event.kind {
            EventKind::GrantAccepted {
                state,
                assignments,
                duration_s,
                requester,
                justification,
                policies: _,
            } => {
                let (Some(id), Some(caller), Ok(duration)) = (
                    event.grant_id,
                    event.caller.clone(),
                    Ttl::from_seconds(*duration_s),
                ) else {
                    return;
                };
                if state != "activating" && state != "active" {
                    self.waiting.insert(id);
                }
                let key = &self.record.key;
                let grant = Grant {
                    id,
                    integration: key.integration.clone(),
                    subject: key.subject.clone(),
                    caller,
                    request_id: RequestId::parse(format!("adopted-{id}"))
                        .expect("an id is printable ASCII"),
                    beneficiary: beneficiary(&key.subject),
                    requester: requester.clone(),
                    justification: justification.clone(),
                    assignments: parsed(assignments)
                        .into_iter()
                        .map(|assignment| GrantedAssignment {
                            assignment,
                            holding: Holding::Undecided,
                        })
                        .collect(),
                    duration,
                    starts_at: None,
                    not_after: None,
                    created_at: at,
                    state: if state == "active" {
                        GrantState::Active {
                            activated_at: at,
                            expires_at: at + duration.delta(),
                        }
                    } else {
                        GrantState::Activating {
                            since: at,
                            must_end_by: None,
                        }
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
                };
                self.record.grants.push(grant);
            }
            EventKind::GrantChanged {
                to,
                cause,
                expires_at,
                ..
            } => self.changed(event, to, cause.as_ref(), *expires_at),
            EventKind::Approved { approvers, ids, .. } => {
                if let Some(grant) = self.grant(event.grant_id) {
                    let approvals = approvers
                        .iter()
                        .zip(ids)
                        .map(|(who, id)| approval(who, id, at));
                    let authority = grant.authority.get_or_insert_default();
                    authority.approvals.extend(approvals);
                }
            }
            EventKind::BreakGlassUsed {
                key,
                id,
                reason,
                token,
                until,
            } => {
                let used = BreakGlass {
                    key: key.clone(),
                    id: id.clone(),
                    token: token.clone(),
                    reason: reason.clone(),
                    until: until.unwrap_or(at),
                };
                if let Some(grant) = self.grant(event.grant_id) {
                    grant.authority.get_or_insert_default().break_glass = Some(used);
                    let owed = Review::owed(grant);
                    self.reviews.extend(owed);
                }
            }
            EventKind::GrantExtended { to, .. } => {
                let Some(grant) = self.grant(event.grant_id) else {
                    return;
                };
                if let GrantState::Active { expires_at, .. } = &mut grant.state {
                    *expires_at = *to;
                }
                let wanted: Vec<Assignment> = assignments_of(grant);
                for row in &mut self.record.owned {
                    if wanted.contains(&row.assignment) {
                        row.must_end_by = row.must_end_by.max(Some(*to));
                    }
                }
            }
            EventKind::CallIntended {
                write, assignments, ..
            } => self.intended(*write, &parsed(assignments), at),
            EventKind::CallEnded {
                write,
                assignments,
                outcome,
                ..
            } => {
                let fresh = std::mem::take(&mut self.fresh);
                if outcome == "refused" {
                    if *write == WriteKind::Add {
                        self.record
                            .owned
                            .retain(|row| !fresh.contains(&row.assignment));
                    }
                    return;
                }
                for assignment in parsed(assignments) {
                    if let Some(row) = self.record.owned_mut(&assignment) {
                        row.last_write = LastWrite {
                            kind: *write,
                            at,
                            outcome: if outcome == "done" {
                                WriteOutcome::Done
                            } else {
                                WriteOutcome::Unknown
                            },
                        };
                    }
                }
            }
            EventKind::Observed {
                present,
                gone,
                standing,
                ..
            } => {
                for assignment in parsed(present) {
                    if let Some(row) = self.record.owned_mut(&assignment) {
                        row.seen = true;
                    }
                }
                for assignment in parsed(gone) {
                    self.closing(&assignment, at);
                }
                let standing = parsed(standing);
                for held in self
                    .record
                    .grants
                    .iter_mut()
                    .flat_map(|grant| &mut grant.assignments)
                {
                    if standing.contains(&held.assignment) {
                        held.holding = Holding::Standing;
                    }
                }
            }
            EventKind::SecondLook { assignment } => {
                let gone = Assignment::parse(assignment).ok();
                self.record
                    .owned
                    .retain(|row| Some(&row.assignment) != gone.as_ref());
            }
            EventKind::Drift {
                kind,
                assignment,
                action,
            } => {
                let Ok(assignment) = Assignment::parse(assignment) else {
                    return;
                };
                if kind == "resurrected"
                    && let Some(row) = self.record.owned_mut(&assignment)
                {
                    row.phase = Phase::Live;
                } else if kind == "survivor_missing" && action == "put back as it was" {
                    self.restoring.insert(assignment);
                }
            }
            EventKind::MemberLeft { .. } => {
                let all: Vec<Assignment> = self
                    .record
                    .owned
                    .iter()
                    .map(|row| row.assignment.clone())
                    .collect();
                for assignment in all {
                    self.closing(&assignment, at);
                }
            }
            EventKind::Recovered {
                assignment,
                must_end_by,
                ..
            } => {
                if let Ok(assignment) = Assignment::parse(assignment)
                    && self.record.owned(&assignment).is_none()
                {
                    let row = owned(&assignment, at, *must_end_by, WriteOutcome::Unknown);
                    self.record.owned.push(row);
                }
            }
            _ => {}
        }
    }

    fn changed(
        &mut self,
        event: &AuditEvent,
        to: &str,
        cause: Option<&EndCause>,
        expires_at: Option<Timestamp>,
    ) {
        let at = event.at;
        if let Some(id) = event.grant_id {
            self.waiting.remove(&id);
        }
        if to == "ended" {
            self.record
                .grants
                .retain(|grant| Some(grant.id) != event.grant_id);
            return;
        }
        let Some(grant) = self.grant(event.grant_id) else {
            return;
        };
        match to {
            "activating" => {
                grant.state = GrantState::Activating {
                    since: at,
                    must_end_by: None,
                };
            }
            "active" => {
                grant.verified_at = grant.verified_at.or(Some(at));
                grant.state = GrantState::Active {
                    activated_at: at,
                    expires_at: expires_at.unwrap_or(at),
                };
            }
            "revoking" => {
                grant.state = GrantState::Revoking {
                    since: at,
                    cause: cause.cloned().unwrap_or(EndCause::Expired),
                };
            }
            _ => {
                let id = grant.id;
                self.waiting.insert(id);
            }
        }
    }

    fn intended(&mut self, write: WriteKind, assignments: &[Assignment], at: Timestamp) {
        self.fresh.clear();
        for assignment in assignments {
            if write == WriteKind::Add && self.restoring.remove(assignment) {
                continue;
            }
            let mut ends_at = None;
            if write == WriteKind::Add {
                for grant in &mut self.record.grants {
                    let wants = grant
                        .assignments
                        .iter_mut()
                        .find(|held| held.assignment == *assignment);
                    let Some(held) = wants else { continue };
                    held.holding = Holding::Owned;
                    grant.bound_before_send(at);
                    ends_at = ends_at.max(grant.ends_at());
                }
            }
            let last_write = LastWrite {
                kind: write,
                at,
                outcome: WriteOutcome::InFlight,
            };
            match self.record.owned_mut(assignment) {
                Some(row) => {
                    row.last_write = last_write;
                    row.echo_until = Some(at + ECHO);
                    if write == WriteKind::Add {
                        row.phase = Phase::Live;
                        row.seen = false;
                        row.must_end_by = row.must_end_by.max(ends_at);
                    }
                }
                None if write == WriteKind::Add => {
                    self.fresh.push(assignment.clone());
                    let row = owned(assignment, at, ends_at, WriteOutcome::InFlight);
                    self.record.owned.push(row);
                }
                None => {}
            }
        }
    }

    fn closing(&mut self, assignment: &Assignment, at: Timestamp) {
        if let Some(row) = self.record.owned_mut(assignment) {
            row.phase = Phase::Closing {
                gone_at: at,
                look_at: at,
            };
        }
    }
}

fn parsed(texts: &[String]) -> Vec<Assignment> {
    texts
        .iter()
        .filter_map(|text| Assignment::parse(text).ok())
        .collect()
}

fn assignments_of(grant: &Grant) -> Vec<Assignment> {
    grant
        .assignments
        .iter()
        .map(|held| held.assignment.clone())
        .collect()
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
            let caller = event.caller.clone().unwrap_or_else(recovered_caller);
            let (at, by, note) = (event.at, by.clone(), note.clone());
            closed.entry(id).or_insert(Closing {
                at,
                by,
                caller,
                note,
            });
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
        rebuilt
            .reviews
            .extend(story.reviews.drain(..).map(|review| Review {
                closed: closed.remove(&review.grant_id),
                ..review
            }));
        let mine = open.remove(&key).unwrap_or_default();
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
        if record.is_quiet() {
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
    let Some(mut waited) = stories.remove(&from) else {
        return;
    };
    let story = stories
        .entry(into.clone())
        .or_insert_with(|| Story::new(into.clone()));
    for grant in &mut waited.record.grants {
        grant.subject = into.subject.clone();
        grant.state = GrantState::Activating {
            since: at,
            must_end_by: None,
        };
    }
    story.record.grants.append(&mut waited.record.grants);
    story.reviews.append(&mut waited.reviews);
}

impl Story {
    /// Grants whose start or person is not in the events cannot be rebuilt: they gave nothing yet.
    fn leave_out_waiting(&mut self, left_out: &mut Vec<String>) {
        let waiting = std::mem::take(&mut self.waiting);
        let invitee = matches!(self.record.key.subject, Subject::Invitee(_));
        self.record.grants.retain(|grant| {
            let waits = invitee || waiting.contains(&grant.id);
            if waits {
                left_out.push(format!(
                    "grant {} for {} had not begun: ask for it again",
                    grant.id, grant.beneficiary
                ));
            }
            !waits
        });
    }

    /// The witness is newer than the audit: what it does not hold open any more is over, and so is what wanted it.
    fn leave_out_ended(&mut self, open: &[&Intent], left_out: &mut Vec<String>) {
        let is_open =
            |assignment: &Assignment| open.iter().any(|intent| intent.assignment == *assignment);
        let key = self.record.key.clone();
        let mut over = Vec::new();
        self.record.owned.retain(|row| {
            let kept = is_open(&row.assignment);
            if !kept {
                over.push(row.assignment.clone());
                left_out.push(format!(
                    "{} of {key}: the witness does not hold it open",
                    row.assignment
                ));
            }
            kept
        });
        self.record.grants.retain(|grant| {
            !grant
                .assignments
                .iter()
                .any(|held| over.contains(&held.assignment))
        });
    }
}
