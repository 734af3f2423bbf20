//! What an operator should know before trusting an installation.
//!
//! Owns the findings: each has a level, and what is not well has a remedy. Changes nothing, neither upstream nor in
//! the ledger, and never shows a key.

mod recovery;
mod sinks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::future::join_all;
use serde::Serialize;

use crate::domain::Timestamp;
use crate::domain::ids::{IntegrationName, OrganizationId};
use crate::domain::observation::{Incomplete, Interest};
use crate::ports::provider::{KeyStatus, Organization, Priority, ReadError, Refusal};
use crate::ports::{AccessProvider, Clock, SecretStore};

pub use recovery::{WitnessProbe, examine_holds, examine_reviews, examine_witness};
pub use sinks::{SinkProbe, examine_sinks};

/// How long the secret store may take before it counts as away.
const SECRET_LIMIT: Duration = Duration::from_secs(20);

/// How long one read of Elastic Cloud may take; the client has shorter budgets of its own.
const READ_LIMIT: Duration = Duration::from_secs(150);

/// Difference of clocks that is worth a word, and the one that breaks deadlines, in milliseconds.
const SKEW_WARNING_MS: u64 = 2_000;
const SKEW_PROBLEM_MS: u64 = 60_000;

/// Free bytes below which a ledger will not last, and below which it may stop any moment.
const SPACE_WARNING: u64 = 1 << 30;
const SPACE_PROBLEM: u64 = 64 << 20;

/// Days before the end of a key at which operators are told.
const KEY_DAYS: [i64; 3] = [30, 14, 3];

/// Other keys that a finding names.
const KEYS_NAMED: usize = 5;

/// How much a finding matters, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work, or will not.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `clock`, `ledger`, or `integration NAME`.
    pub subject: String,
    /// Stable name of the check, for example `key_expiry`.
    pub check: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do; empty when nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding that is as it should be.
    #[must_use]
    pub fn ok(subject: impl Into<String>, check: &'static str, message: impl Into<String>) -> Self {
        Self::new(subject, check, Level::Ok, message, "")
    }

    /// A finding of any level.
    #[must_use]
    pub fn new(
        subject: impl Into<String>,
        check: &'static str,
        level: Level,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            check,
            level,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// One integration to look at.
#[derive(Debug, Clone)]
pub struct IntegrationProbe {
    /// Its name.
    pub name: IntegrationName,
    /// The organization that the configuration names, if it names one.
    pub pinned: Option<OrganizationId>,
    /// Elastic Cloud as this integration sees it.
    pub provider: Arc<dyn AccessProvider>,
    /// Where its key is.
    pub secret: Arc<dyn SecretStore>,
}

/// What was found out about the ledger before this module was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerProbe {
    /// Where it is, for people.
    pub place: String,
    /// Whether it can be written, or what is wrong and what to do.
    pub writable: Result<(), (String, String)>,
    /// Free bytes on its volume, where that is known.
    pub free_bytes: Option<u64>,
    /// Whether it forgets everything at the end of the process.
    pub volatile: bool,
}

/// Whether any finding is a problem.
#[must_use]
pub fn has_problem(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.level == Level::Problem)
}

/// Looks at everything and answers what was found, in a steady order. Integrations are looked at side by side.
pub async fn examine(
    integrations: &[IntegrationProbe],
    ledger: &LedgerProbe,
    clock: &dyn Clock,
) -> Vec<Finding> {
    let begun = (clock.now(), clock.since_boot());
    let examined = join_all(
        integrations
            .iter()
            .map(|probe| examine_integration(probe, clock)),
    )
    .await;
    let mut findings = examine_clock(begun, clock);
    findings.extend(examine_ledger(ledger));
    let mut organizations: BTreeMap<OrganizationId, Vec<&IntegrationName>> = BTreeMap::new();
    for (probe, (found, organization)) in integrations.iter().zip(examined) {
        findings.extend(found);
        if let Some(organization) = organization {
            organizations
                .entry(organization)
                .or_default()
                .push(&probe.name);
        }
    }
    for (organization, names) in organizations {
        if names.len() > 1 {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            findings.push(Finding::new(
                "integrations",
                "one_writer",
                Level::Problem,
                format!("{} all see organization {organization}", names.join(", ")),
                "serve each organization from one integration only; two would undo each other's work",
            ));
        }
    }
    findings
}

