//! What the storms are played on: ledger, upstream, and a connector that can be stopped and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use latchkey::domain::Timestamp;
use latchkey::domain::assignment::{ApplicationRoles, Assignment, Target};
use latchkey::domain::grant::{Certainty, Grant, GrantState, GrantedAssignment, Holding};
use latchkey::domain::ids::{
    CallerName, DeploymentId, GrantId, IntegrationName, RequestId, UserId,
};
use latchkey::domain::member::{
    Due, DueKind, LastSeen, LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
    WriteOutcome, weight_class,
};
use latchkey::domain::request::Principal;
use latchkey::domain::ttl::Ttl;
use latchkey::policy::Rules;
use latchkey::ports::ledger::MemberCommit;
use latchkey::ports::{AccessProvider, Clock, Ledger, Wake};
use latchkey::reconcile::{Observer, Reconciler, Settings};
use latchkey::scheduler::{Driver, Limits, Waker};
use latchkey::service::{Details, GrantAsk, IntegrationParts, LatenessPolicy, OnLate, Service};
use latchkey::store::MemoryLedger;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::VirtualClock;
use super::upstream::{Options, Upstream};

pub(crate) fn integration() -> IntegrationName {
    IntegrationName::parse("main").expect("well formed")
}

/// The id of a deployment by its number.
pub(crate) fn deployment(number: usize) -> String {
    format!("{number:032x}")
}

pub(crate) fn user(number: usize) -> UserId {
    UserId::parse(format!("{number:06}")).expect("well formed")
}

pub(crate) fn on(role: &str, number: usize) -> Assignment {
    Assignment {
        role: role.to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(deployment(number)).expect("well formed"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

/// One grant that stands already.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) assignment: Assignment,
    pub(crate) ends: Timestamp,
}

/// A connector at work.
pub(crate) struct Process {
    pub(crate) service: Arc<Service>,
    stop: CancellationToken,
    driver: JoinHandle<()>,
}

impl Process {
    /// As SIGTERM would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.driver.await.expect("the driver does not panic");
    }

    /// As SIGKILL would.
    pub(crate) async fn kill(self) {
        self.driver.abort();
        assert!(self.driver.await.is_err_and(|error| error.is_cancelled()));
    }
}

pub(crate) struct Stage {
    pub(crate) clock: VirtualClock,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) upstream: Arc<Upstream>,
}

impl Stage {
    pub(crate) fn new(options: Options) -> Self {
        let clock = VirtualClock::new();
        Self {
            ledger: Arc::new(MemoryLedger::new()),
            upstream: Arc::new(Upstream::new(options, clock.clone())),
            clock,
        }
    }

    /// Starts the connector on what the ledger holds.
    pub(crate) fn start(&self) -> Process {
        self.start_with(latchkey::service::Settings::default())
    }

    /// Starts one that refuses ends which cannot be kept.
    pub(crate) fn start_refusing(&self, bound: TimeDelta) -> Process {
        self.start_with(latchkey::service::Settings {
            lateness: LatenessPolicy {
                bound,
                on_exceeded: OnLate::Refuse,
            },
            ..latchkey::service::Settings::default()
        })
    }

