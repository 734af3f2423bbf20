//! The limiter against its promises: never above the budget, order by priority, reserved reads.

use std::time::Duration;

use proptest::prelude::*;

use super::core::{Core, Feedback, LimiterOptions, Step};
use super::{Claim, Limiter, Priority};

const ALL: [Priority; 5] = [
    Priority::Revoke,
    Priority::Verify,
    Priority::Retry,
    Priority::Grant,
    Priority::Discovery,
];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn told(limit: u32, remaining: u32, interval: u64) -> Feedback {
    Feedback {
        limit: Some(limit),
        remaining: Some(remaining),
        interval: Some(seconds(interval)),
        ..Feedback::default()
    }
}

fn core(initial: u32, interval: u64) -> Core {
    Core::new(LimiterOptions {
        initial,
        interval: seconds(interval),
        increase: 0.0,
        ..LimiterOptions::default()
    })
}

/// Polls until nobody may go; answers who went and when to ask again.
fn drain(core: &mut Core, now: Duration) -> (Vec<Priority>, Option<Duration>) {
    let mut went = Vec::new();
    loop {
        match core.poll(now) {
            Step::Admit(ticket) => went.push(ticket.priority()),
            Step::Wait(until) => return (went, Some(until)),
            Step::Idle => return (went, None),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_window_ever_holds_more_than_the_budget(
        initial in 1_u32..40,
        interval in 1_u64..90,
        steps in proptest::collection::vec((0_u64..4_000, 0_usize..5, 0_u8..6, 1_u32..60), 1..400),
    ) {
        let mut core = core(initial, interval);
        let mut now = Duration::ZERO;
        let mut sent: Vec<Duration> = Vec::new();
        for (pause, who, event, number) in steps {
            now += Duration::from_millis(pause);
            core.enqueue(ALL[who]);
            match event {
                0 => core.answered(now, told(number, number / 2, interval)),
                1 => core.answered(now, Feedback { throttled: true, ..Feedback::default() }),
                2 => core.answered(now, Feedback::default()),
                _ => {}
            }
            loop {
                let step = core.poll(now);
                let Step::Admit(_) = step else {
                    if let Step::Wait(until) = step {
                        prop_assert!(until > now, "a wait that is over already would spin");
                    }
                    break;
                };
                sent.push(now);
                let window = core.window();
                let within = sent.iter().filter(|at| **at + window > now).count();
                prop_assert!(within <= core.budget(), "{within} in one window of {}", core.budget());
            }
        }
    }

    #[test]
    fn nobody_goes_while_a_higher_priority_waits_except_the_reserved_read(
        initial in 1_u32..20,
        arrivals in proptest::collection::vec((0_u64..3_000, 0_usize..4), 1..300),
    ) {
        let mut core = core(initial, 20);
        let mut waiting = [0_usize; ALL.len()];
        let mut now = Duration::ZERO;
        for (pause, who) in arrivals {
            now += Duration::from_millis(pause);
            core.enqueue(ALL[who]);
            waiting[who] += 1;
            for went in drain(&mut core, now).0 {
                let rank = ALL.iter().position(|p| *p == went).expect("one of them");
                // What was refused before waits for its own share, and nobody waits behind it.
                let ahead = ALL.iter().zip(waiting).take(rank);
                let jumped = ahead
                    .filter(|(priority, _)| **priority != Priority::Retry)
                    .any(|(_, count)| count > 0);
                prop_assert!(!jumped || went == Priority::Verify, "{went:?} went before {waiting:?}");
                waiting[rank] -= 1;
            }
        }
    }

    #[test]
    fn a_storm_of_removals_leaves_a_read_in_every_span(initial in 1_u32..200, interval in 1_u64..61) {
        let mut core = core(initial, interval);
        let mut now = Duration::ZERO;
        let mut last_read = Duration::ZERO;
        for _ in 0..400 {
            core.enqueue(Priority::Revoke);
        }
        // A budget smaller than one request in ten seconds cannot promise a read in ten seconds.
        let slot = if core.budget() == 1 { core.window() } else { Duration::ZERO };
        // A read that falls due when its window is spent is the first of the next one.
        let promise = (seconds(10) + slot + core.window()).max(core.window() * 2) + seconds(1);
        core.enqueue(Priority::Verify);
        while now < seconds(200) {
            for went in drain(&mut core, now).0 {
                match went {
                    Priority::Verify => { last_read = now; core.enqueue(Priority::Verify); }
                    Priority::Revoke => { core.enqueue(Priority::Revoke); }
                    Priority::Retry | Priority::Grant | Priority::Discovery => {}
                }
            }
            prop_assert!(now - last_read <= promise, "no read since {last_read:?} at {now:?}");
            now += Duration::from_millis(500);
        }
    }
}

#[test]
fn additions_and_discovery_leave_the_last_share_to_removals() {
    let mut core = core(100, 10);
    for _ in 0..200 {
        core.enqueue(Priority::Grant);
        core.enqueue(Priority::Discovery);
    }
    let (went, _) = drain(&mut core, Duration::ZERO);
    assert!(went.len() < 85, "{} went", went.len());
    for _ in 0..15 {
        core.enqueue(Priority::Revoke);
    }
    assert_eq!(
        drain(&mut core, Duration::ZERO).0,
        vec![Priority::Revoke; 15]
    );
}

#[test]
fn the_whole_budget_serves_a_storm_of_removals() {
    let mut core = core(600, 60);
    for _ in 0..1_800 {
        core.enqueue(Priority::Revoke);
    }
    let mut now = Duration::ZERO;
    let mut went = 0;
    while let (more, Some(until)) = drain(&mut core, now) {
        went += more.len();
        now = until;
    }
    went += drain(&mut core, now).0.len();
    assert!(went <= 1_800 && now <= seconds(182), "{went} by {now:?}");
}

#[test]
fn a_429_halves_the_budget_once_per_window_and_good_answers_raise_it() {
    let mut core = Core::new(LimiterOptions {
        initial: 100,
        increase: 1.0,
        ..LimiterOptions::default()
    });
    let no = Feedback {
        throttled: true,
        ..Feedback::default()
    };
    core.answered(seconds(1), no);
    core.answered(seconds(2), no);
    assert_eq!(core.budget(), 50);
    core.answered(seconds(12), no);
    assert_eq!(core.budget(), 25);
    for _ in 0..10 {
        core.answered(seconds(13), Feedback::default());
    }
    assert_eq!(core.budget(), 35);
}

#[test]
fn what_others_spent_of_the_shared_budget_is_not_spent_again() {
    let mut core = core(10, 60);
    core.enqueue(Priority::Revoke);
    assert_eq!(drain(&mut core, Duration::ZERO).0, [Priority::Revoke]);
    core.answered(Duration::ZERO, told(100, 3, 60));
    for _ in 0..50 {
        core.enqueue(Priority::Revoke);
    }
    assert!(drain(&mut core, seconds(1)).0.len() <= 3);
    core.answered(seconds(2), told(100, 100, 60));
    assert!(drain(&mut core, seconds(3)).0.len() > 30);
}

#[test]
fn what_a_read_is_told_to_wait_does_not_hold_up_removals() {
    let mut core = core(10, 10);
    core.answered(
        Duration::ZERO,
        Feedback {
            throttled: true,
            retry_after: Some(seconds(60)),
            spares_removals: true,
            ..Feedback::default()
        },
    );
    core.enqueue(Priority::Verify);
    assert_eq!(core.poll(seconds(1)), Step::Wait(seconds(60)));
    let removal = core.enqueue(Priority::Revoke);
    assert_eq!(core.poll(seconds(1)), Step::Admit(removal));
    assert_eq!(core.poll(seconds(1)), Step::Wait(seconds(60)));
}

#[test]
fn a_retry_after_stops_everybody_until_then() {
    let mut core = core(10, 10);
    core.answered(
        seconds(1),
        Feedback {
            throttled: true,
            retry_after: Some(seconds(7)),
            ..Feedback::default()
        },
    );
    core.enqueue(Priority::Revoke);
    assert_eq!(core.poll(seconds(2)), Step::Wait(seconds(8)));
    assert!(matches!(core.poll(seconds(8)), Step::Admit(_)));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_by_priority_and_dropped_ones_leave_the_queue() {
    let limiter = Limiter::new(LimiterOptions {
        initial: 2,
        interval: seconds(10),
        ..LimiterOptions::default()
    });
    drop(limiter.acquire(Priority::Revoke).await);
    let order = std::sync::Mutex::new(Vec::new());
    let wait = |priority| {
        let (limiter, order) = (&limiter, &order);
        async move {
            drop(limiter.acquire(priority).await);
            order.lock().expect("not poisoned").push(priority);
        }
    };
    let given_up = tokio::time::timeout(seconds(1), wait(Priority::Revoke)).await;
    assert!(given_up.is_err(), "the budget was spent");
    tokio::join!(
        wait(Priority::Discovery),
        wait(Priority::Grant),
        wait(Priority::Revoke),
    );
    assert_eq!(
        *order.lock().expect("not poisoned"),
        [Priority::Revoke, Priority::Grant, Priority::Discovery]
    );
}

#[test]
fn removals_that_were_refused_before_get_a_tenth_and_hold_nobody_up() {
    let mut core = core(100, 10);
    for _ in 0..50 {
        core.enqueue(Priority::Retry);
        core.enqueue(Priority::Grant);
    }
    let (went, _) = drain(&mut core, seconds(1));
    let count = |wanted| went.iter().filter(|one| **one == wanted).count();
    assert_eq!(count(Priority::Retry), 9, "a tenth of what is not reserved");
    assert_eq!(count(Priority::Grant), 50, "{went:?}");
    for _ in 0..200 {
        core.enqueue(Priority::Revoke);
    }
    let (went, _) = drain(&mut core, seconds(2));
    assert!(went.iter().all(|one| *one == Priority::Revoke));
    let (mut retries, mut now) = (0, seconds(2));
    while now < seconds(62) {
        now += seconds(1);
        let (went, _) = drain(&mut core, now);
        retries += went.iter().filter(|one| **one == Priority::Retry).count();
    }
    assert!(
        (30..=41).contains(&retries),
        "all of them in time: {retries}"
    );
}

#[test]
fn a_budget_of_one_still_retries() {
    let mut core = core(1, 10);
    let retry = core.enqueue(Priority::Retry);
    assert_eq!(core.poll(seconds(1)), Step::Admit(retry));
    core.enqueue(Priority::Retry);
    assert!(matches!(core.poll(seconds(2)), Step::Wait(_)));
}

#[test]
fn a_removal_that_leaves_more_open_overtakes_those_that_wait_already() {
    let mut core = core(1, 10);
    assert!(matches!(
        {
            core.enqueue(Priority::Revoke);
            core.poll(Duration::ZERO)
        },
        Step::Admit(_)
    ));
    let day = |second| chrono::DateTime::from_timestamp(second, 0);
    let light = core.enqueue_claim(Claim::removal(20, day(50)));
    let older = core.enqueue_claim(Claim::removal(20, day(40)));
    let heavy = core.enqueue_claim(Claim::removal(80, day(60)));
    let mut order = Vec::new();
    for turn in 1..4 {
        if let Step::Admit(ticket) = core.poll(seconds(11 * turn)) {
            order.push(ticket);
        }
    }
    assert_eq!(order, [heavy, older, light]);
}

#[test]
fn a_short_window_sets_nothing_aside_and_still_lets_an_owed_read_go_first() {
    let mut core = core(10, 1);
    let mut now = Duration::ZERO;
    let (mut removals, mut reads) = (0, 0);
    for _ in 0..2_000 {
        core.enqueue(Priority::Revoke);
    }
    core.enqueue(Priority::Verify);
    while now < seconds(100) {
        for went in drain(&mut core, now).0 {
            if went == Priority::Verify {
                reads += 1;
                core.enqueue(Priority::Verify);
            } else {
                removals += 1;
            }
        }
        now += Duration::from_millis(20);
    }
    assert!((10..=11).contains(&reads), "{reads} reads");
    assert!(removals >= 960, "{removals} removals");
}

#[test]
fn what_ranks_below_removals_does_not_slip_into_the_gap_between_two_of_them() {
    let mut core = core(4, 10);
    for _ in 0..4 {
        core.enqueue(Priority::Revoke);
    }
    assert_eq!(
        drain(&mut core, Duration::ZERO).0.len(),
        3,
        "one is for a read"
    );
    // The last one waits, goes, and the next is still on its way when there is room.
    assert_eq!(drain(&mut core, seconds(11)).0, [Priority::Revoke]);
    core.enqueue(Priority::Grant);
    core.enqueue(Priority::Discovery);
    assert_eq!(drain(&mut core, Duration::from_millis(11_500)).0, []);
    core.enqueue(Priority::Revoke);
    assert_eq!(
        drain(&mut core, Duration::from_millis(11_600)).0,
        [Priority::Revoke]
    );
    assert_eq!(drain(&mut core, seconds(25)).0, [Priority::Grant]);
}

#[test]
fn reads_leave_half_of_the_urgent_share_alone() {
    let mut core = core(100, 60);
    for _ in 0..200 {
        core.enqueue(Priority::Verify);
    }
    let mut went = drain(&mut core, Duration::ZERO).0.len();
    went += drain(&mut core, Duration::ZERO).0.len();
    let kept = core.rate(Duration::ZERO).kept as usize;
    assert!(kept >= 9, "{kept} are kept");
    for _ in 0..kept {
        core.enqueue(Priority::Revoke);
    }
    let now = drain(&mut core, Duration::ZERO).0;
    assert_eq!(
        now,
        vec![Priority::Revoke; kept],
        "{went} reads went before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_is_given_back() {
    let limiter = Limiter::new(LimiterOptions {
        initial: 1,
        interval: seconds(10),
        ..LimiterOptions::default()
    });
    limiter.acquire(Priority::Revoke).await.unsent();
    assert_eq!(limiter.rate().remaining, 1);
    let began = tokio::time::Instant::now();
    drop(limiter.acquire(Priority::Revoke).await);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(limiter.rate().remaining, 0);
}
