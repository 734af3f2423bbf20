//! Sections 3 to 5: a ledger of a million grants: how it starts, what it holds in memory, what it does when idle.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::load::{self, Subjects, Times, millis, number};
use super::proc::{Usage, usage};
use super::report::{Goal, Line, Unit, median, ratios};
use super::stage::{PATIENCE, Process, Server, Stage, connector, integration, until};
use super::{Plan, Section};
use crate::api::pb;
use crate::app::bench::{Fill, Ground, Place, make_overdue};

/// Grants of each member.
const EACH: usize = 20;
/// Grants of the small ledger that a start is compared with.
const SMALL: usize = 1_000;
/// One in so many members is overdue at a start.
const OVERDUE: usize = 33;
/// Nightly sweeps for drift: what they cost is measured by itself.
const NO_DRIFT: &str = "sweeps:\n  drift: \"0 0 3 * * *\"\n";
/// Sweeps for drift as often as can be seen.
const OFTEN: &str = "sweeps:\n  drift: \"*/5 * * * * *\"\n";
/// Members whose grants come and go before memory is measured.
const CHURN: usize = 4;

/// An organization and a full ledger of it.
struct Large<'a> {
    stage: Stage,
    ground: &'a Ground,
    ledger: Place,
    grants: usize,
}

/// `postgres` is the address of a server, where ledgers are to be databases.
pub(super) async fn measure(
    plan: &Plan,
    directory: &Path,
    postgres: Option<&str>,
    wanted: &dyn Fn(Section) -> bool,
    show: &mut (dyn FnMut(Section, Vec<Line>) -> anyhow::Result<()> + Send),
) -> anyhow::Result<()> {
    let ground = Ground::new(directory, postgres);
    let measured = Box::pin(sections(plan, directory, &ground, wanted, show)).await;
    let cleared = ground.clear().await.context("dropping databases");
    measured.and(cleared)
}

async fn sections(
    plan: &Plan,
    directory: &Path,
    ground: &Ground,
    wanted: &dyn Fn(Section) -> bool,
    show: &mut (dyn FnMut(Section, Vec<Line>) -> anyhow::Result<()> + Send),
) -> anyhow::Result<()> {
    let members = (plan.grants / EACH).max(CHURN + 1);
    let unlimited = ["rate_limit=0"];
    let stage = Stage::new(directory, members, EACH, true, &unlimited).await?;
    let end = stage.now() + TimeDelta::hours(10);
    let whole = Fill {
        integration: integration(),
        users: stage.users.clone(),
        since: stage.since.clone(),
        deployments: stage.deployments.clone(),
        // Apart from each other, so that no second is due for all of them.
        ends: (0..members)
            .map(|place| end + TimeDelta::seconds(i64::try_from(place).unwrap_or(0)))
            .collect(),
    };
    let started = Instant::now();
    let (ledger, grants, bytes) = ground.filled(&whole).await?;
    let grants = usize::try_from(grants).unwrap_or(usize::MAX);
    let took = started.elapsed();
    let large = Large {
        stage,
        ground,
        ledger,
        grants,
    };
    if wanted(Section::Memory) {
        let mut lines = vec![Line {
            what: "filling the ledger, grants per second",
            unit: Unit::Count,
            pairs: vec![(number(grants) / took.as_secs_f64()).round()],
            goal: Goal::Shown,
            sides: format!(
                "{grants} grants in {took:.1?}, a {} of {} MiB",
                match &large.ledger {
                    Place::File(_) => "file",
                    Place::Database { .. } => "database",
                },
                bytes >> 20
            ),
        }];
        lines.extend(memory(plan, directory, &large).await?);
        show(Section::Memory, lines)?;
    }
    if wanted(Section::Idle) {
        show(Section::Idle, idle(plan, &large).await?)?;
    }
    if wanted(Section::Restart) {
        show(Section::Restart, Box::pin(restart(plan, &large)).await?)?;
    }
    large.stage.close().await;
    Ok(())
}

