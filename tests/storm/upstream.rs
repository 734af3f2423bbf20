//! An organization in memory behind the connector's own rate limiter, on the virtual clock.
//!
//! Owns what members hold, what was called when, and a limit that is enforced: a call beyond it is refused and counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use latchkey::domain::Timestamp;
use latchkey::domain::assignment::{Assignment, ProjectType, total_weight};
use latchkey::domain::event::CallEvidence;
use latchkey::domain::ids::{
    DeploymentId, Email, InvitationToken, OrganizationId, ProjectId, UserId,
};
use latchkey::domain::member::WriteKind;
use latchkey::domain::observation::{Interest, MembersRead, ObservedMember, pick};
use latchkey::elastic::limiter::{Feedback, Limiter, LimiterOptions, Permit};
use latchkey::ports::provider::{
    Claim, Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, Rate, ReadError, ReadResult, Refusal, Turn,
};
use latchkey::ports::{AccessProvider, Clock};
use tokio::time::Instant;

use super::clock::VirtualClock;

/// How long a call may wait for its turn, as the client's default is.
const WAIT: Duration = Duration::from_secs(10);
/// How long a read may take, waiting included.
const READ_BUDGET: Duration = Duration::from_secs(120);
/// How long a call is waited for that gets no answer.
const TIMEOUT: Duration = Duration::from_millis(2_500);

/// How upstream behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Calls per window that are served; one more is answered 429.
    pub(crate) limit: u32,
    pub(crate) window: Duration,
    /// Whether answers carry the limit, as Elastic's do.
    pub(crate) tells: bool,
    pub(crate) round_trip: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: 100,
            window: Duration::from_secs(10),
            tells: true,
            round_trip: Duration::from_millis(100),
        }
    }
}

/// What came in.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) reads: Vec<Instant>,
    pub(crate) adds: Vec<(Instant, UserId)>,
    /// Removals that were applied.
    pub(crate) removals: Vec<(Instant, UserId, Vec<Assignment>)>,
    pub(crate) others: usize,
    pub(crate) throttled: usize,
    /// Calls that an outage swallowed.
    pub(crate) failed: Vec<Instant>,
}

