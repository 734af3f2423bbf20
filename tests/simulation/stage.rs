//! The stage of a run: everything that is shared, behind one lock, with late effects landed before anybody looks.
//!
//! Owns the order of events. Never waits while it holds the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use latchkey::domain::Timestamp;
use latchkey::domain::member::WriteKind;
use latchkey::ports::Clock;
use tokio::sync::Notify;

use super::cast::{Cast, Set, each};
use super::clock::{Dice, MINUTE, Ms, SECOND, SimClock};
use super::model::Model;
use super::story::Story;
use super::unknowns::{Delete, Unknowns};
use super::weather::{Setup, Weather};
use super::world::{Entry, Giver, Lost, Pending, Verdict, World};

/// A line of the story, told only when somebody listens.
macro_rules! say {
    ($on:expr, $who:expr, $($text:tt)+) => {{
        let text = $on.story.is_told().then(|| format!($($text)+));
        let (at, who) = ($on.now, $who);
        $on.story.say(at, who, line!(), text);
    }};
}
pub(crate) use say;

/// Something that must never be.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) at: Ms,
    pub(crate) rule: &'static str,
    pub(crate) who: Option<usize>,
    pub(crate) text: String,
}

/// What a run came across.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) grants: u64,
    pub(crate) crashes: u64,
    pub(crate) commits: u64,
    pub(crate) passes: u64,
}

/// When the process dies next.
#[derive(Debug)]
pub(crate) struct Crash {
    /// Number of the process that lives.
    pub(crate) life: u64,
    pub(crate) alive: bool,
    /// It dies at so many more points.
    pub(crate) countdown: Option<u32>,
    pub(crate) died: Arc<Notify>,
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) now: Ms,
    pub(crate) wall: Timestamp,
    /// What the wall clock showed when the run began.
    start: Timestamp,
    pub(crate) cast: Cast,
    pub(crate) unknowns: Unknowns,
    pub(crate) weather: Weather,
    pub(crate) setup: Setup,
    /// Chance of faults.
    pub(crate) dice: Dice,
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) story: Story,
    pub(crate) tally: Tally,
    pub(crate) crash: Crash,
    pub(crate) wrong: Vec<Violation>,
    /// Until when what is late or missing of a person is the fault of a fault.
    pub(crate) excused: Vec<Ms>,
    /// The same, for everybody.
    pub(crate) excused_all: Ms,
    /// The ledger: until when it refuses writes, refuses everything, or stalls.
    pub(crate) ledger_read_only_until: Ms,
    pub(crate) ledger_down_until: Ms,
    pub(crate) ledger_stalls_until: Ms,
    /// A commit of this person was refused by the ledger just now: a removal may go without a record.
    pub(crate) unrecorded: Vec<bool>,
    /// Since when the living process has been told upstream's limit.
    pub(crate) told_since: Option<Ms>,
    /// Whether the last read showed an owner.
    pub(crate) sees_owners: Option<bool>,
    /// Loads of each person's record in the present minute.
    pub(crate) loads: BTreeMap<usize, (Ms, u32)>,
}

/// The shared stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) clock: Arc<SimClock>,
    inner: Mutex<Inner>,
}

impl Stage {
    pub(crate) fn new(
        clock: Arc<SimClock>,
        seed: u64,
        weather: Weather,
        setup: Setup,
        told: bool,
    ) -> Self {
        let cast = Cast::new();
        let size = cast.len();
        let inner = Inner {
            now: 0,
            wall: clock.now(),
            start: clock.now(),
            unknowns: Unknowns::draw(&mut Dice::new(seed, 1)),
            weather,
            setup,
            dice: Dice::new(seed, 2),
            world: World::new(size),
            model: Model::new(size),
            story: Story::new(told),
            tally: Tally::default(),
            crash: Crash {
                life: 0,
                alive: false,
                countdown: None,
                died: Arc::new(Notify::new()),
            },
            wrong: Vec::new(),
            excused: vec![0; size],
            excused_all: 0,
            ledger_read_only_until: 0,
            ledger_down_until: 0,
            ledger_stalls_until: 0,
            unrecorded: vec![false; size],
            told_since: None,
            sees_owners: None,
            loads: BTreeMap::new(),
            cast,
        };
        Self {
            clock,
            inner: Mutex::new(inner),
        }
    }

    /// The stage as it is now, late effects included.
    pub(crate) fn on(&self) -> MutexGuard<'_, Inner> {
        let mut on = self.inner.lock().expect("no code panics on the stage");
        on.now = self.clock.elapsed();
        on.wall = self.clock.now();
        on.land();
        on
    }

    /// A point where the process can die. Whoever belongs to a dead process stays here for ever.
    pub(crate) async fn point(&self, life: u64) {
        let dead = {
            let mut on = self.on();
            on.is_dead(life)
        };
        if dead {
            std::future::pending::<()>().await;
        }
    }
}

