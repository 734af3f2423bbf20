//! What must hold after every step. The numbers are those of `docs/simulation.md`.
//!
//! Owns the bounds: how late is late, and which faults excuse it for how long. Never changes the world.

use latchkey::domain::assignment::Assignment;
use latchkey::domain::event::EventKind;
use latchkey::domain::grant::Grant;
use latchkey::domain::member::{MemberRecord, Subject, WriteKind};
use latchkey::ports::ledger::MemberCommit;

use super::cast::{Set, each};
use super::clock::{MINUTE, Ms, SECOND};
use super::model::{Stand, is_superseded};
use super::stage::{Inner, say};
use super::world::Giver;

/// Without any fault access is gone this long after its end.
pub(crate) const LATE: Ms = 20 * SECOND;
/// Without any fault access that vanished by our own doing, or standing access that we took along, is back after so
/// long: the sweep of every minute finds it at the latest.
pub(crate) const BACK: Ms = 100 * SECOND;
/// What a failed call costs at most: the longest pause, and a turn.
pub(crate) const PAUSE: Ms = 90 * SECOND;
/// Loads of one record in a minute that are still no busy loop.
pub(crate) const LOADS: u32 = 1_200;

/// What a commit changes, as far as the model wants to know.
#[derive(Debug)]
pub(crate) struct News {
    subject: Subject,
    owned: Vec<Assignment>,
    grants: Vec<Grant>,
    /// What is told of calls.
    calls: Vec<EventKind>,
    /// Whether an invitation is about to be sent, or it is known what came of one.
    invites: Option<bool>,
}

impl News {
    pub(crate) fn of(commit: &MemberCommit) -> Self {
        let MemberCommit { record, audit, .. } = commit;
        let is_call = |kind: &&EventKind| {
            matches!(
                kind,
                EventKind::CallIntended { .. } | EventKind::CallEnded { .. }
            )
        };
        let calls = audit.iter().map(|event| &event.kind).filter(is_call);
        let invites = audit.iter().rev().find_map(|event| {
            if let EventKind::InvitationIntended { action } = &event.kind {
                Some(action == "send")
            } else {
                let known = matches!(
                    event.kind,
                    EventKind::InvitationChanged { .. } | EventKind::CallMade { .. }
                );
                known.then_some(false)
            }
        });
        Self {
            subject: record.key.subject.clone(),
            owned: record
                .owned
                .iter()
                .map(|row| row.assignment.clone())
                .collect(),
            grants: record.grants.clone(),
            calls: calls.cloned().collect(),
            invites,
        }
    }
}

impl Inner {
    /// Checks everything about everybody.
    pub(crate) fn check_all(&mut self) {
        for who in 0..self.cast.len() {
            self.check(who);
        }
        if self.world.down_until > self.now
            || self.ledger_down_until > self.now
            || self.ledger_read_only_until > self.now
            || self.ledger_stalls_until > self.now
            || !self.crash.alive
            || !self.world.key.valid
            || !self.world.key.owner
        {
            self.excuse(None, PAUSE);
        }
    }

