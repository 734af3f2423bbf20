//! Sights: what a read shows of one member, in sixteen bytes.
//!
//! Owns telling those who look as they did when they were last settled from those who do not, so that a million grants
//! can be compared with one read without loading them. Never decides anything: whoever looks different is loaded, and
//! the planner judges.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Timestamp;
use super::assignment::{ApplicationRoles, Assignment};
use super::grant::GrantState;
use super::ids::UserId;
use super::member::{MemberRecord, Phase, Subject, WriteKind};
use super::observation::ObservedMember;

/// What one read shows of one member: who, since when, and everything held. Equal for equal shows, and for others only
/// by a collision of half a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sight([u8; 16]);

impl Sight {
    /// The sight of a member as shown.
    #[must_use]
    pub fn of(user: &UserId, member_since: Timestamp, assignments: &BTreeSet<Assignment>) -> Self {
        let mut hash = Sha256::new();
        // Every text with its length: what upstream shows as a role may hold anything.
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        text(user.as_str());
        text(&member_since.timestamp_micros().to_string());
        for Assignment {
            role,
            target,
            application_roles,
        } in assignments
        {
            text(role);
            text(&target.to_string());
            match application_roles {
                ApplicationRoles::Mapped => text("mapped"),
                ApplicationRoles::Exactly(roles) => {
                    text(&roles.len().to_string());
                    for role in roles {
                        text(role.as_str());
                    }
                }
            }
        }
        let whole: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        Self(half)
    }

    /// The sight that [`Self::bytes`] gave; `None` where the length is another one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// The bytes to store.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How a member looks about whom nothing is left to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What the last read showed.
    pub sight: Sight,
    /// When the first of the grants ends: from then on it says nothing any more.
    pub until: Timestamp,
}

impl Settled {
    /// How a member looks where a read that shows the same would change nothing before `until`: every grant is active
    /// and seen, all that is owned is wanted, seen and without trouble. `None` for everybody else.
    #[must_use]
    pub fn of(record: &MemberRecord) -> Option<Self> {
        let MemberRecord {
            key,
            version: _,
            member_since,
            grants,
            owned,
            invitation,
            last_seen,
            absent_since,
            backoff,
            check_at,
            isolate_adds,
            drifts,
            watched,
            reapplied: _,
            due: _,
            evidence: _,
        } = record;
        let (Subject::Member(user), Some(since), Some(seen)) =
            (&key.subject, member_since, last_seen)
        else {
            return None;
        };
        let is_calm = invitation.is_none()
            && absent_since.is_none()
            && backoff.is_none()
            && check_at.is_none()
            && !isolate_adds
            && drifts.is_empty()
            && watched.is_empty();
        if !is_calm {
            return None;
        }
        let mut until: Option<Timestamp> = None;
        let mut wanted = BTreeSet::new();
        for grant in grants {
            let (GrantState::Active { .. }, Some(ends_at)) = (&grant.state, grant.ends_at()) else {
                return None;
            };
            until = Some(until.map_or(ends_at, |earlier| earlier.min(ends_at)));
            wanted.extend(grant.assignments.iter().map(|held| &held.assignment));
        }
        let is_settled = owned.iter().all(|row| {
            wanted.contains(&row.assignment)
                && row.phase == Phase::Live
                && row.seen
                && row.last_write.kind == WriteKind::Add
                && row.echo_until.is_none()
                && row.removal_echo_until.is_none()
                && row.must_survive.is_empty()
                && row.blocked.is_none()
                && !row.isolate
        });
        let is_seen = wanted
            .iter()
            .all(|assignment| seen.assignments.contains(*assignment));
        (is_settled && is_seen).then_some(Self {
            sight: Sight::of(user, *since, &seen.assignments),
            until: until?,
        })
    }
}

/// Members that are kept together: one allocation for all grows by doubling, and the C library keeps what such a large
/// one gives back for good, once for each thread.
const PER_LEAF: usize = 512;

/// How a known member should look, and where the name ends among those of its leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    end: u32,
    sight: Option<Sight>,
}

/// Some members in the order of their ids, the ids joined into one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Leaf {
    names: String,
    entries: Vec<Entry>,
}

impl Leaf {
    fn name(&self, at: usize) -> &str {
        let end = |entry: &Entry| entry.end as usize;
        let start = at
            .checked_sub(1)
            .and_then(|before| self.entries.get(before))
            .map_or(0, end);
        let end = self.entries.get(at).map_or(0, end);
        self.names.get(start..end).unwrap_or_default()
    }

    fn last(&self) -> &str {
        self.name(self.entries.len().saturating_sub(1))
    }
}

/// Members with what they should look like. Some forty bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// All but the last are full.
    leaves: Vec<Leaf>,
}

