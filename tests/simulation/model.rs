//! The naive reference: what was promised, and until when it may hold.
//!
//! Owns a few times and a set for each grant. Knows nothing of plans, ownership, reads or retries: it hears what was
//! accepted, what callers were told, and which requests left. Never asks the code under test what would be right.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use latchkey::domain::Timestamp;
use latchkey::domain::event::EventKind;
use latchkey::domain::grant::{EndCause, Grant, GrantState};
use latchkey::domain::ids::GrantId;
use latchkey::domain::member::{Subject, WriteKind};
use latchkey::domain::request::{Principal, Selector};

use super::cast::{Cast, Set, each};
use super::clock::Ms;

/// How far a grant has come, as callers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    Waiting,
    Giving { since: Ms },
    Active { since: Ms, until: Timestamp },
    Leaving { since: Ms },
    Ended { since: Ms },
}

impl Stand {
    pub(crate) fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving { .. } | Self::Ended { .. })
    }
}

/// One accepted grant.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) who: usize,
    pub(crate) set: Set,
    /// How the caller named the person.
    pub(crate) beneficiary: String,
    /// Whether it is of a member, not of somebody who was invited.
    pub(crate) of_member: bool,
    pub(crate) duration: TimeDelta,
    pub(crate) not_after: Option<Timestamp>,
    /// Which membership it was made for, if the person was a member.
    pub(crate) joined: Option<Ms>,
    pub(crate) stand: Stand,
    /// When the last request that gives it left.
    pub(crate) gave: Option<Ms>,
    /// When the first request that gives it left, by the connector's clock.
    pub(crate) first_sent: Option<Timestamp>,
    /// Whether its end is fixed in the ledger while it is being given.
    pub(crate) bounded: bool,
    /// What extensions may have added.
    pub(crate) extended: TimeDelta,
    /// Assignments that are missing although it is active, and since when.
    pub(crate) missing: BTreeMap<usize, Ms>,
}

/// Slack that a grant may last beyond its duration.
const ALLOWANCE: TimeDelta = TimeDelta::seconds(120);

impl Promise {
    /// Whether anybody may hold access because of it.
    pub(crate) fn holds(&self, wall: Timestamp) -> bool {
        let until = match self.stand {
            Stand::Giving { .. } => None,
            Stand::Active { until, .. } => Some(until),
            Stand::Waiting | Stand::Leaving { .. } | Stand::Ended { .. } => return false,
        };
        let bound = self
            .first_sent
            .map(|sent| sent + self.duration + ALLOWANCE + self.extended);
        [until, bound, self.not_after]
            .into_iter()
            .flatten()
            .all(|end| wall < end)
    }
}

/// What one request id stands for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// The grant that answers named.
    pub(crate) grant: Option<GrantId>,
    /// A revocation closed it before its grant arrived.
    pub(crate) closed: bool,
}

/// A mutation on its way, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) kind: WriteKind,
    pub(crate) set: Set,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) promises: BTreeMap<GrantId, Promise>,
    /// Those that have not ended, for each person.
    pub(crate) open: Vec<Vec<GrantId>>,
    pub(crate) requests: BTreeMap<String, Request>,
    /// What the ledger says is ours, for each person: the definition of what cannot be told apart.
    pub(crate) owned: Vec<Set>,
    /// The last intent that was written and not ended, for each person.
    pub(crate) intents: Vec<Option<Intent>>,
    /// A request that left and whose ending is not written yet.
    pub(crate) unended: Vec<bool>,
    /// Until when an invitation that was not answered may appear, as far as the connector can know.
    pub(crate) invitation_in_doubt: Vec<Ms>,
    /// Since when an invitation is about to be sent, or on its way.
    pub(crate) invitation_intended: Vec<Option<Ms>>,
    /// Until when the removal of an owner that was not answered may land.
    pub(crate) owner_in_doubt: Vec<Ms>,
}

