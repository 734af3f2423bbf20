//! `latchkey policy`: the customer's law without a running connector.
//!
//! Owns checking, trying out and showing policies. Never changes the law of a connector: that is done by changing its
//! files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Global;
use super::configuration;
use super::exit::{Exit, Failure};
use super::streams::{Format, Streams};
use super::text;
use crate::app;
use crate::config::Policy;
use crate::law::cases::{Case, Cases, Expect, Outcome};
use crate::law::{self, CedarLaw, DEFAULT, LawError, SCHEMA, Source};

const FIX: &str = "docs/law.md shows how policies are written; `latchkey policy show --schema` what they can ask for";

/// Arguments of `policy`.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What can be done with policies.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Check policies against the schema
    Check(Which),
    /// Put the cases of a file to policies, and compare
    Test(CasesArgs),
    /// Put the cases of a file to policies, and say which policy decides each and what is told to the caller
    Explain(ExplainArgs),
    /// Print the shipped policies, to begin with
    Show(ShowArgs),
}

/// Which policies.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Folder or file of policies; the shipped ones if absent
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub law: Option<PathBuf>,
    /// Configuration whose section `law` names them
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `policy test`.
#[derive(Debug, Clone, Args)]
pub struct CasesArgs {
    /// YAML file of cases
    pub cases: PathBuf,
    /// Which policies
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `policy explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// YAML file of cases
    pub cases: PathBuf,
    /// Show the facts of each case as policies see them
    #[arg(long)]
    pub facts: bool,
    /// Which policies
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `policy show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Print the schema instead
    #[arg(long)]
    pub schema: bool,
}

/// Runs `latchkey policy`.
pub(super) fn policy(
    args: &PolicyArgs,
    global: &Global,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let format = global.output;
    match &args.command {
        PolicyCommand::Check(which) => check(which, format, streams),
        PolicyCommand::Test(args) => test(args, format, streams),
        PolicyCommand::Explain(args) => explain(args, format, streams),
        PolicyCommand::Show(args) => {
            let text = if args.schema { SCHEMA } else { DEFAULT };
            streams.line(text.trim_end())
        }
    }
}

/// The policies that are meant, and the section `policy` and zone beside them.
fn chosen(
    which: &Which,
    streams: &mut Streams,
) -> Result<(Source, Option<(Policy, String)>), Failure> {
    if let Some(path) = &which.config {
        let config = configuration::load(path, streams)?;
        return Ok((
            app::source(&config.law),
            Some((config.policy, config.law.zone)),
        ));
    }
    Ok((
        match &which.law {
            None => Source::Shipped,
            Some(path) if path.is_dir() => Source::Directory(path.clone()),
            Some(path) => Source::Files(vec![path.clone()]),
        },
        None,
    ))
}

fn unusable(error: &LawError, streams: &mut Streams) -> Result<Failure, Failure> {
    for problem in &error.problems {
        streams.note(&text::safe(problem))?;
    }
    let count = text::count(error.problems.len(), "problem", "problems");
    Ok(Failure::new(
        Exit::Configuration,
        format!("{count} in the policies"),
        FIX,
    ))
}

#[derive(Debug, Serialize)]
struct CheckView {
    digest: String,
    policies: std::collections::BTreeMap<String, &'static str>,
    warnings: Vec<String>,
}

fn check(which: &Which, format: Format, streams: &mut Streams) -> Result<(), Failure> {
    let (source, _) = chosen(which, streams)?;
    let checked = match law::check(&source) {
        Ok(checked) => checked,
        Err(error) => return Err(unusable(&error, streams)?),
    };
    let view = CheckView {
        digest: checked.digest,
        policies: checked.policies,
        warnings: checked.warnings,
    };
    if format != Format::Table {
        return streams.document(format, &view);
    }
    for warning in &view.warnings {
        streams.warning(&text::safe(warning))?;
    }
    for (name, effect) in &view.policies {
        streams.line(&format!("{effect:<6}  {name}"))?;
    }
    let count = text::count(view.policies.len(), "policy", "policies");
    streams.line(&format!("{count}, all fine; digest {}", &view.digest[..16]))
}

