//! Receipts and overdue access of the fake connector.

use latchkey::api::pb;
use latchkey::api::pb::audit_service_server::AuditService;
use latchkey::api::pb::operations_service_server::OperationsService;
use tonic::{Request, Response, Status};

use super::fake::{NOW, Service, assignment, at, deployment, wire};

pub(crate) const GRANT: &str = "0199f7a0-0002-7000-8000-000000000001";

fn viewer(on: &str) -> pb::Assignment {
    assignment("deployment-viewer", deployment(on))
}

fn calls(sent: &str, done: &str, request_id: &str) -> Option<pb::CallSummary> {
    Some(pb::CallSummary {
        intended_at: wire(at(sent)),
        sent_at: wire(at(sent)),
        last_sent_at: wire(at(sent)),
        done_at: wire(at(done)),
        intents: 1,
        sent: 1,
        request_ids: vec![request_id.to_owned()],
        ..pb::CallSummary::default()
    })
}

fn sighting(read: &str, held: &[&str]) -> Option<pb::Sighting> {
    Some(pb::Sighting {
        read_started_at: wire(at(read)),
        assignments: held.iter().map(|on| viewer(on)).collect(),
        more: 0,
    })
}

/// A grant that ended as it should.
pub(crate) fn receipt() -> pb::Receipt {
    pb::Receipt {
        grant_id: GRANT.to_owned(),
        integration: "acme".to_owned(),
        caller: "ops".to_owned(),
        request_id: "ticket-4711".to_owned(),
        beneficiary: "ada@example.com".to_owned(),
        user_id: "101".to_owned(),
        requester: "grace@example.com".to_owned(),
        justification: "INC-123 \u{1b}[2J".to_owned(),
        duration: Some(prost_types::Duration {
            seconds: 2_700,
            nanos: 0,
        }),
        created_at: wire(at("2026-11-21T11:00:00Z")),
        verified_at: wire(at("2026-11-21T11:00:03Z")),
        due_at: wire(at("2026-11-21T11:45:03Z")),
        ended_at: wire(at("2026-11-21T11:45:06Z")),
        end_cause: Some(pb::EndCause {
            reason: pb::EndReason::Expired.into(),
            ..pb::EndCause::default()
        }),
        due_to_gone: Some(prost_types::Duration {
            seconds: 3,
            nanos: 120_000_000,
        }),
        assurance: pb::ReceiptAssurance::SeenGoneTwice.into(),
        lines: vec![
            pb::ReceiptLine {
                assignment: Some(viewer("d1")),
                fate: pb::ReceiptFate::Removed.into(),
                added: calls("2026-11-21T11:00:01Z", "2026-11-21T11:00:02Z", "req-add"),
                seen_at: wire(at("2026-11-21T11:00:03Z")),
                removed: calls("2026-11-21T11:45:03Z", "2026-11-21T11:45:04Z", "req-remove"),
                gone_at: wire(at("2026-11-21T11:45:06Z")),
                gone_read_started_at: wire(at("2026-11-21T11:45:06Z")),
                second_look: pb::SecondLookState::Done.into(),
                second_look_at: wire(at("2026-11-21T11:45:40Z")),
                restored: vec![viewer("d2")],
                ..pb::ReceiptLine::default()
            },
            pb::ReceiptLine {
                assignment: Some(viewer("d2")),
                fate: pb::ReceiptFate::Standing.into(),
                ..pb::ReceiptLine::default()
            },
        ],
        before: sighting("2026-11-21T11:00:00Z", &["d2"]),
        after: sighting("2026-11-21T11:45:06Z", &["d2"]),
        warnings: vec![pb::ReceiptWarning {
            code: "survivors_restored".to_owned(),
            message: "A removal took other entries along; they were put back.".to_owned(),
        }],
        notes: vec!["Elastic documents that removing roles ends sessions.".to_owned()],
        ..pb::Receipt::default()
    }
}

/// A grant of which something was given up.
fn given_up() -> pb::Receipt {
    let mut receipt = receipt();
    receipt.grant_id = GRANT.replace("0002", "0001");
    receipt.assurance = pb::ReceiptAssurance::GivenUp.into();
    receipt.due_to_gone = None;
    receipt.lines = vec![pb::ReceiptLine {
        assignment: Some(viewer("d1")),
        fate: pb::ReceiptFate::Forgotten.into(),
        given_up: Some(pb::GivenUp {
            at: wire(at(NOW)),
            by: "ada".to_owned(),
            confirmed_by: "grace".to_owned(),
            reason: "the deployment is gone".to_owned(),
        }),
        ..pb::ReceiptLine::default()
    }];
    receipt
}

#[tonic::async_trait]
impl AuditService for Service {
    async fn get_receipt(
        &self,
        request: Request<pb::GetReceiptRequest>,
    ) -> Result<Response<pb::GetReceiptResponse>, Status> {
        let id = request.into_inner().grant_id;
        let found = [receipt(), given_up()]
            .into_iter()
            .find(|receipt| receipt.grant_id == id);
        match found {
            Some(receipt) => Ok(Response::new(pb::GetReceiptResponse {
                receipt: Some(receipt),
            })),
            None => Err(Status::failed_precondition(
                "cannot show the receipt of a grant that is active",
            )),
        }
    }

