//! Used texts and reviews, as the ledger in memory keeps them.
//!
//! Owns order and lifetime, equal to those of the SQL.

use std::collections::BTreeMap;

use super::State;
use crate::domain::authority::{Closing, Review, TokenUse};
use crate::domain::grant::Grant;
use crate::domain::ids::{GrantId, IntegrationName};
use crate::ports::ledger::Page;
use crate::store::once;
use crate::store::rows::page;

impl State {
    /// The first text of a grant that was used before.
    pub(super) fn used_before(&self, grant: &Grant) -> Option<String> {
        let uses = uses(grant);
        uses.into_iter()
            .map(|one| one.token)
            .find(|token| self.tokens.contains_key(token))
    }

    /// Uses up the texts of a new grant, and opens its review.
    pub(super) fn use_up(&mut self, grant: &Grant) {
        for one in uses(grant) {
            self.tokens.insert(one.token, once::forget_after(one.until));
        }
        if let Some(review) = Review::owed(grant) {
            self.reviews.insert(grant.id, review);
        }
    }

    /// Takes a review over; one that is there stays as it is.
    pub(super) fn restore_review(&mut self, review: Review) {
        // Events of earlier releases do not say which token it was.
        if !review.used.token.is_empty() {
            let forget_after = once::forget_after(review.used.until);
            self.tokens
                .entry(review.used.token.clone())
                .or_insert(forget_after);
        }
        self.reviews.entry(review.grant_id).or_insert(review);
    }

    /// Open reviews of each integration.
    pub(super) fn open_reviews(&self) -> Vec<(IntegrationName, u64)> {
        let mut open: BTreeMap<IntegrationName, u64> = BTreeMap::new();
        for review in self.reviews.values() {
            if review.closed.is_none() {
                *open.entry(review.integration.clone()).or_default() += 1;
            }
        }
        open.into_iter().collect()
    }

    pub(super) fn list_reviews(
        &self,
        open_only: bool,
        before: Option<GrantId>,
        limit: usize,
    ) -> Page<Review, GrantId> {
        let items = self
            .reviews
            .values()
            .rev()
            .filter(|review| before.is_none_or(|before| review.grant_id < before))
            .filter(|review| !open_only || review.closed.is_none())
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        page(items, limit, |review: &Review| review.grant_id)
    }

    /// Closes an open review; answers whether there was one.
    pub(super) fn close_review(&mut self, id: GrantId, closing: Closing) -> bool {
        match self.reviews.get_mut(&id) {
            Some(review) if review.closed.is_none() => {
                review.closed = Some(closing);
                true
            }
            _ => false,
        }
    }

    pub(super) fn prune_reviews(&mut self, before: i64) {
        self.tokens
            .retain(|_, forget_after| *forget_after >= before);
        let grants = &self.grants;
        self.reviews
            .retain(|id, review| review.closed.is_none() || grants.contains_key(id));
    }
}

fn uses(grant: &Grant) -> Vec<TokenUse> {
    grant
        .authority
        .as_ref()
        .map(|authority| authority.uses())
        .unwrap_or_default()
}
