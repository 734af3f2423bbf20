//! Audit events: what happened to access, why, and through which call.
//!
//! Owns the vocabulary of the audit. Never holds a secret, an invitation token or a response body.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::grant::EndCause;
use super::ids::{CallerName, GrantId, IntegrationName};
use super::member::{MemberKey, WriteKind};

/// The outcome of a call that was taken back before a byte left.
pub const NOT_SENT: &str = "not_sent";

/// One entry of the audit, written in the transaction of the state it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When, by the connector's clock.
    pub at: Timestamp,
    /// Which organization; absent for events of the connector itself.
    pub integration: Option<IntegrationName>,
    /// Whose access.
    pub subject: Option<String>,
    /// Which grant, where one is concerned.
    pub grant_id: Option<GrantId>,
    /// The caller that the grant belongs to, where one is concerned.
    pub caller: Option<CallerName>,
    /// What happened.
    pub kind: EventKind,
}

impl AuditEvent {
    /// An event about a member.
    #[must_use]
    pub fn member(at: Timestamp, key: &MemberKey, kind: EventKind) -> Self {
        Self {
            at,
            integration: Some(key.integration.clone()),
            subject: Some(key.subject.to_string()),
            grant_id: None,
            caller: None,
            kind,
        }
    }

    /// An event about a grant.
    #[must_use]
    pub fn grant(at: Timestamp, grant: &super::grant::Grant, kind: EventKind) -> Self {
        Self {
            at,
            integration: Some(grant.integration.clone()),
            subject: Some(grant.subject.to_string()),
            grant_id: Some(grant.id),
            caller: Some(grant.caller.clone()),
            kind,
        }
    }

    /// An event about the connector as a whole.
    #[must_use]
    pub fn connector(at: Timestamp, kind: EventKind) -> Self {
        Self {
            at,
            integration: None,
            subject: None,
            grant_id: None,
            caller: None,
            kind,
        }
    }

    /// An event about an integration as a whole.
    #[must_use]
    pub fn integration(at: Timestamp, integration: &IntegrationName, kind: EventKind) -> Self {
        Self {
            at,
            integration: Some(integration.clone()),
            subject: None,
            grant_id: None,
            caller: None,
            kind,
        }
    }
}