fn examine_clock(begun: (Timestamp, Duration), clock: &dyn Clock) -> Vec<Finding> {
    const SUBJECT: &str = "clock";
    let (wall, boot) = (clock.now(), clock.since_boot());
    let year_2026 = Timestamp::from_timestamp(1_767_225_600, 0).expect("a constant in range");
    if wall < year_2026 || wall > year_2026 + TimeDelta::days(36_525) {
        return vec![Finding::new(
            SUBJECT,
            "wall_time",
            Level::Problem,
            format!("the clock shows {}", wall.format("%Y-%m-%dT%H:%M:%SZ")),
            "set the clock and run a time service; every deadline is decided by it",
        )];
    }
    let passed = TimeDelta::from_std(boot.saturating_sub(begun.1)).unwrap_or(TimeDelta::MAX);
    let moved = (wall - begun.0) - passed;
    let step = moved.num_milliseconds().unsigned_abs();
    vec![if step > 1_000 {
        Finding::new(
            SUBJECT,
            "wall_time",
            Level::Warning,
            format!(
                "wall time moved {} ms against the time since boot",
                moved.num_milliseconds()
            ),
            "find out what steps the clock; a time service should slew it",
        )
    } else {
        Finding::ok(SUBJECT, "wall_time", "wall time and time since boot agree")
    }]
}

fn examine_ledger(ledger: &LedgerProbe) -> Vec<Finding> {
    const SUBJECT: &str = "ledger";
    let LedgerProbe {
        place,
        writable,
        free_bytes,
        volatile,
    } = ledger;
    let mut findings = vec![match writable {
        Ok(()) => Finding::ok(SUBJECT, "writable", format!("{place} can be written")),
        Err((problem, remedy)) => {
            let message = format!("{place}: {problem}");
            Finding::new(SUBJECT, "writable", Level::Problem, message, remedy)
        }
    }];
    if *volatile {
        findings.push(Finding::new(
            SUBJECT,
            "durable",
            Level::Warning,
            "the ledger is in memory, so what is owed is forgotten at every restart",
            "write `ledger: {kind: sqlite}` unless this is a simulation",
        ));
    }
    if let Some(free) = free_bytes {
        let level = match *free {
            free if free < SPACE_PROBLEM => Level::Problem,
            free if free < SPACE_WARNING => Level::Warning,
            _ => Level::Ok,
        };
        let remedy = if level == Level::Ok {
            ""
        } else {
            "enlarge the volume; without room grants stop"
        };
        let message = format!("{} MiB are free on its volume", free >> 20);
        findings.push(Finding::new(SUBJECT, "free_space", level, message, remedy));
    }
    findings
}

async fn examine_integration(
    probe: &IntegrationProbe,
    clock: &dyn Clock,
) -> (Vec<Finding>, Option<OrganizationId>) {
    let subject = format!("integration {}", probe.name);
    let mut findings = Vec::new();
    // The key is fetched to see that it can be, and dropped.
    let place = probe.secret.describe();
    match tokio::time::timeout(SECRET_LIMIT, probe.secret.fetch()).await {
        Ok(Ok(_)) => {
            findings.push(Finding::ok(
                &subject,
                "secret",
                format!("{place} holds a key"),
            ));
        }
        Ok(Err(error)) => {
            let message = error.to_string();
            let remedy = error.remedy();
            findings.push(Finding::new(
                &subject,
                "secret",
                Level::Problem,
                message,
                remedy,
            ));
            return (findings, None);
        }
        Err(_) => {
            findings.push(Finding::new(
                &subject,
                "secret",
                Level::Problem,
                format!("{place} did not answer"),
                "check that the secret store can be reached from here",
            ));
            return (findings, None);
        }
    }
    let organization = match read(probe.provider.organization(Priority::Discovery)).await {
        Ok(organization) => {
            findings.push(organization_finding(&subject, probe, &organization));
            Some(organization.id)
        }
        Err(error) => {
            findings.push(read_failed(&subject, "organization", &error));
            None
        }
    };
    if organization.is_some() {
        findings.extend(examine_owner(&subject, probe).await);
    }
    if organization.is_some() {
        findings.push(examine_other_keys(&subject, probe).await);
    }
    let status = probe.provider.key_status();
    findings.extend(key_findings(&subject, &status, clock.now()));
    (findings, organization)
}

