//! An organization that remembers who gave what, answers late, lies, refuses and breaks off on command.
//!
//! Owns upstream's side of the scenarios. Never moves time but by the milliseconds that its calls take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;

use super::traces::Trace;
use crate::domain::Timestamp;
use crate::domain::assignment::{Assignment, ProjectType, Target};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{Email, InvitationToken, OrganizationId, ProjectId, UserId};
use crate::domain::member::WriteKind;
use crate::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember, pick};
use crate::ports::provider::{
    Claim, Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, ReadError, ReadResult, Refusal, Turn,
};
use crate::ports::{AccessProvider, Clock};
use crate::runtime::clock::ManualClock;

/// Stops a pass for ever at the n-th point where it could be killed.
#[derive(Debug)]
pub(super) struct Crash(AtomicI64);

impl Default for Crash {
    fn default() -> Self {
        Self(AtomicI64::new(-1))
    }
}

impl Crash {
    /// The pass that comes to its `points`-th point from now stays there.
    pub(super) fn after(&self, points: i64) {
        self.0.store(points, Ordering::SeqCst);
    }

    pub(super) fn never(&self) {
        self.after(-1);
    }

    pub(super) async fn point(&self) {
        if self.0.load(Ordering::SeqCst) >= 0 && self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            pending::<()>().await;
        }
    }
}

/// When a mutation whose answer is lost takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lands {
    Never,
    Now,
    After(TimeDelta),
}

/// What happens to one mutation instead of doing and answering it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Unknown(Lands),
    /// Answers "done" and does nothing.
    Lie,
    Refuse(Refusal),
    /// The key is exchanged before the call leaves.
    Rotate,
}

/// What a DELETE compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delete {
    Exactly,
    /// Every entry of the role on the target, whatever its application roles.
    IgnoringApplicationRoles,
    /// Every entry of the role.
    WholeRole,
}

/// Who put an entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Standing,
    Ours,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) since: Timestamp,
    pub(super) email: Email,
    pub(super) held: BTreeMap<Assignment, Origin>,
}

/// One call, as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Add(Vec<Assignment>),
    Remove(Vec<Assignment>),
    Invite,
    CancelInvitation,
    Invitations,
}

type People = BTreeMap<UserId, Person>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) people: People,
    past: Vec<(Timestamp, People)>,
    pub(super) late: Vec<(Timestamp, WriteKind, UserId, Vec<Assignment>)>,
    late_invitations: Vec<(Timestamp, ObservedInvitation)>,
    /// Mutations that name one of these targets are refused as a whole.
    pub(super) hidden: BTreeSet<Target>,
    pub(super) poisoned: BTreeSet<Assignment>,
    pub(super) deny_all: bool,
    pub(super) delete: Delete,
    /// Reads show what was so long ago.
    pub(super) lag: TimeDelta,
    pub(super) adds: VecDeque<Option<Fault>>,
    pub(super) removes: VecDeque<Option<Fault>>,
    pub(super) invites: VecDeque<Option<Fault>>,
    pub(super) reads: VecDeque<Option<&'static str>>,
    pub(super) filtered: bool,
    pub(super) reads_down: bool,
    /// Whether the rate budget has room for removals only.
    pub(super) only_removals: bool,
    /// Whether removals are sent and never answered.
    pub(super) removals_hang: bool,
    /// How long everybody waits for a turn; nobody does when zero.
    pub(super) turn_takes: TimeDelta,
    /// Additions that came in a turn that was waited for.
    pub(super) added_in_turn: usize,
    /// Removals that came as repeats of what was refused.
    pub(super) removed_again: usize,
    pub(super) invitations: Vec<ObservedInvitation>,
    pub(super) calls: Vec<(Timestamp, Call)>,
    pub(super) status: KeyStatus,
    /// Entries given by others that a call of ours named for removal.
    pub(super) violations: Vec<String>,
    tokens: u32,
    pub(super) pin: u64,
}

#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    clock: ManualClock,
    pub(super) crash: Crash,
    pub(super) trace: Trace,
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.trace.end(&self.look().calls);
        }
    }
}

