//! Claims on organizations: one owner at a time, and nothing of an earlier one is written.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use latchkey::ports::ownership::{Standing, Tenure};
use latchkey::ports::{Clock, Ledger as _, Ownership as _};
use latchkey::runtime::SystemClock;
use latchkey::store::postgres::{Claiming, Options, PostgresOwnership};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::{Database, Served, database};
use crate::support::*;

const CLAIM: Duration = Duration::from_secs(2);

/// A replica that claims "main".
struct Replica {
    ownership: PostgresOwnership,
    standing: Arc<Standing>,
    stop: CancellationToken,
    work: JoinSet<()>,
}

impl Replica {
    fn start(database: &Database, name: &str) -> Self {
        let claiming = Claiming {
            replica: name.to_owned(),
            claim: CLAIM,
            integrations: vec![integration("main")],
        };
        let options = Options::new(database.url());
        let ownership =
            PostgresOwnership::new(&options, claiming, Arc::new(SystemClock)).expect("set up");
        let standing = ownership.standing(&integration("main"));
        standing.want(true);
        let (stop, mut work) = (CancellationToken::new(), JoinSet::new());
        work.spawn(ownership.clone().run(stop.clone()));
        Self {
            ownership,
            standing,
            stop,
            work,
        }
    }

    async fn owns(&self) {
        let mut tenure = self.standing.tenure();
        timeout(CLAIM * 5, tenure.wait_for(|now| *now == Tenure::Held))
            .await
            .expect("in time")
            .expect("open");
    }

    fn covers(&self) -> bool {
        self.standing
            .covers(SystemClock.since_boot(), Duration::ZERO)
    }

    /// Stands still, as a process that was stopped.
    async fn freeze(&mut self) {
        self.work.shutdown().await;
    }
}

