//! Those who act upstream and around the connector: administrators, sign-ins, joiners and leavers, and bad luck.
//!
//! Owns what they do and when. Every entry they touch remembers that it was they.

use std::sync::Arc;

use super::cast::{BOSS, GUESTS, MEMBERS, ROBOT, Set, bit, each};
use super::clock::{Dice, MINUTE, Ms, SECOND, sleep};
use super::invariants::PAUSE;
use super::stage::{Inner, Stage, say};
use super::world::{Entry, Giver, Person};

impl Inner {
    /// Somebody becomes a member.
    pub(crate) fn joins(&mut self, who: usize, at: chrono::DateTime<chrono::Utc>) {
        self.world.people[who] = Some(Person {
            member_since: at,
            joined: self.now,
            held: std::collections::BTreeMap::new(),
        });
        say!(self, Some(who), "{} is a member now", self.cast.name(who));
        self.world.keep(who, self.now);
    }

    /// Somebody stops being a member, and loses everything.
    pub(crate) fn leaves(&mut self, who: usize) {
        for pair in each(self.world.set(who)) {
            self.outsider_takes(who, pair);
        }
        self.world.people[who] = None;
        say!(
            self,
            Some(who),
            "{} is no member any more",
            self.cast.name(who)
        );
        for pair in 0..self.cast.pairs.len() {
            // Whoever is not there misses everything.
            self.world.taken.insert((who, pair), self.now);
            self.world.lost.remove(&(who, pair));
        }
        self.excuse(Some(who), PAUSE);
        self.world.keep(who, self.now);
    }

    /// An administrator gives an assignment.
    pub(crate) fn outsider_gives(&mut self, who: usize, pair: usize) {
        let now = self.now;
        let owned = self.model.owned[who] & bit(pair) != 0
            || self.model.intents[who].is_some_and(|intent| intent.set & bit(pair) != 0);
        if self.world.deleted.contains(&self.cast.pairs[pair].target) {
            return;
        }
        let Some(person) = &mut self.world.people[who] else {
            return;
        };
        let giver = if owned { Giver::Both } else { Giver::Other };
        let entry = person.held.entry(pair).or_insert(Entry {
            giver,
            since: now,
            unwanted_since: None,
        });
        if entry.giver == Giver::Ours {
            entry.giver = Giver::Both;
        }
        self.world.lost.remove(&(who, pair));
        say!(
            self,
            Some(who),
            "administrator: gives {} to {}",
            self.cast.names[pair],
            self.cast.name(who)
        );
        self.world.keep(who, now);
        self.check(who);
    }

    /// An administrator, a sign-in or a deletion takes an assignment away.
    pub(crate) fn outsider_takes(&mut self, who: usize, pair: usize) {
        let now = self.now;
        let Some(person) = &mut self.world.people[who] else {
            return;
        };
        self.world.lost.remove(&(who, pair));
        let Some(entry) = person.held.remove(&pair) else {
            return;
        };
        if entry.giver != Giver::Other {
            self.world.taken.insert((who, pair), now);
        }
        if entry.giver != Giver::Ours {
            self.world.other_gone.insert((who, pair), now);
            self.world.withdrawn.insert((who, pair), now);
        }
        say!(
            self,
            Some(who),
            "somebody takes {} from {}",
            self.cast.names[pair],
            self.cast.name(who)
        );
        self.world.keep(who, now);
        self.check(who);
    }
}

/// The organization as a run finds it.
pub(crate) fn settle(stage: &Stage, dice: &mut Dice) {
    let mut on = stage.on();
    let long_ago = stage.clock.upstream(-3_600_000);
    for who in [BOSS, ROBOT].into_iter().chain(MEMBERS) {
        on.joins(who, long_ago);
    }
    let owner = on.cast.owner;
    on.outsider_gives(BOSS, owner);
    for who in MEMBERS {
        for _ in 0..dice.range(0, 3) {
            let pair = 1 + dice.below(on.cast.pairs.len() - 1);
            on.outsider_gives(who, pair);
        }
    }
    for person in on.world.people.iter_mut().flatten() {
        person.joined = -3_600_000;
        for entry in person.held.values_mut() {
            entry.since = -3_600_000;
        }
    }
}

/// Something that somebody else does.
type Act = fn(&mut Inner, &Stage, &mut Dice);

/// Everything that goes on beside the callers, until the calm.
pub(crate) async fn run(stage: Arc<Stage>, mut dice: Dice) {
    let weather = stage.on().weather;
    let mut kinds: Vec<Act> = vec![comings];
    let table: [(bool, Act); 9] = [
        (weather.meddling, meddle),
        (weather.sso, sign_in),
        (weather.comings, come_and_go),
        (weather.owners, change_owners),
        (weather.hiding, hide),
        (weather.keys, turn_key),
        (weather.jumps, jump),
        (weather.outages, outage),
        (weather.ledger_outages, ledger_outage),
    ];
    kinds.extend(
        table
            .iter()
            .filter(|(is_on, _)| *is_on)
            .map(|(_, act)| *act),
    );
    loop {
        sleep(dice.range(2 * SECOND, 60 * SECOND)).await;
        let mut on = stage.on();
        if on.is_calm() {
            return;
        }
        let act = dice.pick(&kinds);
        act(&mut on, &stage, &mut dice);
    }
}

