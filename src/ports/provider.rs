//! The access provider: one Elastic Cloud organization as seen with one key.
//!
//! Owns the vocabulary of remote outcomes: done, refused, unknown. Never lets a broken call look like a failed one.

use std::any::Any;
use std::cmp::Reverse;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::assignment::{Assignment, ProjectType};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{DeploymentId, Email, InvitationToken, OrganizationId, ProjectId, UserId};
use crate::domain::member::WriteKind;
use crate::domain::observation::{Interest, MembersRead};

/// Who goes first when calls compete for the rate budget. Declared in order: earlier outranks later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Removals.
    Revoke,
    /// Reads that prove something.
    Verify,
    /// Removals that were refused before: after everything that is on time, and with a small share of their own, so
    /// that neither starves the other.
    Retry,
    /// Additions and invitations.
    Grant,
    /// Listing deployments, projects, roles.
    Discovery,
}

/// What decides who goes next when calls compete for the rate budget. Orders as they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Which class.
    pub priority: Priority,
    /// Power that the call takes away; within a class, more goes first. Smith's rule: a call is a call, so what counts
    /// is the sum over all that it carries.
    pub weight: Reverse<u32>,
    /// Since when it is due; within a weight, the oldest goes first.
    pub since: Option<Timestamp>,
}

impl Claim {
    /// A claim of which nothing but its class is known.
    #[must_use]
    pub fn of(priority: Priority) -> Self {
        Self {
            priority,
            weight: Reverse(0),
            since: None,
        }
    }

    /// The claim that outranks every other of its class.
    #[must_use]
    pub fn first(priority: Priority) -> Self {
        Self {
            weight: Reverse(u32::MAX),
            ..Self::of(priority)
        }
    }

    /// A removal that leaves `weight` open since `since`.
    #[must_use]
    pub fn removal(weight: u32, since: Option<Timestamp>) -> Self {
        Self {
            priority: Priority::Revoke,
            weight: Reverse(weight),
            since,
        }
    }
}

/// A place in the rate budget, taken before it is decided what to send: whatever becomes due during the wait goes with
/// the same call. Dropped without a call, it is given back.
#[derive(Debug)]
pub struct Turn(Option<Box<dyn Hold>>);

/// What stands behind a [`Turn`]; the adapter that made it takes it back.
pub trait Hold: Any + Debug + Send + Sync {}

impl<T: Any + Debug + Send + Sync> Hold for T {}

impl Turn {
    /// A turn where nobody has to wait for one.
    #[must_use]
    pub fn free() -> Self {
        Self(None)
    }

    /// A turn that holds something until it is used.
    pub fn holding(held: impl Hold) -> Self {
        Self(Some(Box::new(held)))
    }

    /// Whether nobody had to wait for it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.0.is_none()
    }

    /// What it holds, for the adapter that made it.
    #[must_use]
    pub fn take<T: Any>(self) -> Option<Box<T>> {
        let held: Box<dyn Any> = self.0?;
        held.downcast().ok()
    }
}

/// The rate budget in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls per window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// Calls that are left in the window that ends now.
    pub remaining: u32,
    /// Calls per window that removals are sure of while they wait: all but the reads that prove them.
    pub removals: u32,
    /// Calls that removals find free at once, whatever else goes on.
    pub kept: u32,
    /// Whether upstream named the limit; otherwise it is what was found out so far.
    pub told: bool,
}

/// How a mutation ended. There is no fourth way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Upstream answered that it was done. A later read may still disagree.
    Done(T, CallEvidence),
    /// It certainly had no effect.
    Refused(Refusal, CallEvidence),
    /// It may or may not have had, or may yet have, an effect.
    Unknown(CallEvidence),
}

impl<T> Outcome<T> {
    /// Stable name for audit and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(..) => "done",
            Self::Refused(..) => "refused",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Evidence of the call.
    #[must_use]
    pub fn evidence(&self) -> &CallEvidence {
        match self {
            Self::Done(_, evidence) | Self::Refused(_, evidence) | Self::Unknown(evidence) => {
                evidence
            }
        }
    }
}

