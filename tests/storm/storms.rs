//! Many ends in one second against ten calls a second.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use latchkey::domain::assignment::total_weight;
use latchkey::domain::ids::{RequestId, UserId};
use latchkey::ports::Clock as _;
use latchkey::service::Wait;
use tokio::time::Instant;

use super::stage::{Stage, Standing, ask, caller, on, user};
use super::upstream::Options;

/// Ten thousand where simulations are run (without default features), and a tenth of it elsewhere.
const MEMBERS: usize = if cfg!(feature = "aws") { 1_000 } else { 10_000 };
const GRANTS: usize = 20;
const CALLS_PER_SECOND: usize = 10;

/// Strong, middling and weak roles in turn; the numbers of a member's grants differ in power, not in count.
fn role(number: usize, place: usize) -> &'static str {
    match (number % 7, place % 10) {
        (0, _) => "deployment-admin",
        (1 | 2, 0..5) => "deployment-editor",
        _ => "deployment-viewer",
    }
}

/// Everybody's grants, ending within the second that begins after ten. Answers what each member's removal weighs.
async fn seed(stage: &Stage, members: usize, together: bool) -> BTreeMap<UserId, u32> {
    let second = stage.clock.now() + TimeDelta::seconds(10);
    let mut weights = BTreeMap::new();
    for number in 0..members {
        let standing: Vec<Standing> = (0..GRANTS)
            .map(|place| {
                // Spread over the second without any order that could help.
                let which = if together {
                    number
                } else {
                    number * GRANTS + place
                };
                let micros = (which as i64 * 7_919_171) % 1_000_000;
                Standing {
                    assignment: on(role(number, place), place),
                    ends: second + TimeDelta::microseconds(micros),
                }
            })
            .collect();
        let all: Vec<_> = standing.iter().map(|one| one.assignment.clone()).collect();
        weights.insert(user(number), total_weight(&all));
        stage.seed(number, &standing).await;
    }
    weights
}

/// The least time that any connector needs: whole windows, of which the first is free at once.
fn bound(calls: usize, options: &Options) -> Duration {
    let windows = (calls.saturating_sub(1)) / options.limit as usize;
    options.window * u32::try_from(windows).expect("few") + options.round_trip / 2
}

