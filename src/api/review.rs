//! Reviews of emergency grants over the wire.
//!
//! Owns the conversion of their messages, field by field. Never decides who may close one.

use crate::domain::authority::{BreakGlass, Closing, Review};
use crate::domain::ids::GrantId;
use crate::ports::ledger::Page;
use crate::service::Result;

use super::{convert, pb, render, token};

const LIST: &str = "ListReviews";

/// A page that is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) open_only: bool,
    pub(super) before: Option<GrantId>,
    pub(super) limit: usize,
}

pub(super) fn asked(value: pb::ListReviewsRequest) -> Result<Asked> {
    let pb::ListReviewsRequest {
        include_closed,
        page_size,
        page_token,
    } = value;
    let bound = include_closed.to_string();
    Ok(Asked {
        open_only: !include_closed,
        before: token::decode("page_token", LIST, &bound, &page_token)?
            .map(|id| convert::grant_id("page_token", &id))
            .transpose()?,
        limit: convert::page_size(page_size, 50)?,
    })
}

pub(super) fn listed(open_only: bool, page: Page<Review, GrantId>) -> pb::ListReviewsResponse {
    let bound = (!open_only).to_string();
    pb::ListReviewsResponse {
        reviews: page.items.into_iter().map(review).collect(),
        next_page_token: page
            .next
            .map(|id| token::encode(LIST, &bound, &id.to_string()))
            .unwrap_or_default(),
    }
}

/// Which review, who looked, and what was found.
pub(super) fn closing(value: pb::CloseReviewRequest) -> Result<(GrantId, String, String)> {
    let pb::CloseReviewRequest {
        grant_id,
        requester,
        note,
    } = value;
    Ok((
        convert::grant_id("grant_id", &grant_id)?,
        convert::requester(requester)?,
        convert::required_text("note", note, convert::MAX_REASON)?,
    ))
}

pub(super) fn review(value: Review) -> pb::Review {
    let Review {
        grant_id,
        integration,
        caller,
        beneficiary,
        requester,
        justification,
        assignments,
        used,
        opened_at,
        closed,
    } = value;
    let BreakGlass {
        key,
        id,
        token: _,
        reason,
        until: _,
    } = used;
    let mut wire = pb::Review {
        grant_id: grant_id.to_string(),
        integration: integration.into(),
        caller: caller.into(),
        beneficiary,
        requester,
        justification,
        assignments,
        token_key: key,
        token_id: id,
        token_reason: reason,
        opened_at: Some(render::instant(opened_at)),
        ..pb::Review::default()
    };
    if let Some(Closing {
        at,
        by,
        caller: _,
        note,
    }) = closed
    {
        wire.closed_at = Some(render::instant(at));
        wire.closed_by = by;
        wire.note = note;
    }
    wire
}