/// Why a call certainly had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401: the key is unknown, expired or revoked.
    #[error("Elastic Cloud does not accept the key ({code})")]
    Unauthenticated {
        /// Provider code.
        code: String,
    },
    /// 403: the key may not do this to at least one of the ids.
    #[error("Elastic Cloud refuses this to the key ({code})")]
    Forbidden {
        /// Provider code.
        code: String,
    },
    /// 404: the path or an id in it does not exist.
    #[error("Elastic Cloud does not know this ({code})")]
    NotFound {
        /// Provider code.
        code: String,
    },
    /// 400 and other definite 4xx.
    #[error("Elastic Cloud rejects the request ({code})")]
    Invalid {
        /// Provider code.
        code: String,
    },
    /// 429 on every attempt.
    #[error("Elastic Cloud throttles the key")]
    Throttled {
        /// How long it asked to wait, clamped.
        retry_after: Option<Duration>,
    },
    /// No byte left: connecting failed, the budget ran out before sending, no key is loaded.
    #[error("nothing was sent ({code})")]
    NotSent {
        /// Short cause: `connect`, `dns`, `tls`, `budget`, `no_key`.
        code: String,
    },
    /// The key changed since the pass was pinned to one; nothing was sent.
    #[error("the key was rotated; nothing was sent")]
    KeyRotated,
}

impl Refusal {
    /// Stable code for audit, metrics and callers.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unauthenticated { code }
            | Self::Forbidden { code }
            | Self::NotFound { code }
            | Self::Invalid { code }
            | Self::NotSent { code } => code,
            Self::Throttled { .. } => "throttled",
            Self::KeyRotated => "key_rotated",
        }
    }

    /// Whether the same call may succeed later without anybody changing the request.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated { .. }
                | Self::Throttled { .. }
                | Self::NotSent { .. }
                | Self::KeyRotated
        )
    }
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Upstream said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No usable answer: time-out, broken connection, 5xx, HTML, a body over the limit, malformed JSON.
    #[error("Elastic Cloud gave no usable answer ({code})")]
    Unavailable {
        /// Short cause, for example `timeout`, `http_503`, `html`, `too_large`, `malformed`, `redirect`.
        code: String,
    },
}

impl ReadError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Unavailable { code } => code,
        }
    }
}

/// A read and its evidence.
pub type ReadResult<T> = Result<(T, CallEvidence), (ReadError, CallEvidence)>;

/// Names the key that a pass works with. A rotation in the middle ends the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyPin(pub u64);

/// An invitation as upstream shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedInvitation {
    /// Its token.
    pub token: InvitationToken,
    /// Invited address.
    pub email: Email,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Whether upstream says it has expired.
    pub expired: bool,
}

/// An API key with the rights of an organization owner, as upstream shows it: everything but the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedKey {
    /// Its id.
    pub id: String,
    /// What its maker wrote.
    pub description: String,
    /// When it ends; `None` for never, or where upstream does not say.
    pub expires_at: Option<Timestamp>,
    /// Whether it is the one in use, as far as that key names itself.
    pub is_own: bool,
}

/// An organization that the key sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
}

/// A hosted deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// Its name.
    pub name: String,
    /// Alias, where it has one.
    pub alias: Option<String>,
    /// Tags in order of key.
    pub tags: Vec<(String, String)>,
    /// Region of its first resource; may be empty.
    pub region: String,
}

/// A serverless project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub project_type: ProjectType,
    /// Alias; may be empty.
    pub alias: String,
    /// Region.
    pub region: String,
    /// Tags in order of key.
    pub tags: Vec<(String, String)>,
}

/// A role defined inside a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRole {
    /// Its name, as used in `application_roles`.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
}

/// What is known of the key in use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyStatus {
    /// Whether a key is loaded at all.
    pub loaded: bool,
    /// First 8 hexadecimal digits of its SHA-256, to tell keys apart without showing them.
    pub fingerprint: Option<String>,
    /// When it expires, from the answers' header or the key's own record; `None` when unknown or never.
    pub expires_at: Option<Timestamp>,
    /// Member behind the key, where upstream tells; this member is never touched.
    pub own_user_id: Option<UserId>,
    /// What it may do, by its own record: roles in words, in order. `None` where that is not known, or it has those of
    /// whoever made it.
    pub roles: Option<Vec<String>>,
    /// Whether the last complete read showed organization owners, as an owner's key must.
    pub sees_owners: Option<bool>,
    /// When the last call was answered well.
    pub last_success_at: Option<Timestamp>,
    /// Code and time of the last failed call since then.
    pub last_failure: Option<(String, Timestamp)>,
    /// Upstream clock minus ours, in milliseconds, by the last `Date` header.
    pub skew_ms: Option<i64>,
}