/// How a call went, as evidence: no bodies, no headers but the provider's request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct CallEvidence {
    /// Method and path template, for example `POST /users/{user_id}/role_assignments`.
    pub call: String,
    /// Times sent.
    pub attempts: u32,
    /// HTTP status of the last answer, if one came.
    pub status: Option<u16>,
    /// The provider's error code, if one came.
    pub code: Option<String>,
    /// The provider's request id, if one came.
    pub request_id: Option<String>,
    /// Wall time in milliseconds from first byte to last answer.
    pub elapsed_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum EventKind {
    /// A grant was accepted.
    GrantAccepted {
        /// State it began in.
        state: String,
        /// What it gives, in words.
        assignments: Vec<String>,
        /// Seconds asked for.
        duration_s: i64,
        /// Who asked.
        requester: String,
        /// Why.
        justification: String,
        /// The policies of the law that decided so.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<String>,
    },
    /// A request was refused before anything was durable.
    RequestRefused {
        /// Stable code.
        code: String,
        /// Which operation.
        operation: String,
        /// The policies of the law that decided so.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<String>,
    },
    /// A grant went from one state to another.
    GrantChanged {
        /// Name of the state before.
        from: String,
        /// Name of the state after.
        to: String,
        /// Why, when it is on its way out.
        cause: Option<EndCause>,
        /// When access must be gone, when active.
        expires_at: Option<Timestamp>,
    },
    /// An active grant ends soon.
    GrantEndsSoon {
        /// When access must be gone.
        expires_at: Timestamp,
        /// Seconds until then.
        seconds_left: i64,
    },
    /// An active grant was extended.
    GrantExtended {
        /// End before.
        from: Timestamp,
        /// End after.
        to: Timestamp,
        /// Who asked.
        by: String,
        /// Why.
        reason: String,
        /// The policies of the law that decided so.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<String>,
    },
    /// A request id was closed before its grant arrived.
    Tombstoned {
        /// The request id.
        request_id: String,
    },
    /// A mutation is about to be sent. Durable before its first byte.
    CallIntended {
        /// Which way.
        write: WriteKind,
        /// The assignments it carries.
        assignments: Vec<String>,
        /// Entries of the same role that must survive a removal.
        must_survive: Vec<String>,
        /// Whether it puts back what was not ours and a removal of ours took along. Never in events of earlier releases.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        put_back: bool,
    },
    /// A mutation was answered, refused, or left unknown.
    CallEnded {
        /// Which way.
        write: WriteKind,
        /// The assignments it carried.
        assignments: Vec<String>,
        /// `done`, `refused`, `unknown`, or `not_sent` where the intent was taken back before a byte left.
        outcome: String,
        /// Evidence of the call.
        evidence: CallEvidence,
    },
    /// A call other than a role mutation was made: a read, an invitation, a key look-up.
    CallMade {
        /// `done`, `refused` or `unknown`.
        outcome: String,
        /// Evidence of the call.
        evidence: CallEvidence,
    },
    /// A read showed what was expected, or proved it gone.
    Observed {
        /// When that read started.
        read_started_at: Timestamp,
        /// Assignments verified present.
        present: Vec<String>,
        /// Assignments proven gone.
        gone: Vec<String>,
        /// Assignments found standing, which are left alone.
        standing: Vec<String>,
    },
    /// Upstream differs from what the ledger expects; written when it begins and when something else is done about it.
    Drift {
        /// `missing`, `resurrected`, `survivor_missing`, `reappeared`, `forgotten_still_present` or `forgotten_gone`.
        kind: String,
        /// Which assignment.
        assignment: String,
        /// What is done about it.
        action: String,
    },
    /// Upstream no longer differs in this.
    DriftEnded {
        /// The kind of drift.
        kind: String,
        /// Which assignment.
        assignment: String,
        /// When it was first seen.
        first_seen: Timestamp,
        /// How it ended.
        outcome: String,
    },
    /// Several roles of a member changed in one step, some of them gone: the mark of a login through SSO.
    RolesOverwritten {
        /// What is gone.
        gone: Vec<String>,
        /// What is new.
        appeared: Vec<String>,
    },
    /// Repairs were stopped because they would have touched too many members at once, or go on again.
    Breaker {
        /// `opened` or `confirmed`.
        action: String,
        /// Members concerned.
        members: u64,
        /// Who confirmed; empty when it opened.
        by: String,
        /// Why; empty when it opened.
        reason: String,
    },
    /// The second look found an assignment gone for good.
    SecondLook {
        /// Which assignment.
        assignment: String,
    },
    /// A removal is refused for a reason that retrying alone does not cure.
    RemovalBlocked {
        /// Which assignment.
        assignment: String,
        /// Stable code.
        code: String,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// Waiting grants of an address moved to the member who joined.
    MemberJoined {
        /// The address.
        email: String,
        /// The user id.
        user_id: String,
    },
    /// The member is no longer in the organization.
    MemberLeft {
        /// When the second complete read without the member started.
        read_started_at: Timestamp,
    },
    /// An invitation is about to be sent or cancelled.
    InvitationIntended {
        /// `send` or `cancel`.
        action: String,
    },
    /// An invitation was sent, adopted, cancelled or found gone.
    InvitationChanged {
        /// What happened.
        action: String,
        /// When it expires.
        expires_at: Option<Timestamp>,
    },
    /// The secret was fetched and the key in use changed, or fetching failed.
    KeyChanged {
        /// `loaded`, `rotated` or `failed`.
        action: String,
        /// First 8 hexadecimal digits of the SHA-256 of the key, never the key.
        fingerprint: Option<String>,
    },
    /// A rotation of the key is about to take a step, or is over.
    KeyRotation {
        /// Which rotation.
        rotation: String,
        /// How far it is, by the name of its stage.
        stage: String,
        /// Who asked for it: a person, or `schedule`.
        by: String,
        /// Why.
        reason: String,
        /// Id of the key that is replaced, once it is known.
        old_key: Option<String>,
        /// Id of the key that replaces it, once it is known.
        new_key: Option<String>,
        /// Stable code of what went wrong, where something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Somebody proposed to give up an assignment whose removal is overdue or blocked.
    ForgetProposed {
        /// Which assignment.
        assignment: String,
        /// Who proposed it.
        by: String,
        /// Why.
        reason: String,
        /// Until when somebody else can confirm it.
        expires_at: Timestamp,
    },
    /// An assignment was given up by two people; it is watched for.
    AccessForgotten {
        /// Which assignment.
        assignment: String,
        /// Who proposed it.
        by: String,
        /// Who confirmed it.
        confirmed_by: String,
        /// Why.
        reason: String,
    },
    /// An operator declared an assignment of ours standing access.
    AccessAdopted {
        /// Which assignment.
        assignment: String,
        /// Who declared it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The ledger and the witness disagree: nothing is added until an operator has looked.
    HoldBegan {
        /// Codes of the reasons.
        reasons: Vec<String>,
    },
    /// An operator looked and ended a hold.
    HoldReleased {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An assignment that the ledger did not know was taken over from other evidence.
    Recovered {
        /// Which assignment.
        assignment: String,
        /// Until when it stays.
        must_end_by: Option<Timestamp>,
        /// `witness`, `audit` or both, joined by a plus.
        source: String,
    },
    /// The wall clock was set while the connector ran.
    ClockJumped {
        /// Seconds that it moved beyond the time that passed.
        seconds: i64,
        /// What is done about it.
        action: String,
    },
    /// The policies of the customer's law changed, or changed ones could not be used.
    LawChanged {
        /// `changed` or `kept`.
        action: String,
        /// SHA-256 of the texts in force, in hexadecimal digits.
        digest: String,
    },
    /// Approvals were verified with the request of a grant or of its extension.
    Approved {
        /// Who approved, as `NAME (PERSON)`.
        approvers: Vec<String>,
        /// Ids of the approvals, in the same order.
        ids: Vec<String>,
        /// SHA-256 of the request that was approved.
        request: String,
    },
    /// An emergency token opened a grant, and a review of it.
    BreakGlassUsed {
        /// Name of the key that sealed it.
        key: String,
        /// Id of the token.
        id: String,
        /// What it was issued for.
        reason: String,
        /// Under which it is remembered as used, so that a rebuilt ledger remembers it too. Empty in events of earlier
        /// releases.
        #[serde(default)]
        token: String,
        /// When the token expires by itself.
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// Somebody looked back at an emergency grant.
    ReviewClosed {
        /// Who, as told.
        by: String,
        /// What was found.
        note: String,
    },
    /// The connector started or stopped.
    Lifecycle {
        /// `started`, `stopped`, `sweep_started` or `sweep_ended`.
        action: String,
        /// Version of the binary.
        version: String,
    },
}

impl EventKind {
    /// Stable name, as stored and filtered on.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::GrantAccepted { .. } => "grant_accepted",
            Self::RequestRefused { .. } => "request_refused",
            Self::GrantChanged { .. } => "grant_changed",
            Self::GrantEndsSoon { .. } => "grant_ends_soon",
            Self::GrantExtended { .. } => "grant_extended",
            Self::Tombstoned { .. } => "tombstoned",
            Self::CallIntended { .. } => "call_intended",
            Self::CallEnded { .. } => "call_ended",
            Self::CallMade { .. } => "call_made",
            Self::Observed { .. } => "observed",
            Self::Drift { .. } => "drift",
            Self::DriftEnded { .. } => "drift_ended",
            Self::RolesOverwritten { .. } => "roles_overwritten",
            Self::Breaker { .. } => "breaker",
            Self::SecondLook { .. } => "second_look",
            Self::RemovalBlocked { .. } => "removal_blocked",
            Self::MemberJoined { .. } => "member_joined",
            Self::MemberLeft { .. } => "member_left",
            Self::InvitationIntended { .. } => "invitation_intended",
            Self::InvitationChanged { .. } => "invitation_changed",
            Self::KeyChanged { .. } => "key_changed",
            Self::KeyRotation { .. } => "key_rotation",
            Self::HoldBegan { .. } => "hold_began",
            Self::HoldReleased { .. } => "hold_released",
            Self::Recovered { .. } => "recovered",
            Self::ClockJumped { .. } => "clock_jumped",
            Self::ForgetProposed { .. } => "forget_proposed",
            Self::AccessForgotten { .. } => "access_forgotten",
            Self::AccessAdopted { .. } => "access_adopted",
            Self::LawChanged { .. } => "law_changed",
            Self::Approved { .. } => "approved",
            Self::BreakGlassUsed { .. } => "break_glass_used",
            Self::ReviewClosed { .. } => "review_closed",
            Self::Lifecycle { .. } => "lifecycle",
        }
    }
}
