//! Ending many grants: off-boarding, the kill switch, draining.
//!
//! Owns the selection and that an interrupted run can be repeated. Never touches standing access, and never stops
//! half way in silence.

use std::collections::BTreeSet;

use crate::domain::Timestamp;
use crate::domain::caller::Caller;
use crate::domain::grant::{EndCause, Grant};
use crate::domain::ids::{CallerName, IntegrationName, RequestId};
use crate::domain::member::{MemberKey, Phase, Subject};
use crate::domain::request::{Principal, Selector};
use crate::ports::ledger::{GrantFilter, MEMBERS_AT_A_TIME, MemberCommit, RequestRecord};
use crate::ports::provider::Priority;

use super::error::{Result, ServiceError};
use super::resolve::Resolved;
use super::revoke::end_grants;
use super::{ATTEMPTS, Integration, Service, actor, fingerprint, subject_key};

/// How many rows are read at a time.
const PAGE: usize = 500;

/// A call to remember as done.
type Done = (CallerName, RequestId, RequestRecord, Timestamp);

/// What a bulk revocation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkRevocation {
    /// Grants that it put on their way out.
    pub revoked: u32,
    /// Matching grants that were on their way out before.
    pub already_ending: u32,
    /// Whether the request id had been completed before.
    pub replayed: bool,
}

/// How far draining is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Grants that this call put on their way out.
    pub revoked: u32,
    /// Grants that have not ended.
    pub grants: u64,
    /// Assignments that are still to be removed or seen gone.
    pub owned: u64,
    /// Of these, refused removals.
    pub blocked: u64,
    /// Of these, assignments that were seen gone and are looked at once more.
    pub second_looks: u64,
    /// When the last of those looks is due.
    pub last_look_at: Option<Timestamp>,
}

