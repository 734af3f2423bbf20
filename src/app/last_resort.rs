//! `latchkey sweep`: taking away what is due without a running connector.
//!
//! Owns a run that needs only the ledger and the keys: no listeners, no control plane. It walks the same path as the
//! connector, with the same reconciler; it never adds access, and never removes what the ledger does not own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use futures::StreamExt as _;
use tokio::task::JoinSet;

use super::alone::Alone;
use super::{VERSION, adapters, recovery};
use crate::config::{Config, Integration as Section};
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::{CallerName, IntegrationName};
use crate::domain::member::{Due, DueKind, MemberKey, MemberRecord, Phase, Subject, WriteKind};
use crate::elastic::Elastic;
use crate::ports::ledger::MEMBERS_AT_A_TIME;
use crate::ports::provider::{PlannedCall, Priority};
use crate::ports::{AccessProvider, Clock, Ledger, Wake};
use crate::reconcile::{Observer, Reconciler};
use crate::service::{IntegrationParts, OverdueAccess, Service, overdue_of};

/// Members handled at once; the rate budget is what bounds the calls.
const AT_ONCE: usize = 16;
/// Members looked at for one round.
const ROUND: usize = 500;
/// Shortest and longest pause between two rounds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is asked of a sweep.
#[derive(Debug, Clone)]
pub struct SweepAsk {
    /// Ends every grant first, for this reason; only what is due otherwise.
    pub everything: Option<String>,
    /// Who asks, for the audit.
    pub requester: String,
    /// Only shows what would be removed.
    pub dry_run: bool,
    /// How long to go on trying.
    pub patience: Duration,
}

/// A removal that a sweep would make.
#[derive(Debug, Clone)]
pub struct PlannedRemoval {
    /// Which organization.
    pub integration: IntegrationName,
    /// Who.
    pub subject: Subject,
    /// What is due, in words.
    pub assignments: Vec<String>,
    /// The call that would remove it.
    pub call: PlannedCall,
}

/// What a sweep did and what it left.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// What would be removed, in a dry run.
    pub planned: Vec<PlannedRemoval>,
    /// Members whose due access was removed and seen gone.
    pub members: usize,
    /// Removals sent.
    pub removed: usize,
    /// Access that is still due.
    pub left: Vec<OverdueAccess>,
    /// Second looks that are still owed.
    pub looks_owed: usize,
    /// Until when the last of them is owed.
    pub looks_until: Option<Timestamp>,
    /// Integrations that could not be reached at all: name, stable code, remedy.
    pub failures: Vec<(IntegrationName, String, String)>,
}

/// Why a sweep did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A connector, or another sweep, has the ledger open.
    #[error("the ledger {path} is in use: a connector runs")]
    InUse {
        /// The ledger.
        path: String,
    },
    /// The ledger is in memory: it holds nothing without its process.
    #[error("the ledger is configured in memory: there is nothing to sweep")]
    NoLedger,
    /// Everything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// One organization that a sweep works on.
#[derive(Debug)]
struct Organization {
    name: IntegrationName,
    elastic: Arc<Elastic>,
    provider: Arc<dyn AccessProvider>,
    observer: Arc<Observer>,
    reconciler: Reconciler,
}

/// Nobody waits to be woken: a sweep looks for itself.
#[derive(Debug)]
struct NobodyWakes;

impl Wake for NobodyWakes {
    fn wake(&self, _: &MemberKey, _: Due) {}
}

/// Removes what is due, verifies it, and says what is left.
///
/// # Errors
/// [`SweepError`] when the ledger cannot be opened or read.
pub async fn sweep(
    config: &Config,
    ask: &SweepAsk,
    clock: Arc<dyn Clock>,
) -> Result<SweepReport, SweepError> {
    let (alone, work) = Alone::open(config, &clock, !ask.dry_run).await?;
    let organizations = || config.integrations.iter().map(|section| &section.name);
    let sweeping = async {
        let done = match alone.take(organizations()).await {
            Ok(()) => run(config, ask, &alone, &clock)
                .await
                .map_err(SweepError::Other),
            Err(refused) => Err(refused),
        };
        alone.close(organizations()).await;
        done
    };
    tokio::join!(sweeping, work).0
}

