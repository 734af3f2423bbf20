//! `ConnectorService`: the connector itself, over the wire.
//!
//! Owns version, health and limits as callers see them. Never shows a key, only how to tell keys apart.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::domain::ids::IntegrationName;
use crate::policy::Rules;
use crate::ports::provider::KeyStatus;
use crate::service::{Details, Health, IntegrationStatus, Result, Service, ServiceError};

use super::access::caller;
use super::pb::connector_service_server::ConnectorService;
use super::server::Options;
use super::status::status;
use super::{convert, hold, pb, render, token};

/// The calls about the connector.
#[derive(Debug)]
pub(super) struct ConnectorApi {
    service: Arc<Service>,
    max_message_bytes: u32,
    max_deadline: prost_types::Duration,
}

impl ConnectorApi {
    pub(super) fn new(service: Arc<Service>, options: &Options) -> Self {
        Self {
            service,
            max_message_bytes: u32::try_from(options.max_message_bytes).unwrap_or(u32::MAX),
            max_deadline: render::seconds(
                i64::try_from(options.max_deadline.as_secs()).unwrap_or(i64::MAX),
            ),
        }
    }

    fn status(&self, error: &ServiceError) -> Status {
        status(error, || self.service.incident())
    }

    async fn integrations(
        &self,
        request: pb::ListIntegrationsRequest,
    ) -> Result<pb::ListIntegrationsResponse> {
        const CALL: &str = "ListIntegrations";
        let pb::ListIntegrationsRequest {
            page_size,
            page_token,
        } = request;
        let after = token::decode("page_token", CALL, "", &page_token)?
            .map(|name| {
                IntegrationName::parse(name)
                    .map_err(|_| ServiceError::invalid("page_token", "holds no cursor"))
            })
            .transpose()?;
        let limit = convert::page_size(page_size, 100)?;
        let page = self.service.list_integrations(after.as_ref(), limit).await;
        Ok(pb::ListIntegrationsResponse {
            integrations: page.items.into_iter().map(integration).collect(),
            next_page_token: page
                .next
                .map(|name| token::encode(CALL, "", name.as_str()))
                .unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl ConnectorService for ConnectorApi {
    async fn get_version(
        &self,
        _request: Request<pb::GetVersionRequest>,
    ) -> std::result::Result<Response<pb::GetVersionResponse>, Status> {
        Ok(Response::new(pb::GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_versions: vec!["latchkey.v1".to_owned()],
        }))
    }

    async fn list_integrations(
        &self,
        request: Request<pb::ListIntegrationsRequest>,
    ) -> std::result::Result<Response<pb::ListIntegrationsResponse>, Status> {
        self.integrations(request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }

    async fn get_limits(
        &self,
        _request: Request<pb::GetLimitsRequest>,
    ) -> std::result::Result<Response<pb::GetLimitsResponse>, Status> {
        let Rules {
            max_duration,
            max_total,
            max_start_delay,
            organization_roles,
            all_targets,
            invitations,
            allowed_roles,
        } = self.service.rules().clone();
        Ok(Response::new(pb::GetLimitsResponse {
            max_duration: Some(render::seconds(max_duration.seconds())),
            max_total: Some(render::seconds(max_total.num_seconds())),
            max_start_delay: Some(render::seconds(max_start_delay.num_seconds())),
            invitation_ttl: Some(render::seconds(
                self.service.settings().invitation_ttl.num_seconds(),
            )),
            organization_roles_allowed: organization_roles,
            all_targets_allowed: all_targets,
            invitations_allowed: invitations,
            allowed_roles: allowed_roles.unwrap_or_default().into_iter().collect(),
            max_targets: u32::try_from(convert::MAX_TARGETS).unwrap_or(u32::MAX),
            max_message_bytes: self.max_message_bytes,
            max_deadline: Some(self.max_deadline),
        }))
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> std::result::Result<Response<pb::DrainResponse>, Status> {
        let caller = caller(&request)?;
        let progress = async {
            let (integration, requester, reason) = convert::drain(request.into_inner())?;
            self.service
                .drain(&caller, integration.as_ref(), requester, reason)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::DrainResponse {
            revoked: progress.revoked,
            grants: progress.grants,
            owned_assignments: progress.owned,
            blocked_removals: progress.blocked,
            second_looks: progress.second_looks,
            last_second_look_at: progress.last_look_at.map(render::instant),
        }))
    }

    async fn confirm_reapply(
        &self,
        request: Request<pb::ConfirmReapplyRequest>,
    ) -> std::result::Result<Response<pb::ConfirmReapplyResponse>, Status> {
        let caller = caller(&request)?;
        let members = async {
            let (integration, requester, reason) = convert::confirm_reapply(request.into_inner())?;
            self.service
                .confirm_reapply(&caller.name, integration.as_ref(), requester, reason)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::ConfirmReapplyResponse { members }))
    }

    async fn get_hold(
        &self,
        request: Request<pb::GetHoldRequest>,
    ) -> std::result::Result<Response<pb::GetHoldResponse>, Status> {
        let pb::GetHoldRequest { integration } = request.into_inner();
        async {
            let name = convert::integration("integration", integration)?;
            self.service.get_hold(name.as_ref()).await
        }
        .await
        .map(|plan| Response::new(hold::response(plan)))
        .map_err(|error| self.status(&error))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> std::result::Result<Response<pb::ReleaseHoldResponse>, Status> {
        let caller = caller(&request)?;
        async {
            let (name, requester, reason) = hold::release(request.into_inner())?;
            self.service
                .release_hold(&caller.name, name.as_ref(), requester, reason)
                .await
        }
        .await
        .map(|was_held| Response::new(pb::ReleaseHoldResponse { was_held }))
        .map_err(|error| self.status(&error))
    }
}

fn integration(value: IntegrationStatus) -> pb::Integration {
    let IntegrationStatus {
        name,
        details,
        key,
        health,
        is_draining,
    } = value;
    let Details {
        kind,
        base_url,
        custom_access_details,
        owners,
        resource_owner,
    } = details;
    let (health, code) = match health {
        Health::Ok => (pb::IntegrationHealth::Ok, ""),
        Health::Degraded(code) => (pb::IntegrationHealth::Degraded, code),
        Health::Down(code) => (pb::IntegrationHealth::Down, code),
        Health::Unknown => (pb::IntegrationHealth::Unknown, ""),
    };
    let KeyStatus {
        loaded,
        fingerprint,
        expires_at,
        own_user_id: _,
        roles: _,
        sees_owners,
        last_success_at,
        last_failure: _,
        skew_ms,
    } = key;
    pb::Integration {
        name: name.into(),
        kind,
        base_url,
        health: health.into(),
        health_code: code.to_owned(),
        last_success_at: last_success_at.map(render::instant),
        key: Some(pb::KeyStatus {
            is_loaded: loaded,
            fingerprint: fingerprint.unwrap_or_default(),
            expires_at: expires_at.map(render::instant),
            sees_owners,
            skew_ms,
        }),
        custom_access_details,
        owners,
        resource_owner,
        is_draining,
    }
}
