//! The first removals after a start, and what waits for them: the loop of the scheduler over real passes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::scheduler::{Driver, HeadStart, Limits};

/// How long the first removals keep everything else waiting at most.
const LEAD: Duration = Duration::from_millis(200);

/// Removals and additions that were sent.
fn sent(bench: &Bench) -> (usize, usize) {
    let world = bench.world.look();
    let count = |is: fn(&Call) -> bool| world.calls.iter().filter(|(_, call)| is(call)).count();
    (
        count(|call| matches!(call, Call::Remove(_))),
        count(|call| matches!(call, Call::Add(_))),
    )
}

#[tokio::test(start_paused = true)]
async fn first_removals_that_hang_keep_everything_else_waiting_for_the_lead_and_no_longer() {
    let mut bench = Bench::new();
    bench.joins("cleo");
    bench.joins("dan");
    for name in ["ada", "bob", "cleo"] {
        bench.grant(name, &[viewer("a")], 50);
    }
    // Long enough for the looks that come soon after a grant: what is due next is its end.
    bench.run(30);
    let next = bench.record("ada").due.map(|due| due.kind);
    assert_eq!(next, Some(DueKind::Remove));
    // Nobody works while three ends pass and a grant comes in.
    bench.clock.advance(seconds(120));
    bench.grant("dan", &[editor("b")], 600);
    bench.world.change(|world| {
        world.removals_hang = true;
        world.calls.clear();
    });

    let head = HeadStart::new();
    let (_wakes, woken) = mpsc::unbounded_channel();
    let reconciler = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
    let driver = Driver::new(
        Arc::new(reconciler),
        bench.ledger.clone(),
        Arc::new(bench.clock.clone()),
        Limits::default(),
        woken,
    )
    .ahead_in(&head);
    let began = Instant::now();
    let mut driving = JoinSet::new();
    driving.spawn(driver.run(CancellationToken::new()));

    sleep(LEAD - Duration::from_millis(1)).await;
    assert_eq!(sent(&bench), (2, 0), "the first two alone");
    assert!(head.over().now_or_never().is_none());
    head.over().await;
    assert_eq!(began.elapsed(), LEAD);
    // What is on its way in memory takes no time.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(sent(&bench), (3, 1), "and those two still hang");
}
