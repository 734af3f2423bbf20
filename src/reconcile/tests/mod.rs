//! Passes against a world with faults, with time moved by hand.
//!
//! Owns the bench that the scenarios stand on: people, grants, a driver that runs whatever is due. Never sleeps.

mod accord;
mod crash;
mod decisions;
mod drift;
mod facts;
mod faults;
mod gated;
mod held;
mod hold;
mod invitations;
mod keys;
mod known_ahead;
mod lawful;
mod lead;
mod ledger;
mod life;
mod members;
mod neighbours;
mod outage;
mod owners;
mod random;
mod reads;
mod receipts;
mod refusals;
mod service_level;
mod sights;
mod sweeps;
mod traces;
mod unasked;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use futures::FutureExt;

use super::settle::Draft;
use super::{Observer, Reconciler, Settings};
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, Target};
use crate::domain::event::EventKind;
use crate::domain::grant::{Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{
    ApplicationRole, CallerName, DeploymentId, Email, GrantId, IntegrationName, RequestId, UserId,
};
use crate::domain::member::{Due, DueKind, MemberKey, MemberRecord, Subject};
use crate::domain::request::Fingerprint;
use crate::domain::ttl::Ttl;
use crate::ports::ledger::{Accept, EventFilter, LedgerError, MemberCommit};
use crate::ports::{Clock, Ledger, Wake};
use crate::runtime::clock::ManualClock;
use crate::store::MemoryLedger;
use gated::Gated;
use world::{Call, Origin, Person, World};

const HOUR: i64 = 3600;

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: &MemberKey, _: Due) {}
}

/// `role` on the deployment `id`; `"all"` is every deployment, and organization roles take no id.
fn on(role: &str, id: &str) -> Assignment {
    let target = match (role, id) {
        ("organization-admin" | "billing-admin", _) => Target::Organization,
        (_, "all") => Target::AllDeployments,
        (_, id) => Target::Deployment {
            id: DeploymentId::parse(id).expect("well formed"),
        },
    };
    Assignment {
        role: role.to_owned(),
        target,
        application_roles: ApplicationRoles::Mapped,
    }
}

fn viewer(id: &str) -> Assignment {
    on("deployment-viewer", id)
}

fn editor(id: &str) -> Assignment {
    on("deployment-editor", id)
}

/// The same entry with its own application role.
fn as_role(assignment: Assignment, name: &str) -> Assignment {
    let role = ApplicationRole::parse(name).expect("well formed");
    Assignment {
        application_roles: ApplicationRoles::Exactly(BTreeSet::from([role])),
        ..assignment
    }
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("well formed")
}

fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}

/// What a grant asks for.
#[derive(Debug, Clone)]
struct Ask {
    subject: Subject,
    wants: Vec<Assignment>,
    seconds: i64,
    starts_at: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

impl Ask {
    fn new(name: &str, wants: &[Assignment], seconds: i64) -> Self {
        Self {
            subject: Subject::Member(user(name)),
            wants: wants.to_vec(),
            seconds,
            starts_at: None,
            not_after: None,
        }
    }

    fn invited(email: &str, wants: &[Assignment], seconds: i64) -> Self {
        Self {
            subject: Subject::Invitee(Email::parse(email).expect("well formed")),
            ..Self::new("nobody", wants, seconds)
        }
    }
}

/// One connector on one world.
#[derive(Debug)]
struct Bench {
    clock: ManualClock,
    world: Arc<World>,
    memory: Arc<MemoryLedger>,
    ledger: Arc<Gated>,
    reconciler: Reconciler,
    settings: Settings,
    passes: usize,
    accepted: u32,
}

fn main_integration() -> IntegrationName {
    IntegrationName::parse("main").expect("well formed")
}

impl Bench {
    /// An organization with an owner, `boss`, and two members without roles, `ada` and `bob`.
    fn new() -> Self {
        let clock = ManualClock::default();
        let world = Arc::new(World::new(clock.clone()));
        let memory = Arc::new(MemoryLedger::new());
        let ledger = Arc::new(Gated::new(memory.clone(), world.clone()));
        let settings = Settings::default();
        let reconciler = build(&clock, &world, &ledger, settings);
        let bench = Self {
            clock,
            world,
            memory,
            ledger,
            reconciler,
            settings,
            passes: 0,
            accepted: 0,
        };
        bench.joins("boss");
        bench.joins("ada");
        bench.joins("bob");
        bench.gives("boss", &on("organization-admin", ""));
        bench
    }

