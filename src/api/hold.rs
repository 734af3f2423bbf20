//! Holds over the wire.
//!
//! Owns the conversion of their messages, field by field. Never decides anything.

use crate::domain::ids::IntegrationName;
use crate::domain::member::Subject;
use crate::ports::ledger::{Evidence, HoldReason, HoldRecord};
use crate::service::{HeldAction, HeldItem, HoldPlan, Result};

use super::{convert, pb, render};

pub(super) fn release(
    value: pb::ReleaseHoldRequest,
) -> Result<(Option<IntegrationName>, String, String)> {
    let pb::ReleaseHoldRequest {
        integration,
        requester,
        reason,
    } = value;
    Ok((
        convert::integration("integration", integration)?,
        convert::requester(requester)?,
        convert::required_reason(reason)?,
    ))
}

pub(super) fn response(plan: Option<HoldPlan>) -> pb::GetHoldResponse {
    let Some(plan) = plan else {
        return pb::GetHoldResponse::default();
    };
    let HoldPlan {
        record,
        witness,
        items,
        is_cut,
    } = plan;
    let HoldRecord {
        integration: _,
        since,
        reasons,
        evidence,
    } = record;
    let evidence = match evidence {
        Evidence::Witness => pb::HoldEvidence::Witness,
        Evidence::Ledger => pb::HoldEvidence::Ledger,
        Evidence::Nothing => pb::HoldEvidence::Nothing,
    };
    pb::GetHoldResponse {
        is_held: true,
        since: Some(render::instant(since)),
        reasons: reasons
            .into_iter()
            .map(|HoldReason { code, detail }| pb::HoldReason { code, detail })
            .collect(),
        evidence: evidence.into(),
        witness: witness.unwrap_or_default(),
        items: items.into_iter().map(item).collect(),
        is_cut,
    }
}

fn item(value: HeldItem) -> pb::HoldItem {
    let HeldItem {
        subject,
        assignment,
        action,
        is_proven,
        ends_at,
        was_seen,
    } = value;
    let action = match action {
        HeldAction::Remove => pb::HoldAction::Remove,
        HeldAction::RemoveLater => pb::HoldAction::RemoveLater,
        HeldAction::Add => pb::HoldAction::Add,
        HeldAction::Leave => pb::HoldAction::Leave,
    };
    pb::HoldItem {
        user_id: match subject {
            Subject::Member(user) => user.to_string(),
            Subject::Invitee(_) => String::new(),
        },
        assignment: Some(render::assignment(assignment)),
        action: action.into(),
        is_proven,
        ends_at: ends_at.map(render::instant),
        was_seen,
    }
}