impl Model {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            open: vec![Vec::new(); size],
            owned: vec![0; size],
            intents: vec![None; size],
            unended: vec![false; size],
            invitation_in_doubt: vec![0; size],
            invitation_intended: vec![None; size],
            owner_in_doubt: vec![0; size],
            ..Self::default()
        }
    }

    pub(crate) fn open(&self, who: usize) -> impl Iterator<Item = &Promise> {
        self.open[who].iter().map(|id| &self.promises[id])
    }

    /// Whether some grant wants a person to hold an assignment.
    pub(crate) fn wants(&self, who: usize, pair: usize, wall: Timestamp) -> bool {
        self.open(who)
            .any(|promise| promise.set & (1 << pair) != 0 && promise.holds(wall))
    }

    pub(crate) fn accepted(&mut self, cast: &Cast, grant: &Grant, joined: Option<Ms>, now: Ms) {
        let Some(who) = cast.subject(&grant.subject) else {
            return;
        };
        let assignments = grant.assignments.iter().map(|held| &held.assignment);
        let promise = Promise {
            who,
            set: cast.set(assignments),
            beneficiary: grant.beneficiary.clone(),
            of_member: false,
            duration: grant.duration.delta(),
            not_after: grant.not_after,
            joined,
            gave: None,
            stand: Stand::Waiting,
            first_sent: None,
            bounded: false,
            extended: TimeDelta::zero(),
            missing: BTreeMap::new(),
        };
        self.promises.insert(grant.id, promise);
        self.open[who].push(grant.id);
        self.changed(grant, now);
    }

    /// Grants that have not begun to end and that a bulk revocation of this selection must reach.
    pub(crate) fn named(&self, cast: &Cast, selector: &Selector) -> Vec<GrantId> {
        let is_named = |promise: &&Promise| match selector {
            Selector::Integration => true,
            Selector::Target(target) => {
                each(promise.set).any(|pair| cast.pairs[pair].target == *target)
            }
            Selector::Member(Principal::User(user)) => {
                promise.of_member && cast.users[promise.who] == *user
            }
            // Whoever was named in another way is found by asking upstream, which may know nobody of that address.
            Selector::Member(Principal::Email(email)) => {
                promise.beneficiary.eq_ignore_ascii_case(email.as_str())
            }
        };
        self.promises
            .iter()
            .filter(|(_, promise)| !promise.stand.is_leaving() && is_named(promise))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes over what a caller would now be told. Answers the stand before, when it changed.
    pub(crate) fn changed(&mut self, grant: &Grant, now: Ms) -> Option<Stand> {
        let promise = self.promises.get_mut(&grant.id)?;
        let before = promise.stand;
        promise.of_member = matches!(grant.subject, Subject::Member(_));
        promise.bounded = !matches!(
            grant.state,
            GrantState::Activating {
                must_end_by: None,
                ..
            }
        );
        promise.stand = match (&grant.state, before) {
            (GrantState::Scheduled { .. } | GrantState::AwaitingMember { .. }, _) => Stand::Waiting,
            (GrantState::Activating { .. }, Stand::Giving { .. }) => before,
            (GrantState::Activating { .. }, _) => Stand::Giving { since: now },
            (GrantState::Active { expires_at, .. }, Stand::Active { since, .. }) => Stand::Active {
                since,
                until: *expires_at,
            },
            (GrantState::Active { expires_at, .. }, _) => Stand::Active {
                since: now,
                until: *expires_at,
            },
            (GrantState::Revoking { .. }, Stand::Leaving { .. }) => before,
            (GrantState::Revoking { .. }, _) => Stand::Leaving { since: now },
            (GrantState::Ended { .. }, Stand::Ended { .. }) => before,
            (GrantState::Ended { .. }, _) => Stand::Ended { since: now },
        };
        if let Stand::Ended { .. } = promise.stand {
            let who = promise.who;
            self.open[who].retain(|id| *id != grant.id);
        }
        (self.promises[&grant.id].stand != before).then_some(before)
    }

    /// A request that gives left: an end must have been fixed before.
    pub(crate) fn gave(&mut self, who: usize, set: Set, now: Ms, wall: Timestamp) {
        for id in &self.open[who] {
            let Some(promise) = self.promises.get_mut(id) else {
                continue;
            };
            if promise.set & set == 0 {
                continue;
            }
            promise.gave = Some(now);
            if matches!(promise.stand, Stand::Giving { .. }) {
                promise.first_sent.get_or_insert(wall);
            }
        }
    }

    /// A request that gives was refused: where nothing else was sent, the end is open again.
    pub(crate) fn refused(&mut self, who: usize, set: Set) {
        for id in &self.open[who] {
            let Some(promise) = self.promises.get_mut(id) else {
                continue;
            };
            if promise.set & set != 0 && matches!(promise.stand, Stand::Giving { .. }) {
                promise.first_sent = None;
                promise.gave = None;
            }
        }
    }

    /// Takes in the audit of one person.
    pub(crate) fn audited(&mut self, cast: &Cast, who: usize, events: &[EventKind]) {
        for event in events {
            if let EventKind::CallIntended {
                write, assignments, ..
            } = event
            {
                self.intents[who] = Some(Intent {
                    kind: *write,
                    set: cast.named(assignments),
                });
            } else if matches!(event, EventKind::CallEnded { .. }) {
                self.intents[who] = None;
                self.unended[who] = false;
            }
        }
    }
}

/// Whether a grant ended because somebody else took its access away.
pub(crate) fn is_superseded(grant: &Grant) -> bool {
    matches!(
        &grant.state,
        GrantState::Revoking {
            cause: EndCause::Superseded,
            ..
        } | GrantState::Ended {
            cause: EndCause::Superseded,
            ..
        }
    )
}
