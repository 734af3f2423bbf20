//! What a read of upstream showed.
//!
//! Owns the difference between "not there" and "not shown". Never turns a partial or filtered read into proof of
//! absence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::assignment::Assignment;
use super::ids::{Email, UserId};
use super::sight::{Known, Met, ROOM, Recognized};

/// One member as a read showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMember {
    /// Elastic Cloud user id.
    pub user_id: UserId,
    /// When this membership began; a person who left and came back has another one.
    pub member_since: Timestamp,
    /// Address, where the read showed one that is well formed.
    pub email: Option<Email>,
    /// Display name; may be empty.
    pub name: String,
    /// Every assignment shown, role ids canonical.
    pub assignments: BTreeSet<Assignment>,
}

/// One read of the members of an organization, filtered to those of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersRead {
    /// When the first byte was sent, by the wall clock.
    pub started_at: Timestamp,
    /// When the last byte had arrived.
    pub finished_at: Timestamp,
    /// Why this read proves presence only; `None` for a complete read.
    pub incomplete: Option<Incomplete>,
    /// Members of interest that were shown.
    pub members: BTreeMap<UserId, ObservedMember>,
    /// How many members were shown in all.
    pub total: usize,
    /// Members that hold `organization-admin`, in all.
    pub owners: usize,
    /// What became of the members that were known, for each that asked. Empty where the provider knows nothing of it.
    pub recognized: Vec<Recognized>,
}

/// Why a read cannot prove absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incomplete {
    /// No member showed `organization-admin`: the key sees a filtered list.
    KeyIsNotOwner,
    /// A member of another organization was shown.
    OtherOrganization,
    /// The answer hinted at further pages.
    MorePages,
    /// Several members were shown under one user id or address.
    Ambiguous,
}

impl MembersRead {
    /// The member of that id, if shown.
    #[must_use]
    pub fn member(&self, user: &UserId) -> Option<&ObservedMember> {
        self.members.get(user)
    }

    /// The members that were shown under an address.
    pub fn by_email<'a>(&'a self, email: &'a Email) -> impl Iterator<Item = &'a ObservedMember> {
        self.members
            .values()
            .filter(move |member| member.email.as_ref() == Some(email))
    }

    /// What became of members that were known; `None` where they were not asked for, or the provider does not tell.
    #[must_use]
    pub fn recognized(&self, known: &Arc<Known>) -> Option<&Recognized> {
        self.recognized.iter().find(|one| one.is_of(known))
    }

    /// Whether absence from this read is proof.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_none()
    }
}

/// Which members a read should keep; everything else is counted and dropped while streaming.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interest {
    /// By user id.
    pub users: BTreeSet<UserId>,
    /// By address.
    pub emails: BTreeSet<Email>,
    /// Pages of members in order of user id: those after the id, at most so many each.
    pub pages: BTreeSet<(Option<UserId>, usize)>,
    /// Members that are kept only where they look other than known.
    pub known: Vec<Arc<Known>>,
}

impl Interest {
    /// One member.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self {
            users: BTreeSet::from([user]),
            ..Self::default()
        }
    }

    /// One address.
    #[must_use]
    pub fn email(email: Email) -> Self {
        Self {
            emails: BTreeSet::from([email]),
            ..Self::default()
        }
    }

    /// Members that are kept only where they look other than known.
    #[must_use]
    pub fn known(known: Arc<Known>) -> Self {
        Self {
            known: vec![known],
            ..Self::default()
        }
    }

    /// To compare the members of one read with.
    #[must_use]
    pub fn recognize(&self) -> Vec<Recognized> {
        let of = |known: &Arc<Known>| Recognized::new(Arc::clone(known), ROOM);
        self.known.iter().map(of).collect()
    }

    /// Adds what another one asks for.
    pub fn merge(&mut self, other: Self) {
        let Self {
            users,
            emails,
            pages,
            known,
        } = other;
        self.users.extend(users);
        self.emails.extend(emails);
        self.pages.extend(pages);
        self.known.extend(known);
    }
}

/// Shows a member to everybody who knows some: whether it has to be kept, and whether it was shown twice.
pub fn meet(recognized: &mut [Recognized], member: &ObservedMember) -> (bool, bool) {
    let (mut keep, mut again) = (false, false);
    for one in recognized {
        match one.meet(member) {
            Met::Stranger | Met::Alike | Met::NoRoom => {}
            Met::Different => keep = true,
            Met::Again => (keep, again) = (true, true),
        }
    }
    (keep, again)
}

/// Keeps of a list what is asked for by id, by address or for looking other than known, and tells what became of those
/// who are known. For providers that have the list in memory, with each id once.
pub fn pick(
    interest: &Interest,
    shown: impl IntoIterator<Item = ObservedMember>,
) -> (BTreeMap<UserId, ObservedMember>, Vec<Recognized>) {
    let mut recognized = interest.recognize();
    let mut kept = BTreeMap::new();
    for member in shown {
        let (differs, _) = meet(&mut recognized, &member);
        let is_wanted = interest.users.contains(&member.user_id)
            || member
                .email
                .as_ref()
                .is_some_and(|email| interest.emails.contains(email));
        if is_wanted || differs {
            kept.insert(member.user_id.clone(), member);
        }
    }
    (kept, recognized)
}