/// Kills the process now and then.
pub(crate) async fn kill(stage: Arc<Stage>, mut dice: Dice) {
    if !stage.on().weather.crashes {
        return;
    }
    let pace = dice.pick(&[30 * SECOND, 3 * MINUTE, 10 * MINUTE]);
    loop {
        sleep(dice.range(SECOND, pace)).await;
        let mut on = stage.on();
        if on.is_calm() {
            return;
        }
        if !on.crash.alive {
            continue;
        }
        if dice.chance(0.3) {
            on.die();
        } else {
            let points = u32::try_from(dice.range(0, 60)).unwrap_or(0);
            on.crash.countdown = Some(points);
        }
    }
}

/// The calm: everything works again, and stays so.
pub(crate) async fn calm(stage: Arc<Stage>, mut dice: Dice) {
    let calm_from = stage.on().weather.calm_from;
    sleep(calm_from - stage.clock.elapsed()).await;
    clear_up(&mut stage.on());
    // Whoever was invited may still join.
    sleep(dice.range(SECOND, 40 * SECOND)).await;
    comings(&mut stage.on(), &stage, &mut dice);
}

fn clear_up(on: &mut Inner) {
    on.world.hidden.clear();
    on.world.deleted.clear();
    on.world.down_until = 0;
    on.world.key.valid = true;
    on.world.key.owner = true;
    on.ledger_down_until = 0;
    on.ledger_read_only_until = 0;
    on.ledger_stalls_until = 0;
    on.crash.countdown = None;
    let owner = on.cast.owner;
    // Nobody asks for roles of this one: there is an owner whatever else ends.
    on.outsider_gives(ROBOT, owner);
    say!(on, None, "from here on everything works");
}

fn member(dice: &mut Dice) -> usize {
    dice.pick(&MEMBERS.collect::<Vec<_>>())
}

fn any_pair(on: &Inner, dice: &mut Dice) -> usize {
    1 + dice.below(on.cast.pairs.len() - 1)
}

/// Gives and takes roles, also those that we gave.
fn meddle(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let who = member(dice);
    let held = on.world.set(who);
    match dice.below(4) {
        0 => {
            let pair = any_pair(on, dice);
            on.outsider_gives(who, pair);
        }
        1 => {
            // The same role again, while we give it.
            let all: Vec<usize> = each(held & on.model.owned[who]).collect();
            if !all.is_empty() {
                let pair = dice.pick(&all);
                on.outsider_gives(who, pair);
            }
        }
        2 => {
            let all: Vec<usize> = each(held).collect();
            if !all.is_empty() {
                let pair = dice.pick(&all);
                on.outsider_takes(who, pair);
            }
        }
        _ => {
            let all: Vec<usize> = each(held & on.model.owned[who]).collect();
            if !all.is_empty() {
                let pair = dice.pick(&all);
                on.outsider_takes(who, pair);
            }
        }
    }
}

/// A sign-in overwrites all roles of a member.
fn sign_in(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let who = member(dice);
    if on.world.people[who].is_none() {
        return;
    }
    let mapped: Set = bit(1 + who % 3) | if who.is_multiple_of(2) { bit(4) } else { 0 };
    say!(
        on,
        Some(who),
        "{} signs in: roles are overwritten",
        on.cast.name(who)
    );
    for pair in each(on.world.set(who) & !mapped) {
        on.outsider_takes(who, pair);
    }
    for pair in each(mapped) {
        on.outsider_gives(who, pair);
    }
}

/// People who were invited join; administrators invite by themselves.
fn comings(on: &mut Inner, stage: &Stage, dice: &mut Dice) {
    let now = on.now;
    for who in GUESTS {
        let open = on
            .world
            .invitations
            .iter()
            .position(|open| open.who == who && open.expires > now);
        match open {
            Some(index) if dice.chance(0.4) && on.world.people[who].is_none() => {
                on.world.invitations.remove(index);
                on.joins(who, stage.clock.upstream(now));
            }
            None if on.weather.comings && dice.chance(0.1) && on.world.people[who].is_none() => {
                let lasts = dice.pick(&[2 * MINUTE, 72 * 60 * MINUTE]);
                let invited = on.world.invitation(who, now, lasts, false);
                say!(
                    on,
                    Some(who),
                    "administrator: invites {}",
                    on.cast.name(who)
                );
                on.world.invitations.push(invited);
            }
            _ => {}
        }
    }
}

