//! A storm: many members lose access in one instant, against a limit of calls a second.
//!
//! Owns the eleventh invariant: removals go in the order that leaves the least power open for the least time. Their
//! risk-weighted lateness is compared with that of the best order of the same calls (Smith's rule: highest weight
//! first).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use latchkey::domain::assignment::{ApplicationRoles, Assignment, ProjectType, Target};
use latchkey::domain::event::CallEvidence;
use latchkey::domain::ids::{
    CallerName, Email, InvitationToken, OrganizationId, ProjectId, RequestId, UserId,
};
use latchkey::domain::member::WriteKind;
use latchkey::domain::observation::{Interest, MembersRead, ObservedMember, pick};
use latchkey::domain::request::Principal;
use latchkey::domain::ttl::Ttl;
use latchkey::elastic::limiter::{Feedback, Limiter, LimiterOptions};
use latchkey::ports::provider::{
    Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, ReadResult,
};
use latchkey::ports::{AccessProvider, Clock, Ledger, Wake};
use latchkey::reconcile::{Observer, Reconciler, Settings};
use latchkey::scheduler::driver::{Driver, Limits, Waker};
use latchkey::service::{Details, GrantAsk, IntegrationParts, Service, Wait};
use latchkey::store::MemoryLedger;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cast::integration;
use super::clock::{Dice, MINUTE, Ms, SECOND, SimClock, sleep};
use super::process::rules;

/// Members that lose access at once.
const MEMBERS: usize = 150;
/// When they do.
const END: Ms = 3 * MINUTE;
/// Calls in a window of a second.
const LIMIT: u32 = 10;
/// How much worse than the best order the order may be.
const RATIO: f64 = 1.05;

/// An organization without faults that counts its calls.
#[derive(Debug)]
struct Plain {
    clock: Arc<SimClock>,
    limiter: Limiter,
    state: Mutex<BTreeMap<UserId, BTreeSet<Assignment>>>,
    /// When each removal was done.
    gone: Mutex<BTreeMap<UserId, Ms>>,
}

impl Plain {
    async fn call(&self, priority: Priority) {
        let permit = self.limiter.acquire(priority).await;
        sleep(5).await;
        let storm = self.clock.elapsed() > END - 20 * SECOND;
        permit.answered(Feedback {
            limit: storm.then_some(LIMIT),
            remaining: None,
            interval: storm.then_some(Duration::from_secs(1)),
            ..Feedback::default()
        });
    }
}

fn evidence() -> CallEvidence {
    CallEvidence::default()
}

#[async_trait]
impl AccessProvider for Plain {
    fn pin(&self) -> KeyPin {
        KeyPin(1)
    }

    fn key_status(&self) -> KeyStatus {
        KeyStatus::default()
    }

    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn organization(&self, _: Priority) -> ReadResult<Organization> {
        let id = OrganizationId::parse("1").expect("well formed");
        let name = String::new();
        Ok((Organization { id, name }, evidence()))
    }