/// What a million grants add to the memory of a connector of the same organization, after some came and went and with
/// everybody compared with upstream again and again.
async fn memory(plan: &Plan, directory: &Path, large: &Large<'_>) -> anyhow::Result<Vec<Line>> {
    let rounds = plan.rounds.min(3);
    let stage = &large.stage;
    let (mut full, mut none, mut few) = (Vec::new(), Vec::new(), Vec::new());
    let small = Stage::new(directory, CHURN + 1, EACH, true, &["rate_limit=0"]).await?;
    for _ in 0..rounds {
        full.push(churned(stage, &large.ledger, plan).await?);
        none.push(churned(stage, &large.ground.empty().await?, plan).await?);
        few.push(churned(&small, &large.ground.empty().await?, plan).await?);
    }
    small.close().await;
    let of = |all: &[Churned], what: fn(&Churned) -> f64| all.iter().map(what).collect::<Vec<_>>();
    let minus = |a: &[Churned], b: &[Churned], what: fn(&Churned) -> f64| {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| what(a) - what(b)).collect::<Vec<_>>()
    };
    let resident = |one: &Churned| one.usage.resident;
    let peak = |one: &Churned| one.usage.peak;
    let sweep = |one: &Churned| one.sweep;
    let members = stage.users.len();
    Ok(vec![
        Line {
            what: "memory of all active grants: full ledger - empty ledger",
            unit: Unit::Mebibytes,
            pairs: minus(&full, &none, resident),
            goal: Goal::AtMost(8.0),
            sides: format!(
                "{:.1} MiB with {} active grants against {:.1} MiB with next to none, {members} members both times",
                median(&of(&full, resident)),
                large.grants,
                median(&of(&none, resident)),
            ),
        },
        Line {
            what: "the same at the peak, sweeps for drift included",
            unit: Unit::Mebibytes,
            pairs: minus(&full, &none, peak),
            goal: Goal::AtMost(8.0),
            sides: format!(
                "{:.1} MiB against {:.1} MiB",
                median(&of(&full, peak)),
                median(&of(&none, peak)),
            ),
        },
        Line {
            what: "reading the members of a large organization, peak",
            unit: Unit::Mebibytes,
            pairs: minus(&none, &few, peak),
            goal: Goal::AtMost(16.0),
            sides: format!(
                "{:.1} MiB with {members} members against {:.1} MiB with {}",
                median(&of(&none, peak)),
                median(&of(&few, peak)),
                CHURN + 1
            ),
        },
        Line {
            what: "processor time of one sweep for drift over the full ledger",
            unit: Unit::Millis,
            pairs: of(&full, sweep),
            goal: Goal::Shown,
            sides: format!(
                "by default once a minute; {:.0} ms of it is reading {members} members, whatever the ledger holds",
                median(&of(&none, sweep))
            ),
        },
    ])
}

/// A connector after grants came and went.
struct Churned {
    usage: Usage,
    /// Milliseconds of processor time for each sweep for drift.
    sweep: f64,
}

/// A connector's memory after grants of some members came and went, some stayed, and everybody was compared with
/// upstream a few times.
async fn churned(stage: &Stage, ledger: &Place, plan: &Plan) -> anyhow::Result<Churned> {
    let server = Server::connector(&stage.configure_for(ledger, OFTEN)?, &[]).await?;
    let channel = server.channel().await?;
    // A role that nobody holds: it is added and taken away again.
    let who = Subjects::of(stage).with_role("deployment-editor");
    let rounds = if plan.quick { 1 } else { 5 };
    for round in 0..=rounds {
        // Those of the last round stay, so that there is something to compare in every ledger.
        let times = Times {
            seconds: if round == rounds { 3600 } else { 1 },
            ..Times::default()
        };
        for user in 0..CHURN {
            let request = who.request_for(user, round, times, pb::GrantWait::Active);
            load::create(channel.clone(), request).await?;
        }
    }
    let http = server.http.context("a connector has a page of metrics")?;
    let done = swept(http, 0).await?;
    // The first one after all that may have been under way.
    let done = swept(http, done + if plan.quick { 1 } else { 2 }).await?;
    let before = usage(server.pid())?;
    let again = swept(http, done + if plan.quick { 1 } else { 2 }).await?;
    let usage = usage(server.pid())?;
    server.stop().await?;
    Ok(Churned {
        usage,
        sweep: (usage.ticks - before.ticks) * 10.0 / number(again - done),
    })
}