    async fn list_receipts(
        &self,
        request: Request<pb::ListReceiptsRequest>,
    ) -> Result<Response<pb::ListReceiptsResponse>, Status> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let receipts = if filter.open_only {
            Vec::new()
        } else {
            vec![receipt(), given_up()]
        };
        Ok(Response::new(pb::ListReceiptsResponse {
            receipts,
            next_page_token: String::new(),
        }))
    }
}

/// A rotation whose new key is in use.
fn rotation() -> pb::KeyRotation {
    pb::KeyRotation {
        id: "00112233445566778899".to_owned(),
        stage: pb::KeyRotationStage::Switched.into(),
        stage_since: wire(at("2026-11-21T12:19:30Z")),
        asked_at: wire(at("2026-11-21T12:19:00Z")),
        asked_by: "ada".to_owned(),
        reason: "quarterly \u{1b}[2J".to_owned(),
        old_key_id: "72kse5wBzbyj5dh9Iz12".to_owned(),
        new_key_id: "72kse5wBzbyj5dh9Iz13".to_owned(),
        switched_at: wire(at("2026-11-21T12:19:30Z")),
        delete_at: wire(at("2026-11-21T12:29:30Z")),
        last_error: None,
    }
}

#[tonic::async_trait]
impl OperationsService for Service {
    async fn list_reviews(
        &self,
        _request: Request<pb::ListReviewsRequest>,
    ) -> Result<Response<pb::ListReviewsResponse>, Status> {
        Ok(Response::new(pb::ListReviewsResponse::default()))
    }

    async fn close_review(
        &self,
        _request: Request<pb::CloseReviewRequest>,
    ) -> Result<Response<pb::CloseReviewResponse>, Status> {
        Err(Status::not_found("no review of that grant"))
    }

    async fn list_overdue(
        &self,
        _: Request<pb::ListOverdueRequest>,
    ) -> Result<Response<pb::ListOverdueResponse>, Status> {
        let overdue = if self.world().overdue {
            vec![pb::OverdueAccess {
                integration: "acme".to_owned(),
                user_id: "101".to_owned(),
                beneficiary: "ada@example.com".to_owned(),
                assignment: Some(viewer("d1")),
                grant_ids: vec![GRANT.to_owned()],
                due_at: wire(at("2026-11-21T11:45:03Z")),
                attempts: 12,
                last_error: Some(pb::GrantError {
                    code: "root.unauthorized".to_owned(),
                    message: "Elastic Cloud refuses the removal: look at the deployment".to_owned(),
                    at: wire(at("2026-11-21T12:15:03Z")),
                }),
                blocked_code: "root.unauthorized".to_owned(),
                next_try_at: wire(at("2026-11-21T12:25:03Z")),
                power: "low".to_owned(),
                proposal: Some(pb::ForgetProposal {
                    by: "ada".to_owned(),
                    reason: "the deployment is gone".to_owned(),
                    expires_at: wire(at("2026-11-21T13:00:00Z")),
                }),
            }]
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::ListOverdueResponse {
            overdue,
            next_page_token: String::new(),
        }))
    }

    async fn forget_access(
        &self,
        request: Request<pb::ForgetAccessRequest>,
    ) -> Result<Response<pb::ForgetAccessResponse>, Status> {
        let request = request.into_inner();
        let confirmed = request.requester != "ada";
        Ok(Response::new(pb::ForgetAccessResponse {
            state: if confirmed {
                pb::ForgetState::Forgotten.into()
            } else {
                pb::ForgetState::Proposed.into()
            },
            proposed_by: "ada".to_owned(),
            expires_at: wire(at("2026-11-21T13:20:30Z")),
            confirmed_by: if confirmed {
                request.requester
            } else {
                String::new()
            },
            assignment: Some(viewer("d1")),
            ended_grant_ids: if confirmed {
                vec![GRANT.to_owned()]
            } else {
                Vec::new()
            },
        }))
    }

    async fn get_key(
        &self,
        _: Request<pb::GetKeyRequest>,
    ) -> Result<Response<pb::GetKeyResponse>, Status> {
        Ok(Response::new(pb::GetKeyResponse {
            integration: "acme".to_owned(),
            key_id: "72kse5wBzbyj5dh9Iz13".to_owned(),
            fingerprint: "0f1e2d3c".to_owned(),
            expires_at: wire(at("2026-12-05T12:00:00Z")),
            user_id: "4711".to_owned(),
            roles: vec!["organization-admin on the organization".to_owned()],
            sees_owners: Some(true),
            place: "file /run/secrets/elastic-key".to_owned(),
            can_be_replaced: true,
            rotated_every: Some(prost_types::Duration {
                seconds: 60 * 86_400,
                nanos: 0,
            }),
            rotation: Some(rotation()),
            ..pb::GetKeyResponse::default()
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let mut rotation = rotation();
        rotation.reason = request.into_inner().reason;
        Ok(Response::new(pb::RotateKeyResponse {
            rotation: Some(rotation),
        }))
    }

    async fn adopt_access(
        &self,
        request: Request<pb::AdoptAccessRequest>,
    ) -> Result<Response<pb::AdoptAccessResponse>, Status> {
        let access = request.into_inner().access.unwrap_or_default();
        Ok(Response::new(pb::AdoptAccessResponse {
            assignment: Some(pb::Assignment {
                role: access.role,
                target: access.target,
                application_roles: None,
            }),
            grant_ids: vec![GRANT.to_owned()],
        }))
    }
}