impl Log {
    pub(crate) fn calls(&self) -> usize {
        self.reads.len()
            + self.adds.len()
            + self.removals.len()
            + self.others
            + self.throttled
            + self.failed.len()
    }
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<UserId, BTreeSet<Assignment>>,
    recent: VecDeque<Instant>,
    outage: bool,
    log: Log,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    options: Options,
    limiter: Mutex<Limiter>,
    clock: VirtualClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Held(Permit);

/// How a call ended on the wire.
enum Wire {
    Answered,
    Throttled,
    Refused(&'static str),
    Silent(&'static str),
}

impl Upstream {
    pub(crate) fn new(options: Options, clock: VirtualClock) -> Self {
        Self {
            limiter: Mutex::new(Self::limiter(options)),
            options,
            clock,
            state: Mutex::default(),
        }
    }

    fn limiter(options: Options) -> Limiter {
        // What upstream tells is learnt with the first answer; a test of storms begins with it.
        Limiter::new(LimiterOptions {
            initial: if options.tells { options.limit } else { 100 },
            interval: options.window,
            ..LimiterOptions::default()
        })
    }

    /// A new process knows nothing of what the old one spent.
    pub(crate) fn restart(&self) {
        *self.limiter.lock().expect("no test panics here") = Self::limiter(self.options);
    }

    fn budget(&self) -> Limiter {
        self.limiter.lock().expect("no test panics here").clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it looks")
    }
}

impl Upstream {
    pub(crate) fn give(&self, user: &UserId, assignments: impl IntoIterator<Item = Assignment>) {
        let mut state = self.state();
        state
            .held
            .entry(user.clone())
            .or_default()
            .extend(assignments);
    }

    pub(crate) fn held(&self) -> usize {
        self.state().held.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn holds(&self, user: &UserId) -> bool {
        self.state()
            .held
            .get(user)
            .is_some_and(|held| !held.is_empty())
    }

    pub(crate) fn set_outage(&self, outage: bool) {
        self.state().outage = outage;
    }

    /// What came in so far.
    pub(crate) fn log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.state().log)
    }

    async fn exchange(&self, permit: Permit) -> Wire {
        let half = self.options.round_trip / 2;
        tokio::time::sleep(half).await;
        let now = Instant::now();
        let (wire, remaining) = {
            let mut state = self.state();
            if state.outage {
                state.log.failed.push(now);
                // A mix: most are answered 503, some not at all, some cannot even connect.
                let wire = match state.log.failed.len() % 5 {
                    0 => Wire::Refused("connect"),
                    1 | 2 => Wire::Silent("timeout"),
                    _ => Wire::Silent("http_503"),
                };
                (wire, 0)
            } else {
                let window = self.options.window;
                while state.recent.front().is_some_and(|at| *at + window <= now) {
                    state.recent.pop_front();
                }
                let limit = self.options.limit as usize;
                if state.recent.len() >= limit {
                    state.log.throttled += 1;
                    (Wire::Throttled, 0)
                } else {
                    state.recent.push_back(now);
                    (Wire::Answered, limit - state.recent.len())
                }
            }
        };
        match wire {
            Wire::Silent("timeout") => tokio::time::sleep(TIMEOUT).await,
            Wire::Answered | Wire::Throttled | Wire::Refused(_) | Wire::Silent(_) => {
                tokio::time::sleep(half).await;
            }
        }
        let answered = matches!(wire, Wire::Answered | Wire::Throttled);
        if answered {
            let told = self.options.tells.then_some(());
            permit.answered(Feedback {
                limit: told.map(|()| self.options.limit),
                remaining: told.map(|()| u32::try_from(remaining).expect("small")),
                interval: told.map(|()| self.options.window),
                throttled: matches!(wire, Wire::Throttled),
                retry_after: None,
                spares_removals: false,
            });
        }
        wire
    }

    async fn read<T>(
        &self,
        priority: Priority,
        make: impl FnOnce(&mut State, Timestamp) -> T,
    ) -> ReadResult<T> {
        let limiter = self.budget();
        let Ok(permit) = tokio::time::timeout(READ_BUDGET, limiter.acquire(priority)).await else {
            let code = "budget".to_owned();
            return Err((ReadError::Refused(Refusal::NotSent { code }), evidence(0)));
        };
        let (began, started_at) = (Instant::now(), self.clock.now());
        // What a read shows is what was when it arrived.
        match self.exchange(permit).await {
            Wire::Answered => {
                let answer = make(&mut self.state(), started_at);
                Ok((answer, evidence_since(began)))
            }
            Wire::Throttled => Err((
                ReadError::Refused(Refusal::Throttled { retry_after: None }),
                evidence_since(began),
            )),
            Wire::Refused(code) => {
                let code = code.to_owned();
                Err((
                    ReadError::Refused(Refusal::NotSent { code }),
                    evidence_since(began),
                ))
            }
            Wire::Silent(code) => {
                let code = code.to_owned();
                Err((ReadError::Unavailable { code }, evidence_since(began)))
            }
        }
    }

    async fn write(
        &self,
        kind: WriteKind,
        turn: Option<Turn>,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        let claim = match kind {
            WriteKind::Add => Claim::of(Priority::Grant),
            WriteKind::Remove => Claim::removal(total_weight(assignments), None),
        };
        let permit = match turn.and_then(Turn::take::<Held>) {
            Some(held) => held.0,
            None => {
                let limiter = self.budget();
                let Ok(permit) = tokio::time::timeout(WAIT, limiter.acquire_claim(claim)).await
                else {
                    let code = "budget".to_owned();
                    return Outcome::Refused(Refusal::NotSent { code }, evidence(0));
                };
                permit
            }
        };
        let began = Instant::now();
        match self.exchange(permit).await {
            Wire::Answered => {
                let now = Instant::now() - self.options.round_trip / 2;
                let mut state = self.state();
                let held = state.held.entry(user.clone()).or_default();
                match kind {
                    WriteKind::Add => {
                        held.extend(assignments.iter().cloned());
                        state.log.adds.push((now, user.clone()));
                    }
                    WriteKind::Remove => {
                        held.retain(|one| !assignments.contains(one));
                        state
                            .log
                            .removals
                            .push((now, user.clone(), assignments.to_vec()));
                    }
                }
                Outcome::Done((), evidence_since(began))
            }
            Wire::Throttled => Outcome::Refused(
                Refusal::Throttled { retry_after: None },
                evidence_since(began),
            ),
            Wire::Refused(code) => {
                let code = code.to_owned();
                Outcome::Refused(Refusal::NotSent { code }, evidence_since(began))
            }
            Wire::Silent(code) => Outcome::Unknown(CallEvidence {
                code: Some(code.to_owned()),
                ..evidence_since(began)
            }),
        }
    }
}

fn evidence(elapsed_ms: u64) -> CallEvidence {
    CallEvidence {
        attempts: 1,
        elapsed_ms,
        ..CallEvidence::default()
    }
}

fn evidence_since(began: Instant) -> CallEvidence {
    evidence(u64::try_from(began.elapsed().as_millis()).expect("short"))
}

#[async_trait]
impl AccessProvider for Upstream {
    fn pin(&self) -> KeyPin {
        KeyPin(1)
    }

