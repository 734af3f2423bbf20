//! A connector that answers from memory, so that the command line meets the real wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use latchkey::api::pb;
use latchkey::api::pb::access_service_server::{AccessService, AccessServiceServer};
use latchkey::api::pb::audit_service_server::AuditServiceServer;
use latchkey::api::pb::connector_service_server::ConnectorServiceServer;
use latchkey::api::pb::directory_service_server::DirectoryServiceServer;
use latchkey::api::pb::operations_service_server::OperationsServiceServer;
use latchkey::domain::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The instant at which every test takes place.
pub(crate) const NOW: &str = "2026-11-21T12:20:30Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

pub(crate) fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: 0,
    })
}

/// What the connector knows and was told.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) grants: Vec<pb::Grant>,
    pub(crate) created: Vec<pb::CreateGrantRequest>,
    pub(crate) revoked_all: Vec<pb::RevokeAccessRequest>,
    pub(crate) watches: Vec<String>,
    pub(crate) drains: u32,
    pub(crate) overdue: bool,
    looks: BTreeMap<String, u32>,
}

impl World {
    /// Whether any grant was read by its id.
    pub(crate) fn was_looked_at(&self) -> bool {
        !self.looks.is_empty()
    }
}

/// A running fake; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    _server: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = Service::default();
        let world = Arc::clone(&service.world);
        let router = tonic::transport::Server::builder()
            .add_service(AccessServiceServer::new(service.clone()))
            .add_service(DirectoryServiceServer::new(service.clone()))
            .add_service(AuditServiceServer::new(service.clone()))
            .add_service(OperationsServiceServer::new(service.clone()))
            .add_service(ConnectorServiceServer::new(service));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let connections = TcpListenerStream::new(listener);
            router
                .serve_with_incoming(connections)
                .await
                .expect("the fake serves");
        });
        Self {
            address,
            world,
            _server: server,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("no test panics while it holds the world")
    }
}

pub(crate) fn deployment(id: &str) -> pb::Target {
    pb::Target {
        kind: Some(pb::target::Kind::Deployment(pb::DeploymentTarget {
            deployment_id: id.to_owned(),
        })),
    }
}

pub(crate) fn assignment(role: &str, target: pb::Target) -> pb::Assignment {
    pb::Assignment {
        role: role.to_owned(),
        target: Some(target),
        application_roles: None,
    }
}

