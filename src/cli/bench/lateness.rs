//! Section 2: how late removals are, one alone and many at once.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::Plan;
use super::load::{self, Subjects, Times, millis, number};
use super::report::{Goal, Line, Unit, median, percentile, ratios};
use super::stage::{Server, Stage, integration};
use crate::api::pb;
use crate::app::bench::{Fill, fill};

/// Between the ends of two grants, so that each is due alone.
const APART: Duration = Duration::from_millis(60);
/// Calls that the simulated limit allows in a second.
const LIMIT: usize = 20;
/// From filling a ledger to the end of what it holds: time to start and to learn the limit.
const LEAD: TimeDelta = TimeDelta::milliseconds(4500);

pub(super) async fn measure(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    let mut lines = single(plan, directory).await?;
    lines.extend(storm(plan, directory).await?);
    Ok(lines)
}

/// From the instant access must go to the removal's arrival upstream, against a bare timer and HTTP call.
async fn single(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    let count = if plan.quick { 4 } else { 20 };
    let stage = Stage::new(directory, count * 2, 4, false, &["rate_limit=0"]).await?;
    let server = Server::connector(&stage.configure(&stage.ledger()?, FAST_UPSTREAM)?, &[]).await?;
    let channel = server.channel().await?;
    let who = Subjects::of(&stage);
    let (url, key) = stage.upstream();
    let url = format!("{url}/api/v1/organizations");
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("making an HTTP client")?;
    let call = || async {
        let request = http
            .get(&url)
            .header("Authorization", format!("ApiKey {key}"));
        request.send().await.map(drop).context("a bare call")
    };
    call().await?;
    let trip = median(&load::latencies(count, APART / 4, call).await?);

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.min(5) {
        stage.handle().reset_calls();
        let mut dues = Vec::new();
        for place in 0..count {
            // The other half has had its turn in the round before and may still be looked at.
            let user = place + count * (round % 2);
            let times = Times {
                seconds: 2,
                ..Times::default()
            };
            let request = who.request_for(user, place, times, pb::GrantWait::Active);
            let grant = load::create(channel.clone(), request).await?;
            let due = grant.expires_at.context("an active grant has an end")?;
            dues.push((stage.users[user].to_string(), instant(due)?));
            tokio::time::sleep(APART).await;
        }
        for (user, arrived) in stage.removed(count).await? {
            if let Some((_, due)) = dues.iter().find(|(due, _)| *due == user) {
                ours.push(millis(arrived - *due));
            }
        }
        for _ in 0..count {
            let deadline = stage.now() + TimeDelta::milliseconds(40);
            let wait = (deadline - stage.now()).to_std().unwrap_or_default();
            tokio::time::sleep_until(Instant::now() + wait).await;
            call().await?;
            let arrived = stage
                .handle()
                .calls()
                .log
                .last()
                .map(|call| call.at)
                .context("the simulator saw the call")?;
            bare.push(millis(arrived - deadline));
        }
    }
    server.stop().await?;
    stage.close().await;
    let (late, least) = (percentile(&ours, 0.99), percentile(&bare, 0.99));
    Ok(vec![
        Line {
            what: "one grant alone: due to removal on the wire, p99",
            unit: Unit::Millis,
            pairs: vec![late],
            goal: Goal::AtMost(20.0 + 2.0 * trip),
            sides: format!(
                "p50 {:.1} ms, {} grants; a round trip takes {trip:.1} ms",
                median(&ours),
                ours.len()
            ),
        },
        Line {
            what: "the same p99 / p99 of a bare timer and HTTP call",
            unit: Unit::Times,
            pairs: vec![late / least],
            goal: Goal::AtMost(1.5),
            sides: format!("{late:.1} ms against {least:.1} ms"),
        },
    ])
}

/// Many members due at one instant against a limited upstream, in real time, all of a member at once and one by one.
async fn storm(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    let (members, grants) = if plan.quick { (30, 2) } else { (60, 3) };
    let limit = format!("rate_limit={LIMIT}");
    let settings = [limit.as_str(), "rate_interval_seconds=1"];
    let (mut spans, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.min(3) {
        for (switches, into) in [(&[][..], &mut spans), (&["--per-grant"][..], &mut apart)] {
            let stage = Stage::new(directory, members + 1, grants, true, &settings).await?;
            into.push(span(&stage, members, grants, switches).await?);
            stage.close().await;
        }
    }
    let windows = |calls: usize| number(calls.saturating_sub(LIMIT).div_ceil(LIMIT)) * 1000.0;
    let (least, least_apart) = (windows(members), windows(members * grants));
    let bound: Vec<f64> = spans.iter().map(|span| span / least).collect();
    Ok(vec![
        Line {
            what: "many at once in real time: makespan / bound",
            unit: Unit::Times,
            pairs: bound,
            goal: Goal::AtMost(1.15),
            sides: format!(
                "{:.2} s against {:.2} s: {members} members, {grants} grants each, {LIMIT} calls a second",
                median(&spans) / 1000.0,
                least / 1000.0
            ),
        },
        Line {
            what: "one call for each grant / one call for each member",
            unit: Unit::Times,
            pairs: ratios(&apart, &spans),
            // Both begin with a full window, which is why this is not simply the number of grants.
            goal: Goal::AtLeast(0.95 * least_apart / least),
            sides: format!(
                "{:.2} s against {:.2} s",
                median(&apart) / 1000.0,
                median(&spans) / 1000.0
            ),
        },
    ])
}

/// Milliseconds from the instant that all are due to the arrival of the last removal.
async fn span(
    stage: &Stage,
    members: usize,
    grants: usize,
    switches: &[&str],
) -> anyhow::Result<f64> {
    let ledger = stage.ledger()?;
    let due = stage.now() + LEAD;
    let filled = Fill {
        integration: integration(),
        users: stage.users.iter().take(members).cloned().collect(),
        since: stage.since.iter().take(members).copied().collect(),
        deployments: stage.deployments.clone(),
        ends: vec![due; members],
    };
    fill(&ledger, &filled).await?;
    let server = Server::connector(&stage.configure(&ledger, "")?, switches).await?;
    // One grant of somebody else teaches the connector the limit, and is over before the storm.
    let who = Subjects::of(stage);
    let times = Times {
        seconds: 1,
        ..Times::default()
    };
    let request = who.request_for(members, 0, times, pb::GrantWait::Active);
    load::create(server.channel().await?, request).await?;
    let calls = if switches.is_empty() {
        members
    } else {
        members * grants
    };
    let stranger = stage.users[members].to_string();
    let removals = super::stage::until("the storm to pass", || {
        let mut removals = stage.removals();
        removals.retain(|(user, at)| *user != stranger && *at >= due);
        Ok((removals.len() >= calls).then_some(removals))
    })
    .await?;
    let last = removals
        .iter()
        .map(|(_, at)| *at)
        .max()
        .context("there were removals")?;
    server.stop().await?;
    Ok(millis(last - due))
}

/// Lets the connector send as fast as it can from the start.
const FAST_UPSTREAM: &str = "    upstream:\n      initial_rate: 5000\n";

fn instant(at: prost_types::Timestamp) -> anyhow::Result<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).unwrap_or(0))
        .context("the end is an instant")
}