async fn run(
    config: &Config,
    ask: &SweepAsk,
    alone: &Alone,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<SweepReport> {
    let ledger = &alone.ledger;
    let mut report = SweepReport::default();
    let mut witness = JoinSet::new();
    // Before the first event: what the ledger gains by this run would hide that it was restored.
    let holds = if ask.dry_run {
        BTreeMap::new()
    } else {
        recovery::of_a_sweep(config, ledger, clock, &mut witness).await?
    };
    if !ask.dry_run {
        note(ledger, clock.as_ref(), "sweep_started").await?;
    }
    let mut organizations = Vec::new();
    for section in &config.integrations {
        let mut organization = build(config, section, alone, clock)?;
        if let Some(hold) = holds.get(&section.name) {
            organization.reconciler = organization.reconciler.with_hold(Arc::clone(hold));
        }
        if ask.dry_run {
            plan(&organization, ask, ledger, clock, &mut report).await?;
        } else {
            organizations.push((organization, section));
        }
    }
    if ask.dry_run {
        return Ok(report);
    }
    if let Some(reason) = &ask.everything {
        end_everything(config, ask, reason, &organizations, ledger, clock).await?;
    }
    let deadline = clock.since_boot() + ask.patience;
    for (organization, section) in &organizations {
        if let Err((code, remedy)) = claim(organization, section, ledger).await {
            report
                .failures
                .push((organization.name.clone(), code, remedy));
        } else {
            remove(organization, ledger, clock, deadline, &mut report).await?;
            if ask.everything.is_some() {
                cancel_invitations(organization, ledger, clock).await?;
            }
        }
        count_left(&organization.name, ledger, clock.now(), &mut report).await?;
    }
    note(ledger, clock.as_ref(), "sweep_ended").await?;
    // The writer of the witness ends when nobody holds the witness any more.
    drop((organizations, holds));
    while witness.join_next().await.is_some() {}
    Ok(report)
}

fn build(
    config: &Config,
    section: &Section,
    alone: &Alone,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Organization> {
    let secret = adapters::secret(&section.secret)?;
    let ledger = &alone.ledger;
    let (standing, bound) = alone.of(&section.name);
    let elastic = adapters::elastic_under(
        section,
        secret,
        Arc::clone(clock),
        Some(Arc::clone(ledger)),
        standing.clone(),
    )?;
    let provider: Arc<dyn AccessProvider> = Arc::clone(&elastic) as Arc<dyn AccessProvider>;
    let observer = Arc::new(Observer::new(
        section.name.clone(),
        Arc::clone(&provider),
        Arc::clone(ledger),
        Arc::clone(clock),
    ));
    let reconciler = Reconciler::new(
        section.name.clone(),
        Arc::clone(&provider),
        Arc::clone(&observer),
        bound,
        Arc::clone(clock),
        Arc::new(NobodyWakes),
        adapters::reconcile_settings(
            &config.engine,
            section.reapply,
            &config.service_level,
            provider.request_lifetime(),
        ),
    )
    .taking_only();
    let reconciler = match standing {
        Some(standing) => reconciler.under(standing),
        None => reconciler,
    };
    Ok(Organization {
        name: section.name.clone(),
        elastic,
        provider,
        observer,
        reconciler,
    })
}

/// Loads the key and takes the claim of the organization.
async fn claim(
    organization: &Organization,
    section: &Section,
    ledger: &Arc<dyn Ledger>,
) -> Result<(), (String, String)> {
    if let Err(error) = organization.elastic.load_key().await {
        return Err((error.code().to_owned(), error.remedy().to_owned()));
    }
    let id = match &section.organization_id {
        Some(pinned) => pinned.clone(),
        None => match organization.provider.organization(Priority::Revoke).await {
            Ok((found, _)) => found.id,
            Err((error, _)) => {
                let remedy = "check that Elastic Cloud can be reached from here, and the key";
                return Err((error.code().to_owned(), remedy.to_owned()));
            }
        },
    };
    ledger
        .claim_organization(&organization.name, &id)
        .await
        .map_err(|error| {
            let remedy = "look at the ledger, and at the organizations of the configuration";
            (error.code().to_owned(), remedy.to_owned())
        })
}

/// Ends every grant, as draining does.
async fn end_everything(
    config: &Config,
    ask: &SweepAsk,
    reason: &str,
    organizations: &[(Organization, &Section)],
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let mut parts = BTreeMap::new();
    for (organization, section) in organizations {
        parts.insert(
            organization.name.clone(),
            IntegrationParts {
                provider: Arc::clone(&organization.provider),
                observer: Arc::clone(&organization.observer),
                details: adapters::details(section),
            },
        );
    }
    let service = Service::new(
        Arc::clone(ledger),
        Arc::clone(clock),
        Arc::new(NobodyWakes),
        parts,
        adapters::rules(&config.policy)?,
        adapters::service_settings(config),
    );
    let caller = CallerName::parse("sweep").context("a valid name")?;
    service
        .drain(&caller, None, ask.requester.clone(), reason.to_owned())
        .await
        .context("ending every grant")?;
    Ok(())
}

/// Removes what is due until nothing is, or until the patience is over.
async fn remove(
    organization: &Organization,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    deadline: Duration,
    report: &mut SweepReport,
) -> anyhow::Result<()> {
    let mut seen: BTreeSet<MemberKey> = BTreeSet::new();
    loop {
        let now = clock.now();
        let page = ledger.late(&organization.name, now, None, ROUND).await?;
        let due: Vec<MemberKey> = page
            .items
            .iter()
            .filter(|record| !overdue_of(record, now, now).is_empty())
            .map(|record| record.key.clone())
            .collect();
        let done = seen.iter().filter(|key| !due.contains(key)).count();
        if due.is_empty() {
            report.members += done;
            return Ok(());
        }
        for key in &due {
            if seen.insert(key.clone()) {
                // Whoever runs a sweep has often just changed the reason of a refusal.
                organization.reconciler.hurry(key).await?;
            }
        }
        let mut passes = futures::stream::iter(&due)
            .map(|key| organization.reconciler.pass(key))
            .buffer_unordered(AT_ONCE);
        let mut next: Option<Timestamp> = None;
        while let Some(passed) = passes.next().await {
            let passed = passed?;
            report.removed += passed.removed;
            if let Some(due) = passed.next {
                next = Some(next.map_or(due.at, |earlier| earlier.min(due.at)));
            }
        }
        let pause = next
            .and_then(|at| (at - clock.now()).to_std().ok())
            .unwrap_or_default()
            .clamp(PAUSES.0, PAUSES.1);
        if clock.since_boot() + pause >= deadline {
            report.members += done;
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
}

/// Invitations that nobody waits for any more are cancelled where that is possible at once.
async fn cancel_invitations(
    organization: &Organization,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let due = ledger.due(&organization.name, clock.now(), ROUND).await?;
    for member in due {
        if matches!(member.key.subject, Subject::Invitee(_)) && member.due.kind == DueKind::Look {
            organization.reconciler.pass(&member.key).await?;
        }
    }
    Ok(())
}

/// What is still due, and how many second looks are owed.
async fn count_left(
    integration: &IntegrationName,
    ledger: &Arc<dyn Ledger>,
    now: Timestamp,
    report: &mut SweepReport,
) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = ledger.late(integration, now, after.as_ref(), ROUND).await?;
        for record in &page.items {
            report.left.extend(overdue_of(record, now, now));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let page = ledger
            .members(integration, after.as_ref(), MEMBERS_AT_A_TIME)
            .await?;
        for row in page.items.iter().flat_map(|record| &record.owned) {
            if let Phase::Closing { look_at, .. } = row.phase {
                report.looks_owed += 1;
                report.looks_until = report.looks_until.max(Some(look_at));
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// What a sweep would do, without doing it.
async fn plan(
    organization: &Organization,
    ask: &SweepAsk,
    ledger: &Arc<dyn Ledger>,
    clock: &Arc<dyn Clock>,
    report: &mut SweepReport,
) -> anyhow::Result<()> {
    // Everything that is ours has an end, and none is further away than this.
    let horizon = if ask.everything.is_some() {
        TimeDelta::days(36_500)
    } else {
        TimeDelta::zero()
    };
    let now = clock.now();
    let mut after = None;
    loop {
        let page = ledger
            .late(&organization.name, now + horizon, after.as_ref(), ROUND)
            .await?;
        for record in &page.items {
            report
                .planned
                .extend(plan_member(organization, record, now + horizon, now));
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn plan_member(
    organization: &Organization,
    record: &MemberRecord,
    until: Timestamp,
    now: Timestamp,
) -> Option<PlannedRemoval> {
    let Subject::Member(user) = &record.key.subject else {
        return None;
    };
    let due: Vec<_> = overdue_of(record, until, now)
        .into_iter()
        .map(|overdue| overdue.assignment)
        .collect();
    if due.is_empty() {
        return None;
    }
    Some(PlannedRemoval {
        integration: organization.name.clone(),
        subject: record.key.subject.clone(),
        assignments: due.iter().map(ToString::to_string).collect(),
        call: organization.provider.preview(WriteKind::Remove, user, &due),
    })
}

async fn note(ledger: &Arc<dyn Ledger>, clock: &dyn Clock, action: &str) -> anyhow::Result<()> {
    let kind = EventKind::Lifecycle {
        action: action.to_owned(),
        version: VERSION.to_owned(),
    };
    let event = AuditEvent::connector(clock.now(), kind);
    ledger
        .append(vec![event])
        .await
        .context("writing to the audit")
}
