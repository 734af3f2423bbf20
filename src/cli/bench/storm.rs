//! Section 7: what callers feel while many are due at once, and how many calls a grant costs.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::Plan;
use super::load::{self, Subjects, Times, number};
use super::report::{Goal, Line, Unit, median, percentile, ratios};
use super::stage::{Server, Stage, integration, until};
use crate::api::pb;
use crate::app::bench::{Fill, fill};

/// Grants of each member.
const EACH: usize = 20;
/// Calls that the simulated limit allows in a second while callers are measured.
const LIMIT: usize = 60;
/// Pause between two calls of one kind.
const PAUSE: Duration = Duration::from_millis(8);

pub(super) async fn callers(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    // How many storms, of how many members, how long it is quiet before each, and how long filling and starting take.
    let (waves, members, quiet, lead) = if plan.quick {
        (1, 20, TimeDelta::seconds(1), TimeDelta::seconds(9))
    } else {
        (
            plan.rounds.min(3),
            300,
            TimeDelta::seconds(5),
            TimeDelta::seconds(12),
        )
    };
    // Each storm lasts as long as the limit makes it; then there is peace again.
    let lasts = TimeDelta::seconds(i64::try_from(members / LIMIT).unwrap_or(0).max(1));
    let period = lasts + quiet + TimeDelta::seconds(8);
    let limit = format!("rate_limit={LIMIT}");
    let settings = [limit.as_str(), "rate_interval_seconds=1"];
    let spare = 20;
    let stage = Stage::new(directory, members * waves + spare, EACH, true, &settings).await?;
    let ledger = stage.ledger()?;
    let first = stage.now() + lead;
    let storms: Vec<DateTime<Utc>> = (0..waves)
        .map(|wave| first + period * i32::try_from(wave).unwrap_or(0))
        .collect();
    let filled = Fill {
        integration: integration(),
        users: stage.users.iter().skip(spare).cloned().collect(),
        since: stage.since.iter().skip(spare).copied().collect(),
        deployments: stage.deployments.clone(),
        ends: (0..members * waves)
            .map(|place| storms[place / members])
            .collect(),
    };
    fill(&ledger, &filled).await?;
    let server = Server::connector(&stage.configure(&ledger, "")?, &[]).await?;
    let channel = server.channel().await?;
    // Only those who have nothing to lose in the storm.
    let who = Subjects::of(&stage).first(spare);
    warm(&channel, &who).await?;
    anyhow::ensure!(
        stage.now() < first - quiet,
        "filling the ledger and starting took too long; is the machine busy?"
    );

    let (mut calm_health, mut storm_health) = (Vec::new(), Vec::new());
    let (mut calm_accept, mut storm_accept) = (Vec::new(), Vec::new());
    for storm in storms {
        sleep_until(&stage, storm - quiet).await;
        let (health, accept) = feel(&channel, &who, quiet).await?;
        calm_health.push(percentile(&health, 0.99));
        calm_accept.push(percentile(&accept, 0.99));
        sleep_until(&stage, storm).await;
        let (health, accept) = feel(&channel, &who, lasts).await?;
        storm_health.push(percentile(&health, 0.99));
        storm_accept.push(percentile(&accept, 0.99));
    }
    server.stop().await?;
    stage.close().await;
    let sides = |storm: &[f64], calm: &[f64]| {
        format!(
            "p99 {:.1} ms against {:.1} ms: {members} members, {EACH} grants each, {LIMIT} calls a second upstream",
            median(storm),
            median(calm)
        )
    };
    Ok(vec![
        Line {
            what: "health checks during a storm / before it, p99",
            unit: Unit::Times,
            pairs: ratios(&storm_health, &calm_health),
            goal: Goal::AtMost(2.0),
            sides: sides(&storm_health, &calm_health),
        },
        Line {
            what: "accepting grants during a storm / before it, p99",
            unit: Unit::Times,
            pairs: ratios(&storm_accept, &calm_accept),
            goal: Goal::AtMost(2.0),
            sides: sides(&storm_accept, &calm_accept),
        },
    ])
}

async fn sleep_until(stage: &Stage, at: DateTime<Utc>) {
    tokio::time::sleep((at - stage.now()).to_std().unwrap_or_default()).await;
}