fn come_and_go(on: &mut Inner, stage: &Stage, dice: &mut Dice) {
    let all: Vec<usize> = MEMBERS.chain(GUESTS).collect();
    let who = dice.pick(&all);
    if on.world.people[who].is_some() {
        on.leaves(who);
        if dice.chance(0.3) {
            // Gone and back at once.
            on.joins(who, stage.clock.upstream(on.now + 1));
        }
    } else if MEMBERS.contains(&who) {
        on.joins(who, stage.clock.upstream(on.now));
    }
}

/// Owners of the organization come and go; there is always one, perhaps by a grant of ours.
fn change_owners(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let owner = on.cast.owner;
    let is_owner = on.world.entry((BOSS, owner)).is_some();
    if is_owner && on.world.owners(owner) > 1 && dice.chance(0.5) {
        on.outsider_takes(BOSS, owner);
    } else if !is_owner {
        on.outsider_gives(BOSS, owner);
    }
}

/// Deployments are shut down, started, deleted and made again.
fn hide(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let target = on.cast.pairs[1 + dice.below(2)].target.clone();
    match dice.below(4) {
        0 | 1 => {
            if !on.world.hidden.remove(&target) {
                on.world.hidden.insert(target.clone());
                say!(on, None, "{target} is shut down");
            } else {
                say!(on, None, "{target} is started");
            }
        }
        2 => {
            on.world.hidden.clear();
            say!(on, None, "every deployment is started");
        }
        _ => {
            if on.world.deleted.remove(&target) {
                say!(on, None, "{target} is made again");
            } else {
                say!(on, None, "{target} is deleted");
                for who in 0..on.cast.len() {
                    for pair in each(on.world.set(who)) {
                        if on.cast.pairs[pair].target == target {
                            on.outsider_takes(who, pair);
                        }
                    }
                    for pair in 0..on.cast.pairs.len() {
                        if on.cast.pairs[pair].target == target {
                            on.world.lost.remove(&(who, pair));
                            on.world.taken.insert((who, pair), on.now);
                        }
                    }
                }
                on.world.deleted.insert(target);
            }
        }
    }
    // What is refused waits for the next try.
    let wait = on.setup.blocked_retry + PAUSE;
    on.excuse(None, wait);
}

/// The key is rotated, loses rights, is revoked, and gets well again.
fn turn_key(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    match dice.below(4) {
        0 => {
            on.world.key.pin += 1;
            say!(on, None, "the key is rotated");
        }
        1 => {
            on.world.key.owner = !on.world.key.owner;
            let owner = on.world.key.owner;
            say!(on, None, "the key has the rights of an owner: {owner}");
        }
        2 => {
            on.world.key.valid = !on.world.key.valid;
            let valid = on.world.key.valid;
            say!(on, None, "the key is valid: {valid}");
        }
        _ => {
            on.world.key.owner = true;
            on.world.key.valid = true;
            on.world.key.pin += 1;
            say!(on, None, "a good key is loaded");
        }
    }
    let wait = on.setup.blocked_retry + PAUSE;
    on.excuse(None, wait);
}

/// The connector's wall clock jumps.
fn jump(on: &mut Inner, stage: &Stage, dice: &mut Dice) {
    let by: Ms = match dice.below(4) {
        0 => dice.range(1, 120 * SECOND),
        1 => -dice.range(1, 120 * SECOND),
        2 => dice.range(10 * MINUTE, 120 * MINUTE),
        _ => -dice.range(MINUTE, 5 * MINUTE),
    };
    // How long a request may be held up is counted by the wall clock: see `docs/simulation.md`, what is not shown.
    let settled = on.world.pending.is_empty() && on.world.landed + 3 * SECOND < on.now;
    if by > SECOND && !settled {
        return;
    }
    stage.clock.jump(by);
    on.wall = latchkey::ports::Clock::now(stage.clock.as_ref());
    on.tally.faults += 1;
    say!(on, None, "the wall clock jumps by {} s", by / SECOND);
    let wait = by.abs().min(5 * MINUTE) + 2 * PAUSE;
    on.excuse(None, wait);
    if by < 0 {
        // A pause that runs lasts longer by as much, at most by its whole length: it ends by the wall clock.
        on.lengthen_excuses(-by);
    }
}

fn outage(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let lasts = dice.pick(&[10 * SECOND, MINUTE, 5 * MINUTE]);
    on.world.down_until = on.now + dice.range(SECOND, lasts);
    on.tally.faults += 1;
    say!(on, None, "upstream is down for a while");
}

fn ledger_outage(on: &mut Inner, _: &Stage, dice: &mut Dice) {
    let until = on.now + dice.range(SECOND, 3 * MINUTE);
    on.tally.faults += 1;
    match dice.below(3) {
        0 => on.ledger_read_only_until = until,
        1 => on.ledger_down_until = until,
        _ => on.ledger_stalls_until = until.min(on.now + 30 * SECOND),
    }
    say!(on, None, "the ledger is in trouble for a while");
}