    fn start_with(&self, settings: latchkey::service::Settings) -> Process {
        self.upstream.restart();
        let name = integration();
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let ledger: Arc<dyn Ledger> = self.ledger.clone();
        let provider: Arc<dyn AccessProvider> = self.upstream.clone();
        let mut waker = Waker::default();
        let wakes = waker.open(name.clone());
        let wake: Arc<dyn Wake> = Arc::new(waker);
        let observer = Arc::new(Observer::new(
            name.clone(),
            provider.clone(),
            ledger.clone(),
            clock.clone(),
        ));
        let reconciler = Arc::new(Reconciler::new(
            name.clone(),
            provider.clone(),
            observer.clone(),
            ledger.clone(),
            clock.clone(),
            wake.clone(),
            Settings::default(),
        ));
        let driver = Driver::new(
            reconciler,
            ledger.clone(),
            clock.clone(),
            Limits::default(),
            wakes,
        );
        let parts = IntegrationParts {
            provider,
            observer,
            details: Details::default(),
        };
        let service = Arc::new(Service::new(
            ledger,
            clock,
            wake,
            BTreeMap::from([(name, parts)]),
            Rules::default(),
            settings,
        ));
        let stop = CancellationToken::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "the stage supervises its one task itself"
        )]
        let driver = tokio::spawn(driver.run(stop.clone()));
        Process {
            service,
            stop,
            driver,
        }
    }

    /// Puts a member with active grants into the ledger and upstream, as activation would have left them.
    pub(crate) async fn seed(&self, number: usize, grants: &[Standing]) {
        let now = self.clock.now();
        let user = user(number);
        let key = MemberKey {
            integration: integration(),
            subject: Subject::Member(user.clone()),
        };
        let held: BTreeSet<Assignment> = grants
            .iter()
            .map(|grant| grant.assignment.clone())
            .collect();
        let mut record = MemberRecord::new(key.clone());
        record.member_since = Some(self.clock.epoch());
        record.last_seen = Some(LastSeen {
            at: now,
            assignments: held.clone(),
        });
        record.owned = held.iter().map(|one| owned(one, now)).collect();
        record.grants = grants
            .iter()
            .enumerate()
            .map(|(place, standing)| self.grant(number, place, &key, standing))
            .collect();
        let first = grants
            .iter()
            .map(|grant| grant.ends)
            .min()
            .expect("at least one");
        record.due = Some(Due {
            at: first,
            kind: DueKind::Remove,
            weight: weight_class(record.open_weight(first + TimeDelta::seconds(10))),
        });
        self.upstream.give(&user, held);
        let commit = MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        };
        self.ledger
            .commit(commit)
            .await
            .expect("the ledger takes it");
    }

    fn grant(&self, number: usize, place: usize, key: &MemberKey, standing: &Standing) -> Grant {
        let now = self.clock.now();
        Grant {
            id: GrantId::new(now, self.clock.entropy()),
            integration: key.integration.clone(),
            subject: key.subject.clone(),
            caller: caller(),
            request_id: RequestId::parse(format!("{number}-{place}")).expect("well formed"),
            beneficiary: number.to_string(),
            requester: String::new(),
            justification: String::new(),
            assignments: vec![GrantedAssignment {
                assignment: standing.assignment.clone(),
                holding: Holding::Owned,
            }],
            duration: Ttl::from_seconds(3600).expect("in range"),
            starts_at: None,
            not_after: None,
            created_at: now,
            state: GrantState::Active {
                activated_at: now,
                expires_at: standing.ends,
            },
            version: 1,
            certainty: Certainty::Verified,
            externally_modified: false,
            invited: false,
            attempts: 0,
            last_error: None,
            verified_at: Some(now),
            removal_sent_at: None,
            authority: None,
        }
    }

    /// Lets virtual time pass until nothing of the members is held any more, at most for `limit`.
    pub(crate) async fn until_gone(&self, limit: Duration) {
        let give_up = tokio::time::Instant::now() + limit;
        while self.upstream.held() > 0 {
            assert!(
                tokio::time::Instant::now() < give_up,
                "{} assignments are still held",
                self.upstream.held()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Grants that have not ended, by state.
    pub(crate) async fn open_grants(&self) -> BTreeMap<String, u64> {
        let census = self
            .ledger
            .census(self.clock.now())
            .await
            .expect("readable");
        census
            .grants
            .into_iter()
            .map(|(_, state, count)| (state, count))
            .collect()
    }
}

pub(crate) fn caller() -> CallerName {
    CallerName::parse("control-plane").expect("well formed")
}

/// A grant to ask for through the service.
pub(crate) fn ask(number: usize, role: &str, seconds: i64) -> GrantAsk {
    GrantAsk {
        integration: None,
        beneficiary: Principal::User(user(number)),
        requester: String::new(),
        justification: String::new(),
        role: role.to_owned(),
        targets: vec![on(role, 1).target],
        application_roles: ApplicationRoles::Mapped,
        duration: Ttl::from_seconds(seconds).expect("in range"),
        starts_at: None,
        not_after: None,
        invite: false,
    }
}

fn owned(assignment: &Assignment, at: Timestamp) -> Owned {
    Owned {
        assignment: assignment.clone(),
        phase: Phase::Live,
        since: at,
        must_end_by: None,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at,
            outcome: WriteOutcome::Done,
        },
        seen: true,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}