    /// Kills the process and starts another on the same ledger.
    fn restart(&mut self) {
        self.world.crash.never();
        self.reconciler = build(&self.clock, &self.world, &self.ledger, self.settings);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn joins(&self, name: &str) {
        let since = self.now();
        let email = Email::parse(format!("{name}@example.com")).expect("well formed");
        self.world.change(|world| {
            let person = Person {
                since,
                email,
                held: std::collections::BTreeMap::new(),
            };
            world.people.insert(user(name), person);
        });
    }

    fn leaves(&self, name: &str) {
        self.world.change(|world| world.people.remove(&user(name)));
    }

    /// An administrator gives standing access.
    fn gives(&self, name: &str, assignment: &Assignment) {
        self.world.change(|world| {
            let person = world.people.get_mut(&user(name)).expect("a member");
            person.held.insert(assignment.clone(), Origin::Standing);
        });
    }

    /// An administrator takes something away.
    fn takes(&self, name: &str, assignment: &Assignment) {
        self.world.change(|world| {
            let person = world.people.get_mut(&user(name)).expect("a member");
            person.held.remove(assignment);
        });
    }

    fn held(&self, name: &str) -> BTreeSet<Assignment> {
        let world = self.world.look();
        let person = world.people.get(&user(name));
        person
            .map(|person| person.held.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn holds(&self, name: &str, assignment: &Assignment) -> bool {
        self.held(name).contains(assignment)
    }

    fn accept_of(&mut self, ask: &Ask) -> Accept {
        self.accepted += 1;
        let now = self.now();
        let state = match (&ask.subject, ask.starts_at) {
            (Subject::Invitee(_), _) => GrantState::AwaitingMember {
                invited_at: now,
                lapses_at: now + TimeDelta::hours(72),
            },
            (_, Some(starts_at)) => GrantState::Scheduled { starts_at },
            _ => GrantState::Activating {
                since: now,
                must_end_by: None,
            },
        };
        let due = Due {
            at: ask.starts_at.unwrap_or(now),
            kind: DueKind::Grant,
            weight: 0,
        };
        let grant = Grant {
            id: GrantId::new(now, self.clock.entropy()),
            integration: main_integration(),
            subject: ask.subject.clone(),
            caller: CallerName::parse("caller").expect("well formed"),
            request_id: RequestId::parse(format!("r{}", self.accepted)).expect("well formed"),
            beneficiary: ask.subject.to_string(),
            requester: String::new(),
            justification: String::new(),
            assignments: ask
                .wants
                .iter()
                .map(|assignment| GrantedAssignment {
                    assignment: assignment.clone(),
                    holding: Holding::Undecided,
                })
                .collect(),
            duration: Ttl::from_seconds(ask.seconds).expect("in range"),
            starts_at: ask.starts_at,
            not_after: ask.not_after,
            created_at: now,
            state,
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
        Accept {
            grant,
            fingerprint: Fingerprint([0; 32]),
            remember_until: now + TimeDelta::days(30),
            due,
            audit: Vec::new(),
        }
    }

    fn ask(&mut self, ask: &Ask) -> GrantId {
        let accept = self.accept_of(ask);
        let id = accept.grant.id;
        ready(self.memory.accept(accept)).expect("accepted");
        id
    }

    fn grant(&mut self, name: &str, wants: &[Assignment], seconds: i64) -> GrantId {
        self.ask(&Ask::new(name, wants, seconds))
    }

    fn get(&self, id: GrantId) -> Grant {
        ready(self.memory.grant(id))
            .expect("readable")
            .expect("accepted before")
    }

    fn state(&self, id: GrantId) -> &'static str {
        self.get(id).state.name()
    }

    fn is_active(&self, id: GrantId) -> bool {
        matches!(self.get(id).state, GrantState::Active { .. })
    }

    fn expires_at(&self, id: GrantId) -> Timestamp {
        let GrantState::Active { expires_at, .. } = self.get(id).state else {
            panic!("not active: {}", self.get(id));
        };
        expires_at
    }

    /// The cause that a grant ended with; panics when it has not ended.
    fn cause(&self, id: GrantId) -> EndCause {
        let GrantState::Ended { cause, .. } = self.get(id).state else {
            panic!("not ended: {}", self.get(id));
        };
        cause
    }

    fn edit(&self, id: GrantId, mut change: impl FnMut(&mut Grant)) {
        let key = self.key_of(&self.get(id).subject);
        let mut record = ready(self.memory.member(&key)).expect("readable");
        for grant in &mut record.grants {
            if grant.id == id {
                change(grant);
            }
        }
        let now = self.now();
        let due = Due {
            at: now,
            kind: DueKind::Remove,
            weight: 0,
        };
        record.due = Some(record.due.map_or(due, |earlier| earlier.min(due)));
        let Draft { record, audit, .. } = Draft::new(record);
        let request = None;
        ready(self.memory.commit(MemberCommit {
            record,
            audit,
            request,
        }))
        .expect("nobody in between");
    }

    fn revoke(&self, id: GrantId) {
        let now = self.now();
        self.edit(id, |grant| {
            let by = "ada".to_owned();
            let reason = String::new();
            grant.begin_revoke(EndCause::Revoked { by, reason }, now);
        });
    }

    fn extend(&self, id: GrantId, by: i64) -> Timestamp {
        let now = self.now();
        let mut until = now;
        self.edit(id, |grant| {
            let by = Ttl::from_seconds(by).expect("in range");
            until = grant.extend(by, now).expect("active");
        });
        until
    }

    fn key_of(&self, subject: &Subject) -> MemberKey {
        MemberKey {
            integration: main_integration(),
            subject: subject.clone(),
        }
    }

    fn record(&self, name: &str) -> MemberRecord {
        let key = self.key_of(&Subject::Member(user(name)));
        ready(self.memory.member(&key)).expect("readable")
    }

    /// What the periodic sweep does for somebody who differs: the next pass reads at once.
    fn look_at(&self, name: &str) {
        let mut record = self.record(name);
        let now = self.now();
        let due = Due {
            at: now,
            kind: DueKind::Look,
            weight: 0,
        };
        record.check_at = Some(now);
        record.due = Some(record.due.map_or(due, |earlier| earlier.min(due)));
        let commit = MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        };
        ready(self.memory.commit(commit)).expect("nobody in between");
    }

    /// Runs one pass. Answers whether it came to an end, by itself or by an error of the ledger.
    fn pass(&mut self, key: &MemberKey) -> bool {
        self.passes += 1;
        let passed = self.reconciler.pass(key).now_or_never();
        self.world.trace.note(self.now(), format!("{passed:?}"));
        match passed {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(LedgerError::Unavailable { .. }))
                if self.ledger.read_only.load(Ordering::SeqCst) =>
            {
                true
            }
            // Nobody knows whether it was written: the next pass reads what is there.
            Some(Err(LedgerError::CommitUnknown { .. })) => true,
            Some(Err(error)) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }

    /// Runs whatever is due until nothing is before `until`, and leaves the clock there. A pass that a crash point
    /// stops is dropped, and the process starts anew.
    fn run_until(&mut self, until: Timestamp) {
        let mut busy = (self.now(), 0);
        loop {
            let now = self.now();
            if now >= until {
                return;
            }
            let due = ready(self.memory.due(&main_integration(), now, 100)).expect("readable");
            for member in &due {
                if !self.pass(&member.key) {
                    self.restart();
                }
            }
            if now - busy.0 > seconds(10) {
                busy = (now, 0);
            }
            busy.1 += due.len();
            assert!(busy.1 < 400, "passes come back without pause: {due:?}");
            let next = ready(self.memory.next_due(&main_integration(), now)).expect("readable");
            if !due.is_empty() && self.ledger.read_only.load(Ordering::SeqCst) {
                // The scheduler comes back to what failed after a pause.
                self.clock.advance(seconds(1));
            }
            let now = self.now();
            let again = ready(self.memory.due(&main_integration(), now, 1)).expect("readable");
            if again.is_empty() {
                let wake = next.map_or(until, |next| next.min(until));
                self.clock.advance(wake - now);
            } else if due.is_empty() {
                self.clock.advance(TimeDelta::milliseconds(1));
            }
        }
    }

    fn run(&mut self, seconds: i64) {
        self.run_until(self.now() + TimeDelta::seconds(seconds));
    }

    /// What was sent, without the reads.
    fn mutations(&self) -> Vec<Call> {
        let world = self.world.look();
        world
            .calls
            .iter()
            .map(|(_, call)| call.clone())
            .filter(|call| matches!(call, Call::Add(_) | Call::Remove(_)))
            .collect()
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        let world = self.world.look();
        world.calls.iter().filter(|(_, call)| wanted(call)).count()
    }

    fn reads(&self) -> usize {
        self.count(|call| *call == Call::Read)
    }

    fn removals(&self) -> usize {
        self.count(|call| matches!(call, Call::Remove(_)))
    }

    fn events(&self) -> Vec<EventKind> {
        let filter = EventFilter::default();
        ready(self.memory.events(&filter, 0, 100_000))
            .expect("readable")
            .into_iter()
            .map(|stored| stored.event.kind)
            .collect()
    }

    fn drift(&self, wanted: &str) -> usize {
        let events = self.events();
        let found =
            |event: &&EventKind| matches!(event, EventKind::Drift { kind, .. } if kind == wanted);
        events.iter().filter(found).count()
    }

    fn violations(&self) -> Vec<String> {
        self.world.look().violations.clone()
    }

    /// Long after everything ended: nothing is owned, owed or due, and nothing of ours is left upstream.
    fn assert_clean(&self, names: &[&str]) {
        for name in names {
            let record = self.record(name);
            assert_eq!(record.owned, [], "{name} still owns");
            assert!(record.grants.is_empty(), "{name}: {:?}", record.grants);
            assert_eq!(record.due, None, "{name} is still due");
            let world = self.world.look();
            if let Some(person) = world.people.get(&user(name)) {
                let ours: Vec<_> = person
                    .held
                    .iter()
                    .filter(|(_, origin)| **origin == Origin::Ours)
                    .collect();
                assert!(ours.is_empty(), "{name} still holds {ours:?}");
            }
        }
        assert_eq!(self.violations(), [""; 0], "standing access was touched");
    }
}

fn build(
    clock: &ManualClock,
    world: &Arc<World>,
    ledger: &Arc<Gated>,
    settings: Settings,
) -> Reconciler {
    let observer = Observer::new(
        main_integration(),
        world.clone(),
        ledger.clone(),
        Arc::new(clock.clone()),
    );
    Reconciler::new(
        main_integration(),
        world.clone(),
        Arc::new(observer),
        ledger.clone(),
        Arc::new(clock.clone()),
        Arc::new(NoWake),
        settings,
    )
}

/// The answer of a ledger that never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory never waits")
}