#[tokio::test]
async fn a_claim_passes_on_only_when_it_has_run_out_and_then_soon() {
    let database = database().await;
    let served = Served::open(&database).await;
    let mut first = Replica::start(&database, "first");
    first.owns().await;
    let second = Replica::start(&database, "second");
    first.freeze().await;
    let frozen = Instant::now();
    // Until the first claim has run out by the clock of the one who holds it, nobody else has one.
    while first.covers() {
        assert!(!second.covers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.owns().await;
    assert!(frozen.elapsed() < CLAIM * 3 / 2 + Duration::from_secs(1));
    assert!(second.standing.epoch() > first.standing.epoch());
    let ended = second.standing.earlier_end().expect("somebody had it");
    let since = SystemClock.since_boot() - ended;
    assert!(since < CLAIM * 2, "the first claim ended {since:?} ago");
    // What the first one still wants to write is refused, and leaves nothing.
    create(&served.any(), grant(1, user("1"))).await;
    let stale = served
        .ledger
        .bound_to(integration("main"), Arc::clone(&first.standing));
    let record = stale.member(&key(user("1"))).await.expect("readable");
    let refused = stale.commit(commit(record.clone())).await;
    assert!(refused.expect_err("refused").is_not_owner());
    let refused = stale.append(vec![lifecycle("late")]).await;
    assert!(refused.expect_err("refused").is_not_owner());
    let owner = served
        .ledger
        .bound_to(integration("main"), Arc::clone(&second.standing));
    assert_eq!(owner.commit(commit(record)).await.expect("written"), 2);
    assert_eq!(owner.last_sequence().await.expect("readable"), 1);
    second.stop.cancel();
    served.close().await;
}

#[tokio::test]
async fn who_does_not_own_moves_only_an_end_beyond_the_claim() {
    let database = database().await;
    let served = Served::open(&database).await;
    let first = Replica::start(&database, "first");
    first.owns().await;
    create(&served.any(), grant(1, user("1"))).await;
    let record = served
        .ledger
        .member(&key(user("1")))
        .await
        .expect("readable");
    let reach = first.standing.reach().expect("owned");
    let near = served
        .ledger
        .commit_beyond(commit(record.clone()), reach.deadline)
        .await;
    assert!(near.expect_err("within the claim").is_not_owner());
    let far = reach.deadline + TimeDelta::hours(1);
    let moved = served.ledger.commit_beyond(commit(record), far).await;
    assert_eq!(moved.expect("beyond it"), 2);
    // The owner is bound to its claim alone.
    let owner = served
        .ledger
        .bound_to(integration("main"), Arc::clone(&first.standing));
    let record = owner.member(&key(user("1"))).await.expect("readable");
    let own = owner
        .commit_beyond(commit(record.clone()), reach.deadline)
        .await;
    assert_eq!(own.expect("its own"), 3);
    // Each renewal reaches further.
    let later = first.standing.reach().expect("owned");
    assert!(later.deadline >= reach.deadline && later.epoch == reach.epoch);
    first.stop.cancel();
    served.close().await;
}

#[tokio::test]
async fn a_claim_that_is_let_go_passes_on_at_once() {
    let database = database().await;
    let served = Served::open(&database).await;
    let first = Replica::start(&database, "first");
    first.owns().await;
    let second = Replica::start(&database, "second");
    first.standing.want(false);
    first.ownership.release(&integration("main")).await;
    let let_go = Instant::now();
    second.owns().await;
    assert!(let_go.elapsed() < CLAIM, "{:?}", let_go.elapsed());
    for replica in [first, second] {
        replica.stop.cancel();
        replica.work.join_all().await;
        replica.ownership.leave().await;
    }
    served.close().await;
}

#[tokio::test]
async fn a_claim_of_which_the_answer_was_lost_runs_out_and_is_taken_anew() {
    let database = database().await;
    let served = Served::open(&database).await;
    let first = Replica::start(&database, "first");
    first.owns().await;
    let epoch = first.standing.epoch();
    // As a claim that the server wrote down without this replica hearing of it.
    database
        .run("UPDATE ownership SET epoch = epoch + 1, deadline = clock_timestamp() + INTERVAL '2 seconds'")
        .await;
    let unheard = Instant::now();
    let mut tenure = first.standing.tenure();
    timeout(CLAIM, tenure.wait_for(|now| *now == Tenure::Not))
        .await
        .expect("in time")
        .expect("open");
    first.owns().await;
    assert_eq!(first.standing.epoch(), epoch + 2);
    assert!(unheard.elapsed() < CLAIM * 3 / 2 + Duration::from_secs(1));
    first.stop.cancel();
    served.close().await;
}

#[tokio::test]
async fn an_earlier_claim_that_is_let_go_late_takes_nothing_from_a_later_one() {
    let database = database().await;
    let served = Served::open(&database).await;
    let mut earlier = Replica::start(&database, "one");
    earlier.owns().await;
    earlier.freeze().await;
    // Under the same name, as the same process would.
    let later = Replica::start(&database, "one");
    later.owns().await;
    let epoch = later.standing.epoch();
    earlier.ownership.release(&integration("main")).await;
    database
        .run(&format!(
            "DO $$ BEGIN ASSERT EXISTS (SELECT FROM ownership WHERE holder = 'one' AND epoch = {epoch}); END $$"
        ))
        .await;
    assert!(later.covers(), "it still has it");
    later.stop.cancel();
    served.close().await;
}

#[tokio::test]
async fn a_claim_that_runs_out_by_a_clock_set_ahead_is_nobody_elses_before_its_owner_stops() {
    let database = database().await;
    let served = Served::open(&database).await;
    let mut first = Replica::start(&database, "first");
    first.owns().await;
    let second = Replica::start(&database, "second");
    first.freeze().await;
    // What the table looks like from a server whose clock is an hour ahead.
    database
        .run("UPDATE ownership SET deadline = deadline - INTERVAL '1 hour'")
        .await;
    while first.covers() {
        assert!(!second.covers(), "two at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.owns().await;
    let ended = second.standing.earlier_end().expect("somebody had it");
    let since = SystemClock.since_boot() - ended;
    assert!(
        since < CLAIM * 2,
        "by that clock it ended {since:?} ago: what the first one did last is in doubt"
    );
    second.stop.cancel();
    served.close().await;
}

#[tokio::test]
async fn no_renewal_brings_a_deadline_forward_that_others_have_been_held_to() {
    let database = database().await;
    let served = Served::open(&database).await;
    let first = Replica::start(&database, "first");
    first.owns().await;
    let epoch = first.standing.epoch();
    let before = first.standing.reach().expect("owned").deadline;
    // What the table looks like from a server whose clock was set back by less than a claim: the owner goes on.
    database
        .run("UPDATE ownership SET deadline = deadline + INTERVAL '1500 milliseconds'")
        .await;
    let deadline_is_beyond = |millis| {
        let (first, bound) = (&first, before + TimeDelta::milliseconds(millis));
        async move {
            let begun = Instant::now();
            while first.standing.reach().expect("owned").deadline < bound {
                assert!(begun.elapsed() < CLAIM * 3, "it is renewed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    deadline_is_beyond(1_490).await;
    deadline_is_beyond(2_500).await;
    assert_eq!(first.standing.epoch(), epoch, "without a break");
    // By more than a claim: it is given up, and free once it has stood still.
    database
        .run("UPDATE ownership SET deadline = deadline + INTERVAL '1 hour'")
        .await;
    let mut tenure = first.standing.tenure();
    timeout(CLAIM, tenure.wait_for(|now| *now == Tenure::Not))
        .await
        .expect("in time")
        .expect("open");
    first.owns().await;
    assert_eq!(first.standing.epoch(), epoch + 1);
    first.stop.cancel();
    served.close().await;
}
