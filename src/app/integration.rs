//! One organization at work: client, shared reads, reconciler, driver.
//!
//! Owns bringing an organization online: key, organization, claim. Never starts its passes before the claim says
//! that no other integration writes to the same organization.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::{IntegrationName, OrganizationId};
use crate::elastic::Elastic;
use crate::ports::keys::{KeyInUse, MadeKey};
use crate::ports::ledger::LedgerError;
use crate::ports::ownership::{Standing, Tenure};
use crate::ports::provider::{
    KeyStatus, ObservedKey, Outcome, Priority, ReadError, ReadResult, Refusal,
};
use crate::ports::secrets::SecretError;
use crate::ports::{AccessProvider, Clock, KeyDesk, Ledger, Ownership};
use crate::reconcile::Reconciler;
use crate::runtime::{Backoff, ReadinessHandle, TaskError};
use crate::scheduler::Driver;

/// Pause between tries to come online.
const RETRY: Backoff = Backoff {
    initial: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// The parts of one integration.
#[derive(Debug, Clone)]
pub(super) struct Integration {
    pub(super) name: IntegrationName,
    pub(super) pinned: Option<OrganizationId>,
    pub(super) elastic: Arc<Elastic>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) standing: Arc<Standing>,
    pub(super) ownership: Arc<dyn Ownership>,
}

impl Integration {
    /// Comes online, then works whenever this process owns the organization, until `stop`.
    pub(super) async fn run(
        self,
        driver: Driver,
        ready: ReadinessHandle,
        stop: CancellationToken,
    ) -> Result<(), TaskError> {
        let loaded = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            online = self.come_online(&ready) => online?,
        };
        ready.set_ready();
        // What is overdue waits for no note, and neither does the end of this process.
        let note = self.note_loaded(loaded);
        let work = self.work(driver, stop);
        tokio::pin!(note, work);
        tokio::select! {
            () = &mut work => {}
            () = &mut note => work.await,
        }
        Ok(())
    }

    /// Works whenever this process owns the organization, until `stop`.
    async fn work(&self, mut driver: Driver, stop: CancellationToken) {
        let mut tenure = self.standing.tenure();
        while !stop.is_cancelled() {
            // Only now: nothing of an earlier claim runs any more.
            self.standing.want(true);
            tokio::select! {
                () = stop.cancelled() => break,
                () = reached(&mut tenure, |now| now == Tenure::Held) => {}
                () = driver.rest() => {}
            }
            self.standing.want(false);
            let end = stop.child_token();
            let work = driver.work(end.clone());
            tokio::pin!(work);
            tokio::select! {
                () = &mut work => {}
                () = reached(&mut tenure, |now| now != Tenure::Held) => {
                    end.cancel();
                    work.await;
                }
            }
            self.ownership.release(&self.name).await;
        }
        self.standing.want(false);
    }

    /// Whether this process works on the organization now.
    pub(super) fn is_ours(&self) -> bool {
        self.reconciler.is_owner()
    }

    /// Loads the key and claims the organization; goes on trying until both are done. Answers what is to be noted of
    /// the key, if that is not noted yet.
    async fn come_online(&self, ready: &ReadinessHandle) -> Result<Option<KeyStatus>, LedgerError> {
        let mut failures = 0;
        let mut loaded = None;
        loop {
            let tried = self.try_online(&mut loaded).await;
            let Err(trouble) = tried else {
                return Ok(loaded);
            };
            self.note_loaded(loaded.take()).await;
            match trouble {
                Trouble::Fatal(error) => return Err(error),
                Trouble::Later { code, remedy } => {
                    failures += 1;
                    tracing::warn!(integration = %self.name, code, remedy, "Integration is not online yet; trying again");
                    ready.set_waiting(format!("{code}: {remedy}"));
                }
            }
            tokio::time::sleep(RETRY.delay(failures, 0.5)).await;
        }
    }

    async fn try_online(&self, loaded: &mut Option<KeyStatus>) -> Result<(), Trouble> {
        if !self.elastic.key_status().loaded {
            *loaded = Some(self.load_key().await?);
        }
        let organization = match &self.pinned {
            // A restart in trouble must not wait for upstream to name what the configuration names already.
            Some(pinned) => pinned.clone(),
            None => {
                self.note_loaded(loaded.take()).await;
                self.discover().await?
            }
        };
        let claim = self.ledger.claim_organization(&self.name, &organization);
        match claim.await {
            Ok(()) => {
                tracing::info!(integration = %self.name, organization = %organization, "Integration is online");
                Ok(())
            }
            Err(error @ LedgerError::OrganizationTaken { .. }) => Err(Trouble::Fatal(error)),
            Err(error) => Err(Trouble::Later {
                code: error.code().to_owned(),
                remedy: "look at the ledger".to_owned(),
            }),
        }
    }

    /// The organization that the key sees, where exactly one is to be seen.
    async fn discover(&self) -> Result<OrganizationId, Trouble> {
        let (found, outcome, evidence) = match self.elastic.organization(Priority::Verify).await {
            Ok((organization, evidence)) => (Ok(organization.id), "done", evidence),
            Err((error, evidence)) => (Err(explain(&error)), "refused", evidence),
        };
        self.note(EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence,
        })
        .await;
        found
    }

    async fn load_key(&self) -> Result<KeyStatus, Trouble> {
        match self.elastic.load_key().await {
            Ok(status) => Ok(status),
            Err(error) => {
                self.note_key("failed", &KeyStatus::default()).await;
                Err(Trouble::Later {
                    code: error.code().to_owned(),
                    remedy: error.remedy().to_owned(),
                })
            }
        }
    }

    /// Fetches the secret again. Answers what happened, in a word.
    pub(super) async fn refresh_key(&self) -> Result<String, String> {
        match self.reload_key().await {
            Ok(false) => Ok("unchanged".to_owned()),
            Ok(true) => Ok("rotated".to_owned()),
            Err(error) => Err(format!("{}: {}", error.code(), error.remedy())),
        }
    }

    /// Fetches the secret again, and tells everybody when the key is another one now.
    async fn reload_key(&self) -> Result<bool, SecretError> {
        let changed = self.elastic.reload_key().await?;
        if changed {
            self.note_key("rotated", &self.elastic.key_status()).await;
            tracing::info!(integration = %self.name, "Key was rotated");
            self.reconciler.notice_key().await;
        }
        Ok(changed)
    }

    async fn note_loaded(&self, loaded: Option<KeyStatus>) {
        if let Some(status) = loaded {
            self.note_key("loaded", &status).await;
        }
    }

    async fn note_key(&self, action: &str, status: &KeyStatus) {
        self.note(EventKind::KeyChanged {
            action: action.to_owned(),
            fingerprint: status.fingerprint.clone(),
        })
        .await;
    }

    async fn note(&self, kind: EventKind) {
        let event = AuditEvent::integration(self.clock.now(), &self.name, kind);
        if let Err(error) = self.ledger.append(vec![event]).await {
            tracing::warn!(integration = %self.name, code = error.code(), "Event was not written to the audit");
        }
    }
}

