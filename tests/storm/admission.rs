//! The forecast against the limiter: nothing that was admitted is later than the bound, whatever else wants to call.
//!
//! A million schedules are played against a model that is as bad as the limiter can be, and some thousands against the
//! limiter itself.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use latchkey::domain::Timestamp;
use latchkey::domain::ids::RequestId;
use latchkey::domain::lateness::{Capacity, Endings};
use latchkey::elastic::limiter::core::{Core, LimiterOptions, Step};
use latchkey::ports::Clock as _;
use latchkey::ports::provider::{Claim, Priority};
use latchkey::service::{ServiceError, Wait};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::stage::{Stage, ask, caller, user};
use super::upstream::Options;

const SCHEDULES: u64 = if cfg!(feature = "aws") {
    20_000
} else {
    1_000_000
};
const AGAINST_LIMITER: u64 = if cfg!(feature = "aws") { 100 } else { 2_000 };

fn at_ms(ms: i64) -> Timestamp {
    DateTime::from_timestamp_millis(1_800_000_000_000 + ms).expect("in range")
}

/// Ends in milliseconds, of which the forecast let in those that are answered, in order of time.
fn admitted(
    rng: &mut ChaCha8Rng,
    capacity: &Capacity,
    bound: TimeDelta,
    asked: usize,
    span_ms: i64,
) -> Vec<i64> {
    let mut endings = Endings::default();
    let mut ends = Vec::new();
    for _ in 0..asked {
        let ms = rng.random_range(0..span_ms);
        if endings.lateness_with(at_ms(ms), bound, capacity) <= bound {
            endings.add(at_ms(ms), 1);
            ends.push(ms);
        }
    }
    ends.sort_unstable();
    ends
}

/// The worst that other calls can do: before a removal that finds none waiting, they have taken everything but what is
/// kept free, a moment ago. Answers how late the latest of all was, in whatever order they go.
fn worst(ends: &[i64], capacity: &Capacity, rng: &mut ChaCha8Rng) -> i64 {
    let window = capacity.window.num_milliseconds();
    let mut own: VecDeque<i64> = VecDeque::new();
    let mut latest = 0;
    let mut next = 0;
    while next < ends.len() {
        let first = ends[next];
        let mut waiting = vec![first];
        next += 1;
        // Others hold their places for up to a window.
        let others_until = first + rng.random_range(0..=window);
        let mut now = first;
        loop {
            while own.front().is_some_and(|at| at + window <= now) {
                own.pop_front();
            }
            let places = if now >= others_until {
                capacity.removals
            } else {
                capacity.kept
            };
            while own.len() < places as usize && !waiting.is_empty() {
                // Any order may be the order of power.
                let one = waiting.swap_remove(rng.random_range(0..waiting.len()));
                latest = latest.max(now - one);
                own.push_back(now);
            }
            if waiting.is_empty() {
                break;
            }
            let freed = own.front().map_or(i64::MAX, |at| at + window);
            let others = if others_until > now {
                others_until
            } else {
                i64::MAX
            };
            let due = ends
                .get(next)
                .copied()
                .filter(|at| *at > now)
                .unwrap_or(i64::MAX);
            now = freed.min(others).min(due);
            while next < ends.len() && ends[next] <= now {
                waiting.push(ends[next]);
                next += 1;
            }
        }
    }
    latest
}

#[test]
fn no_admitted_removal_is_later_than_the_bound_in_a_million_schedules() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut full = 0_u64;
    for schedule in 0..SCHEDULES {
        let removals = rng.random_range(1..6);
        let capacity = Capacity {
            removals,
            kept: rng.random_range(0..=removals / 2),
            window: TimeDelta::milliseconds(rng.random_range(1..30) * 500),
        };
        let bound = TimeDelta::seconds(rng.random_range(3..40));
        let span_ms = rng.random_range(1_000..40_000);
        let ends = admitted(&mut rng, &capacity, bound, 8, span_ms);
        full += u64::from(ends.len() < 8);
        let latest = worst(&ends, &capacity, &mut rng);
        assert!(
            latest <= bound.num_milliseconds(),
            "schedule {schedule}: {latest} ms late, bound {bound}, {capacity:?}, ends {ends:?}"
        );
    }
    println!("{SCHEDULES} schedules, {full} of them with ends that were refused");
    assert!(full > SCHEDULES / 10, "the forecast refuses where it must");
}