/// Waits until so many sweeps for drift have ended; answers how many have.
async fn swept(http: std::net::SocketAddr, count: usize) -> anyhow::Result<usize> {
    let url = format!("http://{http}/metrics");
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("making an HTTP client")?;
    let end = Instant::now() + PATIENCE;
    loop {
        let text = client.get(&url).send().await?.text().await?;
        let line = text.lines().find(|line| {
            line.starts_with("latchkey_sweeps_total")
                && line.contains("sweep=\"drift\"")
                && line.contains("outcome=\"done\"")
        });
        let done = line
            .and_then(|line| line.rsplit(' ').next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        if done >= count {
            return Ok(done);
        }
        anyhow::ensure!(
            Instant::now() < end,
            "only {done} sweeps of {count} ended in {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a connector does while nothing is due, against a server that serves nothing.
async fn idle(plan: &Plan, large: &Large<'_>) -> anyhow::Result<Vec<Line>> {
    let stage = &large.stage;
    let (settle, window) = if plan.quick {
        (Duration::from_millis(500), Duration::from_secs(1))
    } else {
        // The look through the ledger begins five seconds after the start.
        (Duration::from_secs(7), Duration::from_secs(20))
    };
    let (mut resident, mut bare, mut ticks, mut switches) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut bare_ticks, mut bare_switches) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.min(2) {
        let ours = Server::connector(&stage.configure_for(&large.ledger, NO_DRIFT)?, &[]).await?;
        let empty = Server::empty().await?;
        for server in [&ours, &empty] {
            load::empty(server.channel().await?).await.ok();
        }
        tokio::time::sleep(settle).await;
        quiet(ours.pid()).await?;
        let (began, base) = (usage(ours.pid())?, usage(empty.pid())?);
        tokio::time::sleep(window).await;
        let (ended, idle) = (usage(ours.pid())?, usage(empty.pid())?);
        let seconds = window.as_secs_f64();
        ticks.push((ended.ticks - began.ticks) * 5.0 / seconds);
        switches.push((ended.switches - began.switches) / seconds);
        bare_ticks.push((idle.ticks - base.ticks) * 5.0 / seconds);
        bare_switches.push((idle.switches - base.switches) / seconds);
        resident.push(ended.resident);
        bare.push(idle.resident);
        empty.stop().await?;
        ours.stop().await?;
    }
    let grants = large.grants;
    Ok(vec![
        Line {
            what: "resident memory / an empty server of the same binary",
            unit: Unit::Times,
            pairs: ratios(&resident, &bare),
            goal: Goal::AtMost(2.5),
            sides: format!(
                "{:.1} MiB with {grants} active grants against {:.1} MiB",
                median(&resident),
                median(&bare)
            ),
        },
        Line {
            what: "processor time, ticks of 10 ms in 5 s",
            unit: Unit::Count,
            goal: Goal::AtMost(1.0),
            sides: format!("the empty server {:.2}", median(&bare_ticks)),
            pairs: ticks,
        },
        Line {
            what: "voluntary context switches per second",
            unit: Unit::Count,
            goal: Goal::AtMost(5.0),
            sides: format!("the empty server {:.2}", median(&bare_switches)),
            pairs: switches,
        },
    ])
}

/// Waits until a process does next to nothing: after a start it looks through the whole ledger once.
async fn quiet(pid: u32) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut before = usage(pid)?.ticks;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = usage(pid)?.ticks;
        if now - before <= 2.0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "not quiet after {PATIENCE:?}");
        before = now;
    }
}

