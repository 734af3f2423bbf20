//! The synchronous heart: a request and the time go in, an answer comes out.
//!
//! Owns the world, the settings and the seeded randomness. Never waits, never reads a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::access::Caller;
use super::rate::{Allowance, Window};
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::route::Route;
use super::settings::{ExpirationHeader, Missing, RateScope, Settings};
use super::text;
use super::world::{Member, World};

/// The simulated cloud.
#[derive(Debug, Clone)]
pub struct Core {
    /// What exists; change it freely
    pub world: World,
    /// How it behaves
    pub settings: Settings,
    pub(crate) base_url: String,
    pub(crate) tokens: ChaCha8Rng,
    pub(crate) shuffles: ChaCha8Rng,
    pub(crate) sent_invitations: BTreeMap<String, Vec<DateTime<Utc>>>,
    pub(crate) last_key_deletion: Option<DateTime<Utc>>,
    pub(crate) version: u64,
    pub(crate) listing: Option<Arc<Listing>>,
    stale: BTreeMap<(String, String), Stale>,
    windows: BTreeMap<String, Window>,
}

/// The last listing of a large organization, to write only what changed.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) organization_id: String,
    pub(crate) settings: Settings,
    /// The state of the world in which `body` is the whole truth
    pub(crate) version: Option<u64>,
    pub(crate) body: Bytes,
    /// By user id: what was written, and how
    pub(crate) fragments: BTreeMap<String, (Member, Bytes)>,
}

/// The past of one member, shown for a while after a change.
#[derive(Debug, Clone)]
struct Stale {
    before: Option<Member>,
    reads_left: usize,
    until: DateTime<Utc>,
}

