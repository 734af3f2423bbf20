//! What comes into the window, what stays out, and when.

use std::pin::pin;

use futures::FutureExt as _;

use super::*;
use crate::domain::ids::UserId;
use crate::domain::member::{MemberRecord, Subject};
use crate::ports::ledger::MemberCommit;
use crate::reconcile::{Observer, Settings};
use crate::runtime::ManualClock;
use crate::scheduler::jump::tests::{NoWake, Sundial};
use crate::store::MemoryLedger;

/// A driver whose methods are called one by one. None of its passes ever turns.
struct Stage {
    clock: ManualClock,
    ledger: Arc<MemoryLedger>,
    driver: Driver,
    waker: Waker,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let (clock, ledger) = (ManualClock::default(), Arc::new(MemoryLedger::new()));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let upstream = Arc::new(Sundial::default());
        let name = IntegrationName::parse("main").expect("valid");
        let observer = Observer::new(
            name.clone(),
            upstream.clone(),
            ledger.clone(),
            shared.clone(),
        );
        let reconciler = Reconciler::new(
            name.clone(),
            upstream,
            Arc::new(observer),
            ledger.clone(),
            shared.clone(),
            Arc::new(NoWake),
            Settings::default(),
        );
        let mut waker = Waker::default();
        let wakes = waker.open(name);
        let driver = Driver::new(Arc::new(reconciler), ledger.clone(), shared, limits, wakes);
        Self {
            clock,
            ledger,
            driver,
            waker,
        }
    }

    /// Due in so many milliseconds.
    fn due(&self, kind: DueKind, millis: i64) -> Due {
        Due {
            at: self.clock.now() + TimeDelta::milliseconds(millis),
            kind,
            weight: 20,
        }
    }

    /// A member that the ledger knows to be due then.
    fn keep(&self, member: u32, due: Due) {
        let mut record = MemberRecord::new(key(member));
        record.due = Some(due);
        let commit = MemberCommit {
            record,
            audit: Vec::new(),
            request: None,
        };
        let written = self.ledger.commit(commit).now_or_never();
        written.expect("memory never waits").expect("written");
    }

    fn refill(&mut self) {
        self.driver
            .refill()
            .now_or_never()
            .expect("memory never waits");
    }

    /// A pass of this member has ended.
    fn finish(&mut self, member: u32, result: Result<Report, &'static str>) {
        let running = self.due(DueKind::Remove, 0);
        self.driver.lanes.begin(&running);
        self.driver.running.insert(key(member), (running, None));
        self.driver.finished(Ok((key(member), result)));
        assert!(self.driver.running.is_empty());
        assert_eq!(self.driver.lanes.removals, 0);
    }
}

fn key(member: u32) -> MemberKey {
    MemberKey {
        integration: IntegrationName::parse("main").expect("valid"),
        subject: Subject::Member(UserId::parse(member.to_string()).expect("valid")),
    }
}

const HORIZON_MS: i64 = 30_000;

#[test]
fn a_wake_up_within_the_horizon_is_queued_and_one_beyond_is_left_to_the_ledger() {
    let mut stage = Stage::new(Limits::default());
    let (within, beyond) = (
        stage.due(DueKind::Remove, HORIZON_MS),
        stage.due(DueKind::Remove, HORIZON_MS + 1),
    );
    stage.driver.woken(key(1), within);
    stage.driver.woken(key(2), beyond);
    assert_eq!(stage.driver.queue.len(), 1);
    assert_eq!(stage.driver.queue.next_wakeup(), Some(within.at));
}

#[test]
fn a_wake_up_during_a_pass_waits_for_its_end() {
    let mut stage = Stage::new(Limits::default());
    let (running, later) = (
        stage.due(DueKind::Look, 0),
        stage.due(DueKind::Remove, 5_000),
    );
    stage.driver.running.insert(key(1), (running, None));
    stage.driver.lanes.begin(&running);
    stage.driver.woken(key(1), later);
    assert!(stage.driver.queue.is_empty());
    let done = Ok((key(1), Ok(Report::default())));
    stage.driver.finished(done);
    assert_eq!(stage.driver.queue.next_wakeup(), Some(later.at));
}

