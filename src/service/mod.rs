//! Use cases: everything that callers can ask of the connector, as verbs over the ports.
//!
//! Owns the only path by which callers change the ledger: accept, extend, revoke, drain. Never talks to Elastic
//! Cloud to change anything, never imports an adapter, and never waits for access to be given before it answers
//! that a grant was accepted.

mod admission;
mod bulk;
mod cache;
mod connector;
mod create;
mod directory;
pub mod doctor;
mod drift;
mod ends;
pub mod error;
mod explain;
mod extend;
mod giving_up;
mod hold;
mod keys;
mod law;
mod overdue;
mod plan;
mod read;
mod receipts;
mod refresh;
mod resolve;
mod review;
mod revoke;
pub mod rotation;
pub mod vouch;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sha2::{Digest, Sha256};

use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, DeploymentId, IntegrationName, ProjectId};
use crate::domain::member::{MemberKey, Subject};
use crate::domain::request::Fingerprint;
use crate::policy::Rules;
use crate::ports::ledger::{LedgerError, MemberCommit};
use crate::ports::provider::{Deployment, Project};
use crate::ports::{AccessProvider, Clock, Law, Ledger, Seals, Wake};
use crate::reconcile::{Hold, Observer, receipt};

use admission::Outlook;
use cache::{Listing, MemberCache};

pub use admission::{LatenessPolicy, OnLate};
pub use bulk::{BulkRevocation, DrainProgress};
pub use connector::{Health, IntegrationStatus};
pub use create::{CreatedGrant, GrantAsk, Wait};
pub use directory::{GrantableRole, IntegrationOrganization, MembersPage};
pub use drift::MemberDrift;
pub use ends::Share;
pub use error::{Result, ServiceError};
pub use explain::{Access, AccessKind, Explanation};
pub use extend::{Extended, Extension};
pub use giving_up::{AccessReference, Adopted, Forgetting};
pub use hold::{HeldAction, HeldItem, HoldPlan};
pub use keys::KeyReport;
pub use law::policies_of;
pub use overdue::{OverdueAccess, OverdueCursor, overdue_of};
pub use plan::{GrantPlan, PlannedAssignment};
pub use revoke::{Revocation, Revoked, WhichGrant};
pub use vouch::Vouchers;
pub use watch::{WatchItem, Watched};

/// Times that a compare-and-swap is tried before the caller is told to come back.
const ATTEMPTS: usize = 16;

/// Numbers of the service. The defaults fit one connector with one control plane.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an invited person has to join before waiting grants lapse.
    pub invitation_ttl: TimeDelta,
    /// How long a request id is remembered beyond the latest end of its grant.
    pub remember_requests: TimeDelta,
    /// How old a look-up of a member by id or address may be.
    pub member_ttl: Duration,
    /// How many such look-ups are kept for each integration.
    pub member_capacity: usize,
    /// How old a list of deployments or projects may be.
    pub discovery_ttl: Duration,
    /// Members that one revocation by target may reach without saying so.
    pub max_members: usize,
    /// Longest silence on a watch before a proof of life.
    pub heartbeat: Duration,
    /// Difference to upstream's clock beyond which nothing is granted or extended.
    pub max_skew: TimeDelta,
    /// How late removals may become, as forecast when a grant is accepted.
    pub lateness: LatenessPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            invitation_ttl: TimeDelta::hours(72),
            remember_requests: TimeDelta::days(30),
            member_ttl: Duration::from_secs(60),
            member_capacity: 10_000,
            discovery_ttl: Duration::from_secs(60),
            max_members: 50,
            heartbeat: Duration::from_secs(30),
            max_skew: TimeDelta::seconds(30),
            lateness: LatenessPolicy::default(),
        }
    }
}

/// What the configuration says of an integration, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Its kind, for example `elastic-cloud`.
    pub kind: String,
    /// Base URL of its API.
    pub base_url: String,
    /// How people reach what they were granted; may be empty.
    pub custom_access_details: String,
    /// Who answers for the integration.
    pub owners: Vec<String>,
    /// Who owns the organization behind it; may be empty.
    pub resource_owner: String,
}

/// One integration as the composition root hands it over.
#[derive(Debug)]
pub struct IntegrationParts {
    /// The organization, reached with the key in use.
    pub provider: Arc<dyn AccessProvider>,
    /// Shared reads of its members; the same one that the engine uses.
    pub observer: Arc<Observer>,
    /// What the configuration says of it.
    pub details: Details,
}

/// One integration at work.
#[derive(Debug)]
struct Integration {
    name: IntegrationName,
    provider: Arc<dyn AccessProvider>,
    observer: Arc<Observer>,
    details: Details,
    members: MemberCache,
    deployments: Listing<DeploymentId, Deployment>,
    projects: [Listing<ProjectId, Project>; 3],
    outlook: Outlook,
    /// Read while a grant is accepted, written to begin draining: no grant slips in behind a drain.
    draining: tokio::sync::RwLock<bool>,
    /// Whether it is in hold; absent where nobody watches for that.
    hold: Option<Arc<Hold>>,
    /// What it shares with other replicas; absent where there is only one process.
    share: Option<Share>,
    /// Rotates its key; absent where nobody does.
    rotator: Option<Arc<rotation::Rotator>>,
}

