//! Grants: our time-bound decision that a principal shall hold a role on one or several targets.
//!
//! Owns the life cycle. Transitions are values in, values out. Never touches upstream, and never leaves
//! `revoking` by any other way than `ended`.

use std::fmt;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::authority::{Authority, BreakGlass};
use super::ids::{CallerName, GrantId, IntegrationName, RequestId};
use super::member::Subject;
use super::ttl::Ttl;

/// Why a grant ended or is on its way out. The first cause stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum EndCause {
    /// `expires_at` (or a hard end) was reached.
    Expired,
    /// Somebody ended it early.
    Revoked {
        /// Who, as told by the caller.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Withdrawn before it ever began.
    Withdrawn {
        /// Who, as told by the caller.
        by: String,
    },
    /// The invitation was not accepted in time.
    Lapsed,
    /// Access could not be given.
    ActivationFailed {
        /// Stable code, for example the provider's error code.
        code: String,
    },
    /// The member left the organization.
    MemberLeft,
    /// Somebody else took the access away; it is not fought over.
    Superseded,
}

impl EndCause {
    /// Stable name for metrics, audit and the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Lapsed => "lapsed",
            Self::ActivationFailed { .. } => "activation_failed",
            Self::MemberLeft => "member_left",
            Self::Superseded => "superseded",
        }
    }
}

/// Where a grant stands; each state carries the evidence it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum GrantState {
    /// Accepted for later.
    Scheduled {
        /// When activation begins.
        starts_at: Timestamp,
    },
    /// Waiting for someone to join the organization. The clock has not started.
    AwaitingMember {
        /// When waiting began.
        invited_at: Timestamp,
        /// When the wait ends without access.
        lapses_at: Timestamp,
    },
    /// Access is being given.
    Activating {
        /// When activation began.
        since: Timestamp,
        /// Set durably before the first byte is sent: access that was never verified is revoked from here on.
        must_end_by: Option<Timestamp>,
    },
    /// Access was verified upstream.
    Active {
        /// When it was verified.
        activated_at: Timestamp,
        /// When it must be gone.
        expires_at: Timestamp,
    },
    /// Access is being taken away. There is no attempt limit.
    Revoking {
        /// When removal became due.
        since: Timestamp,
        /// Why.
        cause: EndCause,
    },
    /// Removal was confirmed upstream, or nothing had been given.
    Ended {
        /// When.
        at: Timestamp,
        /// Why.
        cause: EndCause,
    },
}

impl GrantState {
    /// Stable name for the ledger, metrics and the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::AwaitingMember { .. } => "awaiting_member",
            Self::Activating { .. } => "activating",
            Self::Active { .. } => "active",
            Self::Revoking { .. } => "revoking",
            Self::Ended { .. } => "ended",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// How sure we are of what the member holds because of this grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The last complete read agreed with the state.
    Verified,
    /// Upstream answered "done" and no read has confirmed it yet.
    AcceptedUnverified,
    /// The last call had no answer, or nothing was asked yet.
    Unknown,
}

/// How one assignment of a grant is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// Not decided yet: upstream has not been observed for it.
    Undecided,
    /// Latchkey added it and will remove it.
    Owned,
    /// Standing access covers it: nothing was added and nothing will be removed.
    Standing,
}

/// One assignment that a grant asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedAssignment {
    /// The role on its target.
    pub assignment: Assignment,
    /// How it is held.
    pub holding: Holding,
}

/// The last thing that went wrong, in words safe to show to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Stable code.
    pub code: String,
    /// What it means and what to do.
    pub message: String,
    /// When it was met.
    pub at: Timestamp,
}

/// A time-bound decision that a principal shall hold a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Which organization.
    pub integration: IntegrationName,
    /// Who holds the access: a member, or someone invited.
    pub subject: Subject,
    /// Who called; the row is bound to this name.
    pub caller: CallerName,
    /// The caller's idempotency key.
    pub request_id: RequestId,
    /// The beneficiary as the caller wrote it: address or user id.
    pub beneficiary: String,
    /// Who asked, as told by the caller.
    pub requester: String,
    /// Why, as told by the caller; never logged.
    pub justification: String,
    /// What is to be held.
    pub assignments: Vec<GrantedAssignment>,
    /// How long, from verified access.
    pub duration: Ttl,
    /// Earliest start.
    pub starts_at: Option<Timestamp>,
    /// Hard end; always wins.
    pub not_after: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: GrantState,
    /// Raised by one with every durable change.
    pub version: u64,
    /// How sure the last answer is.
    pub certainty: Certainty,
    /// Sticky: somebody else changed what this grant gave.
    pub externally_modified: bool,
    /// Whether Latchkey invited the beneficiary to the organization because of grants like this one.
    pub invited: bool,
    /// Times that a call for this grant failed since it entered its state.
    pub attempts: u32,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// When verification found access present for the first time.
    pub verified_at: Option<Timestamp>,
    /// When the first removal for this grant was sent.
    pub removal_sent_at: Option<Timestamp>,
    /// What it rests on beside its caller: approvals, or an emergency token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Box<Authority>>,
}