#[test]
fn who_is_due_again_within_the_horizon_stays_in_the_window() {
    for (millis, stays) in [(0, true), (HORIZON_MS, true), (HORIZON_MS + 1, false)] {
        let mut stage = Stage::new(Limits::default());
        let next = Some(stage.due(DueKind::Verify, millis));
        let report = Report {
            next,
            ..Report::default()
        };
        stage.finish(1, Ok(report));
        assert_eq!(!stage.driver.queue.is_empty(), stays, "{millis} ms");
    }
}

#[test]
fn a_pass_that_the_ledger_refused_is_tried_again_after_the_pause() {
    let mut stage = Stage::new(Limits::default());
    stage.finish(1, Err("ledger_unavailable"));
    let pause = TimeDelta::seconds(1);
    assert_eq!(
        stage.driver.queue.next_wakeup(),
        Some(stage.clock.now() + pause)
    );
}

#[test]
fn the_wait_is_for_the_next_deadline_and_never_longer_than_the_poll() {
    let mut stage = Stage::new(Limits::default());
    assert_eq!(stage.driver.until_next(), None, "the poll alone");
    let far = stage.due(DueKind::Remove, 5_000);
    stage.driver.woken(key(1), far);
    assert_eq!(stage.driver.until_next(), Some(Duration::from_secs(1)));
    let near = stage.due(DueKind::Remove, 300);
    stage.driver.woken(key(2), near);
    assert_eq!(stage.driver.until_next(), Some(Duration::from_millis(300)));
    stage.clock.advance(TimeDelta::seconds(1));
    assert_eq!(stage.driver.until_next(), Some(Duration::ZERO));
}

#[test]
fn who_gives_way_in_a_full_window_is_asked_for_again() {
    let mut stage = Stage::new(Limits {
        window: 2,
        ..Limits::default()
    });
    let answered = Answered(Some((7, stage.clock.now())));
    for (member, known) in [(1, true), (2, true), (3, false)] {
        stage.driver.answered = answered;
        let due = stage.due(DueKind::Remove, i64::from(member));
        stage.driver.schedule(key(member), due);
        assert_eq!(stage.driver.answered.0.is_some(), known, "{member}");
    }
    assert_eq!(stage.driver.queue.len(), 2);
}

#[test]
fn an_answer_stands_for_the_horizon_unless_the_window_is_full() {
    let mut stage = Stage::new(Limits {
        window: 2,
        ..Limits::default()
    });
    let now = stage.clock.now();
    for (member, known) in [(1, true), (2, false), (3, false)] {
        let due = stage.due(DueKind::Remove, i64::from(member));
        stage.driver.queue.schedule(key(member), due);
        let Answered(answered) = stage.driver.answered(Some(7), now);
        let until = now + TimeDelta::milliseconds(HORIZON_MS);
        assert_eq!(answered, known.then_some((7, until)), "{member}");
    }
    stage.driver.queue = DueQueue::default();
    assert_eq!(
        stage.driver.answered(None, now).0,
        None,
        "it may have changed"
    );
}

#[test]
fn what_is_due_within_the_horizon_is_brought_in_and_the_rest_is_not() {
    let mut stage = Stage::new(Limits::default());
    stage.keep(1, stage.due(DueKind::Remove, 0));
    stage.keep(2, stage.due(DueKind::Grant, HORIZON_MS - 1));
    stage.keep(3, stage.due(DueKind::Remove, HORIZON_MS + 1));
    stage.refill();
    assert_eq!(stage.driver.queue.len(), 2);
}

