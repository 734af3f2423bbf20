//! Rows of what is used once, and of the reviews that go with it.
//!
//! Owns their columns, and how long a used text is remembered. Never reads or writes a database.

use super::rows::{Unreadable, body, micros, read_body};
use crate::domain::Timestamp;
use crate::domain::authority::{Review, TokenKind};
use crate::domain::grant::Grant;

/// A signed text that is used up.
#[derive(Debug, Clone)]
pub(crate) struct TokenRow {
    pub(crate) token: String,
    pub(crate) kind: &'static str,
    pub(crate) grant_id: String,
    pub(crate) used_at: i64,
    pub(crate) forget_after: i64,
}

impl TokenRow {
    /// The token that opened the grant of a review.
    pub(crate) fn of_review(review: &Review) -> Self {
        Self {
            token: review.used.token.clone(),
            kind: TokenKind::BreakGlass.as_str(),
            grant_id: review.grant_id.to_string(),
            used_at: micros(review.opened_at),
            forget_after: forget_after(review.used.until),
        }
    }

    pub(super) fn all(grant: &Grant) -> Vec<Self> {
        let uses = grant.authority.as_ref().map(|authority| authority.uses());
        uses.unwrap_or_default()
            .into_iter()
            .map(|one| Self {
                token: one.token,
                kind: one.kind.as_str(),
                grant_id: grant.id.to_string(),
                used_at: micros(grant.created_at),
                forget_after: forget_after(one.until),
            })
            .collect()
    }
}

/// Until when a used text is remembered: well beyond its own end, so that a clock set back brings nothing back.
pub(crate) fn forget_after(until: Timestamp) -> i64 {
    micros(until).saturating_add(30 * 24 * 3600 * 1_000_000)
}

/// A review as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct ReviewRow {
    pub(crate) grant_id: String,
    pub(crate) integration: String,
    pub(crate) is_open: i64,
    pub(crate) body: String,
}

impl ReviewRow {
    pub(super) fn owed(grant: &Grant) -> Option<Self> {
        Review::owed(grant).as_ref().map(Self::new)
    }

    pub(crate) fn new(review: &Review) -> Self {
        Self {
            grant_id: review.grant_id.to_string(),
            integration: review.integration.to_string(),
            is_open: i64::from(review.closed.is_none()),
            body: body(review),
        }
    }
}

/// Reads a review back.
pub(crate) fn review(format: i64, text: &str) -> Result<Review, Unreadable> {
    read_body(|| "a review".to_owned(), format, text)
}
