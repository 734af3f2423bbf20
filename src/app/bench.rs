//! What the bench needs behind the ports: its baselines, its floors, and ledgers of any size.
//!
//! Owns building them from domain values and the adapters. Never part of serving: the product runs with
//! [`Baseline::default`], which changes nothing.

mod ground;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use chrono::TimeDelta;

pub use self::ground::{Ground, Place, make_overdue};
use super::adapters;
use crate::config::{Config, LedgerKind};
use crate::domain::Timestamp;
use crate::domain::assignment::{ApplicationRoles, Assignment, Target};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{Certainty, Grant, GrantState, GrantedAssignment, Holding};
use crate::domain::ids::{CallerName, DeploymentId, GrantId, IntegrationName, RequestId, UserId};
use crate::domain::member::{
    Due, DueKind, LastSeen, LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
    WriteOutcome,
};
use crate::domain::request::Fingerprint;
use crate::domain::ttl::Ttl;
use crate::ports::ledger::{Accept, MemberCommit, RequestRecord};
use crate::ports::provider::Outcome;
use crate::ports::{AccessProvider, Clock, Ledger};
use crate::runtime::SystemClock;
use crate::store::postgres;
use crate::store::sqlite::{Filled, bench_bare_commits, bench_fill, bench_first_page};

/// The role of every grant that the bench makes.
pub const ROLE: &str = "deployment-viewer";
/// Grants in one transaction of [`fill`].
const PER_COMMIT: usize = 10_000;
/// Members of the first page that a bare start reads.
const FIRST_PAGE: usize = 1_000;
/// Members loaded at a time by the full load.
const PER_LOAD: usize = 500;

/// Ways of working that each undo one idea of the product, so that the bench can show what the idea is worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Baseline {
    /// One call for each assignment instead of one for all of a member.
    pub per_grant: bool,
    /// One transaction for each write instead of one for all that wait.
    pub commit_alone: bool,
    /// Everything in the ledger is loaded into memory before anything is done.
    pub full_load: bool,
}

/// All members of all integrations where the baseline loads them first; else nothing.
pub(super) async fn load_where_wanted(
    baseline: &Baseline,
    config: &Config,
    ledger: &Arc<dyn Ledger>,
) -> anyhow::Result<Vec<MemberRecord>> {
    let mut loaded = Vec::new();
    if !baseline.full_load {
        return Ok(loaded);
    }
    for integration in &config.integrations {
        let mut after = None;
        loop {
            let page = ledger
                .members(&integration.name, after.as_ref(), PER_LOAD)
                .await
                .context("loading everything")?;
            loaded.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(loaded)
}

/// Rows per second that the ledger's own engine commits in batches, with nothing around it: the bench's floor.
///
/// # Errors
/// When the ledger cannot be made at `path`.
pub async fn bare_commits(path: &Path, batches: usize, per_batch: usize) -> anyhow::Result<f64> {
    let clock = SystemClock;
    let now = clock.now();
    let member = Of {
        integration: IntegrationName::parse("bench")?,
        user: UserId::parse("1")?,
        deployments: vec![DeploymentId::parse("0".repeat(32))?],
    };
    let starts_at = now + TimeDelta::days(1);
    let grants: Vec<Grant> = (0..batches * per_batch)
        .map(|number| {
            let id = GrantId::new(now, clock.entropy());
            member.grant(id, number, GrantState::Scheduled { starts_at }, now)
        })
        .collect::<anyhow::Result<_>>()?;
    let make = |number: usize| {
        let grant = grants[number].clone();
        Accept {
            audit: vec![accepted(&grant, now)],
            grant,
            fingerprint: Fingerprint([0; 32]),
            remember_until: now + TimeDelta::days(7),
            due: Due {
                at: starts_at,
                kind: DueKind::Grant,
                weight: 20,
            },
        }
    };
    let bare = bench_bare_commits(path, batches, per_batch, make)
        .await
        .context("committing bare rows")?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a bench are far below 2^52"
    )]
    let rows = bare.grants as f64;
    Ok(rows / bare.elapsed.as_secs_f64())
}