#[test]
fn a_full_page_of_what_is_due_leaves_what_is_due_later_for_the_next_poll() {
    let mut stage = Stage::new(Limits {
        window: 2,
        ..Limits::default()
    });
    stage.keep(1, stage.due(DueKind::Look, 0));
    stage.keep(2, stage.due(DueKind::Look, 0));
    stage.keep(3, stage.due(DueKind::Remove, 10));
    stage.refill();
    let held: Vec<_> = std::iter::from_fn(|| {
        let later = stage.clock.now() + TimeDelta::seconds(1);
        stage.driver.queue.pop_due(later, |_| true)
    })
    .map(|(key, _)| key)
    .collect();
    assert_eq!(held, [key(1), key(2)]);
}

#[test]
fn with_half_a_window_of_removals_waiting_only_the_most_urgent_are_asked_for() {
    const WINDOW: usize = 32;
    for (waiting, brought) in [(15, 9), (16, 2)] {
        let mut stage = Stage::new(Limits {
            window: WINDOW,
            ..Limits::default()
        });
        for member in 0..waiting {
            stage
                .driver
                .woken(key(100 + member), stage.due(DueKind::Remove, 0));
        }
        // Due, and counted as waiting from then on.
        let none = stage.driver.queue.pop_due(stage.clock.now(), |_| false);
        assert!(none.is_none());
        for member in 0..9 {
            stage.keep(member, stage.due(DueKind::Remove, 0));
        }
        stage.refill();
        let members = usize::try_from(waiting).expect("few") + brought;
        assert_eq!(stage.driver.queue.len(), members, "{waiting} wait");
    }
}

#[tokio::test]
async fn nothing_but_the_first_removals_begins_while_they_lead() {
    let mut stage = Stage::new(Limits::default());
    stage.driver.lead = Some(Instant::now() + LEAD);
    for member in 0..4 {
        stage
            .driver
            .woken(key(member), stage.due(DueKind::Remove, 0));
    }
    stage.driver.woken(key(9), stage.due(DueKind::Grant, 0));
    stage.driver.start_due();
    assert_eq!(stage.driver.running.len(), FIRST);
    stage.driver.set_off();
    stage.driver.start_due();
    assert_eq!(stage.driver.running.len(), 5, "now everything runs");
}

#[tokio::test]
async fn a_driver_that_rests_forgets_what_comes_up() {
    let mut stage = Stage::new(Limits::default());
    let due = stage.due(DueKind::Remove, 0);
    stage.waker.wake(&key(1), due);
    let mut strange = key(2);
    strange.integration = IntegrationName::parse("other").expect("valid");
    stage.waker.wake(&strange, due);
    assert_eq!(stage.driver.wakes.len(), 1, "of its own organization");
    assert!(
        stage.driver.rest().now_or_never().is_none(),
        "until it is its turn"
    );
    assert!(stage.driver.wakes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn news_are_heard_a_moment_after_they_came_and_silence_never_is() {
    assert!(heard(&None).now_or_never().is_none());
    let (sender, receiver) = watch::channel(0);
    let news = Some(receiver);
    let mut hearing = pin!(heard(&news));
    assert!(hearing.as_mut().now_or_never().is_none());
    sender.send(1).expect("somebody listens");
    assert!(
        hearing.as_mut().now_or_never().is_none(),
        "more may come at once"
    );
    tokio::time::advance(TOGETHER + Duration::from_millis(1)).await;
    assert!(hearing.now_or_never().is_some());
    drop(sender);
}

#[tokio::test]
async fn the_pulse_that_is_watched_is_that_of_the_loop() {
    let mut stage = Stage::new(Limits::default());
    let watched = stage.driver.pulse();
    stage.clock.advance(TimeDelta::seconds(3));
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(watched.turned_at_ms(), 0);
    {
        let mut work = pin!(stage.driver.work(CancellationToken::new()));
        let turning = work.as_mut().now_or_never();
        assert!(turning.is_none(), "it goes on");
        assert!(watched.turned_at_ms() > 0);
    }
    stage.driver.work(stop).now_or_never().expect("stopped");
    assert_eq!(watched.turned_at_ms(), 0, "it has ended");
}
