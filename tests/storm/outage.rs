//! A day on which nothing that is asked of upstream succeeds.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use latchkey::domain::ids::UserId;
use latchkey::ports::Clock as _;
use tokio::time::Instant;

use super::stage::{Stage, Standing, on, user};
use super::upstream::Options;

/// Fewer where the build is not optimised.
const MEMBERS: usize = if cfg!(feature = "aws") { 6 } else { 30 };
const GRANTS: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_day_without_upstream_loses_nothing_and_heals_within_the_bound() {
    let options = Options::default();
    let stage = Stage::new(options);
    let begin = stage.clock.now();
    let mut strong: BTreeMap<UserId, bool> = BTreeMap::new();
    for number in 0..MEMBERS {
        let is_strong = number % 3 == 0;
        let role = if is_strong {
            "deployment-admin"
        } else {
            "deployment-viewer"
        };
        // All over the day, several ends for each member.
        let standing: Vec<Standing> = (0..GRANTS)
            .map(|place| {
                let minutes = 60 + (number * 7 + place * 311) % (22 * 60);
                Standing {
                    assignment: on(role, place),
                    ends: begin + TimeDelta::minutes(minutes as i64),
                }
            })
            .collect();
        strong.insert(user(number), is_strong);
        stage.seed(number, &standing).await;
    }
    let process = stage.start();
    stage.upstream.set_outage(true);
    tokio::time::sleep(12 * HOUR).await;
    process.kill().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let process = stage.start();
    tokio::time::sleep(12 * HOUR - Duration::from_secs(301)).await;

    // No busy loop, and never more than the limit.
    let failed = stage.upstream.log(|log| log.failed.clone());
    let busiest = busiest(&failed, Duration::from_secs(60));
    println!(
        "a day without upstream: {MEMBERS} members, {} calls in vain, at most {busiest} in a minute",
        failed.len()
    );
    assert!(busiest <= 600, "{busiest} calls in a minute");
    let per_minute = failed.len() as f64 / (24.0 * 60.0);
    // A removal, its proof and a look for each member, once in the longest pause, and what the sweeps read.
    assert!(
        per_minute <= 3.0 * MEMBERS as f64 + 10.0,
        "{per_minute} calls a minute in the mean"
    );
    assert_eq!(
        stage.upstream.held(),
        MEMBERS * GRANTS,
        "nothing could be removed"
    );
    let open = stage.open_grants().await;
    assert_eq!(
        open.values().sum::<u64>(),
        (MEMBERS * GRANTS) as u64,
        "nothing is abandoned: {open:?}"
    );

    // Healed in the very moment of a restart.
    process.kill().await;
    stage.upstream.set_outage(false);
    let healed = Instant::now();
    let process = stage.start();
    stage.until_gone(Duration::from_secs(600)).await;
    let (removals, throttled) = stage
        .upstream
        .log(|log| (log.removals.clone(), log.throttled));
    let all_gone = removals.last().expect("some").0 - healed;
    let windows = u32::try_from(MEMBERS / options.limit as usize + 1).expect("few");
    // Besides the limit only the longest pause after failures counts.
    let bound = options.window * windows + Duration::from_secs(60) + Duration::from_secs(5);
    println!(
        "healed: {} removals, all gone after {:.1} s, bound {:.1} s",
        removals.len(),
        all_gone.as_secs_f64(),
        bound.as_secs_f64()
    );
    assert!(all_gone <= bound, "{all_gone:?} of {bound:?}");
    let last = |wanted: bool| {
        let of = removals
            .iter()
            .filter(|(_, user, _)| strong[user] == wanted);
        of.map(|(at, _, _)| *at).max().expect("some") - healed
    };
    assert!(
        last(true) * 2 < last(false),
        "strong {:?}, weak {:?}",
        last(true),
        last(false)
    );
    assert_eq!(throttled, 0, "a restart keeps to the budget");
    assert!(
        removals.len() <= MEMBERS + MEMBERS / 10,
        "{} removals",
        removals.len()
    );
    process.stop().await;
}

/// Most calls within any span.
fn busiest(calls: &[Instant], span: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (place, at) in calls.iter().enumerate() {
        while calls[first] + span <= *at {
            first += 1;
        }
        most = most.max(place + 1 - first);
    }
    most
}