impl Known {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member who looks like `sight`, or like nothing that is known. Members come in the order of their ids;
    /// answers whether this one did, and leaves it out otherwise.
    pub fn push(&mut self, user: &UserId, sight: Option<Sight>) -> bool {
        let id = user.as_str();
        if self.leaves.last().is_some_and(|leaf| leaf.last() >= id) {
            return false;
        }
        let is_full = |leaf: &Leaf| leaf.entries.len() == PER_LEAF;
        if self.leaves.last().is_none_or(is_full) {
            self.leaves.push(Leaf::default());
        }
        let Some(leaf) = self.leaves.last_mut() else {
            return false;
        };
        let Ok(end) = u32::try_from(leaf.names.len() + id.len()) else {
            return false;
        };
        leaf.names.push_str(id);
        leaf.entries.push(Entry { end, sight });
        if is_full(leaf) {
            leaf.names.shrink_to_fit();
        }
        true
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.entries.len()).sum()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Whether a member is among them.
    #[must_use]
    pub fn contains(&self, user: &UserId) -> bool {
        self.place(user).is_some()
    }

    /// Where a member stands among all of them, and how the member should look.
    fn place(&self, user: &UserId) -> Option<(usize, Option<Sight>)> {
        let id = user.as_str();
        let number = self.leaves.partition_point(|leaf| leaf.last() < id);
        let leaf = self.leaves.get(number)?;
        let (mut low, mut high) = (0, leaf.entries.len());
        while low < high {
            let middle = low.midpoint(high);
            if leaf.name(middle) < id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let entry = leaf.entries.get(low).filter(|_| leaf.name(low) == id)?;
        Some((number * PER_LEAF + low, entry.sight))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.leaves
            .iter()
            .flat_map(|leaf| (0..leaf.entries.len()).map(|at| leaf.name(at)))
    }
}

/// What became of a known member in a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Not asked for.
    Stranger,
    /// Shown exactly as known: need not be kept.
    Alike,
    /// Shown otherwise: to be kept.
    Different,
    /// Shown otherwise, with no room left: the next read may have some.
    NoRoom,
    /// Shown before in the same read, which makes the read ambiguous: to be kept.
    Again,
}

/// Members and assignments together that are kept of one read for being different: some 4 MiB.
pub const ROOM: usize = 16_384;

/// Known members as a read shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognized {
    known: Arc<Known>,
    shown: Vec<bool>,
    alike: Vec<bool>,
    room: usize,
}

impl Recognized {
    /// Nobody was shown yet; at most `room` members and assignments are to be kept.
    #[must_use]
    pub fn new(known: Arc<Known>, room: usize) -> Self {
        let nobody = vec![false; known.len()];
        Self {
            known,
            shown: nobody.clone(),
            alike: nobody,
            room,
        }
    }

    /// Takes note of a member that is shown.
    pub fn meet(&mut self, member: &ObservedMember) -> Met {
        let Some((place, wanted)) = self.known.place(&member.user_id) else {
            return Met::Stranger;
        };
        if std::mem::replace(&mut self.shown[place], true) {
            self.alike[place] = false;
            return Met::Again;
        }
        let ObservedMember {
            user_id,
            member_since,
            assignments,
            ..
        } = member;
        if wanted.is_some_and(|sight| sight == Sight::of(user_id, *member_since, assignments)) {
            self.alike[place] = true;
            return Met::Alike;
        }
        // The first always fits, so that read by read everybody gets a turn.
        if self.room == 0 {
            return Met::NoRoom;
        }
        self.room = self.room.saturating_sub(1 + assignments.len());
        Met::Different
    }

    /// Whether these are the members that somebody asked for.
    #[must_use]
    pub fn is_of(&self, known: &Arc<Known>) -> bool {
        Arc::ptr_eq(&self.known, known)
    }

    /// How many were shown exactly as known.
    #[must_use]
    pub fn alike(&self) -> usize {
        self.alike.iter().filter(|alike| **alike).count()
    }

