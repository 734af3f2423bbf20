//! The planner: expected, owned and observed access in, one plan out. Pure.
//!
//! Owns the decision table. Never proposes to remove what is not owned, never takes a partial read for absence,
//! and never looks at a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::grant::Holding;
use crate::domain::member::{MemberRecord, Owned, Phase, WriteKind};

/// Role whose last holder must not lose it.
pub const OWNER_ROLE: &str = "organization-admin";

/// Times that a vanished neighbour is put back before its absence is taken for somebody else's doing.
pub const MAX_RESTORES: u32 = 3;

/// Bounds that the planner works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How old a read may be served: only a read that started this long after our last write proves absence.
    pub read_staleness: TimeDelta,
    /// The longest that one request can take; a second look comes no earlier.
    pub request_lifetime: TimeDelta,
}

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
    /// What this read says about an assignment, given the last write we sent for it.
    fn seen(&self, assignment: &Assignment, row: Option<&Owned>, bounds: &Bounds) -> Seen {
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

/// Assignments that grants want now; `true` where a grant was told that standing access covers it.
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
                let standing = wanted.entry(held.assignment.clone()).or_insert(false);
                *standing |= held.holding == Holding::Standing;
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
    /// Survivors that were found in place: nothing more is owed to them.
    pub survived: Vec<Assignment>,
    /// Survivors that keep vanishing after they were put back: somebody else takes them away.
    pub lost: Vec<Assignment>,
    /// Rows whose calls of unknown outcome can no longer land.
    pub echo_over: Vec<Assignment>,
    /// A read that starts at or after this instant would settle something.
    pub observe_at: Option<Timestamp>,
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
            && self.echo_over.is_empty())
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
    pub last_seen: Option<&'a BTreeSet<Assignment>>,
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

    for assignment in view.expected.0.keys() {
        // Nothing is given to someone whom the organization does not show.
        if !member_absent {
            plan_expected(&mut plan, view, assignment, row_of(assignment), now, bounds);
        }
    }
    for row in view.owned {
        if !view.expected.wants(&row.assignment) {
            plan_unwanted(&mut plan, view, row, now, bounds);
        }
        plan_survivors(&mut plan, view, row, now, bounds);
        plan_echo(&mut plan, view, row);
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
    assignment: &Assignment,
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
            Seen::No => plan.add.push(assignment.clone()),
            Seen::Unknown => plan.look_now(view, now),
        }
        return;
    };
    // After our own removal the pair is simply wanted again, whatever an early read shows.
    if row.last_write.kind == WriteKind::Remove || matches!(row.phase, Phase::Closing { .. }) {
        plan.add.push(assignment.clone());
        return;
    }
    match seen {
        Seen::Yes => plan.present.push(assignment.clone()),
        Seen::Unknown => {
            let read_since_write = view
                .snapshot
                .is_some_and(|snapshot| snapshot.started_at >= row.last_write.at);
            if !row.seen {
                // Any later read that shows it proves it; only one that starts late enough disproves it.
                plan.look(if read_since_write {
                    row.last_write.at + bounds.read_staleness
                } else {
                    now
                });
            }
        }
        Seen::No if !row.seen => plan.add.push(assignment.clone()),
        Seen::No if is_own_echo(view, row, assignment) => plan.add.push(assignment.clone()),
        Seen::No => plan.missing.push(assignment.clone()),
    }
}

/// Whether the absence of a pair can be the late effect of a call of ours: an earlier removal of unknown outcome,
/// or the removal of a neighbour.
fn is_own_echo(view: &View<'_>, row: &Owned, assignment: &Assignment) -> bool {
    let late_call = match (row.echo_until, view.snapshot) {
        (Some(until), Some(snapshot)) => snapshot.started_at <= until,
        (Some(_), None) => true,
        (None, _) => false,
    };
    late_call
        || view.owned.iter().any(|other| {
            other
                .must_survive
                .iter()
                .any(|survivor| survivor.assignment == *assignment)
        })
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
            plan.look(row.last_write.at + bounds.read_staleness);
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
            Some(snapshot) if snapshot.complete && snapshot.owners > 1 => {}
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
            seen.iter()
                .any(|held| held.is_neighbour_of(&row.assignment) && is_standing(view, held))
        });
    if stale_neighbours {
        plan.look(now);
    } else {
        plan.remove.push(row.assignment.clone());
    }
}

fn plan_survivors(plan: &mut Plan, view: &View<'_>, row: &Owned, now: Timestamp, bounds: &Bounds) {
    if row.last_write.kind != WriteKind::Remove {
        return;
    }
    for survivor in &row.must_survive {
        // What is ours and wanted is put back by its own row; what is ours and unwanted need not survive.
        if view
            .owned
            .iter()
            .any(|owned| owned.assignment == survivor.assignment)
        {
            if view.expected.wants(&survivor.assignment) {
                let own = view
                    .owned
                    .iter()
                    .find(|owned| owned.assignment == survivor.assignment);
                let shown = view.snapshot.is_some_and(|snapshot| {
                    snapshot.started_at >= row.last_write.at + bounds.read_staleness
                        && snapshot.seen(&survivor.assignment, own, bounds) == Seen::Yes
                });
                if shown {
                    plan.survived.push(survivor.assignment.clone())
                } else {
                    look_again(plan, view, row, bounds)
                }
            } else {
                plan.survived.push(survivor.assignment.clone());
            }
            continue;
        }
        let settled = survivor.restored_at.unwrap_or(row.last_write.at) + bounds.read_staleness;
        match view.snapshot {
            Some(snapshot) if snapshot.started_at >= settled => {
                if snapshot.assignments.contains(&survivor.assignment) || !snapshot.shown {
                    plan.survived.push(survivor.assignment.clone());
                } else if !snapshot.complete {
                    plan.look_now(view, now);
                } else if survivor.restores >= MAX_RESTORES {
                    plan.lost.push(survivor.assignment.clone());
                } else {
                    plan.restore.push(survivor.assignment.clone());
                }
            }
            _ => plan.look(settled),
        }
    }
}

fn look_again(plan: &mut Plan, view: &View<'_>, row: &Owned, bounds: &Bounds) {
    let settled = row.last_write.at + bounds.read_staleness;
    if view
        .snapshot
        .is_none_or(|snapshot| snapshot.started_at < settled)
    {
        plan.look(settled);
    }
}

fn plan_echo(plan: &mut Plan, view: &View<'_>, row: &Owned) {
    let Some(until) = row.echo_until else { return };
    if view
        .snapshot
        .is_some_and(|snapshot| snapshot.complete && snapshot.started_at >= until)
    {
        plan.echo_over.push(row.assignment.clone());
    } else {
        plan.look(until);
    }
}

fn is_standing(view: &View<'_>, held: &Assignment) -> bool {
    !view.owned.iter().any(|row| row.assignment == *held)
}

/// One refused id refuses a whole set: rows under suspicion go alone, the others together and first.
fn isolate_removals(plan: &mut Plan, view: &View<'_>) {
    let suspect = |assignment: &Assignment| {
        view.owned
            .iter()
            .find(|row| row.assignment == *assignment)
            .filter(|row| row.isolate)
            .map(|row| row.attempts)
    };
    if plan
        .remove
        .iter()
        .any(|assignment| suspect(assignment).is_none())
    {
        plan.remove
            .retain(|assignment| suspect(assignment).is_none());
    } else if let Some(next) = plan
        .remove
        .iter()
        .min_by_key(|assignment| suspect(assignment))
        .cloned()
    {
        plan.remove = vec![next];
    }
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