    /// Checks one person.
    pub(crate) fn check(&mut self, who: usize) {
        let (now, wall) = (self.now, self.wall);
        self.excuse_last_owner(who);
        let excused = self.excused_until(who);
        let mut found: Vec<(&'static str, String)> = Vec::new();
        if let Some(person) = &mut self.world.people[who] {
            for (pair, entry) in &mut person.held {
                if entry.giver != Giver::Ours {
                    continue;
                }
                if self.model.wants(who, *pair, wall) {
                    entry.unwanted_since = None;
                    continue;
                }
                let since = *entry.unwanted_since.get_or_insert(now);
                if now > (since + LATE).max(excused) {
                    // Said once.
                    entry.giver = Giver::Both;
                    found.push((
                        "I1 bounded lateness",
                        format!(
                            "{} is still there, {} s after it had to go",
                            self.cast.names[*pair],
                            (now - since) / SECOND
                        ),
                    ));
                }
            }
        }
        let late: Vec<usize> = self
            .world
            .lost
            .range((who, 0)..(who + 1, 0))
            .filter(|(_, lost)| lost.owed && now > (lost.at + BACK).max(excused))
            .map(|((_, pair), _)| *pair)
            .collect();
        for pair in late {
            self.world.lost.remove(&(who, pair));
            found.push((
                "I3 standing is sacred",
                format!(
                    "{} was standing, a removal of ours took it along, and it is not put back",
                    self.cast.names[pair]
                ),
            ));
        }
        self.check_active(who, excused, &mut found);
        for (rule, text) in found {
            self.violate(rule, Some(who), text);
        }
    }

    /// Active grants have what they promise.
    fn check_active(&mut self, who: usize, excused: Ms, found: &mut Vec<(&'static str, String)>) {
        let (now, wall) = (self.now, self.wall);
        let held = self.world.set(who);
        for id in &self.model.open[who] {
            let Some(promise) = self.model.promises.get_mut(id) else {
                continue;
            };
            let Stand::Active { since, .. } = promise.stand else {
                promise.missing.clear();
                continue;
            };
            if !promise.holds(wall) {
                promise.missing.clear();
                continue;
            }
            for pair in each(promise.set) {
                let taken = self.world.taken.get(&(who, pair));
                if held & self.cast.covered_by[pair] != 0 {
                    promise.missing.remove(&pair);
                    continue;
                }
                let missing = *promise.missing.entry(pair).or_insert(now);
                let by_others = taken.is_some_and(|taken| *taken >= since - 90 * SECOND);
                if !by_others && now > (missing + BACK).max(excused) {
                    promise.missing.insert(pair, Ms::MAX / 2);
                    found.push((
                        "I2 no early loss",
                        format!(
                            "grant {id} is active and {} is missing for {} s, though nobody else took it",
                            self.cast.names[pair],
                            (now - missing) / SECOND
                        ),
                    ));
                }
            }
        }
    }

    /// Nobody can remove the last owner: as long as it may be the last one, it waits.
    fn excuse_last_owner(&mut self, who: usize) {
        let owner = self.cast.owner;
        let is_ours = self
            .world
            .entry((who, owner))
            .is_some_and(|entry| entry.giver == Giver::Ours);
        if !is_ours {
            return;
        }
        // One whose own removal was not answered may be gone at any moment.
        let certain = (0..self.cast.len())
            .filter(|other| *other != who && self.model.owner_in_doubt[*other] < self.now)
            .filter(|other| self.world.entry((*other, owner)).is_some())
            .count();
        if certain == 0 {
            let pause = self.setup.blocked_retry + PAUSE;
            self.excuse(Some(who), pause);
        }
    }

    /// A mutation is about to leave. Answers which assignments it puts back as somebody else's, and whether it goes
    /// without a record.
    pub(crate) fn check_sending(&mut self, kind: WriteKind, who: usize, set: Set) -> (Set, bool) {
        let wall = self.wall;
        let mut back = 0;
        let intended =
            self.model.intents[who].is_some_and(|intent| intent.kind == kind && intent.set == set);
        let unrecorded = kind == WriteKind::Remove && self.unrecorded[who];
        if !intended && !unrecorded {
            let text = format!(
                "{kind:?} {} leaves without a durable intent",
                self.cast.show(set)
            );
            self.violate("I7 intent before effect", Some(who), text);
        }
        if self.model.unended[who] && !unrecorded {
            self.violate(
                "I7 audit complete",
                Some(who),
                "the mutation before this one has no outcome in the audit".to_owned(),
            );
        }
        self.model.unended[who] = !unrecorded;
        match kind {
            WriteKind::Add => {
                for pair in each(set) {
                    if self.check_giving(who, pair) {
                        back |= 1 << pair;
                    }
                }
                self.model.gave(who, set, self.now, wall);
            }
            WriteKind::Remove => {
                if set & (1 << self.cast.owner) != 0 {
                    // Until it is answered.
                    self.model.owner_in_doubt[who] = self.now + self.setup.look_after + PAUSE;
                }
                for pair in each(set) {
                    let standing = self
                        .world
                        .entry((who, pair))
                        .is_some_and(|entry| entry.giver == Giver::Other);
                    if standing {
                        let text = format!(
                            "{} is not ours, and a removal names it",
                            self.cast.names[pair]
                        );
                        self.violate("I3 standing is sacred", Some(who), text);
                    }
                }
            }
        }
        (back, !intended)
    }

    /// Answers whether an assignment that is about to be given is put back as somebody else's.
    fn check_giving(&mut self, who: usize, pair: usize) -> bool {
        let now = self.now;
        if let Some(person) = &mut self.world.people[who]
            && let Some(entry) = person.held.get_mut(&pair)
            && entry.giver == Giver::Other
            && entry.since + 30 * SECOND
                > now.min(self.excused[who].max(self.excused_all) + 30 * SECOND)
        {
            // Given by somebody else between our last look and this request: nobody can tell from now on.
            entry.giver = Giver::Both;
        }
        let wanted_lately = self.model.promises.values().any(|promise| {
            promise.who == who
                && promise.set & (1 << pair) != 0
                && match promise.stand {
                    Stand::Waiting => false,
                    Stand::Giving { .. } | Stand::Active { .. } => true,
                    Stand::Leaving { since } | Stand::Ended { since } => since + LATE >= now,
                }
        });
        let lost = self.world.lost.get(&(who, pair));
        // Taken along and not back yet: putting it back is right, however late trouble makes it.
        let may_put_back = lost.is_some() || self.may_put_back(who, pair);
        let lost = lost.is_some_and(|lost| lost.owed);
        // Where both may be meant, what is recorded as ours is ours.
        let owned = self.model.owned[who] & (1 << pair) != 0;
        let back = lost || (!(wanted_lately && owned) && may_put_back);
        if back {
            // Tried as long as it is refused.
            self.world.other_gone.insert((who, pair), now);
        }
        if !back && self.is_endless(who, pair) {
            let text = format!(
                "{} is given, and no end of it is durable",
                self.cast.names[pair]
            );
            self.violate("I1 an end before the beginning", Some(who), text);
        }
        if !wanted_lately && !back {
            let text = format!(
                "{} is given, though no grant wants it and it was not standing",
                self.cast.names[pair]
            );
            self.violate("I4 no resurrection", Some(who), text);
        }
        let rejoined = self.world.people[who]
            .as_ref()
            .map_or(Ms::MIN, |person| person.joined);
        let stale = self.model.open(who).all(|promise| {
            promise.set & (1 << pair) == 0
                || (promise.joined.is_some_and(|joined| joined < rejoined)
                    && promise.gave.is_some_and(|gave| gave < rejoined))
        });
        let late = now > (rejoined + 90 * SECOND).max(self.excused_until(who));
        if wanted_lately && !back && stale && late {
            let text = format!(
                "{} is given for a grant of an earlier membership",
                self.cast.names[pair]
            );
            self.violate("I4 no resurrection", Some(who), text);
        }
        back
    }

    /// Whether every grant that an assignment is given for lacks an end in the ledger.
    fn is_endless(&self, who: usize, pair: usize) -> bool {
        let mut wanting = self
            .model
            .open(who)
            .filter(|promise| promise.set & (1 << pair) != 0 && promise.stand != Stand::Waiting)
            .peekable();
        wanting.peek().is_some() && wanting.all(|promise| !promise.bounded)
    }

    /// The ledger stored a member.
    pub(crate) fn committed(&mut self, news: &News) {
        self.tally.commits += 1;
        let now = self.now;
        let Some(who) = self.cast.subject(&news.subject) else {
            return;
        };
        self.unrecorded[who] = false;
        if let Some(invites) = news.invites {
            // Until it is known what came of it; when the process dies before, nobody knows whether it was sent.
            self.model.invitation_intended[who] = invites.then_some(now);
        }
        self.model.audited(&self.cast, who, &news.calls);
        if matches!(news.subject, Subject::Member(_)) {
            let owned = self.cast.set(&news.owned);
            let dropped = self.model.owned[who] & !owned;
            self.model.owned[who] = owned;
            if let Some(person) = &mut self.world.people[who] {
                for pair in each(dropped) {
                    if let Some(entry) = person.held.get_mut(&pair)
                        && entry.giver == Giver::Both
                    {
                        entry.giver = Giver::Other;
                    }
                }
            }
        }
        let changed: Vec<_> = news
            .grants
            .iter()
            .filter_map(|grant| Some((grant, self.model.changed(grant, now)?)))
            .collect();
        for (grant, before) in changed {
            say!(self, Some(who), "ledger: {grant}, {:?}", grant.state);
            if is_superseded(grant) {
                self.check_superseded(who, grant, before);
            }
            if grant.state.is_ended() && before != Stand::Waiting {
                self.check_ended(who, grant);
            }
        }
    }

    fn check_superseded(&mut self, who: usize, grant: &Grant, before: Stand) {
        if matches!(before, Stand::Leaving { .. }) {
            return;
        }
        let Some(promise) = self.model.promises.get(&grant.id) else {
            return;
        };
        let by_others = each(promise.set).any(|pair| self.world.taken.contains_key(&(who, pair)));
        if !by_others {
            let text = format!("{grant} is superseded, though nobody took anything of it away");
            self.violate("I2 no early loss", Some(who), text);
        }
    }

    /// An end is told only of what a complete read no longer showed.
    fn check_ended(&mut self, who: usize, grant: &Grant) {
        let (now, wall) = (self.now, self.wall);
        let Some(promise) = self.model.promises.get(&grant.id) else {
            return;
        };
        let set = promise.set;
        let joined = self.world.people[who].as_ref().map(|person| person.joined);
        if promise.gave.is_none() || (promise.joined.is_some() && promise.joined != joined) {
            // It gave nothing, or belonged to an earlier membership.
            return;
        }
        for pair in each(set) {
            let still = self
                .world
                .entry((who, pair))
                .is_some_and(|entry| entry.giver == Giver::Ours && entry.since + MINUTE < now);
            // Another grant on its way out may still hold it.
            let shared = self
                .model
                .open(who)
                .any(|other| other.set & (1 << pair) != 0 && other.stand != Stand::Waiting);
            if still && !shared && !self.model.wants(who, pair, wall) {
                let text = format!(
                    "{grant} is told to have ended, and {} is still there",
                    self.cast.names[pair]
                );
                self.violate("I4 ended means gone", Some(who), text);
            }
        }
    }

    /// A record is loaded; too often means a loop without pause.
    pub(crate) fn loaded(&mut self, who: usize, record: &MemberRecord) {
        self.tally.passes += 1;
        let minute = self.now / MINUTE;
        let (at, count) = self.loads.entry(who).or_insert((minute, 0));
        if *at != minute {
            (*at, *count) = (minute, 0);
        }
        *count += 1;
        if *count == LOADS {
            let text = format!("its record is loaded {LOADS} times in one minute: {record:#?}");
            self.violate("I9 no busy loop", Some(who), text);
            // Time would stand still otherwise.
            self.die();
        }
    }
}