/// A law and the cases to put to it.
fn load(
    path: &PathBuf,
    which: &Which,
    streams: &mut Streams,
) -> Result<(CedarLaw, Vec<Case>), Failure> {
    let usage = |what: String| Failure::usage(what, FIX);
    let shown = text::safe(&path.display().to_string()).to_string();
    let file = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("{shown} cannot be read: {}", error.kind())))?;
    let cases: Cases = serde_yaml::from_str(&file).map_err(|error| {
        usage(format!(
            "{shown} holds no cases: {}",
            text::without_values(&error.to_string())
        ))
    })?;
    let (source, beside) = chosen(which, streams)?;
    let (section, zone) = beside.unwrap_or_else(|| (Policy::default(), "UTC".to_owned()));
    let section = if cases.settings.is_null() {
        section
    } else {
        serde_json::from_value(cases.settings).map_err(|error| {
            usage(format!(
                "{shown}: settings: {}",
                text::without_values(&error.to_string())
            ))
        })?
    };
    let rules = app::rules(&section).map_err(|error| usage(format!("{shown}: {error:#}")))?;
    match CedarLaw::open(source, cases.zone.as_deref().unwrap_or(&zone), rules) {
        Ok(law) => Ok((law, cases.cases)),
        Err(error) => Err(unusable(&error, streams)?),
    }
}

fn run(law: &CedarLaw, cases: &[Case]) -> Result<Vec<Outcome>, Failure> {
    cases
        .iter()
        .map(|case| case.run(law))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::usage(error.to_string(), FIX))
}

fn said(outcome: &Outcome) -> &'static str {
    match outcome.said {
        Expect::Allow => "allowed",
        Expect::Refuse => "refused",
    }
}

fn test(args: &CasesArgs, format: Format, streams: &mut Streams) -> Result<(), Failure> {
    let (law, cases) = load(&args.cases, &args.which, streams)?;
    let outcomes = run(&law, &cases)?;
    let wrong = outcomes.iter().filter(|one| one.wrong.is_some()).count();
    if format == Format::Table {
        for outcome in &outcomes {
            let name = text::safe(&outcome.name);
            match &outcome.wrong {
                None => streams.line(&format!("ok     {name}"))?,
                Some(why) => streams.line(&format!("WRONG  {name}: {}", text::safe(why)))?,
            }
        }
    } else {
        streams.document(format, &outcomes)?;
    }
    if wrong > 0 {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} not as expected", text::count(wrong, "case", "cases")),
            "`latchkey policy explain` says which policy decides",
        ));
    }
    let count = text::count(outcomes.len(), "case", "cases");
    streams.note(&format!("{count}, all as expected"))
}

#[derive(Debug, Serialize)]
struct ExplainView {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<serde_json::Value>,
}

fn explain(args: &ExplainArgs, format: Format, streams: &mut Streams) -> Result<(), Failure> {
    let (law, cases) = load(&args.cases, &args.which, streams)?;
    let mut views = Vec::new();
    for (case, outcome) in cases.iter().zip(run(&law, &cases)?) {
        let question = case
            .question()
            .map_err(|error| Failure::usage(error.to_string(), FIX))?;
        views.push(ExplainView {
            outcome,
            facts: args.facts.then(|| law.facts(&question)),
        });
    }
    if format != Format::Table {
        return streams.document(format, &views);
    }
    for ExplainView { outcome, facts } in &views {
        streams.line(&format!(
            "{}: {} by {}",
            text::safe(&outcome.name),
            said(outcome),
            outcome.policies.join(", ")
        ))?;
        if let Some(remedy) = &outcome.remedy {
            streams.line(&format!("  the caller is told: {}", text::safe(remedy)))?;
        }
        if let Some(facts) = facts {
            streams.line(&format!("  {facts}"))?;
        }
    }
    Ok(())
}