fn evidence() -> CallEvidence {
    CallEvidence::default()
}

impl World {
    pub(super) fn new(clock: ManualClock) -> Self {
        let state = State {
            people: People::new(),
            past: Vec::new(),
            late: Vec::new(),
            late_invitations: Vec::new(),
            hidden: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            deny_all: false,
            delete: Delete::Exactly,
            lag: TimeDelta::zero(),
            adds: VecDeque::new(),
            removes: VecDeque::new(),
            invites: VecDeque::new(),
            reads: VecDeque::new(),
            filtered: false,
            reads_down: false,
            only_removals: false,
            removals_hang: false,
            turn_takes: TimeDelta::zero(),
            added_in_turn: 0,
            removed_again: 0,
            invitations: Vec::new(),
            calls: Vec::new(),
            status: KeyStatus {
                loaded: true,
                sees_owners: Some(true),
                ..KeyStatus::default()
            },
            violations: Vec::new(),
            tokens: 0,
            pin: 1,
        };
        Self {
            state: Mutex::new(state),
            clock,
            crash: Crash::default(),
            trace: Trace::default(),
        }
    }

    /// The world as it is now, late effects included.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no test panics while it looks");
        let now = self.clock.now();
        state.land(now);
        state
    }

    /// Changes the world as an administrator would.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.look();
        let answer = change(&mut state);
        let now = self.clock.now();
        state.keep(now);
        answer
    }

    fn tick(&self) {
        self.clock.advance(TimeDelta::milliseconds(1));
    }

    async fn mutate(&self, kind: WriteKind, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.crash.point().await;
        self.tick();
        let outcome = {
            let now = self.clock.now();
            let mut state = self.look();
            let outcome = state.mutate(kind, user, set, now);
            state.keep(now);
            outcome
        };
        self.tick();
        self.crash.point().await;
        outcome
    }
}

impl State {
    fn keep(&mut self, now: Timestamp) {
        let people = self.people.clone();
        self.past.push((now, people));
    }

    fn land(&mut self, now: Timestamp) {
        self.late.sort_by_key(|(at, ..)| *at);
        while self.late.first().is_some_and(|(at, ..)| *at <= now) {
            let (at, kind, user, set) = self.late.remove(0);
            self.apply(kind, &user, &set);
            self.keep(at);
        }
        let (due, later) = std::mem::take(&mut self.late_invitations)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.late_invitations = later;
        for (_, invitation) in due {
            self.invitations.push(invitation);
        }
    }

    fn apply(&mut self, kind: WriteKind, user: &UserId, set: &[Assignment]) {
        let delete = self.delete;
        let Some(person) = self.people.get_mut(user) else {
            return;
        };
        for one in set {
            match kind {
                WriteKind::Add => {
                    person.held.entry(one.clone()).or_insert(Origin::Ours);
                }
                WriteKind::Remove => person.held.retain(|held, _| match delete {
                    Delete::Exactly => held != one,
                    Delete::IgnoringApplicationRoles => {
                        (&held.role, &held.target) != (&one.role, &one.target)
                    }
                    Delete::WholeRole => held.role != one.role,
                }),
            }
        }
    }