async fn read<T>(
    call: impl Future<Output = crate::ports::provider::ReadResult<T>>,
) -> Result<T, ReadError> {
    match tokio::time::timeout(READ_LIMIT, call).await {
        Ok(Ok((value, _))) => Ok(value),
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(ReadError::Unavailable {
            code: "timeout".to_owned(),
        }),
    }
}

fn organization_finding(
    subject: &str,
    probe: &IntegrationProbe,
    organization: &Organization,
) -> Finding {
    const CHECK: &str = "organization";
    let Organization { id, name } = organization;
    let message = format!("the key sees organization {id} ({})", name.escape_default());
    match &probe.pinned {
        Some(pinned) if pinned != id => Finding::new(
            subject,
            CHECK,
            Level::Problem,
            format!("{message}, but {pinned} is configured"),
            "put the key of the configured organization into the secret store, or correct `organization_id`",
        ),
        Some(_) => Finding::ok(subject, CHECK, message),
        None => Finding::new(
            subject,
            CHECK,
            Level::Warning,
            format!("{message}, and none is configured"),
            format!(
                "write `organization_id: \"{id}\"`, so that another key cannot change the organization unnoticed"
            ),
        ),
    }
}

fn read_failed(subject: &str, check: &'static str, error: &ReadError) -> Finding {
    let remedy = match error {
        ReadError::Refused(Refusal::Unauthenticated { .. }) => {
            "make a new key in the Elastic Cloud console and put it into the secret store"
        }
        ReadError::Refused(Refusal::Forbidden { .. }) => {
            "make a key with the role Organization owner and put it into the secret store"
        }
        ReadError::Refused(Refusal::NotFound { .. }) => {
            "correct `organization_id` and `base_url` in the configuration"
        }
        ReadError::Refused(Refusal::Throttled { .. }) => {
            "wait a minute and look who else uses the key"
        }
        ReadError::Refused(Refusal::NotSent { code }) if code == "no_key" => {
            "put a key into the secret store; the check `secret` says what is wrong there"
        }
        ReadError::Refused(Refusal::NotSent { .. }) => {
            "check DNS, the way out to `base_url` and its certificate, and `upstream.proxy`"
        }
        ReadError::Refused(Refusal::KeyRotated) => "run this again: the key changed meanwhile",
        ReadError::Refused(Refusal::Invalid { .. }) => {
            "check `base_url` and `organization_id`; the server does not understand the request"
        }
        ReadError::Unavailable { code } if code == "organization_not_visible" => {
            "correct `organization_id` in the configuration, or put a key of that organization into the secret store"
        }
        ReadError::Unavailable { code } if code == "several_organizations" => {
            "write which one is meant as `organization_id` in the configuration"
        }
        ReadError::Unavailable { .. } => {
            "check the status page of Elastic Cloud, `base_url`, and what stands between here and there"
        }
    };
    Finding::new(subject, check, Level::Problem, error.to_string(), remedy)
}

async fn examine_owner(subject: &str, probe: &IntegrationProbe) -> Vec<Finding> {
    const CHECK: &str = "owner_role";
    let interest = Interest::default();
    let found = match read(probe.provider.read_members(&interest, Priority::Discovery)).await {
        Ok(found) => found,
        Err(error) => return vec![read_failed(subject, CHECK, &error)],
    };
    let problem = |message: &str, remedy: &str| {
        vec![Finding::new(
            subject,
            CHECK,
            Level::Problem,
            message,
            remedy,
        )]
    };
    match found.incomplete {
        None => vec![Finding::ok(
            subject,
            CHECK,
            format!(
                "the key sees {} members, {} of them owners",
                found.total, found.owners
            ),
        )],
        Some(Incomplete::KeyIsNotOwner) => problem(
            "the key sees no organization owner, so it is not an owner's and removals cannot be proven",
            "make a key with the role Organization owner and put it into the secret store",
        ),
        Some(Incomplete::OtherOrganization) => problem(
            "members of another organization were shown",
            "check `organization_id`, and that nothing caches answers between here and Elastic Cloud",
        ),
        Some(Incomplete::MorePages) => problem(
            "the list of members goes on in a way that this release does not know",
            "look for a newer release of Latchkey; until then no removal can be proven",
        ),
        Some(Incomplete::Ambiguous) => problem(
            "several members were shown under one id or address",
            "look at the members in the Elastic Cloud console, and tell Elastic support",
        ),
    }
}