/// What [`fill`] writes.
#[derive(Debug, Clone)]
pub struct Fill {
    /// The integration, as in the configuration.
    pub integration: IntegrationName,
    /// Members, each with one active grant on every deployment.
    pub users: Vec<UserId>,
    /// Since when they are members, in the order of `users`; where it is missing it is not known.
    pub since: Vec<Timestamp>,
    /// What is granted.
    pub deployments: Vec<DeploymentId>,
    /// When the grants of the member at a place end, in the order of `users`.
    pub ends: Vec<Timestamp>,
}

/// Writes a new ledger at `path`: every member holds an active, verified grant on every deployment. Answers how many
/// grants it holds.
///
/// # Errors
/// When the ledger cannot be made, or ids do not fit.
pub async fn fill(path: &Path, fill: &Fill) -> anyhow::Result<u64> {
    ensure!(
        fill.ends.len() == fill.users.len(),
        "every member needs an end"
    );
    let clock = SystemClock;
    let now = clock.now();
    let failed = std::sync::Mutex::new(None);
    let members =
        fill.users
            .iter()
            .zip(&fill.ends)
            .enumerate()
            .map_while(|(place, (user, ends_at))| {
                let member = Of {
                    integration: fill.integration.clone(),
                    user: user.clone(),
                    deployments: fill.deployments.clone(),
                };
                member
                    .filled(place, fill.since.get(place).copied(), *ends_at, now, &clock)
                    .map_err(|error| failed.lock().map(|mut slot| *slot = Some(error)))
                    .ok()
            });
    let filled = bench_fill(path, members, PER_COMMIT)
        .await
        .context("filling a ledger")?;
    match failed.into_inner() {
        Ok(None) => Ok(filled),
        Ok(Some(error)) => Err(error),
        Err(_) => anyhow::bail!("making grants panicked"),
    }
}

/// The least that a start must do before the first removal is on the wire: read the key, set up the client, read the
/// first page of what is due, send one DELETE.
///
/// # Errors
/// When any of that fails, or nothing is due.
pub async fn bare_start(config: &Config) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let section = config.integrations.first().context("an integration")?;
    let elastic = adapters::elastic(
        section,
        adapters::secret(&section.secret)?,
        Arc::clone(&clock),
        None,
    )?;
    elastic.load_key().await.context("reading the key")?;
    let (now, ledger) = (clock.now(), &config.ledger);
    let page = match ledger.kind {
        LedgerKind::Sqlite => bench_first_page(&ledger.path, &section.name, now, FIRST_PAGE)
            .await
            .context("reading the first page")?,
        LedgerKind::Postgres => {
            let options = adapters::postgres_options(ledger);
            postgres::bench_first_page(&options, &section.name, now, FIRST_PAGE)
                .await
                .context("reading the first page")?
        }
        LedgerKind::Memory => anyhow::bail!("nothing is due in a ledger in memory"),
    };
    let first = page.first().context("something is due")?;
    let Subject::Member(user) = &first.key.subject else {
        anyhow::bail!("the first that is due is a member");
    };
    let assignment = viewer(&DeploymentId::parse("0".repeat(32))?);
    match elastic.remove(elastic.pin(), user, &[assignment]).await {
        // It names a deployment that nobody has: that it was on the wire is all that counts.
        Outcome::Done(..) | Outcome::Refused(..) => Ok(()),
        Outcome::Unknown(_) => anyhow::bail!("the removal had no answer"),
    }
}

