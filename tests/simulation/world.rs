//! The organization upstream: who holds what, who put it there, and what is still under way to it.
//!
//! Owns the truth. Every entry remembers its giver, every call its time. Never knows what the connector believes,
//! but for one thing: whether an entry that an administrator gives twice can still be told apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use latchkey::domain::Timestamp;
use latchkey::domain::assignment::Target;
use latchkey::domain::member::WriteKind;

use super::cast::{Set, bit};
use super::clock::Ms;

/// Who put an entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Giver {
    Ours,
    /// Standing access, an administrator, a sign-in.
    Other,
    /// Somebody else gave what was ours already: nobody can tell the two apart.
    Both,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) giver: Giver,
    pub(crate) since: Ms,
    /// Since when no grant wants it; for entries of ours.
    pub(crate) unwanted_since: Option<Ms>,
}

#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) member_since: Timestamp,
    pub(crate) joined: Ms,
    pub(crate) held: BTreeMap<usize, Entry>,
}

impl Person {
    pub(crate) fn set(&self) -> Set {
        self.held.keys().fold(0, |set, pair| set | bit(*pair))
    }
}

/// What a person was at an instant, for reads that lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) at: Ms,
    pub(crate) was: Option<(Timestamp, Set)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invited {
    pub(crate) token: String,
    pub(crate) who: usize,
    pub(crate) created: Ms,
    pub(crate) expires: Ms,
    pub(crate) ours: bool,
    /// Upstream lied about it, or made it twice: it may stay, since it carries no roles.
    pub(crate) excused: bool,
}

/// A request that is under way.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    Write {
        kind: WriteKind,
        who: usize,
        set: Set,
        /// Those that are put back as somebody else's.
        back: Set,
        /// The connector cannot know that it may still take effect: it was answered before, or could not be recorded.
        again: bool,
        sent: Ms,
    },
    Invite {
        who: usize,
        lasts: Ms,
        again: bool,
    },
    Cancel {
        token: String,
    },
}

/// An entry of somebody else that a removal of ours took along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) at: Ms,
    /// Whether it has to be put back: it was known, and nothing else was wrong.
    pub(crate) owed: bool,
}

/// What upstream decided about a request when it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Invited(Invited),
    Refused(u16, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Changes when the connector loads another one.
    pub(crate) pin: u64,
    pub(crate) valid: bool,
    /// Whether it has the rights of an owner.
    pub(crate) owner: bool,
}

/// A person and an assignment.
pub(crate) type Spot = (usize, usize);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) people: Vec<Option<Person>>,
    pub(crate) past: Vec<Vec<Past>>,
    pub(crate) pending: BTreeMap<(Ms, u64), Pending>,
    pub(crate) results: BTreeMap<u64, Verdict>,
    pub(crate) next: u64,
    /// When something last took effect.
    pub(crate) landed: Ms,
    pub(crate) invitations: Vec<Invited>,
    pub(crate) tokens: u32,
    pub(crate) invitations_sent: VecDeque<Ms>,
    /// Deployments that are shut down.
    pub(crate) hidden: BTreeSet<Target>,
    /// Deployments that do not exist (any more).
    pub(crate) deleted: BTreeSet<Target>,
    pub(crate) key: Key,
    /// Nothing is answered well until then.
    pub(crate) down_until: Ms,
    /// Calls of the present window.
    pub(crate) calls: VecDeque<Ms>,
    /// Entries of others that a removal of ours took along.
    pub(crate) lost: BTreeMap<Spot, Lost>,
    /// When an entry of somebody else last went away.
    pub(crate) other_gone: BTreeMap<Spot, Ms>,
    /// When somebody else last took away an entry of ours.
    pub(crate) taken: BTreeMap<Spot, Ms>,
    /// When somebody else last took away an entry of somebody else.
    pub(crate) withdrawn: BTreeMap<Spot, Ms>,
    /// Additions that were refused: for whom, of what, sent when.
    pub(crate) refused: BTreeSet<(usize, Set, Ms)>,
}

impl World {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            people: vec![None; size],
            past: vec![Vec::new(); size],
            pending: BTreeMap::new(),
            results: BTreeMap::new(),
            next: 0,
            landed: 0,
            invitations: Vec::new(),
            tokens: 0,
            invitations_sent: VecDeque::new(),
            hidden: BTreeSet::new(),
            deleted: BTreeSet::new(),
            key: Key {
                pin: 1,
                valid: true,
                owner: true,
            },
            down_until: 0,
            calls: VecDeque::new(),
            lost: BTreeMap::new(),
            other_gone: BTreeMap::new(),
            taken: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    pub(crate) fn entry(&self, (who, pair): Spot) -> Option<&Entry> {
        self.people[who].as_ref()?.held.get(&pair)
    }

    pub(crate) fn set(&self, who: usize) -> Set {
        self.people[who].as_ref().map_or(0, Person::set)
    }

    /// Keeps what a person was, for reads that show the past.
    pub(crate) fn keep(&mut self, who: usize, at: Ms) {
        let was = self.people[who]
            .as_ref()
            .map(|person| (person.member_since, person.set()));
        let past = &mut self.past[who];
        if past.len() > 64 {
            past.drain(..32);
        }
        past.push(Past { at, was });
    }

    /// What a person was at an instant.
    pub(crate) fn was(&self, who: usize, at: Ms) -> Option<(Timestamp, Set)> {
        let past = &self.past[who];
        past.iter()
            .rev()
            .find(|past| past.at <= at)
            .or(past.first())
            .and_then(|past| past.was)
    }

    /// How many hold the role of an owner.
    pub(crate) fn owners(&self, owner: usize) -> usize {
        self.people
            .iter()
            .flatten()
            .filter(|person| person.held.contains_key(&owner))
            .count()
    }

    /// Queues a request that takes effect at an instant; answers its number.
    pub(crate) fn queue(&mut self, at: Ms, what: Pending) -> u64 {
        self.next += 1;
        self.pending.insert((at, self.next), what);
        self.next
    }

    /// A fresh invitation.
    pub(crate) fn invitation(&mut self, who: usize, at: Ms, lasts: Ms, ours: bool) -> Invited {
        self.tokens += 1;
        Invited {
            token: format!("t{}", self.tokens),
            who,
            created: at,
            expires: at + lasts,
            ours,
            excused: false,
        }
    }
}