    fn mutate(
        &mut self,
        kind: WriteKind,
        user: &UserId,
        set: &[Assignment],
        now: Timestamp,
    ) -> Outcome<()> {
        let call = match kind {
            WriteKind::Add => Call::Add(set.to_vec()),
            WriteKind::Remove => Call::Remove(set.to_vec()),
        };
        self.calls.push((now, call));
        if kind == WriteKind::Remove {
            for one in set {
                let person = self.people.get(user);
                if person.and_then(|person| person.held.get(one)) == Some(&Origin::Standing) {
                    self.violations
                        .push(format!("{now}: {one} of {user} is standing"));
                }
            }
        }
        let script = match kind {
            WriteKind::Add => &mut self.adds,
            WriteKind::Remove => &mut self.removes,
        };
        let forbidden = || Refusal::Forbidden {
            code: "root.unauthorized".to_owned(),
        };
        match script.pop_front().flatten() {
            Some(Fault::Refuse(refusal)) => return Outcome::Refused(refusal, evidence()),
            Some(Fault::Rotate) => {
                self.pin += 1;
                return Outcome::Refused(Refusal::KeyRotated, evidence());
            }
            Some(Fault::Lie) => return Outcome::Done((), evidence()),
            Some(Fault::Unknown(lands)) => {
                match lands {
                    Lands::Never => {}
                    Lands::Now => self.apply(kind, user, set),
                    Lands::After(delay) => {
                        self.late
                            .push((now + delay, kind, user.clone(), set.to_vec()));
                    }
                }
                return Outcome::Unknown(evidence());
            }
            None => {}
        }
        if self.deny_all || set.iter().any(|one| self.hidden.contains(&one.target)) {
            return Outcome::Refused(forbidden(), evidence());
        }
        if kind == WriteKind::Add && set.iter().any(|one| self.poisoned.contains(one)) {
            let code = "role_assignments.invalid".to_owned();
            return Outcome::Refused(Refusal::Invalid { code }, evidence());
        }
        let before = self.owners();
        self.apply(kind, user, set);
        // With stale reads nobody could know, and the last may also go in other ways.
        if self.lag.is_zero() && before > 0 && self.owners() == 0 {
            self.violations
                .push(format!("{now}: {user} was the last owner"));
        }
        Outcome::Done((), evidence())
    }

    fn owners(&self) -> usize {
        let is_owner = |person: &&Person| {
            let mut held = person.held.keys();
            held.any(|held| held.role == "organization-admin")
        };
        self.people.values().filter(is_owner).count()
    }

    fn shown(&self, now: Timestamp) -> &People {
        let then = now - self.lag;
        self.past
            .iter()
            .rev()
            .find(|(at, _)| *at <= then)
            .or(self.past.first())
            .map_or(&self.people, |(_, people)| people)
    }

    pub(super) fn invitation(&mut self, email: &Email, now: Timestamp) -> ObservedInvitation {
        self.tokens += 1;
        ObservedInvitation {
            token: InvitationToken::parse(format!("t{}", self.tokens)).expect("well formed"),
            email: email.clone(),
            created_at: now,
            expires_at: now + TimeDelta::hours(72),
            expired: false,
        }
    }
}

fn read_error(code: &str) -> (ReadError, CallEvidence) {
    let code = code.to_owned();
    (ReadError::Unavailable { code }, evidence())
}

#[async_trait]
impl AccessProvider for World {
    fn pin(&self) -> KeyPin {
        KeyPin(self.look().pin)
    }

    fn key_status(&self) -> KeyStatus {
        self.look().status.clone()
    }

    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn organization(&self, _: Priority) -> ReadResult<Organization> {
        let id = OrganizationId::parse("1").expect("well formed");
        let name = String::new();
        Ok((Organization { id, name }, evidence()))
    }

    async fn read_members(&self, interest: &Interest, _: Priority) -> ReadResult<MembersRead> {
        self.crash.point().await;
        self.tick();
        let now = self.clock.now();
        let read = {
            let mut state = self.look();
            state.calls.push((now, Call::Read));
            if state.reads_down {
                return Err(read_error("http_503"));
            }
            if let Some(code) = state.reads.pop_front().flatten() {
                return Err(read_error(code));
            }
            let shown = state.shown(now);
            let owners = shown
                .values()
                .filter(|person| {
                    person
                        .held
                        .keys()
                        .any(|held| held.role == "organization-admin")
                })
                .count();
            let filtered = state.filtered || owners == 0;
            let visible = shown
                .iter()
                .filter(|_| !filtered)
                .map(|(user, person)| ObservedMember {
                    user_id: user.clone(),
                    member_since: person.since,
                    email: Some(person.email.clone()),
                    name: String::new(),
                    assignments: person.held.keys().cloned().collect(),
                });
            let (members, recognized) = pick(interest, visible);
            MembersRead {
                started_at: now,
                finished_at: now,
                incomplete: filtered.then_some(Incomplete::KeyIsNotOwner),
                members,
                total: shown.len(),
                owners: if filtered { 0 } else { owners },
                recognized,
            }
        };
        self.tick();
        self.crash.point().await;
        Ok((read, evidence()))
    }

