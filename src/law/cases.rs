//! Cases: what a law should say to what, in a file.
//!
//! Owns their form and the comparison. Never asks a running connector.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::caller::{Caller, CallerRole};
use crate::domain::ids::{CallerName, IntegrationName};
use crate::domain::law::{Access, Ending, Matter, Question, Reading, Refusal, Verdict};
use crate::domain::ttl::Ttl;
use crate::ports::Law;

/// A file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The time zone of local time; UTC when absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// The section `policy` of the configuration that policies see; its defaults when absent.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// The cases.
    pub cases: Vec<Case>,
}

/// What is done in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new grant.
    Create,
    /// A later end.
    Extend,
    /// A new grant by an emergency token.
    BreakGlass,
    /// An earlier end.
    Revoke,
    /// A look.
    Read,
}

/// What the law should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It may be done.
    Allow,
    /// It may not.
    Refuse,
}

/// One case. What is left out is what most requests have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// What the law should say; not compared when absent.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// A policy that must be among those that decide.
    #[serde(default)]
    pub policy: Option<String>,
    /// The caller's name.
    #[serde(default = "plane")]
    pub caller: CallerName,
    /// The caller's roles.
    #[serde(default = "asks")]
    pub roles: BTreeSet<CallerRole>,
    /// The integration; all of them when it is a star.
    #[serde(default = "main")]
    pub integration: String,
    /// When.
    #[serde(default)]
    pub at: Timestamp,
    /// What is given, as `deployment-viewer on deployment/ID`.
    #[serde(default)]
    pub access: Vec<String>,
    /// Tags of each target, in the same order.
    #[serde(default)]
    pub tags: Vec<BTreeSet<String>>,
    /// How long, as `1h`.
    #[serde(default = "hour")]
    pub duration: String,
    /// How long in all; the duration when absent.
    #[serde(default)]
    pub total: Option<String>,
    /// How long until it begins.
    #[serde(default)]
    pub start_delay: Option<String>,
    /// Whether a hard end was set.
    #[serde(default)]
    pub has_hard_end: bool,
    /// Whether somebody may be invited.
    #[serde(default)]
    pub invite: bool,
    /// Who asked.
    #[serde(default)]
    pub requester: String,
    /// Who receives it.
    #[serde(default = "beneficiary")]
    pub beneficiary: String,
    /// The user id behind it.
    #[serde(default)]
    pub beneficiary_id: Option<String>,
    /// Whether a reason was given.
    #[serde(default)]
    pub is_justified: bool,
    /// Who approved.
    #[serde(default)]
    pub approvers: BTreeSet<String>,
    /// Tickets.
    #[serde(default)]
    pub tickets: BTreeSet<String>,
    /// What the member holds by grants, written like `access`.
    #[serde(default)]
    pub current: Vec<String>,
    /// How many grants those are; one each when absent.
    #[serde(default)]
    pub current_grants: Option<u32>,
    /// What is ended or looked at.
    #[serde(default = "grant")]
    pub what: String,
    /// Whether rows of other callers are reached.
    #[serde(default)]
    pub reaches_others: bool,
}

fn plane() -> CallerName {
    CallerName::parse("control-plane").expect("a valid name")
}

fn asks() -> BTreeSet<CallerRole> {
    [CallerRole::ControlPlane].into()
}

fn main() -> String {
    "main".to_owned()
}

fn hour() -> String {
    "1h".to_owned()
}

fn beneficiary() -> String {
    "ada@example.com".to_owned()
}

fn grant() -> String {
    "grant".to_owned()
}

/// Why a case makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("case {case:?}: {problem}")]
pub struct CaseError {
    /// Which case.
    pub case: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What the law said to a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What it shows.
    pub name: String,
    /// What the law said.
    pub said: Expect,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// What the caller would be told.
    pub remedy: Option<String>,
    /// What is not as it should be; `None` when all is.
    pub wrong: Option<String>,
}

