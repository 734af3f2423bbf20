//! The planner: expected, owned and observed access in, one plan out. Pure.
//!
//! Owns the decision table. Never proposes to remove what is not owned, never takes a partial read for absence,
//! and never looks at a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::grant::GrantState;
use crate::domain::member::{LastSeen, MemberRecord, Owned, Phase, WriteKind, WriteOutcome};

/// Role whose last holder must not lose it.
pub const OWNER_ROLE: &str = "organization-admin";

/// How long putting a neighbour back is tried. Standing access is sacred, so it is long; its target may be gone for
/// good, so it is not for ever.
pub const RESTORE_PATIENCE: TimeDelta = TimeDelta::days(7);

/// Bounds that the planner works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How old a read may be served: only a read that started this long after our last write proves absence.
    pub read_staleness: TimeDelta,
    /// The longest that one request can take; a second look comes no earlier.
    pub request_lifetime: TimeDelta,
}

/// Pause before a neighbour that was put back so often is put back once more: doubling from a second to `cap`.
fn restore_pause(restores: u32) -> TimeDelta {
    match restores {
        0 => TimeDelta::zero(),
        times => TimeDelta::seconds(1_i64 << (times - 1).min(20)).min(RESTORE_CAP),
    }
}

/// Longest pause between tries to put back a neighbour.
const RESTORE_CAP: TimeDelta = TimeDelta::minutes(10);

/// What one read showed of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the read started.
    pub started_at: Timestamp,
    /// Whether absence from it is proof.
    pub complete: bool,
    /// Whether the member was shown at all.
    pub shown: bool,
    /// What the member held.
    pub assignments: BTreeSet<Assignment>,
    /// How many members held the owner role.
    pub owners: usize,
}

/// What a read says about one assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    Yes,
    /// It is proven not to be there.
    No,
    /// The read says nothing about it.
    Unknown,
}

impl Snapshot {
    /// Owners besides this member.
    #[must_use]
    pub fn other_owners(&self) -> usize {
        let own = self.assignments.iter().any(|held| held.role == OWNER_ROLE);
        self.owners.saturating_sub(usize::from(own))
    }

    /// What this read says about an assignment, given the last write we sent for it.
    fn seen(&self, assignment: &Assignment, row: Option<&Owned>, bounds: &Bounds) -> Seen {
        // A read that started before our last write shows what was, not what came of it.
        if row.is_some_and(|row| self.started_at < row.last_write.at) {
            return Seen::Unknown;
        }
        let settled_at = row.map(|row| row.last_write.at + bounds.read_staleness);
        let too_early = settled_at.is_some_and(|settled| self.started_at < settled);
        let after_removal = row.is_some_and(|row| row.last_write.kind == WriteKind::Remove);
        match (self.assignments.contains(assignment), too_early) {
            // Shortly after a removal a read may show the past: it says nothing, either way.
            (_, true) if after_removal => Seen::Unknown,
            (true, _) => Seen::Yes,
            (false, false) if self.complete => Seen::No,
            (false, _) => Seen::Unknown,
        }
    }
}

/// Assignments that grants want now; `true` where a grant still waits for a read that verifies it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected(pub BTreeMap<Assignment, bool>);

impl Expected {
    /// What the grants of a member want at `now`.
    #[must_use]
    pub fn of(record: &MemberRecord, now: Timestamp) -> Self {
        let mut wanted = BTreeMap::new();
        for grant in record
            .grants
            .iter()
            .filter(|grant| grant.expects_access(now))
        {
            for held in &grant.assignments {
                let waits = wanted.entry(held.assignment.clone()).or_insert(false);
                *waits |= matches!(grant.state, GrantState::Activating { .. });
            }
        }
        Self(wanted)
    }

    fn wants(&self, assignment: &Assignment) -> bool {
        self.0.contains_key(assignment)
    }
}