async fn warm(channel: &Channel, who: &Subjects) -> anyhow::Result<()> {
    for _ in 0..20 {
        health(channel.clone()).await?;
        accept(channel.clone(), who).await?;
    }
    Ok(())
}

async fn health(channel: Channel) -> anyhow::Result<()> {
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .map(drop)
        .context("checking health")
}

async fn accept(channel: Channel, who: &Subjects) -> anyhow::Result<()> {
    let request = who.request(who.later(), pb::GrantWait::Accepted);
    load::create(channel, request).await.map(drop)
}

/// How long health checks and accepts take over a span, one after the other with pauses.
async fn feel(
    channel: &Channel,
    who: &Subjects,
    span: TimeDelta,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let end = Instant::now() + span.to_std().unwrap_or_default();
    let (mut checks, mut accepts) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        checks.extend(load::latencies(1, PAUSE, || health(channel.clone())).await?);
        accepts.extend(load::latencies(1, PAUSE, || accept(channel.clone(), who)).await?);
    }
    Ok((checks, accepts))
}

/// Upstream calls over whole lives of grants that begin and end together.
pub(super) async fn calls(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    let members = if plan.quick { 4 } else { 50 };
    let (mut ours, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.min(2) {
        for (switches, into) in [(&[][..], &mut ours), (&["--per-grant"][..], &mut apart)] {
            into.push(life(plan, directory, members, switches).await?);
        }
    }
    Ok(vec![
        Line {
            what: "upstream calls of a grant's whole life, 20 grants a member",
            unit: Unit::Count,
            pairs: ours.clone(),
            goal: Goal::AtMost(0.12),
            sides: format!(
                "{:.3} calls a grant, {members} members; reads included, two calls a member alone are {:.2}",
                median(&ours),
                2.0 / number(EACH)
            ),
        },
        Line {
            what: "one call for each grant / one call for each member",
            unit: Unit::Times,
            pairs: ratios(&apart, &ours),
            goal: Goal::AtLeast(0.5 * number(EACH)),
            sides: format!(
                "{:.2} calls a grant against {:.3}",
                median(&apart),
                median(&ours)
            ),
        },
    ])
}

/// Calls for each grant.
async fn life(
    plan: &Plan,
    directory: &Path,
    members: usize,
    switches: &[&str],
) -> anyhow::Result<f64> {
    let (accepting, lasting) = if plan.quick { (5, 3) } else { (6, 12) };
    let stage = Stage::new(directory, members, EACH, false, &["rate_limit=0"]).await?;
    let sections = "    upstream:\n      initial_rate: 5000\nsweeps:\n  drift: \"0 0 3 * * *\"\n  \
                    directory: \"0 0 3 * * *\"\n";
    let server = Server::connector(&stage.configure(&stage.ledger()?, sections)?, switches).await?;
    let channel = server.channel().await?;
    let who = Subjects::of(&stage);
    // Whoever is asked for for the first time is looked up: that is the directory's cost, not the grant's.
    for user in 0..members {
        let request = who.request_for(user, 0, who.later(), pb::GrantWait::Accepted);
        load::create(channel.clone(), request).await?;
    }
    stage.handle().reset_calls();
    let begin = stage.now() + TimeDelta::seconds(accepting);
    let times = Times {
        seconds: 600,
        starts_at: Some(begin),
        not_after: Some(begin + TimeDelta::seconds(lasting)),
    };
    for user in 0..members {
        for deployment in 0..EACH {
            let request = who.request_for(user, deployment, times, pb::GrantWait::Accepted);
            load::create(channel.clone(), request).await?;
        }
    }
    anyhow::ensure!(stage.now() < begin, "accepting took too long");
    let users: Vec<String> = stage.users.iter().map(ToString::to_string).collect();
    let holding = || {
        users
            .iter()
            .filter(|user| !stage.handle().assignments(user).entries.is_empty())
            .count()
    };
    until("everybody to hold access", || {
        Ok((holding() == members).then_some(()))
    })
    .await?;
    until("everybody to hold nothing", || {
        Ok((stage.now() > begin && holding() == 0).then_some(()))
    })
    .await?;
    // Until they were seen gone.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let total = stage.handle().calls().total;
    server.stop().await?;
    stage.close().await;
    let total = u32::try_from(total).map_or(f64::NAN, f64::from);
    Ok(total / number(members * EACH))
}