/// The keys of the organization; whoever works with the key hears when it changes.
#[async_trait]
impl KeyDesk for Integration {
    fn in_use(&self) -> Option<KeyInUse> {
        self.elastic.in_use()
    }

    async fn make_key(&self, description: &str, lives: TimeDelta) -> Outcome<MadeKey> {
        self.elastic.make_key(description, lives).await
    }

    async fn list_keys(&self) -> ReadResult<Vec<ObservedKey>> {
        self.elastic.list_keys().await
    }

    async fn delete_key(&self, id: &str) -> Outcome<()> {
        self.elastic.delete_key(id).await
    }

    async fn prove(&self, key: &SecretString) -> ReadResult<bool> {
        self.elastic.prove(key).await
    }

    async fn prove_in_use(&self) -> ReadResult<bool> {
        self.elastic.prove_in_use().await
    }

    async fn reload(&self) -> Result<bool, SecretError> {
        self.reload_key().await
    }
}

/// Waits until what this process may do is as wanted.
async fn reached(tenure: &mut watch::Receiver<Tenure>, wanted: impl Fn(Tenure) -> bool + Send) {
    // The other end lives as long as the integration.
    drop(tenure.wait_for(|now| wanted(*now)).await);
}

/// Why an integration is not online yet.
enum Trouble {
    /// Trying again cannot help.
    Fatal(LedgerError),
    /// It may come.
    Later { code: String, remedy: String },
}

fn explain(error: &ReadError) -> Trouble {
    let remedy = match error {
        ReadError::Refused(Refusal::Unauthenticated { .. }) => "check the key in the secret store",
        ReadError::Refused(Refusal::Forbidden { .. }) => "give the key the organization-admin role",
        ReadError::Unavailable { code } if code == "organization_not_visible" => {
            "correct organization_id, or put a key of that organization into the secret store"
        }
        ReadError::Unavailable { code } if code == "several_organizations" => {
            "set organization_id to the one that is meant"
        }
        ReadError::Refused(Refusal::NotSent { .. }) | ReadError::Unavailable { .. } => {
            "check that Elastic Cloud can be reached from here"
        }
        ReadError::Refused(_) => {
            "set organization_id, and check that the key belongs to that organization"
        }
    };
    Trouble::Later {
        code: error.code().to_owned(),
        remedy: remedy.to_owned(),
    }
}
