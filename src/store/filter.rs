//! What the filters of lists let through, where no SQL says it.
//!
//! Owns the meaning of each filter for the ledger in memory. Never orders, pages or reads a list.

use super::rows;
use crate::domain::assignment::Target;
use crate::domain::event::AuditEvent;
use crate::domain::grant::Grant;
use crate::ports::ledger::{EventFilter, GrantFilter};

/// Whether a grant has to do with this target.
pub(super) fn names(grant: &Grant, target: &Target) -> bool {
    grant
        .assignments
        .iter()
        .any(|held| held.assignment.target == *target)
}

/// Whether a list of grants with this filter shows this one.
pub(super) fn matches(filter: &GrantFilter, grant: &Grant) -> bool {
    let GrantFilter {
        caller,
        integration,
        states,
        subject,
        target,
    } = filter;
    caller.as_ref().is_none_or(|caller| grant.caller == *caller)
        && integration
            .as_ref()
            .is_none_or(|integration| grant.integration == *integration)
        && (states.is_empty() || states.iter().any(|state| state == grant.state.name()))
        && subject.as_ref().is_none_or(|subject| {
            let subject = rows::comparable(subject);
            grant.subject.to_string() == subject || rows::comparable(&grant.beneficiary) == subject
        })
        && target.as_ref().is_none_or(|target| names(grant, target))
}

/// Whether a list of events with this filter shows this one.
pub(super) fn concerns(filter: &EventFilter, event: &AuditEvent) -> bool {
    let EventFilter {
        caller,
        integration,
        grant_id,
        kinds,
    } = filter;
    (caller.is_none() || event.caller == *caller)
        && (integration.is_none() || event.integration == *integration)
        && (grant_id.is_none() || event.grant_id == *grant_id)
        && (kinds.is_empty() || kinds.iter().any(|kind| kind == event.kind.name()))
}