/// What to do about one member, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be added, after their intent is durable.
    pub add: Vec<Assignment>,
    /// To be removed, after their intent is durable.
    pub remove: Vec<Assignment>,
    /// Neighbours that our removal took along: to be put back as what they were.
    pub restore: Vec<Assignment>,
    /// Covered by standing access: nothing to add, nothing to remove later.
    pub covered: Vec<Assignment>,
    /// Ours and seen present.
    pub present: Vec<Assignment>,
    /// Ours, not wanted, proven gone: the second look is owed.
    pub gone: Vec<Assignment>,
    /// Seen gone a second time: no longer ours.
    pub closed: Vec<Assignment>,
    /// Ours and wanted, but somebody else took it away.
    pub missing: Vec<Assignment>,
    /// Seen again after it was gone: removed again.
    pub resurrected: Vec<Assignment>,
    /// Removal would leave the organization without an owner.
    pub last_owner: Vec<Assignment>,
    /// To be removed, but not together with the others: one refused id refuses a whole set.
    pub held_back: Vec<Assignment>,
    /// Survivors that were found in place: nothing more is owed to them.
    pub survived: Vec<Assignment>,
    /// Survivors that keep vanishing after they were put back: somebody else takes them away.
    pub lost: Vec<Assignment>,
    /// Rows whose calls of unknown outcome can no longer land.
    pub echo_over: Vec<Assignment>,
    /// Ours, wanted, and taken away by a removal of ours: added again, also when nothing recalls the removal any more.
    pub taken_along: Vec<Assignment>,
    /// A read that starts at or after this instant would settle something.
    pub observe_at: Option<Timestamp>,
    /// A vanished neighbour is put back once more from this instant on.
    pub restore_at: Option<Timestamp>,
    /// A removal waits for that read.
    pub removal_waits: bool,
    /// The last read could not prove what had to be proven.
    pub blind: bool,
}

impl Plan {
    /// Whether the plan changes anything, upstream or in the ledger.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.add.is_empty()
            && self.remove.is_empty()
            && self.restore.is_empty()
            && !self.has_findings()
    }

    /// Whether the plan holds facts to write down.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        !(self.gone.is_empty()
            && self.closed.is_empty()
            && self.missing.is_empty()
            && self.resurrected.is_empty()
            && self.last_owner.is_empty()
            && self.survived.is_empty()
            && self.lost.is_empty()
            && self.echo_over.is_empty()
            && self.taken_along.is_empty())
    }

    fn echoed(&mut self, assignment: &Assignment) {
        self.add.push(assignment.clone());
        self.taken_along.push(assignment.clone());
    }

    /// With nothing else to remove, the least tried of those that were held back goes, alone.
    pub(super) fn next_suspect(&mut self) {
        if self.remove.is_empty() && !self.held_back.is_empty() {
            self.remove.push(self.held_back.remove(0));
        }
    }

    /// Asks for a read now; where this pass has made one already, it was of no use.
    fn look_now(&mut self, view: &View<'_>, now: Timestamp) {
        self.blind |= view.snapshot.is_some();
        self.look(now);
    }

    fn look(&mut self, at: Timestamp) {
        self.observe_at = Some(self.observe_at.map_or(at, |earlier| earlier.min(at)));
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut wrote = false;
        for (sign, list) in [
            ("+", &self.add),
            ("-", &self.remove),
            ("-", &self.held_back),
            ("^", &self.restore),
            ("=", &self.covered),
            ("!", &self.missing),
        ] {
            for assignment in list {
                if wrote {
                    writeln!(f)?;
                }
                write!(f, "{sign} {assignment}")?;
                wrote = true;
            }
        }
        if wrote {
            Ok(())
        } else {
            f.write_str("nothing to do")
        }
    }
}

/// Everything the planner looks at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What grants want.
    pub expected: &'a Expected,
    /// What is ours.
    pub owned: &'a [Owned],
    /// The read of this pass, if one was made.
    pub snapshot: Option<&'a Snapshot>,
    /// What an earlier read showed, for neighbours only.
    pub last_seen: Option<&'a LastSeen>,
    /// Reads have failed: removals do not wait for one any longer.
    pub reads_fail: bool,
}

