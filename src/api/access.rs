//! `AccessService`: grants over the wire.
//!
//! Owns the calls about grants: convert, hand to the service, render. Never decides.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::domain::caller::Caller;
use crate::domain::ids::GrantId;
use crate::service::{Result, Revoked, Service, ServiceError, Vouchers, Wait, WatchItem, Watched};

use super::guard::Deadline;
use super::pb::access_service_server::AccessService;
use super::status::{exhausted, status};
use super::{convert, pb, render, token};

/// Most bytes in one page, well below what clients take by default.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// Slack before the deadline of a call that waits, so that its answer still arrives.
const ANSWER_BEFORE: Duration = Duration::from_millis(100);

/// The calls about grants.
#[derive(Debug)]
pub(super) struct AccessApi {
    service: Arc<Service>,
    watches: Arc<Semaphore>,
    watch_age: Duration,
    shutdown: CancellationToken,
}

impl AccessApi {
    pub(super) fn new(
        service: Arc<Service>,
        max_watches: usize,
        watch_age: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            service,
            watches: Arc::new(Semaphore::new(max_watches)),
            watch_age,
            shutdown,
        }
    }

    fn status(&self, error: &ServiceError) -> Status {
        status(error, || self.service.incident())
    }
}

/// The caller that the guard named.
pub(super) fn caller<T>(request: &Request<T>) -> std::result::Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the caller has no name"))
}

fn wait<T>(request: &Request<T>, waits: bool) -> Wait {
    match request.extensions().get::<Deadline>() {
        Some(Deadline(at)) if waits => Wait::Active {
            until: at.checked_sub(ANSWER_BEFORE).unwrap_or(*at),
        },
        _ => Wait::Accepted,
    }
}

type WatchStream =
    Pin<Box<dyn Stream<Item = std::result::Result<pb::WatchGrantsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AccessService for AccessApi {
    async fn create_grant(
        &self,
        request: Request<pb::CreateGrantRequest>,
    ) -> std::result::Result<Response<pb::CreateGrantResponse>, Status> {
        let caller = caller(&request)?;
        let created = async {
            let waits = convert::waits_for_access(request.get_ref().wait)?;
            let wait = wait(&request, waits);
            let pb::CreateGrantRequest {
                request_id,
                spec,
                wait: _,
                approvals,
                break_glass_token,
            } = request.into_inner();
            let request_id = convert::request_id("request_id", request_id)?;
            let ask = convert::ask(spec)?;
            let vouchers = Vouchers {
                approvals,
                break_glass: (!break_glass_token.is_empty()).then_some(break_glass_token),
            };
            self.service
                .create_grant_vouched(&caller, request_id, ask, vouchers, wait)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::CreateGrantResponse {
            grant: Some(render::grant(created.grant)),
            replayed: created.replayed,
            predicted_lateness: created.predicted_lateness.map(render::length),
            warnings: created.warnings,
        }))
    }

    async fn get_grant(
        &self,
        request: Request<pb::GetGrantRequest>,
    ) -> std::result::Result<Response<pb::GetGrantResponse>, Status> {
        let caller = caller(&request)?;
        let pb::GetGrantRequest { grant_id } = request.into_inner();
        let grant = async {
            let id = convert::grant_id("grant_id", &grant_id)?;
            self.service.get_grant(&caller, id).await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::GetGrantResponse {
            grant: Some(render::grant(grant)),
        }))
    }

    async fn list_grants(
        &self,
        request: Request<pb::ListGrantsRequest>,
    ) -> std::result::Result<Response<pb::ListGrantsResponse>, Status> {
        let caller = caller(&request)?;
        self.list(&caller, request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| self.status(&error))
    }

    type WatchGrantsStream = WatchStream;

    async fn watch_grants(
        &self,
        request: Request<pb::WatchGrantsRequest>,
    ) -> std::result::Result<Response<WatchStream>, Status> {
        let caller = caller(&request)?;
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(exhausted("watches", Duration::from_secs(5)));
        };
        let pb::WatchGrantsRequest {
            filter,
            resume_token,
        } = request.into_inner();
        let (filter, after) = (|| {
            let after = token::decode("resume_token", "WatchGrants", "", &resume_token)?
                .map(|text| text.parse().map_err(|_| ServiceError::bad_resume_token()))
                .transpose()?;
            Ok((convert::filter(filter)?, after))
        })()
        .map_err(|error: ServiceError| self.status(&error))?;
        let service = Arc::clone(&self.service);
        let shutdown = self.shutdown.clone();
        let watched = self
            .service
            .watch_grants(&caller, filter, after)
            .map(move |item| {
                // Lives as long as the stream.
                let _held = &permit;
                item.map(watched)
                    .map_err(|error| status(&error, || service.incident()))
            });
        let (age, stopped) = (self.watch_age, shutdown.clone());
        let over = async move {
            tokio::select! {
                () = tokio::time::sleep(age) => {}
                () = stopped.cancelled() => {}
            }
        };
        let farewell = stream::once(async move {
            shutdown.is_cancelled().then(|| {
                Err(Status::unavailable(
                    "shutting down; resume with the last token",
                ))
            })
        })
        .filter_map(std::future::ready);
        Ok(Response::new(Box::pin(
            watched.take_until(Box::pin(over)).chain(farewell),
        )))
    }

    async fn extend_grant(
        &self,
        request: Request<pb::ExtendGrantRequest>,
    ) -> std::result::Result<Response<pb::ExtendGrantResponse>, Status> {
        let caller = caller(&request)?;
        let extended = async {
            let (extension, approvals) = convert::extension(request.into_inner())?;
            self.service
                .extend_vouched(&caller, extension, approvals)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::ExtendGrantResponse {
            grant: Some(render::grant(extended.grant)),
            predicted_lateness: extended.predicted_lateness.map(render::length),
        }))
    }

    async fn revoke_grant(
        &self,
        request: Request<pb::RevokeGrantRequest>,
    ) -> std::result::Result<Response<pb::RevokeGrantResponse>, Status> {
        let caller = caller(&request)?;
        let revoked = async {
            let revocation = convert::revocation(request.into_inner())?;
            self.service.revoke_grant(&caller, revocation).await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(match revoked {
            Revoked::Grant(grant) => pb::RevokeGrantResponse {
                grant: Some(render::grant(*grant)),
                tombstoned: false,
            },
            Revoked::Tombstoned => pb::RevokeGrantResponse {
                grant: None,
                tombstoned: true,
            },
        }))
    }

    async fn revoke_access(
        &self,
        request: Request<pb::RevokeAccessRequest>,
    ) -> std::result::Result<Response<pb::RevokeAccessResponse>, Status> {
        let caller = caller(&request)?;
        let bulk = async {
            let convert::Bulk {
                request_id,
                integration,
                selector,
                requester,
                reason,
                max_members,
            } = convert::bulk(request.into_inner())?;
            self.service
                .revoke_access(
                    &caller,
                    request_id,
                    integration.as_ref(),
                    selector,
                    requester,
                    reason,
                    max_members,
                )
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(pb::RevokeAccessResponse {
            revoked: bulk.revoked,
            already_ending: bulk.already_ending,
            replayed: bulk.replayed,
        }))
    }

    async fn plan_grant(
        &self,
        request: Request<pb::PlanGrantRequest>,
    ) -> std::result::Result<Response<pb::PlanGrantResponse>, Status> {
        let caller = caller(&request)?;
        let plan = async {
            let pb::PlanGrantRequest {
                spec,
                request_id,
                approvals,
                break_glass_token,
            } = request.into_inner();
            let request_id = if request_id.is_empty() && approvals.is_empty() {
                None
            } else {
                Some(convert::request_id("request_id", request_id)?)
            };
            let ask = convert::ask(spec)?;
            let vouchers = Vouchers {
                approvals,
                break_glass: (!break_glass_token.is_empty()).then_some(break_glass_token),
            };
            self.service
                .plan_grant_vouched(&caller, request_id, ask, vouchers)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(render::plan(plan)))
    }

    async fn explain_access(
        &self,
        request: Request<pb::ExplainAccessRequest>,
    ) -> std::result::Result<Response<pb::ExplainAccessResponse>, Status> {
        let caller = caller(&request)?;
        let explanation = async {
            let pb::ExplainAccessRequest {
                integration,
                member,
            } = request.into_inner();
            let integration = convert::integration("integration", integration)?;
            let member = convert::principal("member", member)?;
            self.service
                .explain_access(&caller, integration.as_ref(), &member)
                .await
        }
        .await
        .map_err(|error| self.status(&error))?;
        Ok(Response::new(render::explanation(explanation)))
    }
}

