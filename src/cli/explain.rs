//! What would happen, and why things are as they are.
//!
//! Owns the commands `plan` and `why`. Never changes anything.

use super::args::{SpecArgs, WhyArgs};
use super::connect::Connector;
use super::exit::Failure;
use super::streams::{Format, Paint, Streams};
use super::table::Table;
use super::{directory, explain_view, grants, text, time, view};
use crate::api::pb;

const INCOMPLETE: &str =
    "the connector's key sees a filtered list; what is not shown here may still exist";

/// `latchkey plan`
pub(super) async fn plan(
    connector: &Connector,
    format: Format,
    args: &SpecArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let (spec, names) = grants::spec(connector, args, streams).await?;
    let answer = connector
        .call(pb::PlanGrantRequest { spec: Some(spec) }, |request| {
            let mut client = connector.access();
            async move { client.plan_grant(request).await }
        })
        .await?;
    let plan = explain_view::Plan::from(&answer);
    if format != Format::Table {
        return streams.document(format, &plan);
    }
    for line in plan_lines(&plan, &args.member, &names) {
        let line = match line {
            Line::Heading(words) => streams.paint(Paint::Bold, &text::safe(&words)),
            Line::Text(words) => text::safe(&words).into_owned(),
        };
        streams.line(&line)?;
    }
    for words in &plan.warnings {
        streams.warning(words)?;
    }
    if let Some(late) = plan.predicted_lateness {
        streams.warning(&format!("predicted lateness: up to {late} s"))?;
    }
    if !plan.is_complete {
        streams.warning(INCOMPLETE)?;
    }
    Ok(())
}

enum Line {
    Heading(String),
    Text(String),
}

fn plan_lines(plan: &explain_view::Plan, member: &str, names: &view::Names) -> Vec<Line> {
    let who = match &plan.user_id {
        Some(id) if id != member => format!("{member} ({id})"),
        _ => member.to_owned(),
    };
    let mut lines = vec![Line::Heading(format!("Nothing was changed. For {who}:"))];
    if plan.would_invite {
        lines.push(Line::Text(
            "  an invitation to the organization would be sent first".to_owned(),
        ));
    }
    for planned in &plan.assignments {
        let what = if planned.is_standing {
            "already held through standing access: nothing is added or removed"
        } else if planned.is_owned {
            "already held through other grants: stays until the last of them ends"
        } else {
            "would be added, and removed at the end"
        };
        lines.push(Line::Text(format!(
            "  {} on {}: {what}",
            planned.assignment.role,
            names.show(&planned.assignment.target)
        )));
    }
    for (heading, calls) in [
        ("Calls to Elastic Cloud:", &plan.calls),
        ("Calls at the end:", &plan.inverse_calls),
    ] {
        lines.push(Line::Heading(heading.to_owned()));
        if calls.is_empty() {
            lines.push(Line::Text("  none".to_owned()));
        }
        for call in calls {
            lines.push(Line::Text(format!("  {} {}", call.method, call.path)));
            if let Some(body) = &call.body {
                lines.push(Line::Text(format!("    {body}")));
            }
        }
    }
    lines
}

/// `latchkey why`
pub(super) async fn why(
    connector: &Connector,
    format: Format,
    args: &WhyArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let integration = args.integration.as_deref();
    let member = directory::principal(connector, integration, &args.member).await?;
    let request = pb::ExplainAccessRequest {
        integration: integration.unwrap_or_default().to_owned(),
        member: Some(member),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.access();
            async move { client.explain_access(request).await }
        })
        .await?;
    let explanation = explain_view::Explanation::from(&answer);
    if format != Format::Table {
        return streams.document(format, &explanation);
    }
    let targets = explanation
        .access
        .iter()
        .map(|one| one.assignment.target.as_str());
    let names = directory::names(connector, integration, targets).await;
    let (now, zone) = (streams.now(), streams.zone);
    let who = explanation.email.as_deref().unwrap_or(&args.member);
    let read = explanation
        .observed_at
        .map(|at| format!(", as read at {}", time::clock_time(at, now, zone)))
        .unwrap_or_default();
    let heading = format!(
        "{} ({}){read}",
        text::safe(who),
        text::safe(&explanation.user_id)
    );
    let heading = streams.paint(Paint::Bold, &heading);
    streams.line(&heading)?;
    why_table(&explanation, &names, now, zone).print(streams, "no role is held, wanted or owed")?;
    for open in &explanation.drift {
        let since = open
            .first_seen_at
            .map(|at| format!(" since {}", time::clock_time(at, now, zone)))
            .unwrap_or_default();
        streams.warning(&format!(
            "{} on {} differs{since} ({}): {}",
            open.assignment.role,
            names.show(&open.assignment.target),
            open.kind.replace('_', " "),
            open.action
        ))?;
    }
    if !explanation.is_complete {
        streams.warning(INCOMPLETE)?;
    }
    Ok(())
}

fn why_table(
    explanation: &explain_view::Explanation,
    names: &view::Names,
    now: crate::domain::Timestamp,
    zone: time::Zone,
) -> Table {
    let mut table = Table::new(&["ROLE", "ON", "WHY", "UNTIL"]);
    for one in &explanation.access {
        let (paint, reason) = match one.kind.as_str() {
            "standing" => (Paint::Plain, "standing access".to_owned()),
            "granted" => (Paint::Green, because(one)),
            "closing" if !one.is_present => (Paint::Plain, "gone; looked at once more".to_owned()),
            "closing" => (Paint::Yellow, "being taken away".to_owned()),
            "pending" => (Paint::Yellow, format!("being given: {}", because(one))),
            "missing" => (
                Paint::Red,
                format!("taken away by somebody else: {}", because(one)),
            ),
            "covered" => (
                Paint::Plain,
                format!("standing access, also wanted by {}", because(one)),
            ),
            "forgotten" => (
                Paint::Red,
                "given up on: stays until somebody removes it".to_owned(),
            ),
            other => (Paint::Plain, other.to_owned()),
        };
        let until = one.until.map_or_else(
            || {
                if one.kind == "standing" || one.kind == "covered" {
                    "no end".to_owned()
                } else {
                    String::new()
                }
            },
            |end| time::clock_time(end, now, zone),
        );
        table.row(
            paint,
            [
                one.assignment.role.clone(),
                names.show(&one.assignment.target),
                reason,
                until,
            ],
        );
    }
    table
}

fn because(one: &explain_view::Explained) -> String {
    let mut grants: Vec<String> = one
        .grant_ids
        .iter()
        .map(|id| format!("grant {}", id.get(..13).unwrap_or(id)))
        .collect();
    if one.foreign_grants > 0 {
        grants.push(text::count(
            one.foreign_grants,
            "grant of another caller",
            "grants of other callers",
        ));
    }
    if grants.is_empty() {
        "a grant".to_owned()
    } else {
        grants.join(", ")
    }
}