/// A call as it would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCall {
    /// HTTP method.
    pub method: String,
    /// Path with ids filled in.
    pub path: String,
    /// JSON body.
    pub body: String,
}

/// One Elastic Cloud organization, reached with the key in use.
#[async_trait]
pub trait AccessProvider: Debug + Send + Sync {
    /// The key that calls made now would use.
    fn pin(&self) -> KeyPin;

    /// What is known of the key, without any call.
    fn key_status(&self) -> KeyStatus;

    /// The longest that one mutation can take, from first byte to giving up.
    fn request_lifetime(&self) -> Duration;

    /// The organization that the key sees, which must be the pinned one where one is configured.
    async fn organization(&self, priority: Priority) -> ReadResult<Organization>;

    /// Streams the members and keeps those of interest. Memory does not grow with the organization.
    async fn read_members(
        &self,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<MembersRead>;

    /// Adds assignments to a member in one call. Sent at most once unless no byte left or the answer was 429.
    async fn add(&self, pin: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()>;

    /// Removes assignments from a member in one call. Sent at most once unless no byte left or the answer was 429.
    async fn remove(&self, pin: KeyPin, user: &UserId, assignments: &[Assignment]) -> Outcome<()>;

    /// The exact call that `add` or `remove` would make, for people to read. Makes none.
    fn preview(&self, kind: WriteKind, user: &UserId, assignments: &[Assignment]) -> PlannedCall;

    /// Open invitations.
    async fn invitations(&self, priority: Priority) -> ReadResult<Vec<ObservedInvitation>>;

    /// Invites an address, carrying no roles.
    async fn invite(
        &self,
        pin: KeyPin,
        email: &Email,
        expires_in: Duration,
    ) -> Outcome<ObservedInvitation>;

    /// Cancels an invitation.
    async fn cancel_invitation(&self, pin: KeyPin, token: &InvitationToken) -> Outcome<()>;

    /// Hosted deployments, those shut down excepted.
    async fn deployments(&self, priority: Priority) -> ReadResult<Vec<Deployment>>;

    /// Serverless projects of one type.
    async fn projects(
        &self,
        project_type: ProjectType,
        priority: Priority,
    ) -> ReadResult<Vec<Project>>;

    /// Custom roles of one project.
    async fn project_roles(
        &self,
        project_type: ProjectType,
        id: &ProjectId,
        priority: Priority,
    ) -> ReadResult<Vec<ProjectRole>>;

    /// Keys that can give and take roles as the one in use does, which is among them. Which ones upstream lists, all
    /// of the organization or those of one person, is not known. Empty where there are no keys to list.
    async fn owner_keys(&self, _priority: Priority) -> ReadResult<Vec<ObservedKey>> {
        Ok((Vec::new(), CallEvidence::default()))
    }

    /// Removes assignments whose removal was refused before, like [`Self::remove`]. An adapter with a rate budget
    /// gives these calls at most a tenth of it: what stays refused must not slow down what can be removed.
    async fn remove_again(
        &self,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.remove(pin, user, assignments).await
    }

    /// Like [`Self::remove`], with nothing begun that may not have ended by `before`, counted since boot. An adapter with
    /// a clock asks right before the first byte.
    async fn remove_before(
        &self,
        _before: Duration,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.remove(pin, user, assignments).await
    }

    /// Waits for a turn in the rate budget, at most as long as a call may wait for one; `None` when it did not come.
    async fn turn(&self, _claim: Claim) -> Option<Turn> {
        Some(Turn::free())
    }

    /// Like [`Self::add`], with a turn that was taken before.
    async fn add_in_turn(
        &self,
        _turn: Turn,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.add(pin, user, assignments).await
    }

    /// Like [`Self::remove`], with a turn that was taken before.
    async fn remove_in_turn(
        &self,
        _turn: Turn,
        pin: KeyPin,
        user: &UserId,
        assignments: &[Assignment],
    ) -> Outcome<()> {
        self.remove(pin, user, assignments).await
    }

    /// The rate budget in force; `None` where there is none.
    fn rate(&self) -> Option<Rate> {
        None
    }
}