fn viewer(deployment: &DeploymentId) -> Assignment {
    Assignment {
        role: ROLE.to_owned(),
        target: Target::Deployment {
            id: deployment.clone(),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

fn accepted(grant: &Grant, now: Timestamp) -> AuditEvent {
    let event = EventKind::GrantAccepted {
        state: grant.state.name().to_owned(),
        assignments: grant
            .assignments
            .iter()
            .map(|held| held.assignment.to_string())
            .collect(),
        duration_s: grant.duration.seconds(),
        requester: grant.requester.clone(),
        justification: grant.justification.clone(),
        policies: Vec::new(),
    };
    AuditEvent::grant(now, grant, event)
}

/// Whose grants are made, and on what.
struct Of {
    integration: IntegrationName,
    user: UserId,
    deployments: Vec<DeploymentId>,
}

impl Of {
    fn grant(
        &self,
        id: GrantId,
        number: usize,
        state: GrantState,
        now: Timestamp,
    ) -> anyhow::Result<Grant> {
        let deployment = &self.deployments[number % self.deployments.len()];
        let is_active = matches!(state, GrantState::Active { .. });
        Ok(Grant {
            id,
            integration: self.integration.clone(),
            subject: Subject::Member(self.user.clone()),
            caller: CallerName::parse("local")?,
            request_id: RequestId::parse(format!("fill-{number:09}"))?,
            beneficiary: self.user.to_string(),
            requester: String::new(),
            justification: String::new(),
            assignments: vec![GrantedAssignment {
                assignment: viewer(deployment),
                holding: if is_active {
                    Holding::Owned
                } else {
                    Holding::Undecided
                },
            }],
            duration: Ttl::from_seconds(3600)?,
            starts_at: None,
            not_after: None,
            created_at: now,
            state,
            version: 1,
            certainty: if is_active {
                Certainty::Verified
            } else {
                Certainty::Unknown
            },
            externally_modified: false,
            invited: false,
            attempts: 0,
            last_error: None,
            verified_at: is_active.then_some(now),
            removal_sent_at: None,
            authority: None,
        })
    }

    fn filled(
        &self,
        place: usize,
        member_since: Option<Timestamp>,
        ends_at: Timestamp,
        now: Timestamp,
        clock: &SystemClock,
    ) -> anyhow::Result<Filled> {
        // Well before the first end, so that nobody waits for a second look at the beginning.
        let activated_at = now.min(ends_at) - TimeDelta::hours(1);
        let key = MemberKey {
            integration: self.integration.clone(),
            subject: Subject::Member(self.user.clone()),
        };
        let mut record = MemberRecord::new(key);
        record.member_since = member_since;
        let mut requests = Vec::with_capacity(self.deployments.len());
        let mut audit = Vec::with_capacity(self.deployments.len());
        for (at, deployment) in self.deployments.iter().enumerate() {
            let id = GrantId::new(now, clock.entropy());
            let state = GrantState::Active {
                activated_at,
                expires_at: ends_at,
            };
            let number = place * self.deployments.len() + at;
            let grant = self.grant(id, number, state, activated_at)?;
            requests.push((
                grant.caller.clone(),
                grant.request_id.clone(),
                RequestRecord::Grant {
                    id,
                    fingerprint: Fingerprint([0; 32]),
                },
                now + TimeDelta::days(7),
            ));
            audit.push(accepted(&grant, activated_at));
            record.grants.push(grant);
            record.owned.push(Owned {
                assignment: viewer(deployment),
                phase: Phase::Live,
                since: activated_at,
                must_end_by: Some(ends_at),
                last_write: LastWrite {
                    kind: WriteKind::Add,
                    at: activated_at,
                    outcome: WriteOutcome::Done,
                },
                seen: true,
                echo_until: None,
                removal_echo_until: None,
                must_survive: Vec::new(),
                blocked: None,
                isolate: false,
                attempts: 0,
            });
        }
        record.last_seen = Some(LastSeen {
            at: activated_at,
            assignments: self.deployments.iter().map(viewer).collect(),
        });
        let weight = record.grants.first().map_or(0, Grant::weight);
        record.due = Some(Due {
            at: ends_at,
            kind: DueKind::Remove,
            weight,
        });
        Ok(Filled {
            commit: MemberCommit {
                record,
                audit,
                request: None,
            },
            requests,
        })
    }
}