impl Integration {
    /// What whoever asks for access here should know beforehand, in words.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.observer.board().overwrites_seen() {
            warnings.push(
                "logins through single sign-on were seen to overwrite roles here: access may vanish when the person \
                 signs in again"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// The use cases.
#[derive(Debug)]
pub struct Service {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    wake: Arc<dyn Wake>,
    integrations: BTreeMap<IntegrationName, Integration>,
    rules: Rules,
    settings: Settings,
    /// The customer's law; without one the rules alone decide.
    law: Option<Arc<dyn Law>>,
    /// Whose signatures are taken; without them no approval and no emergency token is.
    seals: Option<Arc<dyn Seals>>,
}

impl Service {
    /// A service over its ports.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        wake: Arc<dyn Wake>,
        integrations: BTreeMap<IntegrationName, IntegrationParts>,
        rules: Rules,
        settings: Settings,
    ) -> Self {
        let integrations = integrations
            .into_iter()
            .map(|(name, parts)| {
                let IntegrationParts {
                    provider,
                    observer,
                    details,
                } = parts;
                let integration = Integration {
                    name: name.clone(),
                    provider,
                    observer,
                    details,
                    members: MemberCache::new(settings.member_ttl, settings.member_capacity),
                    deployments: Listing::default(),
                    projects: std::array::from_fn(|_| Listing::default()),
                    outlook: Outlook::default(),
                    draining: tokio::sync::RwLock::new(false),
                    hold: None,
                    share: None,
                    rotator: None,
                };
                (name, integration)
            })
            .collect();
        Self {
            ledger,
            clock,
            wake,
            integrations,
            rules,
            settings,
            law: None,
            seals: None,
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Hexadecimal text that ties an answer to our log, where the answer may not say more.
    #[must_use]
    pub fn incident(&self) -> String {
        hex::encode(self.clock.entropy())
    }

    /// The integration of that name, or the only one when none is named.
    fn integration(&self, name: Option<&IntegrationName>) -> Result<&Integration> {
        match name {
            Some(name) => self
                .integrations
                .get(name)
                .ok_or(ServiceError::UnknownIntegration),
            None => {
                let mut all = self.integrations.values();
                match (all.next(), all.next()) {
                    (Some(only), None) => Ok(only),
                    _ => Err(ServiceError::invalid(
                        "integration",
                        "must be given when not exactly one integration is configured",
                    )),
                }
            }
        }
    }

    /// Stores a member; `false` when it has to be loaded and decided again.
    async fn try_commit(&self, mut commit: MemberCommit) -> Result<bool> {
        receipt::keep(&mut commit.record, &commit.audit);
        match self.ledger.commit(commit).await {
            Ok(_) => Ok(true),
            // What was committed with an unknown outcome shows when it is read back.
            Err(LedgerError::Conflict { .. } | LedgerError::CommitUnknown { .. }) => {
                tokio::task::yield_now().await;
                Ok(false)
            }
            Err(
                error @ (LedgerError::Unavailable { .. }
                | LedgerError::Corrupt { .. }
                | LedgerError::OrganizationTaken { .. }),
            ) => Err(error.into()),
        }
    }

    /// Leaves an audit event behind a refusal, and hands the result on.
    async fn audited<T>(
        &self,
        operation: &'static str,
        caller: &CallerName,
        integration: Option<&IntegrationName>,
        subject: Option<String>,
        result: Result<T>,
    ) -> Result<T> {
        if let Err(error) = &result
            && error.is_refusal()
        {
            let event = AuditEvent {
                at: self.clock.now(),
                integration: integration.cloned(),
                subject,
                grant_id: None,
                caller: Some(caller.clone()),
                kind: EventKind::RequestRefused {
                    code: error.code().to_owned(),
                    operation: operation.to_owned(),
                    policies: policies_of(error),
                },
            };
            self.note_refusal(event).await;
        }
        result
    }
}

/// The aggregate that a grant belongs to.
fn member_key(grant: &Grant) -> MemberKey {
    MemberKey {
        integration: grant.integration.clone(),
        subject: grant.subject.clone(),
    }
}

fn subject_key(integration: &IntegrationName, subject: Subject) -> MemberKey {
    MemberKey {
        integration: integration.clone(),
        subject,
    }
}

/// Who ended or extended something: whom the caller names, else the caller.
fn actor(requester: String, caller: &CallerName) -> String {
    if requester.is_empty() {
        caller.to_string()
    } else {
        requester
    }
}

/// SHA-256 over parts, each with its length, so that no two lists of parts look alike.
fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    Fingerprint(hash.finalize().into())
}