impl AccessApi {
    async fn list(
        &self,
        caller: &Caller,
        request: pb::ListGrantsRequest,
    ) -> Result<pb::ListGrantsResponse> {
        let pb::ListGrantsRequest {
            filter,
            page_size,
            page_token,
        } = request;
        let filter = convert::filter(filter)?;
        let bound = format!("{filter:?}");
        let before = token::decode("page_token", "ListGrants", &bound, &page_token)?
            .map(|id| convert::grant_id("page_token", &id))
            .transpose()?;
        let limit = convert::page_size(page_size, 50)?;
        let page = self
            .service
            .list_grants(caller, filter, before, limit)
            .await?;
        let mut next: Option<GrantId> = page.next;
        let mut grants = Vec::with_capacity(page.items.len());
        let mut bytes = 0;
        let mut last = None;
        for grant in page.items {
            let id = grant.id;
            let wire = render::grant(grant);
            bytes += wire.encoded_len();
            if bytes > PAGE_BYTES && !grants.is_empty() {
                // Large grants: the page ends early and the next one begins here.
                next = last;
                break;
            }
            grants.push(wire);
            last = Some(id);
        }
        Ok(pb::ListGrantsResponse {
            grants,
            next_page_token: next
                .map(|id| token::encode("ListGrants", &bound, &id.to_string()))
                .unwrap_or_default(),
        })
    }
}

fn watched(watched: Watched) -> pb::WatchGrantsResponse {
    let Watched { item, resume_after } = watched;
    let (kind, grant) = match item {
        WatchItem::Snapshot(grant) => (pb::WatchKind::Snapshot, Some(grant)),
        WatchItem::Synced => (pb::WatchKind::Synced, None),
        WatchItem::Changed(grant) => (pb::WatchKind::Changed, Some(grant)),
        WatchItem::Alive => (pb::WatchKind::Alive, None),
    };
    pb::WatchGrantsResponse {
        kind: kind.into(),
        grant: grant.map(|grant| render::grant(*grant)),
        resume_token: resume_after
            .map(|after| token::encode("WatchGrants", "", &after.to_string()))
            .unwrap_or_default(),
    }
}