impl Service {
    /// Ends every matching grant, whoever created it; a proven control plane reaches its own alone. A repeat goes on where an interrupted run stopped.
    ///
    /// # Errors
    /// [`ServiceError::RequestIdReused`], [`ServiceError::TooMany`] for a target that more members hold than
    /// `max_members` (or the limit of the connector), [`ServiceError::Upstream`] when an address could not be
    /// resolved (what the ledger knows of it is revoked nevertheless), and failures of the ledger.
    #[expect(
        clippy::too_many_arguments,
        reason = "one argument per field of the call"
    )]
    pub async fn revoke_access(
        &self,
        caller: impl Into<Caller>,
        request_id: RequestId,
        integration: Option<&IntegrationName>,
        selector: Selector,
        requester: String,
        reason: String,
        max_members: Option<usize>,
    ) -> Result<BulkRevocation> {
        let caller = &caller.into();
        let integration = self.integration(integration)?;
        let body = fingerprint(&[
            "revoke_access",
            integration.name.as_str(),
            &format!("{selector:?}"),
            &requester,
            &reason,
        ]);
        let result = async {
            self.check_ending(caller, Some(&integration.name), "access", &requester)?;
            match self.ledger.find_request(&caller.name, &request_id).await? {
                None => {}
                Some(RequestRecord::Done { fingerprint, .. }) if fingerprint == body => {
                    return Ok(BulkRevocation {
                        replayed: true,
                        ..BulkRevocation::default()
                    });
                }
                Some(
                    RequestRecord::Done { .. }
                    | RequestRecord::Grant { .. }
                    | RequestRecord::Tombstone,
                ) => return Err(ServiceError::RequestIdReused),
            }
            let (keys, unresolved) = self.select(integration, &selector).await?;
            let limit = max_members.unwrap_or(self.settings.max_members);
            if matches!(selector, Selector::Target(_)) && keys.len() > limit {
                return Err(ServiceError::TooMany {
                    members: keys.len(),
                    limit,
                });
            }
            let cause = EndCause::Revoked {
                by: actor(requester, &caller.name),
                reason,
            };
            let now = self.clock.now();
            let done = (
                caller.name.clone(),
                request_id,
                RequestRecord::Done {
                    fingerprint: body,
                    grant: None,
                },
                now + self.rules.max_total + self.settings.remember_requests,
            );
            // Whoever is on this machine has always reached everything.
            let reaches_all = caller.identity.is_none() || caller.revokes_all();
            let named = |grant: &Grant| {
                let is_named = match &selector {
                    Selector::Target(target) => grant
                        .assignments
                        .iter()
                        .any(|held| held.assignment.target == *target),
                    Selector::Member(_) | Selector::Integration => true,
                };
                is_named && (reaches_all || grant.caller == caller.name)
            };
            // The request id is closed last, so that an interrupted run is not taken for done.
            let done = unresolved.is_none().then_some(done);
            let bulk = self
                .end_all(integration, &selector, keys, named, &cause, done)
                .await?;
            match unresolved {
                None => Ok(bulk),
                Some(error) => Err(error),
            }
        }
        .await;
        let bulk = self
            .audited(
                "revoke_access",
                &caller.name,
                Some(&integration.name),
                None,
                result,
            )
            .await?;
        tracing::info!(integration = %integration.name, revoked = bulk.revoked, "Access revoked");
        Ok(bulk)
    }

    /// Refuses new grants from now on and ends all there are, of one integration or of every one.
    ///
    /// # Errors
    /// [`ServiceError::UnknownIntegration`], [`ServiceError::Contended`], and failures of the ledger. Draining has
    /// begun then, and repeating goes on with it.
    pub async fn drain(
        &self,
        caller: impl Into<Caller>,
        integration: Option<&IntegrationName>,
        requester: String,
        reason: String,
    ) -> Result<DrainProgress> {
        let caller = &caller.into();
        let lawful = self.check_ending(caller, integration, "everything", &requester);
        self.audited("drain", &caller.name, integration, None, lawful)
            .await?;
        let chosen: Vec<&Integration> = match integration {
            Some(name) => vec![self.integration(Some(name))?],
            None => self.integrations.values().collect(),
        };
        for integration in &chosen {
            let mut draining = integration.draining.write().await;
            if !*draining {
                *draining = true;
                tracing::warn!(integration = %integration.name, "Draining: new grants are refused");
            }
        }
        let cause = EndCause::Revoked {
            by: actor(requester, &caller.name),
            reason,
        };
        let mut progress = DrainProgress::default();
        for integration in chosen {
            let everything = Selector::Integration;
            let keys = self.selected(integration, &everything).await?;
            let ended = self.end_all(integration, &everything, keys, |_| true, &cause, None);
            progress.revoked += ended.await?.revoked;
            self.count_left(&integration.name, &mut progress).await?;
        }
        Ok(progress)
    }

    async fn count_left(
        &self,
        integration: &IntegrationName,
        progress: &mut DrainProgress,
    ) -> Result<()> {
        let census = self.ledger.census(self.clock.now()).await?;
        progress.grants += census
            .grants
            .iter()
            .filter(|(name, state, _)| name == integration && state != "ended")
            .map(|(_, _, count)| count)
            .sum::<u64>();
        let mut after = None;
        loop {
            let page = self
                .ledger
                .members(integration, after.as_ref(), MEMBERS_AT_A_TIME)
                .await?;
            for record in &page.items {
                progress.owned += u64::try_from(record.owned.len()).unwrap_or(u64::MAX);
                let blocked = record.owned.iter().filter(|owned| owned.blocked.is_some());
                progress.blocked += u64::try_from(blocked.count()).unwrap_or(u64::MAX);
                for owned in &record.owned {
                    if let Phase::Closing { look_at, .. } = owned.phase {
                        progress.second_looks += 1;
                        progress.last_look_at = progress.last_look_at.max(Some(look_at));
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// The members with grants that a selector means, and why that may not be all of them.
    async fn select(
        &self,
        integration: &Integration,
        selector: &Selector,
    ) -> Result<(BTreeSet<MemberKey>, Option<ServiceError>)> {
        // What the ledger knows needs nobody else: off-boarding works while Elastic Cloud is away.
        let mut keys = self.selected(integration, selector).await?;
        let mut unresolved = None;
        if let Selector::Member(who @ Principal::Email(_)) = selector {
            match self
                .resolve_member(integration, who, Priority::Revoke)
                .await
            {
                Ok(Resolved::Member(user)) => {
                    keys.insert(subject_key(&integration.name, Subject::Member(user)));
                }
                Ok(Resolved::Nobody) => {}
                Err(error) => unresolved = Some(error),
            }
        }
        Ok((keys, unresolved))
    }

    /// The members that a selector means, as far as the ledger alone tells.
    async fn selected(
        &self,
        integration: &Integration,
        selector: &Selector,
    ) -> Result<BTreeSet<MemberKey>> {
        let target = match selector {
            Selector::Integration => None,
            Selector::Target(target) => Some(target),
            Selector::Member(Principal::User(user)) => {
                let subject = Subject::Member(user.clone());
                return Ok(BTreeSet::from([subject_key(&integration.name, subject)]));
            }
            Selector::Member(Principal::Email(email)) => {
                let subject = Subject::Invitee(email.clone());
                let mut keys = BTreeSet::from([subject_key(&integration.name, subject)]);
                self.subjects_asked_for(integration, email.as_str(), &mut keys)
                    .await?;
                return Ok(keys);
            }
        };
        let subjects = self.ledger.subjects(&integration.name, target).await?;
        Ok(subjects.into_iter().collect())
    }

    async fn subjects_asked_for(
        &self,
        integration: &Integration,
        beneficiary: &str,
        keys: &mut BTreeSet<MemberKey>,
    ) -> Result<()> {
        let filter = GrantFilter {
            integration: Some(integration.name.clone()),
            states: ["scheduled", "awaiting_member", "activating", "active"]
                .map(str::to_owned)
                .to_vec(),
            subject: Some(beneficiary.to_owned()),
            ..GrantFilter::default()
        };
        let mut before = None;
        loop {
            let page = self.ledger.list_grants(&filter, before, PAGE).await?;
            keys.extend(page.items.iter().map(super::member_key));
            before = page.next;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Ends the selected grants of some members. Those of an invitee may have moved meanwhile, to a member that was looked
    /// at before or not at all: the ledger is asked once more, and grants move only once.
    async fn end_all(
        &self,
        integration: &Integration,
        selector: &Selector,
        keys: BTreeSet<MemberKey>,
        select: impl Fn(&Grant) -> bool,
        cause: &EndCause,
        done: Option<Done>,
    ) -> Result<BulkRevocation> {
        let mut bulk = BulkRevocation::default();
        let mut known = None;
        let may_move = keys
            .iter()
            .any(|key| matches!(key.subject, Subject::Invitee(_)));
        for key in keys {
            if self.end_member(&key, &select, cause, &mut bulk).await? {
                known = Some(key);
            }
        }
        if may_move {
            let mut moved = BulkRevocation::default();
            for key in self.selected(integration, selector).await? {
                if self.end_member(&key, &select, cause, &mut moved).await? {
                    known = Some(key);
                }
            }
            bulk.revoked += moved.revoked;
        }
        if let (Some(key), Some(done)) = (known, done) {
            self.close_request(&key, done).await?;
        }
        Ok(bulk)
    }

    /// Ends the selected grants of one member. Answers whether the ledger knows the member at all.
    async fn end_member(
        &self,
        key: &MemberKey,
        select: &impl Fn(&Grant) -> bool,
        cause: &EndCause,
        bulk: &mut BulkRevocation,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let mut record = self.ledger.member(key).await?;
            let is_known = record.version > 0;
            let ending = end_grants(&mut record, select, cause, self.clock.now());
            let (revoked, already) = (ending.revoked, ending.already);
            if revoked == 0 || self.store_ending(record, ending).await? {
                bulk.revoked += revoked;
                bulk.already_ending += already;
                return Ok(is_known);
            }
        }
        Err(ServiceError::Contended)
    }

    /// Remembers that a bulk revocation was done, with a member that it concerned.
    async fn close_request(&self, key: &MemberKey, done: Done) -> Result<()> {
        for _ in 0..ATTEMPTS {
            // A rival with the same request id may have closed it.
            if self.ledger.find_request(&done.0, &done.1).await?.is_some() {
                return Ok(());
            }
            let commit = MemberCommit {
                record: self.ledger.member(key).await?,
                audit: Vec::new(),
                request: Some(done.clone()),
            };
            if self.try_commit(commit).await? {
                return Ok(());
            }
        }
        Err(ServiceError::Contended)
    }
}