    async fn add(&self, _: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        if self.look().only_removals {
            let code = "budget".to_owned();
            return Outcome::Refused(Refusal::NotSent { code }, evidence());
        }
        self.mutate(WriteKind::Add, user, set).await
    }

    async fn remove_again(&self, pin: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.look().removed_again += 1;
        self.remove(pin, user, set).await
    }

    async fn turn(&self, claim: Claim) -> Option<Turn> {
        let takes = self.look().turn_takes;
        if !takes.is_zero() {
            self.clock.advance(takes);
            return Some(Turn::holding(()));
        }
        if !self.look().only_removals {
            return Some(Turn::free());
        }
        (claim.priority == Priority::Revoke).then(|| Turn::holding(()))
    }

    async fn add_in_turn(
        &self,
        _: Turn,
        _: KeyPin,
        user: &UserId,
        set: &[Assignment],
    ) -> Outcome<()> {
        self.look().added_in_turn += 1;
        self.mutate(WriteKind::Add, user, set).await
    }

    async fn remove(&self, _: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        if self.look().removals_hang {
            let call = (self.clock.now(), Call::Remove(set.to_vec()));
            self.look().calls.push(call);
            return pending().await;
        }
        self.mutate(WriteKind::Remove, user, set).await
    }

    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        PlannedCall {
            method: String::new(),
            path: String::new(),
            body: String::new(),
        }
    }

    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        self.tick();
        let mut state = self.look();
        state.calls.push((self.clock.now(), Call::Invitations));
        Ok((state.invitations.clone(), evidence()))
    }

    async fn invite(&self, _: KeyPin, email: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        self.crash.point().await;
        self.tick();
        let outcome = {
            let now = self.clock.now();
            let mut state = self.look();
            state.calls.push((now, Call::Invite));
            let invitation = state.invitation(email, now);
            if state.invitations.iter().any(|open| open.email == *email) {
                let code = "organization.invitation_already_exists".to_owned();
                Outcome::Refused(Refusal::Invalid { code }, evidence())
            } else {
                match state.invites.pop_front().flatten() {
                    Some(Fault::Refuse(refusal)) => Outcome::Refused(refusal, evidence()),
                    Some(Fault::Unknown(lands)) => {
                        match lands {
                            Lands::Never => {}
                            Lands::Now => state.invitations.push(invitation),
                            Lands::After(delay) => {
                                let created_at = now + delay;
                                let late = ObservedInvitation {
                                    created_at,
                                    ..invitation
                                };
                                state.late_invitations.push((created_at, late));
                            }
                        }
                        Outcome::Unknown(evidence())
                    }
                    Some(Fault::Lie | Fault::Rotate) => Outcome::Done(invitation, evidence()),
                    None => {
                        state.invitations.push(invitation.clone());
                        Outcome::Done(invitation, evidence())
                    }
                }
            }
        };
        self.crash.point().await;
        outcome
    }

    async fn cancel_invitation(&self, _: KeyPin, token: &InvitationToken) -> Outcome<()> {
        self.crash.point().await;
        self.tick();
        let outcome = {
            let mut state = self.look();
            state.calls.push((self.clock.now(), Call::CancelInvitation));
            let before = state.invitations.len();
            state.invitations.retain(|open| open.token != *token);
            if state.invitations.len() < before {
                Outcome::Done((), evidence())
            } else {
                let code = "organization.invitation_not_found".to_owned();
                Outcome::Refused(Refusal::NotFound { code }, evidence())
            }
        };
        self.crash.point().await;
        outcome
    }

    async fn deployments(&self, _: Priority) -> ReadResult<Vec<Deployment>> {
        Ok((Vec::new(), evidence()))
    }

    async fn projects(&self, _: ProjectType, _: Priority) -> ReadResult<Vec<Project>> {
        Ok((Vec::new(), evidence()))
    }

    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        _: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        Ok((Vec::new(), evidence()))
    }
}
