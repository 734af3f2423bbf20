//! Who waits for whose read.

use std::pin::pin;
use std::time::Duration;

use super::*;
use crate::domain::observation::Interest;
use crate::ports::ownership::Standing;
use crate::ports::provider::Priority;

fn ada() -> Interest {
    Interest::user(user("ada"))
}

#[test]
fn what_a_removal_has_to_read_does_not_wait_behind_a_listing_that_waits_for_its_turn() {
    let bench = Bench::new();
    bench.joins("ada");
    let observer = Arc::clone(&bench.reconciler.observer);
    bench.world.crash.after(0);
    {
        let mut listing = pin!(observer.observe(ada(), Priority::Discovery));
        assert!(
            listing.as_mut().now_or_never().is_none(),
            "it waits upstream"
        );
        bench.world.crash.never();
        let mut second = pin!(observer.observe(ada(), Priority::Discovery));
        assert!(second.as_mut().now_or_never().is_none(), "one at a time");
        let read = observer.observe(ada(), Priority::Revoke).now_or_never();
        let read = read.expect("it outranks the listing");
        let shared = second.now_or_never().expect("it shares that read");
        assert!(Arc::ptr_eq(
            &read.expect("upstream answers"),
            &shared.expect("upstream answers")
        ));
        assert_eq!(bench.reads(), 1);
        assert!(
            observer
                .observe(ada(), Priority::Discovery)
                .now_or_never()
                .is_none(),
            "the listing is still on its way"
        );
    }
    let after = observer.observe(ada(), Priority::Discovery).now_or_never();
    assert!(
        after.is_some(),
        "a reader that went away keeps nobody waiting"
    );
}

#[test]
fn those_who_ask_while_a_read_is_on_its_way_share_the_next_one() {
    let bench = Bench::new();
    bench.joins("ada");
    let observer = Arc::clone(&bench.reconciler.observer);
    bench.world.crash.after(0);
    let reads = {
        let first = observer.observe(ada(), Priority::Verify);
        let mut first = pin!(first);
        assert!(first.as_mut().now_or_never().is_none());
        bench.world.crash.never();
        let mut others: Vec<_> = (0..5)
            .map(|_| Box::pin(observer.observe(ada(), Priority::Verify)))
            .collect();
        for other in &mut others {
            assert!(other.as_mut().now_or_never().is_none());
        }
        others
    };
    // The first reader's caller has gone away.
    assert_eq!(
        reads
            .into_iter()
            .filter_map(FutureExt::now_or_never)
            .count(),
        5
    );
    assert_eq!(bench.reads(), 1);
}

/// An observer under a claim that is held, whose reads upstream never answers.
fn hanging(bench: &Bench) -> (Observer, Arc<Standing>) {
    bench.joins("ada");
    let standing = Arc::new(Standing::none());
    let observer = Observer::new(
        main_integration(),
        bench.world.clone(),
        bench.ledger.clone(),
        Arc::new(bench.clock.clone()),
    );
    bench.world.crash.after(0);
    (observer.under(Arc::clone(&standing)), standing)
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_does_not_keep_a_claim_that_is_asked_back() {
    let bench = Bench::new();
    let (observer, standing) = hanging(&bench);
    standing.hold(1, Duration::from_secs(5));
    let mut read = pin!(observer.observe(ada(), Priority::Verify));
    assert!(read.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(read.as_mut().now_or_never().is_none(), "under a claim");
    standing.ask_back();
    assert!(read.as_mut().now_or_never().is_none(), "a moment is left");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(read.as_mut().now_or_never().is_none(), "a moment is left");
    tokio::time::advance(Duration::from_millis(1_001)).await;
    let given_up = read.now_or_never().expect("over").expect_err("no answer");
    assert_eq!(given_up.code(), "claim_given_back");
}

#[tokio::test(start_paused = true)]
async fn a_read_for_a_caller_of_a_replica_without_a_claim_is_not_hurried() {
    let bench = Bench::new();
    let (observer, standing) = hanging(&bench);
    let mut read = pin!(observer.observe(ada(), Priority::Verify));
    assert!(read.as_mut().now_or_never().is_none());
    standing.hold(1, Duration::from_secs(5));
    standing.lose();
    assert!(read.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(read.as_mut().now_or_never().is_none());
}
