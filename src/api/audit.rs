//! `AuditService`: receipts over the wire.
//!
//! Owns the calls about receipts: convert, hand to the service, render. Never decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::caller::Caller;
use crate::domain::ids::GrantId;
use crate::domain::member::Subject;
use crate::domain::receipt::{
    Assurance, Calls, Fate, GivenUp, Line, Look, Receipt, Sighting, Trail, Warning,
};
use crate::domain::request::Principal;
use crate::ports::ledger::{ReceiptCursor, ReceiptFilter};
use crate::service::{Result, Service, ServiceError};

use super::access::{PAGE_BYTES, caller};
use super::pb::audit_service_server::AuditService;
use super::status::status;
use super::{convert, pb, render, token};

const LIST: &str = "ListReceipts";

/// The calls about receipts.
#[derive(Debug)]
pub(super) struct AuditApi {
    service: Arc<Service>,
}

impl AuditApi {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    fn status(&self, error: &ServiceError) -> Status {
        status(error, || self.service.incident())
    }

    async fn list(
        &self,
        caller: &Caller,
        request: pb::ListReceiptsRequest,
    ) -> Result<pb::ListReceiptsResponse> {
        let pb::ListReceiptsRequest {
            filter: wanted,
            page_size,
            page_token,
        } = request;
        let filter = filter(wanted)?;
        let bound = format!("{filter:?}");
        let before = token::decode("page_token", LIST, &bound, &page_token)?
            .map(|text| cursor(&text))
            .transpose()?;
        let limit = convert::page_size(page_size, 50)?;
        let page = self
            .service
            .list_receipts(caller, filter, before, limit)
            .await?;
        let ids: Vec<GrantId> = page.items.iter().map(|item| item.grant_id).collect();
        let owing = self.service.owing_review(&ids).await?;
        let mut next = page.next;
        let mut receipts = Vec::with_capacity(page.items.len());
        let (mut bytes, mut last) = (0, None);
        for item in page.items {
            let here = ReceiptCursor {
                ended_at: item.ended_at,
                id: item.grant_id,
            };
            let wire = receipt(item, &owing);
            bytes += wire.encoded_len();
            if bytes > PAGE_BYTES && !receipts.is_empty() {
                // Large receipts: the page ends early and the next one begins here.
                next = last;
                break;
            }
            receipts.push(wire);
            last = Some(here);
        }
        Ok(pb::ListReceiptsResponse {
            receipts,
            next_page_token: next
                .map(|next| token::encode(LIST, &bound, &cursor_text(next)))
                .unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn get_receipt(
        &self,
        request: Request<pb::GetReceiptRequest>,
    ) -> std::result::Result<Response<pb::GetReceiptResponse>, Status> {
        let caller = caller(&request)?;
        let pb::GetReceiptRequest { grant_id } = request.into_inner();
        let found = async {
            let id = convert::grant_id("grant_id", &grant_id)?;
            let found = self.service.get_receipt(&caller, id).await?;
            let owing = self.service.owing_review(&[id]).await?;
            Ok(receipt(found, &owing))
        }
        .await
        .map_err(|error: ServiceError| self.status(&error))?;
        Ok(Response::new(pb::GetReceiptResponse {
            receipt: Some(found),
        }))
    }

    async fn list_receipts(
        &self,
        request: Request<pb::ListReceiptsRequest>,
    ) -> std::result::Result<Response<pb::ListReceiptsResponse>, Status> {
        let caller = caller(&request)?;
        self.list(&caller, request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }
}

fn cursor_text(cursor: ReceiptCursor) -> String {
    format!("{}/{}", cursor.ended_at.timestamp_micros(), cursor.id)
}

fn cursor(text: &str) -> Result<ReceiptCursor> {
    let broken = || ServiceError::invalid("page_token", "holds no cursor");
    let (micros, id) = text.split_once('/').ok_or_else(broken)?;
    let micros = micros.parse().map_err(|_| broken())?;
    Ok(ReceiptCursor {
        ended_at: Timestamp::from_timestamp_micros(micros).ok_or_else(broken)?,
        id: convert::grant_id("page_token", id)?,
    })
}

fn filter(value: Option<pb::ReceiptFilter>) -> Result<ReceiptFilter> {
    let Some(pb::ReceiptFilter {
        integration,
        beneficiary,
        ended_since,
        ended_until,
        open_only,
    }) = value
    else {
        return Ok(ReceiptFilter::default());
    };
    let subject = match beneficiary {
        None => None,
        Some(who) => match convert::principal("filter.beneficiary", Some(who))? {
            Principal::User(user) => Some(format!("user:{user}")),
            Principal::Email(email) => Some(email.to_string()),
        },
    };
    Ok(ReceiptFilter {
        caller: None,
        integration: convert::integration("filter.integration", integration)?,
        subject,
        since: convert::instant("filter.ended_since", ended_since)?,
        until: convert::instant("filter.ended_until", ended_until)?,
        open_only,
    })
}

fn calls(calls: Calls) -> Option<pb::CallSummary> {
    if calls.is_none() {
        return None;
    }
    let Calls {
        intended_at,
        sent_at,
        last_sent_at,
        done_at,
        intents,
        sent,
        refused,
        unanswered,
        last_code,
        request_ids,
    } = calls;
    Some(pb::CallSummary {
        intended_at: intended_at.map(render::instant),
        sent_at: sent_at.map(render::instant),
        last_sent_at: last_sent_at.map(render::instant),
        done_at: done_at.map(render::instant),
        intents,
        sent,
        refused,
        unanswered,
        last_code: last_code.unwrap_or_default(),
        request_ids,
    })
}

fn fate(fate: Fate) -> pb::ReceiptFate {
    match fate {
        Fate::NotGiven => pb::ReceiptFate::NotGiven,
        Fate::Standing => pb::ReceiptFate::Standing,
        Fate::Removed => pb::ReceiptFate::Removed,
        Fate::TakenAway => pb::ReceiptFate::TakenAway,
        Fate::MemberLeft => pb::ReceiptFate::MemberLeft,
        Fate::Kept => pb::ReceiptFate::Kept,
        Fate::Forgotten => pb::ReceiptFate::Forgotten,
        Fate::Adopted => pb::ReceiptFate::Adopted,
    }
}

fn assurance(assurance: Assurance) -> pb::ReceiptAssurance {
    match assurance {
        Assurance::Reopened => pb::ReceiptAssurance::Reopened,
        Assurance::GivenUp => pb::ReceiptAssurance::GivenUp,
        Assurance::SeenGoneOnce => pb::ReceiptAssurance::SeenGoneOnce,
        Assurance::SeenGoneTwice => pb::ReceiptAssurance::SeenGoneTwice,
        Assurance::NothingToRemove => pb::ReceiptAssurance::NothingToRemove,
    }
}

fn look(look: Look) -> (pb::SecondLookState, Option<Timestamp>) {
    match look {
        Look::NotOwed => (pb::SecondLookState::Unspecified, None),
        Look::Owed { from } => (pb::SecondLookState::Owed, Some(from)),
        Look::Reopened { at } => (pb::SecondLookState::Reopened, Some(at)),
        Look::Done { at } => (pb::SecondLookState::Done, Some(at)),
        Look::TakenOver { at } => (pb::SecondLookState::TakenOver, Some(at)),
    }
}

fn given_up(how: GivenUp) -> pb::GivenUp {
    match how {
        GivenUp::Forgotten {
            at,
            by,
            confirmed_by,
            reason,
        } => pb::GivenUp {
            at: Some(render::instant(at)),
            by,
            confirmed_by,
            reason,
        },
        GivenUp::Adopted { at, by, reason } => pb::GivenUp {
            at: Some(render::instant(at)),
            by,
            confirmed_by: String::new(),
            reason,
        },
    }
}

fn assignments(list: Vec<Assignment>) -> Vec<pb::Assignment> {
    list.into_iter().map(render::assignment).collect()
}

fn line(line: Line) -> pb::ReceiptLine {
    let Line { fate: what, trail } = line;
    let Trail {
        assignment,
        added,
        seen_at,
        missing_at,
        removed,
        blocked,
        gone,
        look: second,
        resurrections,
        resurrected_at,
        restored,
        given_up: how,
    } = trail;
    let (state, look_at) = look(second);
    pb::ReceiptLine {
        assignment: Some(render::assignment(assignment)),
        fate: fate(what).into(),
        added: calls(added),
        seen_at: seen_at.map(render::instant),
        missing_at: missing_at.map(render::instant),
        removed: calls(removed),
        gone_at: gone.map(|gone| render::instant(gone.at)),
        gone_read_started_at: gone.map(|gone| render::instant(gone.read_started_at)),
        second_look: state.into(),
        second_look_at: look_at.map(render::instant),
        resurrections,
        resurrected_at: resurrected_at.map(render::instant),
        blocked_code: blocked.map(|blocked| blocked.code).unwrap_or_default(),
        restored: assignments(restored),
        given_up: how.map(given_up),
    }
}

fn sighting(sighting: Sighting) -> pb::Sighting {
    let Sighting {
        read_started_at,
        assignments: held,
        more,
    } = sighting;
    pb::Sighting {
        read_started_at: Some(render::instant(read_started_at)),
        assignments: assignments(held),
        more,
    }
}

fn receipt(value: Receipt, owing: &BTreeSet<GrantId>) -> pb::Receipt {
    let is_open = value.is_open();
    let sure = assurance(value.assurance());
    let due_to_gone = value.due_to_gone();
    let mut warnings = value.warnings();
    if owing.contains(&value.grant_id) {
        warnings.push(Warning::ReviewOpen);
    }
    let notes = value.notes();
    let Receipt {
        grant_id,
        integration,
        subject,
        caller,
        request_id,
        beneficiary,
        requester,
        justification,
        duration,
        starts_at,
        not_after,
        created_at,
        verified_at,
        extensions,
        due_at,
        ended_at,
        cause,
        before,
        after,
        lines,
        membership_outlives: _,
        externally_modified: _,
    } = value;
    pb::Receipt {
        grant_id: grant_id.to_string(),
        integration: integration.into(),
        caller: caller.to_string(),
        request_id: request_id.to_string(),
        beneficiary,
        user_id: match subject {
            Subject::Member(user) => user.to_string(),
            Subject::Invitee(_) => String::new(),
        },
        requester,
        justification,
        duration: Some(render::ttl(duration)),
        starts_at: starts_at.map(render::instant),
        not_after: not_after.map(render::instant),
        created_at: Some(render::instant(created_at)),
        verified_at: verified_at.map(render::instant),
        extensions,
        due_at: due_at.map(render::instant),
        ended_at: Some(render::instant(ended_at)),
        end_cause: Some(render::end_cause(cause)),
        due_to_gone: due_to_gone.map(|length| prost_types::Duration {
            seconds: length.num_seconds(),
            nanos: length.subsec_nanos(),
        }),
        assurance: sure.into(),
        is_open,
        lines: lines.into_iter().map(line).collect(),
        before: before.map(sighting),
        after: after.map(sighting),
        warnings: warnings
            .into_iter()
            .map(|warning| pb::ReceiptWarning {
                code: warning.code().to_owned(),
                message: warning.message().to_owned(),
            })
            .collect(),
        notes: notes.into_iter().map(str::to_owned).collect(),
    }
}