    fn key_status(&self) -> KeyStatus {
        KeyStatus {
            loaded: true,
            sees_owners: Some(true),
            ..KeyStatus::default()
        }
    }

    fn request_lifetime(&self) -> Duration {
        TIMEOUT
    }

    async fn organization(&self, priority: Priority) -> ReadResult<Organization> {
        self.read(priority, |state, _| {
            state.log.others += 1;
            Organization {
                id: OrganizationId::parse("1").expect("well formed"),
                name: String::new(),
            }
        })
        .await
    }

    async fn read_members(
        &self,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<MembersRead> {
        let since = self.clock.epoch();
        self.read(priority, |state, started_at| {
            state.log.reads.push(Instant::now());
            let member = |user: &UserId, held: &BTreeSet<Assignment>| ObservedMember {
                user_id: user.clone(),
                member_since: since,
                email: None,
                name: String::new(),
                assignments: held.clone(),
            };
            let is_asked =
                |user: &UserId| !interest.known.is_empty() || interest.users.contains(user);
            let holding = state.held.iter().filter(|(user, _)| is_asked(user));
            let (mut members, recognized) =
                pick(interest, holding.map(|(user, held)| member(user, held)));
            // Who holds nothing is a member all the same.
            for user in &interest.users {
                members
                    .entry(user.clone())
                    .or_insert_with(|| member(user, &BTreeSet::new()));
            }
            MembersRead {
                started_at,
                finished_at: self.clock.now(),
                incomplete: None,
                members,
                total: state.held.len(),
                owners: 1,
                recognized,
            }
        })
        .await
    }

    async fn add(&self, _: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()> {
        self.write(WriteKind::Add, None, user, assignments).await
    }

    async fn remove(&self, _: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()> {
        self.write(WriteKind::Remove, None, user, assignments).await
    }

    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        PlannedCall {
            method: String::new(),
            path: String::new(),
            body: String::new(),
        }
    }

    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        Ok((Vec::new(), evidence(0)))
    }

    async fn invite(&self, _: KeyPin, _: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        unreachable!("nobody is invited in a storm")
    }

    async fn cancel_invitation(&self, _: KeyPin, _: &InvitationToken) -> Outcome<()> {
        Outcome::Done((), evidence(0))
    }

    async fn deployments(&self, priority: Priority) -> ReadResult<Vec<Deployment>> {
        self.read(priority, |state, _| {
            state.log.others += 1;
            (0..20)
                .map(|number| Deployment {
                    id: DeploymentId::parse(super::stage::deployment(number)).expect("well formed"),
                    name: String::new(),
                    alias: None,
                    tags: Vec::new(),
                    region: String::new(),
                })
                .collect()
        })
        .await
    }

    async fn projects(&self, _: ProjectType, _: Priority) -> ReadResult<Vec<Project>> {
        Ok((Vec::new(), evidence(0)))
    }

    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        _: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        Ok((Vec::new(), evidence(0)))
    }

    async fn turn(&self, claim: Claim) -> Option<Turn> {
        let limiter = self.budget();
        let waited = tokio::time::timeout(WAIT, limiter.acquire_claim(claim)).await;
        waited.ok().map(|permit| Turn::holding(Held(permit)))
    }

    async fn add_in_turn(
        &self,
        turn: Turn,
        _: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(WriteKind::Add, Some(turn), user, assignments)
            .await
    }

    async fn remove_in_turn(
        &self,
        turn: Turn,
        _: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.write(WriteKind::Remove, Some(turn), user, assignments)
            .await
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.budget().rate())
    }
}