/// Decides what to do for one member at `now`.
#[must_use]
pub fn plan(view: &View<'_>, now: Timestamp, bounds: &Bounds) -> Plan {
    let mut plan = Plan::default();
    let row_of =
        |assignment: &Assignment| view.owned.iter().find(|row| row.assignment == *assignment);
    let member_absent = view.snapshot.is_some_and(|snapshot| !snapshot.shown);

    for (assignment, waits) in &view.expected.0 {
        // Nothing is given to someone whom the organization does not show.
        if !member_absent {
            let row = row_of(assignment);
            plan_expected(&mut plan, view, (assignment, *waits), row, now, bounds);
        }
    }
    let mut unsettled = BTreeSet::new();
    for row in view.owned {
        if !view.expected.wants(&row.assignment) {
            plan_unwanted(&mut plan, view, row, now, bounds);
        }
        plan_survivors(&mut plan, view, row, now, bounds, &mut unsettled);
        plan_echo(&mut plan, view, row);
    }
    // Several removals may owe the same neighbour: it has survived when it survived all of them.
    plan.survived
        .retain(|survivor| !unsettled.contains(survivor));
    for list in [&mut plan.restore, &mut plan.survived, &mut plan.lost] {
        list.sort();
        list.dedup();
    }
    isolate_removals(&mut plan, view);
    plan.blind |= plan.observe_at.is_some_and(|at| {
        view.snapshot
            .is_some_and(|snapshot| !snapshot.complete && snapshot.started_at >= at)
    });
    plan
}

fn plan_expected(
    plan: &mut Plan,
    view: &View<'_>,
    (assignment, waits): (&Assignment, bool),
    row: Option<&Owned>,
    now: Timestamp,
    bounds: &Bounds,
) {
    let seen = view.snapshot.map_or(Seen::Unknown, |snapshot| {
        snapshot.seen(assignment, row, bounds)
    });
    let Some(row) = row else {
        let covered = view.snapshot.is_some_and(|snapshot| {
            snapshot
                .assignments
                .iter()
                .any(|held| held.covers(assignment) && is_standing(view, held))
        });
        match seen {
            _ if covered => plan.covered.push(assignment.clone()),
            Seen::Yes => plan.covered.push(assignment.clone()),
            // Standing access that a removal of ours took along is put back as what it was, and then covers this.
            Seen::No if owed_to_neighbours(view, assignment) => {}
            Seen::No => plan.add.push(assignment.clone()),
            Seen::Unknown => plan.look_now(view, now),
        }
        return;
    };
    // After our own removal the pair is simply wanted again, whatever an early read shows. Added sooner than reads may
    // lag, it would be taken as seen by one that shows what was there before the removal.
    if row.last_write.kind == WriteKind::Remove || matches!(row.phase, Phase::Closing { .. }) {
        let settled = row.last_write.at + bounds.read_staleness;
        if row.last_write.kind == WriteKind::Remove && now < settled {
            plan.look(settled);
            return;
        }
        plan.add.push(assignment.clone());
        return;
    }
    match seen {
        Seen::Yes => plan.present.push(assignment.clone()),
        Seen::Unknown => {
            let read_since_write = view
                .snapshot
                .is_some_and(|snapshot| snapshot.started_at >= row.last_write.at);
            if !row.seen || waits {
                // Any later read that shows it proves it; only one that starts late enough disproves it.
                plan.look(if read_since_write {
                    row.last_write.at + bounds.read_staleness
                } else {
                    now
                });
            }
        }
        Seen::No if !row.seen => plan.add.push(assignment.clone()),
        Seen::No if is_own_echo(view, row, assignment, bounds) => plan.echoed(assignment),
        Seen::No => plan.missing.push(assignment.clone()),
    }
}

/// Whether the absence of a pair can be the late effect of a call of ours: an earlier removal of unknown outcome, of
/// the pair or of a neighbour, or the removal of a neighbour that took it along. An addition takes nothing away.
fn is_own_echo(view: &View<'_>, row: &Owned, assignment: &Assignment, bounds: &Bounds) -> bool {
    // Written down until a complete read has shown what came of it: it may have landed since the read before.
    let may_land = |removal: &Owned| removal.removal_echo_until.is_some();
    // What nobody wanted then needed no protection, and was last seen before the neighbour was removed.
    let took_along = |removal: &Owned| {
        removal.last_write.kind == WriteKind::Remove
            && view.last_seen.is_some_and(|seen| {
                seen.assignments.contains(assignment)
                    && seen.at < removal.last_write.at + bounds.read_staleness
            })
    };
    may_land(row)
        || owed_to_neighbours(view, assignment)
        || view.owned.iter().any(|other| {
            other.assignment.is_neighbour_of(assignment) && (may_land(other) || took_along(other))
        })
}