/// Power times seconds left open, for removals at these instants after the ends.
fn risk(removals: &[(f64, u32)]) -> f64 {
    removals
        .iter()
        .map(|(late, weight)| late * f64::from(*weight))
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_storm_takes_no_longer_than_the_limit_makes_it_and_the_strongest_go_first() {
    let options = Options::default();
    let stage = Stage::new(options);
    let weights = seed(&stage, MEMBERS, true).await;
    let ends = stage
        .clock
        .instant(stage.clock.now() + TimeDelta::seconds(10));
    let process = stage.start();
    tokio::time::sleep_until(ends).await;

    // Somebody goes on asking for access meanwhile.
    let mut answers = Vec::new();
    let mut next = Instant::now() + Duration::from_secs(2);
    let patience =
        Instant::now() + Duration::from_secs(2 * (MEMBERS / CALLS_PER_SECOND) as u64 + 60);
    while stage.upstream.log(|log| log.removals.len()) < MEMBERS {
        assert!(Instant::now() < patience, "the storm does not end");
        tokio::time::sleep_until(next).await;
        let began = Instant::now();
        let number = MEMBERS + answers.len();
        let request = RequestId::parse(format!("meanwhile-{number}")).expect("well formed");
        let created = process
            .service
            .create_grant(
                &caller(),
                request,
                ask(number, "viewer", 7200),
                Wait::Accepted,
            )
            .await
            .expect("an accept is answered in the middle of a storm");
        assert!(!created.replayed);
        answers.push(began.elapsed());
        next = Instant::now() + Duration::from_secs(10);
    }

    let (last, removals, reads, others, adds) = stage.upstream.log(|log| {
        let last = log.removals.last().expect("some").0;
        let until = |at: &Instant| *at <= last;
        (
            last,
            log.removals.clone(),
            log.reads.iter().filter(|at| until(at)).count(),
            log.others,
            log.adds.iter().filter(|(at, _)| until(at)).count(),
        )
    });
    let makespan = last - ends;
    let most_reads = MEMBERS / CALLS_PER_SECOND / 10 + 1;
    let bound = bound(MEMBERS + reads.min(most_reads), &options);
    let ratio = makespan.as_secs_f64() / bound.as_secs_f64();

    let late = |at: Instant| (at - ends).as_secs_f64();
    let served: Vec<(f64, u32)> = removals
        .iter()
        .map(|(at, user, _)| (late(*at), weights[user]))
        .collect();
    let mut heaviest: Vec<u32> = weights.values().copied().collect();
    heaviest.sort_unstable_by(|a, b| b.cmp(a));
    let ideal: Vec<(f64, u32)> = heaviest
        .into_iter()
        .enumerate()
        .map(|(place, weight)| {
            let window = (place / options.limit as usize) as f64;
            (window * options.window.as_secs_f64(), weight)
        })
        .collect();
    let order = risk(&served) / risk(&ideal);
    let slowest = answers.iter().max().copied().unwrap_or_default();
    println!(
        "storm: {MEMBERS} members x {GRANTS} grants: makespan {:.1} s, bound {:.1} s, ratio {ratio:.4}; removals {}, \
         reads {reads}, listings {others}, additions {adds}; weighted lateness / optimum {order:.4}; {} accepts, \
         slowest {:.1} s",
        makespan.as_secs_f64(),
        bound.as_secs_f64(),
        removals.len(),
        answers.len(),
        slowest.as_secs_f64(),
    );
    assert!(ratio <= 1.02, "makespan is {ratio:.4} of the bound");
    assert!(
        removals.len() * 100 <= MEMBERS * 101,
        "{} removals",
        removals.len()
    );
    assert!(reads <= most_reads, "{reads} reads");
    assert_eq!(adds, 0, "the whole budget is for removals while they wait");
    // In a small storm the first window, which is served while the ends still come in, weighs more.
    let most = if MEMBERS < 10_000 { 1.15 } else { 1.05 };
    assert!(
        order <= most,
        "weighted lateness is {order:.4} of the optimum"
    );
    assert!(
        slowest <= Duration::from_secs(60),
        "an accept took {slowest:?}"
    );
    assert_eq!(
        stage.upstream.log(|log| log.throttled),
        0,
        "calls over budget"
    );

    // Everything is proven, twice, and everybody who asked meanwhile gets what was asked for.
    tokio::time::sleep(Duration::from_secs(180)).await;
    let open = stage.open_grants().await;
    assert_eq!(open.get("revoking"), None, "{open:?}");
    assert_eq!(
        open.get("active").copied().unwrap_or(0),
        answers.len() as u64,
        "{open:?}"
    );
    let reads = stage.upstream.log(|log| log.reads.len());
    assert!(reads <= most_reads + 60, "{reads} reads in all");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn grants_of_one_member_that_end_apart_still_share_a_call() {
    let options = Options::default();
    let stage = Stage::new(options);
    let members = MEMBERS / 5;
    seed(&stage, members, false).await;
    let process = stage.start();
    tokio::time::sleep(Duration::from_secs(11)).await;
    stage.until_gone(Duration::from_secs(600)).await;
    let calls = stage.upstream.log(|log| log.removals.len());
    // Only those who had their turn within the very second can need another one.
    let first_second = options.limit as usize + 64;
    println!(
        "storm of scattered ends: {members} members, {calls} removals, one for each grant would be {}",
        members * GRANTS
    );
    assert!(calls <= members + first_second, "{calls} removals");
    process.stop().await;
}

/// What peers do, for comparison: each grant is undone on its own.
#[tokio::test(start_paused = true)]
async fn a_removal_for_each_grant_would_take_as_many_times_longer_as_there_are_grants() {
    let members = MEMBERS / 100;
    let mut spans = Vec::new();
    for per_grant in [false, true] {
        let stage = Stage::new(Options::default());
        let ends = stage.clock.now() + TimeDelta::seconds(10);
        let mut number = 0;
        for member in 0..members {
            let all: Vec<Standing> = (0..GRANTS)
                .map(|place| Standing {
                    assignment: on(role(member, place), place),
                    ends,
                })
                .collect();
            // The baseline keeps every grant apart, as if each belonged to somebody else.
            let parts = if per_grant { 1 } else { GRANTS };
            for part in all.chunks(parts) {
                stage.seed(number, part).await;
                number += 1;
            }
        }
        let began = stage.clock.instant(ends);
        let process = stage.start();
        tokio::time::sleep_until(began).await;
        stage.until_gone(Duration::from_secs(3600)).await;
        let last = stage
            .upstream
            .log(|log| log.removals.last().expect("some").0);
        spans.push((last - began, stage.upstream.log(|log| log.removals.len())));
        process.stop().await;
    }
    let (ours, theirs) = (spans[0], spans[1]);
    println!(
        "{members} members x {GRANTS} grants: {} calls in {:.1} s; one for each grant: {} calls in {:.1} s",
        ours.1,
        ours.0.as_secs_f64(),
        theirs.1,
        theirs.0.as_secs_f64()
    );
    assert_eq!(ours.1, members);
    assert_eq!(theirs.1, members * GRANTS);
}

#[tokio::test(start_paused = true)]
async fn without_a_told_limit_a_storm_finds_the_pace_by_itself_and_loses_nothing() {
    let options = Options {
        limit: 50,
        tells: false,
        ..Options::default()
    };
    let stage = Stage::new(options);
    let members = MEMBERS / 10;
    seed(&stage, members, true).await;
    let process = stage.start();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let began = Instant::now();
    stage.until_gone(Duration::from_secs(3600)).await;
    let (throttled, calls) = stage.upstream.log(|log| (log.throttled, log.calls()));
    println!(
        "storm without a told limit: {members} members in {:.0} s, {throttled} of {calls} calls throttled",
        began.elapsed().as_secs_f64()
    );
    let bound = bound(members, &options);
    assert!(
        began.elapsed() <= bound * 2,
        "{:?} of {bound:?}",
        began.elapsed()
    );
    assert!(
        throttled * 3 <= calls,
        "{throttled} of {calls} were refused"
    );
    process.stop().await;
}

/// A removal that becomes due in the middle of a storm of weak ones does not wait behind them.
#[tokio::test(start_paused = true)]
async fn a_strong_removal_overtakes_weak_ones_that_queue_already() {
    let stage = Stage::new(Options {
        limit: 10,
        window: Duration::from_secs(1),
        ..Options::default()
    });
    let now = stage.clock.now();
    let (weak_end, strong_end) = (now + TimeDelta::seconds(10), now + TimeDelta::seconds(30));
    for number in 0..1_000 {
        let assignment = on("deployment-viewer", 0);
        stage
            .seed(
                number,
                &[Standing {
                    assignment,
                    ends: weak_end,
                }],
            )
            .await;
    }
    let strong = 5_000..5_020;
    for number in strong.clone() {
        let assignment = on("deployment-admin", 1);
        stage
            .seed(
                number,
                &[Standing {
                    assignment,
                    ends: strong_end,
                }],
            )
            .await;
    }
    let process = stage.start();
    tokio::time::sleep_until(stage.clock.instant(strong_end) + Duration::from_millis(2_600)).await;
    for number in strong {
        assert!(
            !stage.upstream.holds(&user(number)),
            "{number} waits behind weaker ones"
        );
    }
    assert!(stage.upstream.held() > 500, "the storm is not over");
    process.stop().await;
}