impl Core {
    pub(crate) fn new(world: World, settings: Settings, seed: u64, base_url: String) -> Self {
        Self {
            world,
            settings,
            base_url,
            tokens: ChaCha8Rng::seed_from_u64(seed),
            shuffles: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_0001),
            sent_invitations: BTreeMap::new(),
            last_key_deletion: None,
            version: 0,
            listing: None,
            stale: BTreeMap::new(),
            windows: BTreeMap::new(),
        }
    }

    /// Replaces the world and forgets everything derived from the old one.
    pub fn load(&mut self, world: World) {
        self.world = world;
        self.sent_invitations.clear();
        self.last_key_deletion = None;
        self.stale.clear();
        self.windows.clear();
        self.version += 1;
    }

    /// Says that the world was changed from outside.
    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    /// Answers a request.
    pub(crate) fn handle(&mut self, request: &Request, now: DateTime<Utc>) -> Reply {
        let route = Route::of(&request.method, &request.path);
        if request.method != http::Method::GET && request.method != http::Method::HEAD {
            self.touch();
        }
        if route == Route::Unknown {
            return Reply::html(404);
        }
        if route == Route::WrongMethod {
            return Reply::html(405);
        }
        if route.project().is_some() {
            return self.elasticsearch(&route, request, now);
        }
        if self.settings.ece && route.needs_organizations() {
            return self.ece_refusal();
        }
        let caller = match Caller::of(self, request, now) {
            Ok(caller) => Some(caller),
            Err(_) if super::invitations::person_calls(&route, request) => None,
            Err(failure) => return failure.into(),
        };
        let Some(caller) = caller else {
            return self
                .person(&route, request, now)
                .unwrap_or_else(Reply::from);
        };
        let allowance = self.allowance(&caller, now);
        let outcome = if allowance.is_exceeded {
            Err(allowance.refusal(&self.settings))
        } else {
            self.dispatch(&caller, &route, request, now)
        };
        let reply = outcome.unwrap_or_else(Reply::from);
        self.stamp(&caller, allowance.stamp(&self.settings, reply))
    }

    fn dispatch(
        &mut self,
        caller: &Caller,
        route: &Route,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Outcome {
        match route {
            Route::OrganizationsList => self.list_organizations(caller),
            Route::OrganizationGet(id) => self.get_organization(caller, id),
            Route::OrganizationUpdate(id) => self.update_organization(caller, id, request),
            Route::MembersList(id) => self.list_members(caller, id, now),
            Route::MembersRemove(id, users) => self.remove_members(caller, id, users, now),
            Route::InvitationsList(id) => self.list_invitations(caller, id, now),
            Route::InvitationsCreate(id) => self.create_invitations(caller, id, request, now),
            Route::InvitationsCancel(id, tokens) => self.cancel_invitations(caller, id, tokens),
            Route::InvitationGet(token) => self.get_invitation(token, now),
            Route::InvitationAccept(token) => self.accept_by_request(token, request, now),
            Route::AssignmentsAdd(user) => self.add_assignments(caller, user, request, now),
            Route::AssignmentsRemove(user) => self.remove_assignments(caller, user, request, now),
            Route::KeysCreate => self.create_key(caller, request, now),
            Route::KeysList => self.list_keys(caller, now),
            Route::KeysDelete => self.delete_keys(caller, request, now),
            Route::KeyGet(id) => self.get_key(caller, id, now),
            Route::KeyDelete(id) => self.delete_key(caller, id, now),
            Route::AccountGet => self.get_account(caller),
            Route::AccountPut | Route::AccountPatch => self.update_account(caller, request),
            Route::DeploymentsList => self.list_deployments(caller),
            Route::DeploymentsSearch => self.search_deployments(caller, request),
            Route::DeploymentGet(id) => self.get_deployment(caller, id),
            Route::ProjectsList(kind) => self.list_projects(caller, *kind, request),
            Route::ProjectGet(kind, id) => self.get_project(caller, *kind, id),
            Route::ProjectRoles(kind, id) => self.project_roles(caller, *kind, id),
            Route::ProjectStatus(kind, id) => self.project_status(caller, *kind, id),
            Route::RegionsList => self.list_regions(),
            Route::RegionGet(id) => self.get_region(id),
            Route::EsInfo(_)
            | Route::EsAuthenticate(_)
            | Route::EsRolesGet(..)
            | Route::EsRolePut(..)
            | Route::EsRoleDelete(..)
            | Route::EsUnknown(_)
            | Route::WrongMethod
            | Route::Unknown => Ok(Reply::html(404)),
        }
    }

    fn ece_refusal(&self) -> Reply {
        match self.settings.ece_organization_paths {
            Missing::NotImplemented => Failure::new(
                501,
                "root.not_implemented",
                "Currently unavailable in self-hosted ECE",
            ),
            Missing::BadRequest | Missing::NotFound => {
                Failure::new(404, "root.resource_not_found", "The resource was not found")
            }
        }
        .into()
    }

    fn allowance(&mut self, caller: &Caller, now: DateTime<Utc>) -> Allowance {
        let name = match self.settings.rate_scope {
            RateScope::Key => &caller.key_id,
            RateScope::Organization => &caller.organization_id,
        };
        self.windows
            .entry(name.clone())
            .or_insert_with(|| Window::new(now))
            .take(&self.settings, now)
    }

    fn stamp(&self, caller: &Caller, reply: Reply) -> Reply {
        let Some(end) = caller.expiration_date else {
            return reply;
        };
        let value = match self.settings.expiration_header {
            ExpirationHeader::Rfc3339 => text::rfc3339(end),
            ExpirationHeader::HttpDate => end.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            ExpirationHeader::Absent => return reply,
        };
        reply.with("x-elastic-api-key-expiration", value)
    }

    /// Remembers a member as it is, before a change, when changes take time to show.
    pub(crate) fn before_change(
        &mut self,
        organization_id: &str,
        user_id: &str,
        now: DateTime<Utc>,
    ) {
        if self.settings.stale_reads == 0 && self.settings.stale_ms == 0 {
            return;
        }
        let most = usize::try_from(self.settings.stale_reads).unwrap_or(usize::MAX);
        let reads_left = if self.settings.stale_random {
            text::below(&mut self.shuffles, most.saturating_add(1))
        } else {
            most
        };
        let before = self
            .world
            .organization(organization_id)
            .and_then(|organization| organization.member(user_id))
            .cloned();
        let lag = TimeDelta::try_milliseconds(self.settings.stale_ms).unwrap_or(TimeDelta::zero());
        self.stale.insert(
            (organization_id.to_owned(), user_id.to_owned()),
            Stale {
                before,
                reads_left,
                until: now + lag,
            },
        );
    }

    /// The members of an organization whose past is to be shown in this read.
    pub(crate) fn take_stale(
        &mut self,
        organization_id: &str,
        now: DateTime<Utc>,
    ) -> BTreeMap<String, Option<Member>> {
        let mut shown = BTreeMap::new();
        self.stale.retain(|(organization, user), stale| {
            if organization != organization_id {
                return true;
            }
            if stale.reads_left == 0 && now >= stale.until {
                return false;
            }
            stale.reads_left = stale.reads_left.saturating_sub(1);
            shown.insert(user.clone(), stale.before.clone());
            true
        });
        shown
    }
}