/// From the start of the process to the first overdue removal on the wire.
async fn restart(plan: &Plan, large: &Large<'_>) -> anyhow::Result<Vec<Line>> {
    let (stage, ground) = (&large.stage, large.ground);
    let overdue = (stage.users.len() / OVERDUE).max(2);
    let past = stage.now() - TimeDelta::minutes(5);
    let late: Vec<_> = stage.users.iter().take(overdue).cloned().collect();
    Box::pin(make_overdue(
        ground,
        &large.ledger,
        &integration(),
        &late,
        past,
    ))
    .await?;
    let members = (SMALL / EACH).min(stage.users.len());
    let few = Fill {
        integration: integration(),
        users: stage.users.iter().take(members).cloned().collect(),
        since: stage.since.iter().take(members).copied().collect(),
        deployments: stage.deployments.clone(),
        ends: vec![past; members],
    };
    let (few_ledger, _, _) = ground.filled(&few).await?;
    let (mut ours, mut bare, mut small, mut whole) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        ours.push(first_removal(large, &large.ledger, &[]).await?);
        bare.push(bare_removal(large).await?);
        small.push(first_removal(large, &few_ledger, &[]).await?);
        // The slowest of them by far, and the farthest from its bound.
        if round < 2 {
            whole.push(first_removal(large, &large.ledger, &["--full-load"]).await?);
        }
    }
    let lines = |values: &[f64]| format!("{:.0} ms", median(values));
    Ok(vec![
        Line {
            what: "start to first overdue removal / the least a start must do",
            unit: Unit::Times,
            pairs: ratios(&ours, &bare),
            goal: Goal::AtMost(2.0),
            sides: format!(
                "{} with {} active grants, {} of them overdue, against {}",
                lines(&ours),
                large.grants,
                overdue * EACH,
                lines(&bare)
            ),
        },
        Line {
            what: "the same / a start with a thousand grants",
            unit: Unit::Times,
            pairs: ratios(&ours, &small),
            goal: Goal::AtMost(1.3),
            sides: format!("{} against {}", lines(&ours), lines(&small)),
        },
        Line {
            what: "loading everything first / the same",
            unit: Unit::Times,
            pairs: ratios(&whole, &ours),
            goal: Goal::AtLeast(8.0),
            sides: format!("{} against {}", lines(&whole), lines(&ours)),
        },
    ])
}

/// A start with a copy of a ledger, so that every start finds the same work to do.
async fn first_removal(
    large: &Large<'_>,
    ledger: &Place,
    switches: &[&str],
) -> anyhow::Result<f64> {
    let copy = large.ground.copy(ledger).await?;
    let config = large.stage.configure_for(&copy, "")?;
    let (spent, process) = to_first_removal(&large.stage, || connector(&config, switches)).await?;
    process.crash()?;
    large.ground.discard(copy).await?;
    Ok(spent)
}

/// The least that a start must do, with a copy of the large ledger.
async fn bare_removal(large: &Large<'_>) -> anyhow::Result<f64> {
    let copy = large.ground.copy(&large.ledger).await?;
    let config = large.stage.configure_for(&copy, "")?;
    let text = config.to_str().context("paths of the bench are text")?;
    let arguments = ["bench", "bare-start", "--config", text];
    let (spent, process) = to_first_removal(&large.stage, || Process::start(&arguments)).await?;
    process.finish().await?;
    large.ground.discard(copy).await?;
    Ok(spent)
}

/// Milliseconds from just before a process starts to the arrival of its first removal.
async fn to_first_removal(
    stage: &Stage,
    start: impl FnOnce() -> anyhow::Result<Process>,
) -> anyhow::Result<(f64, Process)> {
    stage.give_back()?;
    stage.handle().reset_calls();
    let began = stage.now();
    let process = start()?;
    let arrived = until("the first removal", || {
        let calls = stage.handle().calls();
        Ok(calls
            .log
            .iter()
            .find(|call| call.kind == "role_assignments.remove")
            .map(|call| call.at))
    })
    .await?;
    Ok((millis(arrived - began), process))
}