/// Whether a removal of ours still has to prove that it did not take this pair along.
fn owed_to_neighbours(view: &View<'_>, assignment: &Assignment) -> bool {
    view.owned
        .iter()
        .flat_map(|row| &row.must_survive)
        .any(|survivor| survivor.assignment == *assignment)
}

fn plan_unwanted(plan: &mut Plan, view: &View<'_>, row: &Owned, now: Timestamp, bounds: &Bounds) {
    let assignment = &row.assignment;
    let seen = view.snapshot.map_or(Seen::Unknown, |snapshot| {
        snapshot.seen(assignment, Some(row), bounds)
    });
    if let Phase::Closing { look_at, .. } = row.phase {
        let looked = view
            .snapshot
            .is_some_and(|snapshot| snapshot.started_at >= look_at);
        match seen {
            Seen::Yes => {
                plan.resurrected.push(assignment.clone());
                plan_removal(plan, view, row, now);
            }
            // Closed only once nothing is owed to its neighbours; plan_survivors says when to look for them.
            Seen::No if looked && row.must_survive.is_empty() => {
                plan.closed.push(assignment.clone())
            }
            Seen::No if looked => {}
            Seen::No | Seen::Unknown => plan.look(look_at),
        }
        return;
    }
    match seen {
        Seen::No => plan.gone.push(assignment.clone()),
        Seen::Unknown if row.last_write.kind == WriteKind::Remove && row.blocked.is_none() => {
            let settled = row.last_write.at + bounds.read_staleness;
            plan.look(settled);
            // Nothing answers: neither the removal nor the read that would tell. Asking again takes away no more.
            if view.reads_fail && row.last_write.outcome != WriteOutcome::Done && settled <= now {
                plan_removal(plan, view, row, now);
            }
        }
        Seen::Yes | Seen::Unknown => plan_removal(plan, view, row, now),
    }
}

fn plan_removal(plan: &mut Plan, view: &View<'_>, row: &Owned, now: Timestamp) {
    if row
        .blocked
        .as_ref()
        .is_some_and(|blocked| blocked.retry_at > now)
    {
        return;
    }
    if row.assignment.role == OWNER_ROLE {
        match view.snapshot {
            Some(snapshot) if snapshot.complete && snapshot.other_owners() > 0 => {}
            Some(snapshot) if snapshot.complete => {
                plan.last_owner.push(row.assignment.clone());
                return;
            }
            _ => {
                plan.look_now(view, now);
                return;
            }
        }
    }
    // Standing neighbours are looked at right before the removal, so that what is put back is what was there.
    let stale_neighbours = view.snapshot.is_none()
        && !view.reads_fail
        && view.last_seen.is_some_and(|seen| {
            seen.assignments
                .iter()
                .any(|held| held.is_neighbour_of(&row.assignment) && is_standing(view, held))
        });
    if stale_neighbours {
        plan.removal_waits = true;
        plan.look(now);
    } else {
        plan.remove.push(row.assignment.clone());
    }
}