/// A transition that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} a grant that is {from}")]
pub struct InvalidTransition {
    /// What was asked for.
    pub action: &'static str,
    /// The name of the present state.
    pub from: &'static str,
}

/// Slack beyond the duration in `must_end_by`: time that activation and its verification may take.
pub const ACTIVATION_ALLOWANCE: TimeDelta = TimeDelta::seconds(120);

impl Grant {
    /// The instant from which access must not be held, while the grant is activating or active.
    /// `None` while nothing was sent and no hard end is set.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let by_state = match &self.state {
            GrantState::Active { expires_at, .. } => Some(*expires_at),
            GrantState::Activating { must_end_by, .. } => *must_end_by,
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Revoking { .. }
            | GrantState::Ended { .. } => None,
        };
        earliest(by_state, self.not_after)
    }

    /// When its removal is expected to fall due, as far as can be told: from the start where its clock has not begun.
    /// `None` when nothing will have to be removed, when the first removal was sent already, and while nobody knows
    /// when the clock begins.
    #[must_use]
    pub fn removal_due(&self) -> Option<Timestamp> {
        if self.is_all_standing() {
            return None;
        }
        match &self.state {
            GrantState::Scheduled { starts_at } => {
                earliest(Some(*starts_at + self.duration.delta()), self.not_after)
            }
            GrantState::Activating { since, .. } => {
                earliest(Some(*since + self.duration.delta()), self.not_after)
            }
            GrantState::Active { .. } => self.ends_at(),
            GrantState::Revoking { since, .. } if self.removal_sent_at.is_none() => Some(*since),
            GrantState::AwaitingMember { .. }
            | GrantState::Revoking { .. }
            | GrantState::Ended { .. } => None,
        }
    }

    /// Whether the grant wants its assignments to exist at `now`. The boundary instant counts as expired.
    #[must_use]
    pub fn expects_access(&self, now: Timestamp) -> bool {
        let live = matches!(
            self.state,
            GrantState::Activating { .. } | GrantState::Active { .. }
        );
        live && self.ends_at().is_none_or(|end| now < end)
    }

    /// The next instant at which time alone changes the state.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            GrantState::Scheduled { starts_at } => earliest(Some(*starts_at), self.not_after),
            GrantState::AwaitingMember { lapses_at, .. } => {
                earliest(Some(*lapses_at), self.not_after)
            }
            GrantState::Activating { .. } | GrantState::Active { .. } => self.ends_at(),
            GrantState::Revoking { .. } | GrantState::Ended { .. } => None,
        }
    }

    /// Moves the grant as far as time alone moves it. Returns whether anything changed.
    pub fn advance(&mut self, now: Timestamp) -> bool {
        let hard_end = self.not_after.is_some_and(|end| end <= now);
        match &self.state {
            // A due start and a due end that fall together are one step: nothing is given for zero time.
            GrantState::Scheduled { .. } if hard_end => self.end(EndCause::Expired, now),
            GrantState::Scheduled { starts_at } if *starts_at <= now => {
                self.state = GrantState::Activating {
                    since: now,
                    must_end_by: None,
                };
                true
            }
            GrantState::AwaitingMember { lapses_at, .. } if hard_end || *lapses_at <= now => {
                self.end(EndCause::Lapsed, now)
            }
            GrantState::Activating { .. } | GrantState::Active { .. }
                if self.ends_at().is_some_and(|end| end <= now) =>
            {
                let cause = match (&self.state, hard_end) {
                    (GrantState::Activating { .. }, false) => EndCause::ActivationFailed {
                        code: "not_verified_in_time".to_owned(),
                    },
                    _ => EndCause::Expired,
                };
                self.revoking(cause, now)
            }
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Activating { .. }
            | GrantState::Active { .. }
            | GrantState::Revoking { .. }
            | GrantState::Ended { .. } => false,
        }
    }

    /// Fixes the end before the beginning: called durably before the first byte of the first call. Later sends
    /// keep the first bound.
    pub fn bound_before_send(&mut self, now: Timestamp) {
        if let GrantState::Activating { must_end_by, .. } = &mut self.state {
            let bound = must_end_by.unwrap_or(now + self.duration.delta() + ACTIVATION_ALLOWANCE);
            *must_end_by = Some(bound);
        }
    }

    /// Access was verified: the clock starts. The end was bounded before the first send and can only come earlier.
    pub fn activate(&mut self, now: Timestamp) -> bool {
        let GrantState::Activating { must_end_by, .. } = self.state else {
            return false;
        };
        let wanted = Some(now + self.duration.delta());
        let Some(expires_at) = earliest(earliest(wanted, must_end_by), self.not_after) else {
            return false;
        };
        self.state = GrantState::Active {
            activated_at: now,
            expires_at,
        };
        self.verified_at = self.verified_at.or(Some(now));
        self.certainty = Certainty::Verified;
        self.attempts = 0;
        self.last_error = None;
        true
    }

    /// The invited person joined: access can be given now, or at the scheduled start.
    pub fn member_joined(&mut self, now: Timestamp) -> bool {
        if !matches!(self.state, GrantState::AwaitingMember { .. }) {
            return false;
        }
        self.state = match self.starts_at {
            Some(starts_at) if starts_at > now => GrantState::Scheduled { starts_at },
            _ => GrantState::Activating {
                since: now,
                must_end_by: None,
            },
        };
        true
    }

    /// Ends access before or at its time. Idempotent: a grant on its way out keeps its first cause.
    /// Grants that never reached upstream end at once, as withdrawn.
    pub fn begin_revoke(&mut self, cause: EndCause, now: Timestamp) -> bool {
        match self.state {
            GrantState::Scheduled { .. } | GrantState::AwaitingMember { .. } => {
                let cause = if let EndCause::Revoked { by, .. } = cause {
                    EndCause::Withdrawn { by }
                } else {
                    cause
                };
                self.end(cause, now)
            }
            GrantState::Activating { .. } | GrantState::Active { .. } => self.revoking(cause, now),
            GrantState::Revoking { .. } | GrantState::Ended { .. } => false,
        }
    }

    /// Nothing of the grant is held any more.
    pub fn finish(&mut self, now: Timestamp) -> bool {
        let GrantState::Revoking { cause, .. } = &self.state else {
            return false;
        };
        let cause = cause.clone();
        self.certainty = Certainty::Verified;
        self.end(cause, now)
    }

    /// Moves `expires_at` later, to `now`'s end plus `by`, never past `not_after`.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless the grant is active and its end has not come: once it has, removal wins.
    pub fn extend(&mut self, by: Ttl, now: Timestamp) -> Result<Timestamp, InvalidTransition> {
        let refused = Err(InvalidTransition {
            action: "extend",
            from: self.state.name(),
        });
        let GrantState::Active { expires_at, .. } = &mut self.state else {
            return refused;
        };
        if *expires_at <= now {
            return refused;
        }
        let wanted = *expires_at + by.delta();
        *expires_at = self.not_after.map_or(wanted, |end| wanted.min(end));
        Ok(*expires_at)
    }

    /// The emergency token that opened it.
    #[must_use]
    pub fn break_glass(&self) -> Option<&BreakGlass> {
        self.authority.as_ref()?.break_glass.as_ref()
    }

    /// Whether every assignment is covered by standing access.
    #[must_use]
    pub fn is_all_standing(&self) -> bool {
        self.assignments
            .iter()
            .all(|held| held.holding == Holding::Standing)
    }

    /// The strongest power among its assignments, for the order of removals.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.assignments
            .iter()
            .map(|held| held.assignment.weight())
            .max()
            .unwrap_or(0)
    }

    fn revoking(&mut self, cause: EndCause, now: Timestamp) -> bool {
        // What became due earlier than we noticed stays due from then: lateness is counted honestly.
        let since = if cause == EndCause::Expired {
            self.ends_at().map_or(now, |end| end.min(now))
        } else {
            now
        };
        self.state = GrantState::Revoking { since, cause };
        self.attempts = 0;
        self.last_error = None;
        true
    }

    fn end(&mut self, cause: EndCause, now: Timestamp) -> bool {
        self.state = GrantState::Ended { at: now, cause };
        true
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "grant {} ({}) for {}",
            self.id,
            self.state.name(),
            self.beneficiary
        )
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