impl Case {
    /// The question that this case puts.
    ///
    /// # Errors
    /// [`CaseError`] when a part of it cannot be read.
    pub fn question(&self) -> Result<Question, CaseError> {
        let wrong = |problem: String| CaseError {
            case: self.name.clone(),
            problem,
        };
        let integration = match self.integration.as_str() {
            "*" => None,
            name => Some(IntegrationName::parse(name).map_err(|error| wrong(error.to_string()))?),
        };
        let read = |texts: &[String]| -> Result<BTreeSet<Assignment>, CaseError> {
            let parsed = texts.iter().map(|text| Assignment::parse(text));
            parsed
                .collect::<Result<_, _>>()
                .map_err(|error| wrong(error.to_string()))
        };
        let seconds = |text: &str| {
            humantime::parse_duration(text)
                .ok()
                .and_then(|length| i64::try_from(length.as_secs()).ok())
                .filter(|seconds| *seconds <= 100 * Ttl::MAX_SECONDS)
                .ok_or_else(|| wrong(format!("{text:?} is not a duration such as 45m or 12h")))
        };
        let matter = match self.action {
            Action::Revoke => Matter::Revoke(Ending {
                what: self.what.clone(),
                reaches_others: self.reaches_others,
                requester: self.requester.clone(),
            }),
            Action::Read => Matter::Read(Reading {
                what: self.what.clone(),
                reaches_others: self.reaches_others,
            }),
            Action::Create | Action::Extend | Action::BreakGlass => {
                if self.access.is_empty() {
                    return Err(wrong(
                        "names no `access`; write [deployment-viewer on deployment/ID]".to_owned(),
                    ));
                }
                let current = read(&self.current)?;
                let duration_s = seconds(&self.duration)?;
                let optional = |text: &Option<String>| text.as_deref().map(seconds).transpose();
                let access = Access {
                    assignments: read(&self.access)?,
                    tags: self.tags.clone(),
                    requester: self.requester.clone(),
                    beneficiary: self.beneficiary.clone(),
                    beneficiary_id: self.beneficiary_id.clone(),
                    is_justified: self.is_justified,
                    duration_s,
                    total_s: optional(&self.total)?.unwrap_or(duration_s),
                    start_delay_s: optional(&self.start_delay)?.unwrap_or(0),
                    has_hard_end: self.has_hard_end,
                    invite: self.invite,
                    approvers: self.approvers.clone(),
                    tickets: self.tickets.clone(),
                    current_grants: self
                        .current_grants
                        .unwrap_or_else(|| u32::try_from(current.len()).unwrap_or(u32::MAX)),
                    current,
                };
                match self.action {
                    Action::Extend => Matter::Extend(access),
                    Action::BreakGlass => Matter::BreakGlass(access),
                    Action::Create | Action::Revoke | Action::Read => Matter::Create(access),
                }
            }
        };
        Ok(Question {
            caller: Caller {
                name: self.caller.clone(),
                roles: self.roles.clone(),
                identity: Some("case".to_owned()),
            },
            integration,
            now: self.at,
            matter,
        })
    }

    /// Puts the case to a law and compares.
    ///
    /// # Errors
    /// [`CaseError`] when a part of it cannot be read.
    pub fn run(&self, law: &dyn Law) -> Result<Outcome, CaseError> {
        let (said, policies, remedy) = match law.decide(&self.question()?) {
            Verdict::Allowed { policies } => (Expect::Allow, policies, None),
            Verdict::Refused(Refusal {
                policies, remedy, ..
            }) => (Expect::Refuse, policies, Some(remedy)),
        };
        let word = |expect| match expect {
            Expect::Allow => "allowed",
            Expect::Refuse => "refused",
        };
        let wrong = match (&self.expect, &self.policy) {
            (Some(expected), _) if *expected != said => Some(format!(
                "it was {} and should be {}",
                word(said),
                word(*expected)
            )),
            (_, Some(policy)) if !policies.contains(policy) => Some(format!(
                "policy {policy} did not decide, but {}",
                policies.join(", ")
            )),
            (_, _) => None,
        };
        Ok(Outcome {
            name: self.name.clone(),
            said,
            policies,
            remedy,
            wrong,
        })
    }
}
