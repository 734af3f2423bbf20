//! A clock that is set while access is given.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::domain::assignment::{Assignment, ProjectType};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{
    Email, IntegrationName, InvitationToken, OrganizationId, ProjectId, UserId,
};
use crate::domain::member::{Due, MemberKey, MemberRecord, Subject, WriteKind};
use crate::domain::observation::{Interest, MembersRead};
use crate::ports::ledger::{EventFilter, MemberCommit};
use crate::ports::provider::{
    Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, ReadError, ReadResult,
};
use crate::ports::{AccessProvider, Wake};
use crate::reconcile::{Observer, Settings};
use crate::runtime::ManualClock;
use crate::store::MemoryLedger;

/// Upstream that only knows what time it is.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Sundial {
    /// Difference to the connector's clock; `None` while it does not answer.
    skew_ms: Mutex<Option<i64>>,
}

const NOT_ASKED: &str = "only the time is asked for";

#[async_trait]
impl AccessProvider for Sundial {
    fn pin(&self) -> KeyPin {
        KeyPin(1)
    }
    fn key_status(&self) -> KeyStatus {
        KeyStatus {
            skew_ms: *self.skew_ms.lock().expect("not poisoned"),
            ..KeyStatus::default()
        }
    }
    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(10)
    }
    async fn organization(&self, _: Priority) -> ReadResult<Organization> {
        if self.skew_ms.lock().expect("not poisoned").is_none() {
            let code = "timeout".to_owned();
            return Err((ReadError::Unavailable { code }, CallEvidence::default()));
        }
        let organization = Organization {
            id: OrganizationId::parse("42").expect("valid"),
            name: String::new(),
        };
        Ok((organization, CallEvidence::default()))
    }
    async fn read_members(&self, _: &Interest, _: Priority) -> ReadResult<MembersRead> {
        panic!("{NOT_ASKED}");
    }
    async fn add(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("{NOT_ASKED}");
    }
    async fn remove(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("{NOT_ASKED}");
    }
    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        panic!("{NOT_ASKED}");
    }
    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        panic!("{NOT_ASKED}");
    }
    async fn invite(&self, _: KeyPin, _: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        panic!("{NOT_ASKED}");
    }
    async fn cancel_invitation(&self, _: KeyPin, _: &InvitationToken) -> Outcome<()> {
        panic!("{NOT_ASKED}");
    }
    async fn deployments(&self, _: Priority) -> ReadResult<Vec<Deployment>> {
        panic!("{NOT_ASKED}");
    }
    async fn projects(&self, _: ProjectType, _: Priority) -> ReadResult<Vec<Project>> {
        panic!("{NOT_ASKED}");
    }
    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        _: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        panic!("{NOT_ASKED}");
    }
}

#[derive(Debug)]
pub(in crate::scheduler) struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: &MemberKey, _: Due) {}
}

struct Bench {
    wall: ManualClock,
    steady: Arc<SteadyClock>,
    ledger: Arc<MemoryLedger>,
    sundial: Arc<Sundial>,
    watch: JumpWatch,
    begun: Timestamp,
}

impl Bench {
    /// So many members lose access in an hour.
    async fn with(members: u32) -> Self {
        Self::having(members, DueKind::Remove, TimeDelta::hours(1)).await
    }

    /// So many members are due after that time.
    async fn having(members: u32, kind: DueKind, after: TimeDelta) -> Self {
        let wall = ManualClock::default();
        let begun = wall.now();
        let inner: Arc<dyn Clock> = Arc::new(wall.clone());
        let steady = Arc::new(SteadyClock::new(inner, Duration::from_secs(60)));
        let clock: Arc<dyn Clock> = Arc::clone(&steady) as Arc<dyn Clock>;
        let ledger = Arc::new(MemoryLedger::new());
        let name = IntegrationName::parse("main").expect("valid");
        for member in 0..members {
            let mut record = MemberRecord::new(MemberKey {
                integration: name.clone(),
                subject: Subject::Member(UserId::parse(member.to_string()).expect("valid")),
            });
            record.due = Some(Due {
                at: begun + after,
                kind,
                weight: 1,
            });
            let commit = MemberCommit {
                record,
                audit: Vec::new(),
                request: None,
            };
            ledger.commit(commit).await.expect("committed");
        }
        let sundial = Arc::new(Sundial::default());
        let observer = Observer::new(name.clone(), sundial.clone(), ledger.clone(), clock.clone());
        let reconciler = Reconciler::new(
            name,
            sundial.clone(),
            Arc::new(observer),
            ledger.clone(),
            clock,
            Arc::new(NoWake),
            Settings::default(),
        );
        let suspicion = Suspicion {
            members: 20,
            agreement: TimeDelta::seconds(30),
        };
        let reconcilers = vec![Arc::new(reconciler)];
        let watch = JumpWatch::new(steady.clone(), ledger.clone(), reconcilers, suspicion);
        Self {
            wall,
            steady,
            ledger,
            sundial,
            watch,
            begun,
        }
    }