fn plan_survivors(
    plan: &mut Plan,
    view: &View<'_>,
    row: &Owned,
    now: Timestamp,
    bounds: &Bounds,
    unsettled: &mut BTreeSet<Assignment>,
) {
    for survivor in &row.must_survive {
        let assignment = &survivor.assignment;
        // What is ours and wanted is put back by its own row; what is ours and unwanted need not survive.
        if let Some(own) = view.owned.iter().find(|own| own.assignment == *assignment) {
            let settled = row.last_write.at + bounds.read_staleness;
            let shown = view.snapshot.is_some_and(|snapshot| {
                snapshot.started_at >= settled
                    && snapshot.seen(assignment, Some(own), bounds) == Seen::Yes
            });
            if shown || !view.expected.wants(assignment) {
                plan.survived.push(assignment.clone());
            } else {
                unsettled.insert(assignment.clone());
                look_again(plan, view, settled);
            }
            continue;
        }
        let last_touched = survivor.restored_at.map_or(row.last_write.at, |restored| {
            restored.max(row.last_write.at)
        });
        let settled = last_touched + bounds.read_staleness;
        let Some(snapshot) = view
            .snapshot
            .filter(|snapshot| snapshot.started_at >= settled)
        else {
            unsettled.insert(assignment.clone());
            plan.look(settled);
            continue;
        };
        // A removal of unknown outcome can still land and take it along.
        let over = row
            .removal_echo_until
            .is_none_or(|until| snapshot.started_at >= until);
        if snapshot.assignments.contains(assignment) {
            if over {
                plan.survived.push(assignment.clone());
            } else {
                unsettled.insert(assignment.clone());
            }
        } else if !snapshot.complete {
            unsettled.insert(assignment.clone());
            plan.look_now(view, now);
        } else if !snapshot.shown {
            // Whoever left holds nothing; a second read decides whether the member left.
            unsettled.insert(assignment.clone());
        } else if snapshot.started_at >= row.last_write.at + RESTORE_PATIENCE {
            plan.lost.push(assignment.clone());
        } else {
            unsettled.insert(assignment.clone());
            let again = survivor
                .restored_at
                .map_or(now, |restored| restored + restore_pause(survivor.restores));
            if again <= now {
                plan.restore.push(assignment.clone());
            } else {
                plan.restore_at = Some(plan.restore_at.map_or(again, |other| other.min(again)));
            }
        }
    }
}

fn look_again(plan: &mut Plan, view: &View<'_>, settled: Timestamp) {
    if view
        .snapshot
        .is_none_or(|snapshot| snapshot.started_at < settled)
    {
        plan.look(settled);
    }
}

fn plan_echo(plan: &mut Plan, view: &View<'_>, row: &Owned) {
    let Some(until) = row.echo_until else { return };
    // What is given again because of it needs it until that was sent.
    let needed = row.removal_echo_until.is_some()
        && plan
            .add
            .iter()
            .any(|added| *added == row.assignment || added.is_neighbour_of(&row.assignment));
    let looked = view
        .snapshot
        .is_some_and(|snapshot| snapshot.complete && snapshot.started_at >= until);
    if !looked {
        plan.look(until);
    } else if !needed {
        plan.echo_over.push(row.assignment.clone());
    }
    // Needed and looked at: what is to be given may wait for its pause, and another read would tell nothing new.
}

fn is_standing(view: &View<'_>, held: &Assignment) -> bool {
    !view.owned.iter().any(|row| row.assignment == *held)
}

/// One refused id refuses a whole set: rows under suspicion go alone, the others together and first.
fn isolate_removals(plan: &mut Plan, view: &View<'_>) {
    let suspicion = |assignment: &Assignment| {
        view.owned
            .iter()
            .find(|row| row.assignment == *assignment && row.isolate)
            .map(|row| row.attempts)
    };
    let (mut suspects, clear): (Vec<_>, Vec<_>) = std::mem::take(&mut plan.remove)
        .into_iter()
        .partition(|assignment| suspicion(assignment).is_some());
    suspects.sort_by_key(&suspicion);
    plan.remove = clear;
    plan.held_back = suspects;
    plan.next_suspect();
}

/// The other entries of the same roles that a removal must not take along, as last seen.
#[must_use]
pub fn must_survive(
    removing: &[Assignment],
    held: &BTreeSet<Assignment>,
    owned: &[Owned],
    expected: &Expected,
) -> BTreeSet<Assignment> {
    let ours = |assignment: &Assignment| owned.iter().any(|row| row.assignment == *assignment);
    let wanted_ours = owned
        .iter()
        .filter(|row| row.phase == Phase::Live && expected.wants(&row.assignment));
    held.iter()
        .filter(|assignment| !ours(assignment))
        .chain(wanted_ours.map(|row| &row.assignment))
        .filter(|assignment| !removing.contains(assignment))
        .filter(|assignment| removing.iter().any(|gone| assignment.is_neighbour_of(gone)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