    /// Everybody who was not shown exactly as known, and whether shown at all.
    pub fn others(&self) -> impl Iterator<Item = (UserId, bool)> {
        let both = self.shown.iter().zip(&self.alike);
        let names = self.known.names().zip(both);
        names
            .filter(|(_, (_, alike))| !**alike)
            .map(|(name, (shown, _))| (UserId::parse(name).expect("the name of a user id"), *shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::assignment::Target;
    use crate::domain::ids::DeploymentId;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("well formed")
    }

    fn since(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn viewer(deployment: &str) -> Assignment {
        Assignment {
            role: "deployment-viewer".to_owned(),
            target: Target::Deployment {
                id: DeploymentId::parse(deployment).expect("well formed"),
            },
            application_roles: ApplicationRoles::Mapped,
        }
    }

    fn shown(id: &str, deployments: &[&str]) -> ObservedMember {
        ObservedMember {
            user_id: user(id),
            member_since: since(0),
            email: None,
            name: String::new(),
            assignments: deployments.iter().map(|id| viewer(id)).collect(),
        }
    }

    fn sight(member: &ObservedMember) -> Sight {
        Sight::of(&member.user_id, member.member_since, &member.assignments)
    }

    #[test]
    fn whatever_differs_looks_different() {
        let mut none = viewer("a");
        none.application_roles = ApplicationRoles::Exactly(BTreeSet::new());
        let mut joined = viewer("a");
        joined.role = "deployment-viewer on deployment/a".to_owned();
        let sets = [
            BTreeSet::new(),
            BTreeSet::from([viewer("a")]),
            BTreeSet::from([viewer("b")]),
            BTreeSet::from([viewer("a"), viewer("b")]),
            BTreeSet::from([none]),
            BTreeSet::from([joined]),
        ];
        let mut seen = BTreeSet::new();
        for set in &sets {
            for (who, when) in [("1", 0), ("2", 0), ("1", 1)] {
                assert!(
                    seen.insert(Sight::of(&user(who), since(when), set)),
                    "{set:?}"
                );
            }
        }
        for one in seen {
            assert_eq!(Sight::from_bytes(one.bytes()), Some(one));
        }
        assert_eq!(Sight::from_bytes(b"short"), None);
    }

    #[test]
    fn who_looks_the_same_is_not_kept_and_who_is_missing_is_told_apart() {
        let (one, two) = (shown("1", &["a"]), shown("2", &["a"]));
        let mut known = Known::new();
        for (who, sight) in [
            ("1", Some(sight(&one))),
            ("2", Some(sight(&two))),
            ("3", None),
        ] {
            assert!(known.push(&user(who), sight), "{who}");
        }
        assert!(!known.push(&user("2"), None), "out of order is left out");
        assert!(!known.push(&user("3"), None), "nobody is there twice");
        assert!(known.contains(&user("3")) && !known.contains(&user("4")));
        let known = Arc::new(known);
        let mut read = Recognized::new(Arc::clone(&known), ROOM);
        assert_eq!(read.meet(&one), Met::Alike);
        assert_eq!(read.meet(&shown("2", &["b"])), Met::Different);
        assert_eq!(read.meet(&shown("9", &[])), Met::Stranger);
        assert_eq!(read.alike(), 1);
        let others: Vec<_> = read.others().collect();
        assert_eq!(others, [(user("2"), true), (user("3"), false)]);
        assert!(read.is_of(&known) && !read.is_of(&Arc::new(Known::new())));
        assert_eq!(read.meet(&one), Met::Again, "two of one id prove nothing");
        assert_eq!(read.alike(), 0);
    }

    #[test]
    fn a_large_organization_is_known_to_the_last_member() {
        let ids: Vec<String> = (0..3 * PER_LEAF + 1)
            .map(|number| format!("{:05}", 2 * number))
            .collect();
        let looks = |number: usize| {
            number
                .is_multiple_of(2)
                .then(|| sight(&shown(&ids[number], &["a"])))
        };
        let mut known = Known::new();
        for (number, id) in ids.iter().enumerate() {
            assert!(!known.contains(&user(id)), "{id}");
            assert!(known.push(&user(id), looks(number)), "{id}");
            assert!(!known.push(&user(id), None), "{id} twice");
            assert_eq!(known.len(), number + 1);
        }
        for id in ["0", "00000-", "00511", "01023", "99999"] {
            assert!(!known.contains(&user(id)), "{id}");
        }
        let known = Arc::new(known);
        let mut read = Recognized::new(Arc::clone(&known), usize::MAX);
        for (number, id) in ids.iter().enumerate() {
            let expected = match looks(number) {
                Some(_) => Met::Alike,
                None => Met::Different,
            };
            assert_eq!(read.meet(&shown(id, &["a"])), expected, "{id}");
        }
        let others: Vec<String> = read.others().map(|(id, _)| id.to_string()).collect();
        let odd: Vec<String> = ids.iter().skip(1).step_by(2).cloned().collect();
        assert_eq!(others, odd);
    }

    #[test]
    fn there_is_room_for_the_first_and_then_for_as_many_as_fit() {
        let mut known = Known::new();
        for who in ["1", "2", "3"] {
            known.push(&user(who), None);
        }
        let known = Arc::new(known);
        let mut read = Recognized::new(Arc::clone(&known), 2);
        let met = |read: &mut Recognized| -> Vec<Met> {
            let each = ["1", "2", "3"].iter();
            each.map(|who| read.meet(&shown(who, &["a", "b"])))
                .collect()
        };
        assert_eq!(met(&mut read), [Met::Different, Met::NoRoom, Met::NoRoom]);
        // A member takes a place besides those of what it holds.
        let mut roomy = Recognized::new(known, 3);
        assert_eq!(met(&mut roomy), [Met::Different, Met::NoRoom, Met::NoRoom]);
        assert!(
            read.others().all(|(_, shown)| shown),
            "shown, not looked at"
        );
    }
}