    fn passed(&self) -> i64 {
        (self.steady.now() - self.begun).num_seconds()
    }

    async fn actions(&self) -> Vec<String> {
        let jumps = jumps(&self.ledger).await.into_iter();
        jumps.map(|(_, action)| action).collect()
    }
}

/// By how many seconds the clock was set, and what came of it, as the audit tells.
async fn jumps(ledger: &MemoryLedger) -> Vec<(i64, String)> {
    let events = ledger.events(&EventFilter::default(), 0, 100).await;
    let jumps = events.expect("readable").into_iter().filter_map(|stored| {
        if let EventKind::ClockJumped { seconds, action } = stored.event.kind {
            Some((seconds, action))
        } else {
            None
        }
    });
    jumps.collect()
}

const DAY: i64 = 86_400;

#[tokio::test]
async fn a_jump_that_ends_the_access_of_few_is_believed_at_once() {
    let mut bench = Bench::with(20).await;
    bench.wall.jump(TimeDelta::seconds(DAY));
    assert_eq!(bench.passed(), 0);
    bench.watch.look().await;
    assert_eq!(bench.passed(), DAY);
    assert_eq!(bench.actions().await, ["few members are due by it"]);
}

#[tokio::test]
async fn a_jump_that_ends_the_access_of_many_waits_for_upstream_and_then_goes_on() {
    let mut bench = Bench::with(21).await;
    bench.wall.jump(TimeDelta::seconds(DAY));
    for second in 0..60 {
        bench.watch.look().await;
        assert_eq!(bench.passed(), second, "nothing is due by the jump alone");
        bench.wall.advance(TimeDelta::seconds(1));
    }
    bench.watch.look().await;
    assert_eq!(bench.passed(), DAY + 60);
    assert_eq!(
        bench.actions().await,
        ["held for upstream's clock", "believed after the pause"]
    );
}

#[tokio::test]
async fn a_jump_is_believed_when_upstream_agrees_and_only_then() {
    let mut bench = Bench::with(21).await;
    bench.wall.jump(TimeDelta::seconds(DAY));
    // Upstream agrees with the time as it was.
    *bench.sundial.skew_ms.lock().expect("not poisoned") = Some(0);
    bench.watch.look().await;
    assert_eq!(bench.passed(), 0);
    *bench.sundial.skew_ms.lock().expect("not poisoned") = Some(DAY * 1000 - 800);
    bench.watch.look().await;
    assert_eq!(bench.passed(), DAY);
    assert_eq!(
        bench.actions().await,
        ["held for upstream's clock", "upstream's clock agrees"]
    );
}

#[tokio::test]
async fn a_clock_set_back_is_audited_once_and_moves_no_end() {
    let mut bench = Bench::with(1).await;
    bench.wall.jump(TimeDelta::hours(-2));
    for _ in 0..3 {
        bench.watch.look().await;
        bench.wall.advance(TimeDelta::seconds(1));
    }
    assert_eq!(bench.passed(), 3);
    let expected = (-7_200, "no end moves later".to_owned());
    assert_eq!(jumps(&bench.ledger).await, [expected]);
}

#[tokio::test]
async fn only_removals_that_the_jump_would_make_due_count_against_it() {
    for (kind, after) in [
        (DueKind::Grant, TimeDelta::hours(1)),
        (DueKind::Remove, TimeDelta::zero()),
        (DueKind::Remove, TimeDelta::days(2)),
    ] {
        let mut bench = Bench::having(21, kind, after).await;
        bench.wall.jump(TimeDelta::seconds(DAY));
        bench.watch.look().await;
        assert_eq!(bench.passed(), DAY, "{kind:?} after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_watch_looks_until_it_is_stopped() {
    let bench = Bench::with(1).await;
    bench.wall.jump(TimeDelta::hours(-2));
    let stop = CancellationToken::new();
    let seconds = async {
        tokio::time::sleep(EVERY * 3).await;
        stop.cancel();
    };
    tokio::join!(bench.watch.run(stop.clone()), seconds);
    assert_eq!(jumps(&bench.ledger).await.len(), 1);
}