/// The real limiter under floods of everything else.
#[test]
fn the_limiter_keeps_what_the_forecast_promises() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut latest_share = 0.0_f64;
    for schedule in 0..AGAINST_LIMITER {
        let limit = rng.random_range(2..40);
        let interval = Duration::from_secs(rng.random_range(1..31));
        let mut core = Core::new(LimiterOptions {
            initial: limit,
            interval,
            increase: 0.0,
            ..LimiterOptions::default()
        });
        let rate = core.rate(Duration::ZERO);
        let capacity = Capacity {
            removals: rate.removals,
            kept: rate.kept,
            window: TimeDelta::from_std(rate.window).expect("short"),
        };
        let bound = TimeDelta::seconds(rng.random_range(10..90));
        let ends = admitted(&mut rng, &capacity, bound, 120, 120_000);
        // Long enough for the floods to have taken everything they can before the first end.
        let start = Duration::from_secs(100);
        let ends: Vec<Duration> = ends
            .into_iter()
            .map(|ms| start + Duration::from_millis(ms.unsigned_abs()))
            .collect();
        let late = play(&mut core, &ends, &mut rng);
        let bound_s = bound.num_seconds() as f64;
        latest_share = latest_share.max(late.as_secs_f64() / bound_s);
        assert!(
            late.as_secs_f64() <= bound_s,
            "schedule {schedule}: {late:?} late, bound {bound}, {limit} in {interval:?}, {} ends",
            ends.len()
        );
    }
    println!(
        "{AGAINST_LIMITER} schedules against the limiter: at most {latest_share:.2} of the bound"
    );
}

/// Removals of random power at their ends, while reads, additions and discovery always wait as well.
fn play(core: &mut Core, ends: &[Duration], rng: &mut ChaCha8Rng) -> Duration {
    let mut due = std::collections::BTreeMap::new();
    let mut next = 0;
    let mut now = Duration::ZERO;
    let mut latest = Duration::ZERO;
    for priority in [Priority::Verify, Priority::Grant, Priority::Discovery] {
        core.enqueue(priority);
    }
    while next < ends.len() || !due.is_empty() {
        while next < ends.len() && ends[next] <= now {
            let weight = rng.next_u32() % 100;
            let ticket = core.enqueue_claim(Claim::removal(weight, None));
            due.insert(ticket, ends[next]);
            next += 1;
        }
        let until = match core.poll(now) {
            Step::Admit(ticket) => {
                match due.remove(&ticket) {
                    Some(end) => latest = latest.max(now - end),
                    // Whoever floods comes back at once.
                    None => {
                        core.enqueue(ticket.priority());
                    }
                }
                core.finished();
                continue;
            }
            Step::Wait(until) => until,
            Step::Idle => Duration::MAX,
        };
        now = ends.get(next).map_or(until, |end| until.min(*end)).max(now);
    }
    latest
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_kept_is_refused_with_one_that_can() {
    let stage = Stage::new(Options::default());
    let process = stage.start_refusing(TimeDelta::seconds(30));
    let mut refused = None;
    let mut accepted = 0;
    // Everybody asks for the same hard end; what there is room for is accepted.
    let end = stage.clock.now() + TimeDelta::hours(1);
    for number in 0..600 {
        stage.upstream.give(&user(number), []);
        let request = RequestId::parse(format!("r-{number}")).expect("well formed");
        let mut wanted = ask(number, "viewer", 7200);
        wanted.not_after = Some(end);
        match process
            .service
            .create_grant(&caller(), request, wanted, Wait::Accepted)
            .await
        {
            Ok(created) => {
                assert_eq!(created.predicted_lateness, None);
                accepted += 1;
            }
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!((200..400).contains(&accepted), "{accepted} were accepted");
    let Some(ServiceError::TooLate {
        earliest,
        predicted,
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert!(predicted > TimeDelta::seconds(30));
    let earliest = earliest.expect("there is room later");
    assert!(earliest > end);
    let mut wanted = ask(600, "viewer", 7200);
    wanted.not_after = Some(earliest);
    let request = RequestId::parse("later").expect("well formed");
    process
        .service
        .create_grant(&caller(), request, wanted, Wait::Accepted)
        .await
        .expect("the end that was named can be kept");

    // And it is kept: activated meanwhile, all of it is gone within the bound.
    tokio::time::sleep_until(stage.clock.instant(end)).await;
    assert!(stage.upstream.held() >= accepted);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(
        stage.upstream.held() <= 1,
        "{} are late",
        stage.upstream.held()
    );
    process.stop().await;
}
