//! `OperationsService`: overdue removals, giving up ownership, and the key, over the wire.
//!
//! Owns the calls of operators: convert, hand to the service, render. Never decides.

use std::sync::Arc;

use chrono::TimeDelta;
use tonic::{Request, Response, Status};

use crate::domain::Timestamp;
use crate::domain::grant::LastError;
use crate::domain::ids::IntegrationName;
use crate::domain::member::Subject;
use crate::domain::overdue::class_of;
use crate::ports::ledger::LateCursor;
use crate::service::{
    AccessReference, Adopted, Forgetting, OverdueAccess, OverdueCursor, Result, Service,
    ServiceError,
};

use super::access::caller;
use super::pb::operations_service_server::OperationsService;
use super::status::status;
use super::{convert, keys, pb, render, review, token};

const LIST: &str = "ListOverdue";

/// The calls of operators.
#[derive(Debug)]
pub(super) struct OperationsApi {
    service: Arc<Service>,
}

impl OperationsApi {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    fn status(&self, error: &ServiceError) -> Status {
        status(error, || self.service.incident())
    }

    async fn list(&self, request: pb::ListOverdueRequest) -> Result<pb::ListOverdueResponse> {
        let pb::ListOverdueRequest {
            integration,
            grace: wanted,
            page_size,
            page_token,
        } = request;
        let integration = convert::integration("integration", integration)?;
        let grace = wanted.map(grace).transpose()?;
        let bound = format!("{integration:?} {grace:?}");
        let from = token::decode("page_token", LIST, &bound, &page_token)?
            .map(|text| cursor(&text))
            .transpose()?;
        let limit = convert::page_size(page_size, 50)?;
        let page = self
            .service
            .list_overdue(integration.as_ref(), grace, from, limit)
            .await?;
        Ok(pb::ListOverdueResponse {
            overdue: page.items.into_iter().map(overdue).collect(),
            next_page_token: page
                .next
                .map(|next| token::encode(LIST, &bound, &cursor_text(&next)))
                .unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl OperationsService for OperationsApi {
    async fn list_overdue(
        &self,
        request: Request<pb::ListOverdueRequest>,
    ) -> std::result::Result<Response<pb::ListOverdueResponse>, Status> {
        self.list(request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }

    async fn list_reviews(
        &self,
        request: Request<pb::ListReviewsRequest>,
    ) -> std::result::Result<Response<pb::ListReviewsResponse>, Status> {
        let listed = async {
            let review::Asked {
                open_only,
                before,
                limit,
            } = review::asked(request.into_inner())?;
            let page = self.service.list_reviews(open_only, before, limit).await?;
            Ok(review::listed(open_only, page))
        }
        .await
        .map_err(|error: ServiceError| self.status(&error))?;
        Ok(Response::new(listed))
    }

    async fn close_review(
        &self,
        request: Request<pb::CloseReviewRequest>,
    ) -> std::result::Result<Response<pb::CloseReviewResponse>, Status> {
        let caller = caller(&request)?;
        let closed = async {
            let (id, requester, note) = review::closing(request.into_inner())?;
            self.service
                .close_review(&caller, id, requester, note)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::CloseReviewResponse {
            review: Some(review::review(closed)),
        }))
    }

    async fn forget_access(
        &self,
        request: Request<pb::ForgetAccessRequest>,
    ) -> std::result::Result<Response<pb::ForgetAccessResponse>, Status> {
        let caller = caller(&request)?;
        let forgetting = async {
            let pb::ForgetAccessRequest {
                access,
                requester,
                reason,
            } = request.into_inner();
            let access = reference(access)?;
            let (requester, reason) = who_and_why(requester, reason)?;
            self.service
                .forget_access(&caller, &access, &requester, &reason)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(match forgetting {
            Forgetting::Proposed {
                assignment,
                by,
                expires_at,
            } => pb::ForgetAccessResponse {
                state: pb::ForgetState::Proposed.into(),
                proposed_by: by,
                expires_at: Some(render::instant(expires_at)),
                confirmed_by: String::new(),
                assignment: Some(render::assignment(assignment)),
                ended_grant_ids: Vec::new(),
            },
            Forgetting::Forgotten {
                assignment,
                by,
                confirmed_by,
                ended,
            } => pb::ForgetAccessResponse {
                state: pb::ForgetState::Forgotten.into(),
                proposed_by: by,
                expires_at: None,
                confirmed_by,
                assignment: Some(render::assignment(assignment)),
                ended_grant_ids: ended.iter().map(ToString::to_string).collect(),
            },
        }))
    }

    async fn adopt_access(
        &self,
        request: Request<pb::AdoptAccessRequest>,
    ) -> std::result::Result<Response<pb::AdoptAccessResponse>, Status> {
        let caller = caller(&request)?;
        let Adopted { assignment, grants } = async {
            let pb::AdoptAccessRequest {
                access,
                requester,
                reason,
            } = request.into_inner();
            let access = reference(access)?;
            let (requester, reason) = who_and_why(requester, reason)?;
            self.service
                .adopt_access(&caller.name, &access, &requester, &reason)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::AdoptAccessResponse {
            assignment: Some(render::assignment(assignment)),
            grant_ids: grants.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn get_key(
        &self,
        request: Request<pb::GetKeyRequest>,
    ) -> std::result::Result<Response<pb::GetKeyResponse>, Status> {
        let pb::GetKeyRequest { integration } = request.into_inner();
        async {
            let integration = convert::integration("integration", integration)?;
            self.service.get_key(integration.as_ref()).await
        }
        .await
        .map(|report| Response::new(keys::report(report)))
        .map_err(|error| self.status(&error))
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> std::result::Result<Response<pb::RotateKeyResponse>, Status> {
        let caller = caller(&request)?;
        let rotation = async {
            let keys::Asked {
                integration,
                lives,
                requester,
                reason,
            } = keys::asked(request.into_inner())?;
            self.service
                .rotate_key(
                    &caller.name,
                    integration.as_ref(),
                    requester,
                    &reason,
                    lives,
                )
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::RotateKeyResponse {
            rotation: Some(keys::rotation(rotation)),
        }))
    }
}

fn who_and_why(requester: String, reason: String) -> Result<(String, String)> {
    Ok((
        convert::required_text("requester", requester, convert::MAX_REQUESTER)?,
        convert::required_text("reason", reason, convert::MAX_REASON)?,
    ))
}

fn reference(value: Option<pb::AccessReference>) -> Result<AccessReference> {
    let required = |field: &str| ServiceError::invalid(field, "is required");
    let pb::AccessReference {
        integration,
        member,
        role,
        target,
        application_roles,
    } = value.ok_or_else(|| required("access"))?;
    Ok(AccessReference {
        integration: convert::integration("access.integration", integration)?,
        member: convert::principal("access.member", member)?,
        role: convert::required_text("access.role", role, convert::MAX_ROLE)?,
        target: convert::target(
            "access.target",
            target.ok_or_else(|| required("access.target"))?,
        )?,
        application_roles: application_roles
            .map(|roles| convert::application_roles("access.application_roles", Some(roles)))
            .transpose()?,
    })
}

/// A day bounds how late a removal may be asked to be.
fn grace(value: prost_types::Duration) -> Result<TimeDelta> {
    let prost_types::Duration { seconds, nanos } = value;
    if !(0..=86_400).contains(&seconds) || nanos != 0 {
        return Err(ServiceError::invalid(
            "grace",
            "must be whole seconds, at most a day",
        ));
    }
    Ok(TimeDelta::seconds(seconds))
}

fn cursor_text(cursor: &OverdueCursor) -> String {
    let OverdueCursor { integration, after } = cursor;
    match after {
        None => format!("{integration}//"),
        Some(LateCursor { due_at, subject }) => {
            format!("{integration}/{}/{subject}", due_at.timestamp_micros())
        }
    }
}

fn cursor(text: &str) -> Result<OverdueCursor> {
    let broken = || ServiceError::invalid("page_token", "holds no cursor");
    let mut parts = text.splitn(3, '/');
    let (Some(name), Some(micros), Some(subject)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(broken());
    };
    let after = if micros.is_empty() {
        None
    } else {
        let micros = micros.parse().map_err(|_| broken())?;
        Some(LateCursor {
            due_at: Timestamp::from_timestamp_micros(micros).ok_or_else(broken)?,
            subject: Subject::parse(subject).map_err(|_| broken())?,
        })
    };
    Ok(OverdueCursor {
        integration: IntegrationName::parse(name).map_err(|_| broken())?,
        after,
    })
}

fn overdue(value: OverdueAccess) -> pb::OverdueAccess {
    let OverdueAccess {
        integration,
        subject,
        beneficiary,
        assignment,
        grant_ids,
        due_at,
        attempts,
        last_error,
        blocked_code,
        next_try_at,
        proposal,
    } = value;
    pb::OverdueAccess {
        integration: integration.into(),
        user_id: match subject {
            Subject::Member(user) => user.to_string(),
            Subject::Invitee(_) => String::new(),
        },
        beneficiary: beneficiary.unwrap_or_default(),
        power: class_of(assignment.weight()).to_owned(),
        assignment: Some(render::assignment(assignment)),
        grant_ids: grant_ids.iter().map(ToString::to_string).collect(),
        due_at: Some(render::instant(due_at)),
        attempts,
        last_error: last_error.map(|LastError { code, message, at }| pb::GrantError {
            code,
            message,
            at: Some(render::instant(at)),
        }),
        blocked_code: blocked_code.unwrap_or_default(),
        next_try_at: next_try_at.map(render::instant),
        proposal: proposal.map(|proposal| pb::ForgetProposal {
            by: proposal.by,
            reason: proposal.reason,
            expires_at: Some(render::instant(proposal.expires_at)),
        }),
    }
}