impl Inner {
    /// Whether a process is dead; counts down to the death of the living one.
    fn is_dead(&mut self, life: u64) -> bool {
        if self.crash.life != life || !self.crash.alive {
            return true;
        }
        match self.crash.countdown {
            Some(0) => {
                self.die();
                true
            }
            Some(left) => {
                self.crash.countdown = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Kills the process.
    pub(crate) fn die(&mut self) {
        self.crash.alive = false;
        self.crash.countdown = None;
        self.tally.crashes += 1;
        self.tally.faults += 1;
        self.excuse(None, 2 * MINUTE);
        say!(self, None, "the process is killed");
        self.crash.died.notify_one();
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now >= self.weather.calm_from
    }

    /// Something went wrong on purpose: what is late because of it within so much time is excused.
    pub(crate) fn excuse(&mut self, who: Option<usize>, lasts: Ms) {
        let until = self.now + lasts;
        match who {
            Some(who) => self.excused[who] = self.excused[who].max(until),
            None => self.excused_all = self.excused_all.max(until),
        }
    }

    /// What is excused for a while is excused for longer.
    pub(crate) fn lengthen_excuses(&mut self, by: Ms) {
        let by = by.min(self.setup.blocked_retry);
        let now = self.now;
        let all = self.excused.iter_mut().chain([&mut self.excused_all]);
        for until in all.filter(|until| **until > now) {
            *until += by;
        }
    }

    pub(crate) fn excused_until(&self, who: usize) -> Ms {
        self.excused[who].max(self.excused_all)
    }

    pub(crate) fn violate(&mut self, rule: &'static str, who: Option<usize>, text: String) {
        say!(self, who, "*** {rule}: {text}");
        if self.wrong.len() < 8 {
            self.wrong.push(Violation {
                at: self.now,
                rule,
                who,
                text,
            });
        }
    }

    /// Lets everything take effect whose time has come, in order.
    fn land(&mut self) {
        let until = self.now;
        while let Some(entry) = self.world.pending.first_entry() {
            let (at, number) = *entry.key();
            if at > until {
                break;
            }
            let what = entry.remove();
            self.now = at;
            self.world.landed = at;
            let verdict = match what {
                Pending::Write {
                    kind,
                    who,
                    set,
                    back,
                    again,
                    sent,
                } => self.write(kind, who, set, (back, again, sent)),
                Pending::Invite { who, lasts, again } => self.invite(who, lasts, again),
                Pending::Cancel { token } => self.cancel(&token),
            };
            self.world.results.insert(number, verdict);
        }
        self.now = until;
        self.world
            .invitations
            .retain(|open| open.expires + 30 * MINUTE > until);
    }

    /// A mutation takes effect, or is refused.
    fn write(
        &mut self,
        kind: WriteKind,
        who: usize,
        set: Set,
        (back, again, sent): (Set, bool, Ms),
    ) -> Verdict {
        let verdict = self.judge(kind, who, set);
        say!(
            self,
            Some(who),
            "upstream: {kind:?} {} of {}: {verdict:?}",
            self.cast.show(set),
            self.cast.name(who)
        );
        if verdict != Verdict::Done {
            if kind == WriteKind::Add {
                self.world.refused.insert((who, set, sent));
            }
            return verdict;
        }
        match kind {
            WriteKind::Add => self.add(who, set, back, sent),
            WriteKind::Remove => self.remove(who, set, again),
        }
        self.world.keep(who, self.now);
        self.check(who);
        verdict
    }

    /// Whether upstream does it at all. Authorisation is by id, and for all or for nothing.
    fn judge(&self, kind: WriteKind, who: usize, set: Set) -> Verdict {
        let unknowns = &self.unknowns;
        let held = self.world.set(who);
        if self.world.people[who].is_none() {
            return match unknowns.unknown_user {
                404 => Verdict::Refused(404, "user.not_found"),
                _ => Verdict::Refused(400, "role_assignments.invalid_target_user_id"),
            };
        }
        for pair in each(set) {
            let target = &self.cast.pairs[pair].target;
            if unknowns.hidden_blocks && self.world.hidden.contains(target) {
                return Verdict::Refused(403, "role_assignments.unauthorized_role_assignments");
            }
            if self.world.deleted.contains(target) {
                match unknowns.unknown_target {
                    403 => {
                        return Verdict::Refused(
                            403,
                            "role_assignments.unauthorized_role_assignments",
                        );
                    }
                    400 => return Verdict::Refused(400, "root.invalid_data"),
                    _ => {}
                }
            }
            let is_held = held & (1 << pair) != 0;
            match kind {
                WriteKind::Add if is_held && unknowns.add_held_is_error => {
                    return Verdict::Refused(400, "role_assignments.exists");
                }
                WriteKind::Remove if !is_held => {
                    let under_all = held & self.cast.covered_by[pair] != 0;
                    if under_all && unknowns.delete_under_all_is_error {
                        return Verdict::Refused(400, "root.invalid_data");
                    }
                    match unknowns.remove_missing {
                        403 => {
                            return Verdict::Refused(
                                403,
                                "role_assignments.unauthorized_role_assignments",
                            );
                        }
                        404 => return Verdict::Refused(404, "role_assignments.not_found"),
                        _ => {}
                    }
                }
                WriteKind::Add | WriteKind::Remove => {}
            }
            if kind == WriteKind::Remove
                && pair == self.cast.owner
                && is_held
                && self.world.owners(pair) == 1
                && unknowns.last_owner_removal_is_error
            {
                return Verdict::Refused(400, "organization.last_owner");
            }
        }
        Verdict::Done
    }

    fn add(&mut self, who: usize, set: Set, back: Set, sent: Ms) {
        let now = self.now;
        // Nobody looks for a second copy of what was refused for certain.
        let was_refused = self.world.refused.contains(&(who, set, sent));
        for pair in each(set) {
            if self.world.deleted.contains(&self.cast.pairs[pair].target) {
                continue;
            }
            self.world.lost.remove(&(who, pair));
            let Some(person) = &mut self.world.people[who] else {
                continue;
            };
            let withdrawn = self.world.withdrawn.get(&(who, pair));
            let giver = match back & (1 << pair) != 0 {
                // What was standing in an earlier membership is not standing in this one, nor is what somebody took
                // away while it was under way: it may stay, and may go.
                true if person.joined > sent || withdrawn.is_some_and(|at| *at > sent) => {
                    Giver::Both
                }
                true => Giver::Other,
                false if was_refused => Giver::Both,
                false => Giver::Ours,
            };
            person.held.entry(pair).or_insert(Entry {
                giver,
                since: now,
                unwanted_since: None,
            });
        }
    }

    fn remove(&mut self, who: usize, set: Set, again: bool) {
        let now = self.now;
        let named = |pair: usize| set & (1 << pair) != 0;
        let gone: Set = each(self.world.set(who))
            .filter(|held| {
                each(set).any(|one| {
                    let (held, one) = (&self.cast.pairs[*held], &self.cast.pairs[one]);
                    match self.unknowns.delete {
                        Delete::Exactly => held == one,
                        Delete::IgnoringApplicationRoles => {
                            held.role == one.role && held.target == one.target
                        }
                        Delete::WholeRole => held.role == one.role,
                    }
                })
            })
            .fold(0, |set, pair| set | (1 << pair));
        let Some(person) = &mut self.world.people[who] else {
            return;
        };
        for pair in each(gone) {
            let Some(entry) = person.held.remove(&pair) else {
                continue;
            };
            if again {
                // Carried out twice by upstream: to the connector this looks like somebody else's doing.
                self.world.taken.insert((who, pair), now);
            }
            if entry.giver == Giver::Ours {
                continue;
            }
            self.world.other_gone.insert((who, pair), now);
            // Nobody can protect what was given after the last look, which is at most a minute ago.
            let owed = !again
                && entry.since + 75 * SECOND < now
                && now > self.excused[who].max(self.excused_all);
            if !named(pair) && entry.giver == Giver::Other {
                self.world.lost.insert((who, pair), Lost { at: now, owed });
            }
        }
    }

    /// Whether putting an assignment back may be what anybody would do: it was somebody else's a while ago.
    pub(crate) fn may_put_back(&self, who: usize, pair: usize) -> bool {
        // While nothing can be read, what was there before counts: as long as the longest trouble.
        let echo = self.setup.look_after + 25 * MINUTE;
        self.world
            .other_gone
            .get(&(who, pair))
            .is_some_and(|gone| *gone + echo > self.now)
    }

    fn invite(&mut self, who: usize, lasts: Ms, again: bool) -> Verdict {
        let now = self.now;
        if self.world.people[who].is_some() {
            return Verdict::Refused(400, "organization.user_organization_already_belongs");
        }
        if let Some(limit) = self.unknowns.invitation_limit {
            let sent = &mut self.world.invitations_sent;
            while sent.front().is_some_and(|at| *at + 10 * MINUTE < now) {
                sent.pop_front();
            }
            if sent.len() >= limit as usize {
                self.excuse(Some(who), 12 * MINUTE);
                return Verdict::Refused(429, "organization.invitations_rate_limit_exceeded");
            }
            self.world.invitations_sent.push_back(now);
        }
        let open = |invited: &super::world::Invited| invited.who == who && invited.expires > now;
        if self.world.invitations.iter().any(open) {
            if !self.unknowns.second_invitation_refreshes {
                return Verdict::Refused(400, "organization.invitation_already_exists");
            }
            self.world.invitations.retain(|invited| !open(invited));
        }
        let mut invited = self.world.invitation(who, now, lasts, true);
        // Whose it is shows by its time, when the clocks agree.
        let skew = (self.wall - self.start).num_milliseconds() - now;
        invited.excused = again || skew.abs() > 30 * SECOND;
        self.world.invitations.push(invited.clone());
        say!(
            self,
            Some(who),
            "upstream: {} is invited by us, {}",
            self.cast.name(who),
            invited.token
        );
        Verdict::Invited(invited)
    }

    fn cancel(&mut self, token: &str) -> Verdict {
        let found = self
            .world
            .invitations
            .iter()
            .position(|open| open.token == token);
        match found {
            Some(index) => {
                let invited = self.world.invitations.remove(index);
                say!(self, Some(invited.who), "upstream: {token} is cancelled");
                Verdict::Done
            }
            None => Verdict::Refused(404, "organization.invitation_not_found"),
        }
    }
}