/// Another key of an owner may be another connector's, and two of them undo each other's work.
async fn examine_other_keys(subject: &str, probe: &IntegrationProbe) -> Finding {
    const CHECK: &str = "other_keys";
    let keys = match read(probe.provider.owner_keys(Priority::Discovery)).await {
        Ok(keys) => keys,
        Err(error) => {
            return Finding::new(
                subject,
                CHECK,
                Level::Warning,
                format!("the keys of the organization could not be listed: {error}"),
                "look at them in the Elastic Cloud console: only one connector may change roles",
            );
        }
    };
    let (own, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.is_own);
    // A key that does not name itself is one of those listed.
    if others.len() <= usize::from(own.is_empty()) {
        return Finding::ok(
            subject,
            CHECK,
            "no other key with the rights of an owner is shown",
        );
    }
    let mut named: Vec<String> = others
        .iter()
        .take(KEYS_NAMED)
        .map(|key| {
            format!(
                "{} ({})",
                key.id.escape_default(),
                key.description.escape_default()
            )
        })
        .collect();
    if let Some(rest) = others
        .len()
        .checked_sub(KEYS_NAMED)
        .filter(|rest| *rest > 0)
    {
        named.push(format!("{rest} more"));
    }
    Finding::new(
        subject,
        CHECK,
        Level::Warning,
        format!(
            "other keys with the rights of an owner: {}",
            named.join(", ")
        ),
        "make sure that none of them is used by another connector that gives or takes roles, and delete those that nothing uses",
    )
}

fn key_findings(subject: &str, status: &KeyStatus, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![expiry_finding(subject, status, now)];
    findings.push(match &status.own_user_id {
        Some(user) => Finding::ok(
            subject,
            "own_member",
            format!("member {user} is behind the key and is never touched"),
        ),
        None => Finding::new(
            subject,
            "own_member",
            Level::Warning,
            "it is not known which member is behind the key",
            "never ask for grants for the member who made the key",
        ),
    });
    if let Some(skew) = status.skew_ms {
        let (level, remedy) = match skew.unsigned_abs() {
            far if far > SKEW_PROBLEM_MS => (
                Level::Problem,
                "run a time service on this machine; access would end at the wrong time",
            ),
            far if far > SKEW_WARNING_MS => (Level::Warning, "run a time service on this machine"),
            _ => (Level::Ok, ""),
        };
        let side = if skew < 0 { "behind" } else { "ahead of" };
        let message = format!(
            "the clock of Elastic Cloud is {} ms {side} ours",
            skew.unsigned_abs()
        );
        findings.push(Finding::new(subject, "clock_skew", level, message, remedy));
    }
    findings
}

fn expiry_finding(subject: &str, status: &KeyStatus, now: Timestamp) -> Finding {
    const CHECK: &str = "key_expiry";
    const RENEW: &str = "run `latchkey key rotate`; where the secret store cannot be written, put a new key there and delete the old one when it is no longer used";
    let Some(expires_at) = status.expires_at else {
        return Finding::new(
            subject,
            CHECK,
            Level::Warning,
            "it is not known when the key expires, or it never does",
            "prefer a key that expires, and note the day",
        );
    };
    let left = expires_at - now;
    let day = expires_at.format("%Y-%m-%d %H:%M UTC");
    if left <= TimeDelta::zero() {
        let message = format!("the key expired at {day}");
        return Finding::new(subject, CHECK, Level::Problem, message, RENEW);
    }
    let [early, soon, late] = KEY_DAYS.map(TimeDelta::days);
    let days = left.num_days();
    let (level, message) = if left <= late {
        (
            Level::Problem,
            format!("the key expires within 3 days, at {day}"),
        )
    } else if left <= soon {
        (
            Level::Warning,
            format!("the key expires within 14 days, at {day}"),
        )
    } else if left <= early {
        (
            Level::Warning,
            format!("the key expires within 30 days, at {day}"),
        )
    } else {
        (
            Level::Ok,
            format!("the key expires in {days} days, at {day}"),
        )
    };
    let remedy = if level == Level::Ok { "" } else { RENEW };
    Finding::new(subject, CHECK, level, message, remedy)
}

#[cfg(test)]
mod tests;
