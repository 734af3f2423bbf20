//! Looking back at emergency grants.
//!
//! Owns who sees reviews and who may close one: never whoever used the token or received the access.

use std::collections::BTreeSet;

use crate::domain::authority::{Closing, Review};
use crate::domain::caller::Caller;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::GrantId;
use crate::ports::ledger::Page;

use super::Service;
use super::actor;
use super::error::{Result, ServiceError};

impl Service {
    /// A page of reviews, those of the newest grants first, at most `limit`, beginning below `before`.
    ///
    /// # Errors
    /// Failures of the ledger.
    pub async fn list_reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Result<Page<Review, GrantId>> {
        Ok(self.ledger.reviews(open_only, before, limit).await?)
    }

    /// Closes the review of a grant. Closing one that is closed changes nothing and answers it as it is.
    ///
    /// # Errors
    /// [`ServiceError::UnknownGrant`] where no review is of that grant, [`ServiceError::Unfit`] for whoever used the
    /// token or received the access, and failures of the ledger.
    pub async fn close_review(
        &self,
        caller: &Caller,
        id: GrantId,
        requester: String,
        note: String,
    ) -> Result<Review> {
        let result = self.try_close(caller, id, requester, note).await;
        self.audited("close_review", &caller.name, None, None, result)
            .await
    }

    async fn try_close(
        &self,
        caller: &Caller,
        id: GrantId,
        requester: String,
        note: String,
    ) -> Result<Review> {
        let review = self.review(id).await?;
        if review.closed.is_some() {
            return Ok(review);
        }
        let by = actor(requester, &caller.name);
        if !review.may_be_closed_by(&caller.name, &by) {
            return Err(ServiceError::Unfit {
                code: "review_of_own_use",
                problem: "whoever used the emergency token or received the access cannot close its review; have somebody else look",
            });
        }
        let now = self.clock.now();
        let event = AuditEvent {
            at: now,
            integration: Some(review.integration.clone()),
            subject: None,
            grant_id: Some(id),
            caller: Some(review.caller.clone()),
            kind: EventKind::ReviewClosed {
                by: by.clone(),
                note: note.clone(),
            },
        };
        let closing = Closing {
            at: now,
            by,
            caller: caller.name.clone(),
            note,
        };
        self.ledger.close_review(id, closing, vec![event]).await?;
        // Somebody else may have closed it meanwhile: then that is the answer.
        self.review(id).await
    }

    async fn review(&self, id: GrantId) -> Result<Review> {
        self.ledger
            .review(id)
            .await?
            .ok_or(ServiceError::UnknownGrant)
    }

    /// Which of these grants owe a review that nobody has closed yet.
    ///
    /// # Errors
    /// Failures of the ledger.
    pub async fn owing_review(&self, grants: &[GrantId]) -> Result<BTreeSet<GrantId>> {
        // There are few open reviews, and many grants.
        const PAGE: usize = 500;
        let mut owing = BTreeSet::new();
        let mut before = None;
        loop {
            let page = self.ledger.reviews(true, before, PAGE).await?;
            let open = page.items.iter().map(|review| review.grant_id);
            owing.extend(open.filter(|id| grants.contains(id)));
            before = page.next;
            if before.is_none() {
                return Ok(owing);
            }
        }
    }
}