    async fn read_members(
        &self,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<MembersRead> {
        let started_at = self.clock.now();
        self.call(priority).await;
        let state = self.state.lock().expect("no code panics here");
        let is_asked = |user: &UserId| !interest.known.is_empty() || interest.users.contains(user);
        let asked = state.iter().filter(|(user, _)| is_asked(user));
        let shown = asked.map(|(user, held)| ObservedMember {
            user_id: user.clone(),
            member_since: self.clock.upstream(-MINUTE),
            email: None,
            name: String::new(),
            assignments: held.clone(),
        });
        let (members, recognized) = pick(interest, shown);
        let read = MembersRead {
            started_at,
            finished_at: self.clock.now(),
            incomplete: None,
            members,
            total: state.len(),
            owners: 1,
            recognized,
        };
        Ok((read, evidence()))
    }

    async fn add(&self, _: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.call(Priority::Grant).await;
        let mut state = self.state.lock().expect("no code panics here");
        state
            .entry(user.clone())
            .or_default()
            .extend(set.iter().cloned());
        Outcome::Done((), evidence())
    }

    async fn remove(&self, _: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.call(Priority::Revoke).await;
        let now = self.clock.elapsed();
        let mut state = self.state.lock().expect("no code panics here");
        state
            .entry(user.clone())
            .or_default()
            .retain(|held| !set.contains(held));
        let mut gone = self.gone.lock().expect("no code panics here");
        gone.entry(user.clone()).or_insert(now);
        Outcome::Done((), evidence())
    }

    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        PlannedCall {
            method: String::new(),
            path: String::new(),
            body: String::new(),
        }
    }

    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        Ok((Vec::new(), evidence()))
    }

    async fn invite(&self, _: KeyPin, _: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        Outcome::Unknown(evidence())
    }

    async fn cancel_invitation(&self, _: KeyPin, _: &InvitationToken) -> Outcome<()> {
        Outcome::Done((), evidence())
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

/// Runs a storm. Answers what is wrong with the order, if anything.
pub(crate) async fn storm(seed: u64) -> Option<String> {
    let mut dice = Dice::new(seed, 99);
    let clock = Arc::new(SimClock::new(seed));
    let people: BTreeMap<UserId, BTreeSet<Assignment>> = (0..MEMBERS)
        .map(|index| {
            let user = UserId::parse(format!("{}", 5_000 + index)).expect("well formed");
            (user, BTreeSet::new())
        })
        .collect();
    let users: Vec<UserId> = people.keys().cloned().collect();
    let provider = Arc::new(Plain {
        clock: clock.clone(),
        limiter: Limiter::new(LimiterOptions::default()),
        state: Mutex::new(people),
        gone: Mutex::default(),
    });
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    let mut waker = Waker::default();
    let wakes = waker.open(integration());
    let wake: Arc<dyn Wake> = Arc::new(waker);
    let observer = Arc::new(Observer::new(
        integration(),
        provider.clone(),
        ledger.clone(),
        clock.clone(),
    ));
    let reconciler = Arc::new(Reconciler::new(
        integration(),
        provider.clone(),
        observer.clone(),
        ledger.clone(),
        clock.clone(),
        wake.clone(),
        Settings::default(),
    ));
    let parts = IntegrationParts {
        provider: provider.clone(),
        observer,
        details: Details::default(),
    };
    let service = Service::new(
        ledger.clone(),
        clock.clone(),
        wake,
        BTreeMap::from([(integration(), parts)]),
        rules(),
        latchkey::service::Settings::default(),
    );
    let driver = Driver::new(reconciler, ledger, clock.clone(), Limits::default(), wakes);
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(CancellationToken::new()));
    let end = clock.now() + TimeDelta::milliseconds(END);
    let caller = CallerName::parse("caller").expect("well formed");
    let mut weights = BTreeMap::new();
    for user in &users {
        let (role, target) = dice.pick(&[
            ("deployment-admin", Target::AllDeployments),
            ("deployment-editor", Target::AllDeployments),
            ("deployment-viewer", Target::AllDeployments),
            ("billing-admin", Target::Organization),
            ("organization-admin", Target::Organization),
        ]);
        // Owners are removed one at a time, which is another rule.
        let role = if role == "organization-admin" {
            "billing-admin"
        } else {
            role
        };
        let assignment = Assignment {
            role: role.to_owned(),
            target: target.clone(),
            application_roles: ApplicationRoles::Mapped,
        };
        weights.insert(user.clone(), f64::from(assignment.weight()));
        let ask = GrantAsk {
            integration: None,
            beneficiary: Principal::User(user.clone()),
            requester: String::new(),
            justification: String::new(),
            role: role.to_owned(),
            targets: vec![target],
            application_roles: ApplicationRoles::Mapped,
            duration: Ttl::from_seconds(3_600).expect("in range"),
            starts_at: None,
            not_after: Some(end),
            invite: false,
        };
        let request = RequestId::parse(format!("r-{user}")).expect("well formed");
        if let Err(error) = service
            .create_grant(&caller, request, ask, Wait::Accepted)
            .await
        {
            return Some(format!("{user}: {error}"));
        }
    }
    sleep(END + 2 * MINUTE - clock.elapsed()).await;
    tasks.shutdown().await;
    let gone = provider.gone.lock().expect("no code panics here").clone();
    if gone.len() != MEMBERS {
        return Some(format!("{} of {MEMBERS} were removed", gone.len()));
    }
    let mut late: Vec<f64> = gone.values().map(|at| (*at - END) as f64).collect();
    let actual: f64 = gone
        .iter()
        .map(|(user, at)| weights[user] * (*at - END) as f64)
        .sum();
    let mut order: Vec<f64> = weights.values().copied().collect();
    late.sort_by(f64::total_cmp);
    order.sort_by(|a, b| f64::total_cmp(b, a));
    let best: f64 = late
        .iter()
        .zip(&order)
        .map(|(late, weight)| late * weight)
        .sum();
    let ratio = actual / best.max(1.0);
    (ratio > RATIO).then(|| {
        format!("the risk-weighted lateness of a storm is {ratio:.3} times that of the best order")
    })
}
