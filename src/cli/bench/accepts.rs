//! Section 1: how fast grants are made durable.

use std::path::Path;
use std::time::Duration;

use super::Plan;
use super::load::{self, CALLERS, Subjects};
use super::report::{Goal, Line, Unit, median, percentile, ratios};
use super::stage::{Server, Stage};
use crate::api::pb;
use crate::app::bench::bare_commits;

/// Grants in one commit of the bare baseline.
const BATCH: usize = 100;
/// Calls of one round where one caller is alone.
const ALONE: usize = 200;

pub(super) async fn measure(plan: &Plan, directory: &Path) -> anyhow::Result<Vec<Line>> {
    let stage = Stage::new(directory, 40, 4, false, &[]).await?;
    let ours = Server::connector(&stage.configure(&stage.ledger()?, "")?, &[]).await?;
    let alone =
        Server::connector(&stage.configure(&stage.ledger()?, "")?, &["--commit-alone"]).await?;
    let (channel, other) = (ours.channel().await?, alone.channel().await?);
    let who = Subjects::of(&stage);
    let accept = |channel: &tonic::transport::Channel| {
        let request = who.request(who.later(), pb::GrantWait::Accepted);
        let channel = channel.clone();
        async move { load::create(channel, request).await.map(drop) }
    };
    // Caches, statements and connections are there before the first round.
    load::rate(plan.round / 4, || accept(&channel)).await?;
    load::rate(plan.round / 4, || accept(&other)).await?;

    let (mut floors, mut granted, mut separate) = (Vec::new(), Vec::new(), Vec::new());
    let (mut empties, mut rows) = (Vec::new(), Vec::new());
    let (mut unary, mut single, mut lonely) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let empty = load::rate(plan.round, || load::empty(channel.clone())).await?;
        granted.push(load::rate(plan.round, || accept(&channel)).await?);
        let batches = usize::try_from(plan.round.as_millis() / 20)
            .unwrap_or(50)
            .max(4);
        let bare = bare_commits(&stage.ledger()?, batches, BATCH).await?;
        separate.push(load::rate(plan.round, || accept(&other)).await?);
        floors.push(empty.min(bare));
        empties.push(empty);
        rows.push(bare);

        let count = if plan.quick { 10 } else { ALONE };
        let took = |values: Vec<f64>| percentile(&values, 0.5);
        unary.push(took(
            load::latencies(count, Duration::ZERO, || load::empty(channel.clone())).await?,
        ));
        lonely.push(took(
            load::latencies(count, Duration::ZERO, || accept(&channel)).await?,
        ));
        single.push(1000.0 / bare_commits(&stage.ledger()?, count, 1).await?);
    }
    alone.stop().await?;
    ours.stop().await?;
    stage.close().await;

    let together: Vec<f64> = unary.iter().zip(&single).map(|(a, b)| a + b).collect();
    Ok(vec![
        Line {
            what: "accepted grants / min(empty calls, batched bare rows)",
            unit: Unit::Times,
            pairs: ratios(&granted, &floors),
            goal: Goal::AtLeast(0.6),
            sides: format!(
                "{:.0} grants/s against {:.0} empty calls/s and {:.0} rows/s, {CALLERS} callers",
                median(&granted),
                median(&empties),
                median(&rows)
            ),
        },
        Line {
            what: "accepted grants / one transaction for each request",
            unit: Unit::Times,
            pairs: ratios(&granted, &separate),
            goal: Goal::AtLeast(3.0),
            sides: format!(
                "{:.0} grants/s against {:.0} grants/s, {CALLERS} callers",
                median(&granted),
                median(&separate)
            ),
        },
        Line {
            what: "one caller: accepted grant / (empty call + single commit)",
            unit: Unit::Times,
            pairs: ratios(&lonely, &together),
            goal: Goal::AtMost(1.3),
            sides: format!(
                "p50 {:.2} ms against {:.2} ms + {:.2} ms",
                median(&lonely),
                median(&unary),
                median(&single)
            ),
        },
    ])
}