/// An active grant on deployment d1.
pub(crate) fn active(id: &str, beneficiary: &str) -> pb::Grant {
    pb::Grant {
        id: id.to_owned(),
        integration: "acme".to_owned(),
        state: pb::GrantState::Active.into(),
        caller: "ops".to_owned(),
        request_id: format!("request-of-{id}"),
        beneficiary: beneficiary.to_owned(),
        user_id: "101".to_owned(),
        role: "deployment-viewer".to_owned(),
        assignments: vec![pb::GrantedAssignment {
            assignment: Some(assignment("deployment-viewer", deployment("d1"))),
            holding: pb::Holding::Owned.into(),
        }],
        duration: Some(prost_types::Duration {
            seconds: 2_700,
            nanos: 0,
        }),
        created_at: wire(at("2026-11-21T12:19:58Z")),
        activated_at: wire(at("2026-11-21T12:20:00Z")),
        expires_at: wire(at("2026-11-21T13:05:00Z")),
        certainty: pb::Certainty::Verified.into(),
        version: 3,
        ..pb::Grant::default()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Service {
    world: Arc<Mutex<World>>,
}

impl Service {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("no test panics while it holds the world")
    }
}

fn refused() -> Status {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("spec.duration", "policy allows at most 12h");
    Status::with_error_details(Code::PermissionDenied, "policy refuses this grant", details)
}

#[tonic::async_trait]
impl AccessService for Service {
    async fn create_grant(
        &self,
        request: Request<pb::CreateGrantRequest>,
    ) -> Result<Response<pb::CreateGrantResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world();
        world.created.push(request.clone());
        let spec = request.spec.expect("the command line always sends one");
        match spec.justification.as_str() {
            "refuse" => return Err(refused()),
            "reused" => {
                return Err(Status::already_exists(
                    "request id was used with another body",
                ));
            }
            "slow-down" => {
                let mut details = ErrorDetails::new();
                details.set_retry_info(Some(Duration::from_secs(3)));
                return Err(Status::with_error_details(
                    Code::Unavailable,
                    "Elastic Cloud is away",
                    details,
                ));
            }
            _ => {}
        }
        let id = format!("0199f7a0-1b2c-7000-8000-{:012}", world.grants.len() + 1);
        let beneficiary = match spec.beneficiary.and_then(|principal| principal.kind) {
            Some(pb::principal::Kind::Email(email)) => email,
            Some(pb::principal::Kind::UserId(id)) => id,
            None => return Err(Status::invalid_argument("no beneficiary")),
        };
        let mut grant = pb::Grant {
            state: pb::GrantState::Activating.into(),
            request_id: request.request_id,
            justification: spec.justification,
            role: spec.role.clone(),
            assignments: spec
                .targets
                .into_iter()
                .map(|target| pb::GrantedAssignment {
                    assignment: Some(assignment(&spec.role, target)),
                    holding: pb::Holding::Owned.into(),
                })
                .collect(),
            activated_at: None,
            expires_at: None,
            warnings: vec!["roles look mapped by \u{1b}[31mSSO".to_owned()],
            ..active(&id, &beneficiary)
        };
        if spec.starts_at.is_some() {
            grant.state = pb::GrantState::Scheduled.into();
            grant.starts_at = spec.starts_at;
        }
        world.grants.push(grant.clone());
        Ok(Response::new(pb::CreateGrantResponse {
            grant: Some(grant),
            replayed: false,
            predicted_lateness: None,
            warnings: vec!["logins \u{1b}[31moverwrite roles here".to_owned()],
        }))
    }

    async fn get_grant(
        &self,
        request: Request<pb::GetGrantRequest>,
    ) -> Result<Response<pb::GetGrantResponse>, Status> {
        let id = request.into_inner().grant_id;
        let mut world = self.world();
        let looks = world.looks.entry(id.clone()).or_default();
        *looks += 1;
        let is_later = *looks > 1;
        let grant = world
            .grants
            .iter_mut()
            .find(|grant| grant.id == id)
            .ok_or_else(|| Status::not_found("no such grant"))?;
        if is_later && grant.justification != "never" {
            match grant.state() {
                pb::GrantState::Activating if grant.justification == "fails" => {
                    grant.state = pb::GrantState::Ended.into();
                    grant.ended_at = wire(at(NOW));
                    grant.end_cause = Some(pb::EndCause {
                        reason: pb::EndReason::ActivationFailed.into(),
                        code: "role_unknown".to_owned(),
                        ..pb::EndCause::default()
                    });
                }
                pb::GrantState::Activating => {
                    grant.state = pb::GrantState::Active.into();
                    grant.activated_at = wire(at(NOW));
                    grant.expires_at = wire(at("2026-11-21T13:05:30Z"));
                }
                pb::GrantState::Revoking => {
                    grant.state = pb::GrantState::Ended.into();
                    grant.ended_at = wire(at(NOW));
                }
                pb::GrantState::Unspecified
                | pb::GrantState::Scheduled
                | pb::GrantState::AwaitingMember
                | pb::GrantState::Active
                | pb::GrantState::Ended => {}
            }
        }
        Ok(Response::new(pb::GetGrantResponse {
            grant: Some(grant.clone()),
        }))
    }

    async fn list_grants(
        &self,
        request: Request<pb::ListGrantsRequest>,
    ) -> Result<Response<pb::ListGrantsResponse>, Status> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        if filter.integration == "nope" {
            return Err(crate::fake_directory::unknown_integration());
        }
        let states = filter.states;
        let from: usize = request.page_token.parse().unwrap_or(0);
        let size = usize::try_from(request.page_size)
            .expect("not negative")
            .min(2);
        let world = self.world();
        let mut grants: Vec<pb::Grant> = world
            .grants
            .iter()
            .filter(|grant| states.is_empty() || states.contains(&grant.state))
            .cloned()
            .collect();
        grants.sort_by(|a, b| b.id.cmp(&a.id));
        let next_page_token = if from + size < grants.len() {
            (from + size).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(pb::ListGrantsResponse {
            grants: grants.into_iter().skip(from).take(size).collect(),
            next_page_token,
        }))
    }

    type WatchGrantsStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<pb::WatchGrantsResponse, Status>>>;

    /// The first stream breaks in the middle; the one that resumes brings the rest.
    async fn watch_grants(
        &self,
        request: Request<pb::WatchGrantsRequest>,
    ) -> Result<Response<Self::WatchGrantsStream>, Status> {
        let token = request.into_inner().resume_token;
        let mut world = self.world();
        world.watches.push(token.clone());
        let message = |kind: pb::WatchKind, grant: Option<pb::Grant>, token: &str| {
            Ok(pb::WatchGrantsResponse {
                kind: kind.into(),
                grant,
                resume_token: token.to_owned(),
            })
        };
        let messages = match token.as_str() {
            "" => {
                let mut messages: Vec<_> = world
                    .grants
                    .iter()
                    .map(|grant| message(pb::WatchKind::Snapshot, Some(grant.clone()), ""))
                    .collect();
                messages.push(message(pb::WatchKind::Synced, None, "t1"));
                messages.push(message(pb::WatchKind::Alive, None, "t2"));
                messages.push(Err(Status::unavailable("restarting")));
                messages
            }
            "t2" => {
                let mut grant = world
                    .grants
                    .first()
                    .cloned()
                    .expect("the test put one there");
                grant.state = pb::GrantState::Ended.into();
                grant.ended_at = wire(at(NOW));
                vec![
                    message(pb::WatchKind::Changed, Some(grant), "t3"),
                    Err(Status::invalid_argument("end of the test")),
                ]
            }
            _ => return Err(Status::invalid_argument("unknown resume token")),
        };
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn extend_grant(
        &self,
        request: Request<pb::ExtendGrantRequest>,
    ) -> Result<Response<pb::ExtendGrantResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.world();
        let grant = world
            .grants
            .iter_mut()
            .find(|grant| grant.id == request.grant_id)
            .ok_or_else(|| Status::not_found("no such grant"))?;
        if grant.state() != pb::GrantState::Active {
            return Err(Status::failed_precondition("the grant is on its way out"));
        }
        let by = request
            .duration
            .expect("the command line always sends one")
            .seconds;
        let end = grant
            .expires_at
            .as_mut()
            .expect("active grants have an end");
        end.seconds += by;
        Ok(Response::new(pb::ExtendGrantResponse {
            grant: Some(grant.clone()),
            predicted_lateness: None,
        }))
    }

    async fn revoke_grant(
        &self,
        request: Request<pb::RevokeGrantRequest>,
    ) -> Result<Response<pb::RevokeGrantResponse>, Status> {
        use pb::revoke_grant_request::Which;
        let request = request.into_inner();
        let mut world = self.world();
        let found = match request.which {
            Some(Which::GrantId(id)) => {
                let found = world.grants.iter_mut().find(|grant| grant.id == id);
                Some(found.ok_or_else(|| Status::not_found("no such grant"))?)
            }
            Some(Which::GrantRequestId(id)) => {
                world.grants.iter_mut().find(|grant| grant.request_id == id)
            }
            None => return Err(Status::invalid_argument("which grant?")),
        };
        let Some(grant) = found else {
            return Ok(Response::new(pb::RevokeGrantResponse {
                grant: None,
                tombstoned: true,
            }));
        };
        grant.state = pb::GrantState::Revoking.into();
        grant.revoking_since = wire(at(NOW));
        grant.end_cause = Some(pb::EndCause {
            reason: pb::EndReason::Revoked.into(),
            by: request.requester,
            comment: request.reason,
            code: String::new(),
        });
        Ok(Response::new(pb::RevokeGrantResponse {
            grant: Some(grant.clone()),
            tombstoned: false,
        }))
    }

    async fn revoke_access(
        &self,
        request: Request<pb::RevokeAccessRequest>,
    ) -> Result<Response<pb::RevokeAccessResponse>, Status> {
        self.world().revoked_all.push(request.into_inner());
        Ok(Response::new(pb::RevokeAccessResponse {
            revoked: 2,
            already_ending: 1,
            replayed: false,
        }))
    }

    async fn plan_grant(
        &self,
        request: Request<pb::PlanGrantRequest>,
    ) -> Result<Response<pb::PlanGrantResponse>, Status> {
        let spec = request.into_inner().spec.unwrap_or_default();
        let call = |method: &str| pb::PlannedCall {
            method: method.to_owned(),
            path: "/api/v1/users/101/role_assignments".to_owned(),
            body: "{\"deployment\":[{\"role_id\":\"deployment-viewer\"}]}".to_owned(),
        };
        Ok(Response::new(pb::PlanGrantResponse {
            predicted_lateness: None,
            user_id: "101".to_owned(),
            would_invite: spec.invite,
            assignments: spec
                .targets
                .into_iter()
                .map(|target| pb::PlannedAssignment {
                    assignment: Some(assignment(&spec.role, target)),
                    is_standing: false,
                    is_owned: false,
                })
                .collect(),
            calls: vec![call("POST")],
            inverse_calls: vec![call("DELETE")],
            warnings: Vec::new(),
            observed_at: wire(at(NOW)),
            is_complete: true,
        }))
    }

    async fn explain_access(
        &self,
        request: Request<pb::ExplainAccessRequest>,
    ) -> Result<Response<pb::ExplainAccessResponse>, Status> {
        use pb::principal::Kind;
        match request.into_inner().member.and_then(|member| member.kind) {
            Some(Kind::UserId(id)) if id == "101" => {}
            Some(Kind::Email(email)) if email == "ada@example.com" => {}
            _ => return Err(Status::not_found("no such member")),
        }
        let explained = |kind: pb::AccessKind, target: &str, grants: &[&str]| pb::ExplainedAccess {
            assignment: Some(assignment("deployment-viewer", deployment(target))),
            kind: kind.into(),
            is_present: true,
            grant_ids: grants.iter().map(|&id| id.to_owned()).collect(),
            foreign_grants: u32::from(kind == pb::AccessKind::Granted),
            until: (kind == pb::AccessKind::Granted)
                .then(|| wire(at("2026-11-21T13:05:00Z")))
                .flatten(),
        };
        Ok(Response::new(pb::ExplainAccessResponse {
            user_id: "101".to_owned(),
            email: "ada@example.com".to_owned(),
            observed_at: wire(at(NOW)),
            is_complete: false,
            access: vec![
                explained(
                    pb::AccessKind::Granted,
                    "d1",
                    &["0199f7a0-1b2c-7000-8000-000000000001"],
                ),
                explained(pb::AccessKind::Standing, "d2", &[]),
            ],
            drift: Vec::new(),
        }))
    }
}
