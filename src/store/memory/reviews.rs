//! Used texts and reviews, as the ledger in memory keeps them.
//!
//! Owns order and lifetime, equal to those of the SQL.

use super::State;
use crate::domain::authority::{Closing, Review, TokenUse};
use crate::domain::grant::Grant;
use crate::domain::ids::GrantId;
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
