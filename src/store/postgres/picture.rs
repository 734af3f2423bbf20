//! What a replica sees of everybody's claims, and what it makes of that.
//!
//! Owns who takes what and who gives something up, so that organizations are spread evenly and none is left. Pure: never
//! asks the database, and never looks at a clock of its own.

use std::collections::BTreeMap;
use std::time::Duration;

/// What one look at the table found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) rows: Vec<Claimed>,
    /// Replicas that run.
    pub(super) running: Vec<String>,
}

/// One organization in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) integration: String,
    /// Empty for nobody. As it comes from the table, whoever let the claim run out stands here still.
    pub(super) holder: String,
    /// For how many milliseconds nobody has had it, by the clock of the server.
    pub(super) free_ms: i64,
    /// The claim has run out by the clock of the server.
    pub(super) has_expired: bool,
    pub(super) stamp: Stamp,
    /// Somebody has it who does not renew it, and it does not run out either.
    pub(super) is_stuck: bool,
}

/// What every renewal changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) epoch: u64,
    pub(super) deadline_us: i64,
}

/// Which claims have stood still, and since when by this process's own clock. Whoever lives renews, whatever the clock
/// of the server says; and that clock may be set, or another server with another one may take over:
///
/// * Ahead, and a claim runs out there that its owner, who counts for himself, still works under. So a claim that has a
///   name on it is free only once it has stood still for as long as a claim lasts.
/// * Back, and the deadline of an owner that is gone lies so far ahead that nobody could take its organizations. So
///   what stands still for two claims is free although it does not run out.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<String, (Stamp, Duration)>);

impl Watched {
    /// Takes in a look at the table that was begun at `asked_at` and was over at `looked`, and says of each organization
    /// whether it is free and for how long it has been.
    pub(super) fn look(
        &mut self,
        picture: &mut Picture,
        claim: Duration,
        (asked_at, looked): (Duration, Duration),
    ) {
        for row in &mut picture.rows {
            // An owner may have asked for what is seen here as late as the answer came.
            let seen = self
                .0
                .entry(row.integration.clone())
                .or_insert((row.stamp, looked));
            if seen.0 != row.stamp {
                *seen = (row.stamp, looked);
            }
            let still = asked_at.saturating_sub(seen.1);
            if row.holder.is_empty() {
                row.free_ms = row.free_ms.min(millis(still));
            } else if row.has_expired && still >= claim {
                row.holder.clear();
                row.free_ms = row.free_ms.min(millis(still.saturating_sub(claim)));
            } else if still >= claim * 2 {
                row.is_stuck = true;
                row.holder.clear();
                row.free_ms = millis(claim);
            }
        }
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Picture {
    fn held_by(&self, replica: &str) -> usize {
        self.rows.iter().filter(|row| row.holder == replica).count()
    }

    fn poorest(&self) -> usize {
        let held = self.running.iter().map(|other| self.held_by(other));
        held.min().unwrap_or(0)
    }

    /// The organizations that this replica takes now: its share, if nobody has less, and whatever nobody has taken for a whole claim.
    pub(super) fn to_take(
        &self,
        replica: &str,
        claim: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Claimed> {
        let replicas = self.running.len().max(1);
        let held = self.held_by(replica);
        let mut room = if held > self.poorest() {
            0
        } else {
            self.rows.len().div_ceil(replicas).saturating_sub(held)
        };
        let mut taken = Vec::new();
        for row in &self.rows {
            if !row.holder.is_empty() || !wanted(&row.integration) {
                continue;
            }
            if room == 0 && row.free_ms < millis(claim) {
                continue;
            }
            room = room.saturating_sub(1);
            taken.push(row.clone());
        }
        taken
    }

    /// For how long nobody has had an organization; not at all where somebody has it, or may have had it until now.
    pub(super) fn free_for(&self, integration: &str) -> Duration {
        let row = self.rows.iter().find(|row| row.integration == integration);
        let free_ms = row.map_or(0, |row| if row.is_stuck { 0 } else { row.free_ms });
        Duration::from_millis(u64::try_from(free_ms).unwrap_or(0))
    }

    /// The organization that this replica gives up, where another one has two less.
    pub(super) fn to_yield(&self, replica: &str) -> Option<&str> {
        if self.held_by(replica) < self.poorest() + 2 {
            return None;
        }
        let last = self.rows.iter().rev().find(|row| row.holder == replica)?;
        Some(&last.integration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Duration = Duration::from_secs(5);

    fn picture(holders: &[&str], running: &[&str]) -> Picture {
        let row = |(n, holder): (usize, &&str)| Claimed {
            integration: format!("i{n}"),
            holder: (*holder).to_owned(),
            free_ms: 0,
            has_expired: false,
            stamp: Stamp {
                epoch: 1,
                deadline_us: 0,
            },
            is_stuck: false,
        };
        Picture {
            rows: holders.iter().enumerate().map(row).collect(),
            running: running.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn taken(picture: &Picture, replica: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let rows = picture.to_take(replica, CLAIM, wanted);
        rows.into_iter().map(|row| row.integration).collect()
    }

    #[test]
    fn a_replica_takes_its_share_and_leaves_the_rest_to_the_others() {
        let free = picture(&["", "", "", "", ""], &["a", "b"]);
        assert_eq!(taken(&free, "a", |_| true), ["i0", "i1", "i2"]);
        let half = picture(&["b", "b", "", "a", ""], &["a", "b"]);
        assert_eq!(taken(&half, "a", |_| true), ["i2", "i4"]);
        assert!(taken(&half, "b", |_| true).is_empty());
    }

    #[test]
    fn what_nobody_takes_for_a_whole_claim_is_taken_by_anybody() {
        let mut left = picture(&["a", ""], &["a", "b"]);
        assert!(taken(&left, "a", |_| true).is_empty());
        left.rows[1].free_ms = 5_000;
        assert_eq!(taken(&left, "a", |_| true), ["i1"]);
        assert!(taken(&left, "a", |_| false).is_empty());
    }

    /// A look without delay at one organization, and what a replica with nothing would take then.
    fn look(watched: &mut Watched, row: Claimed, seconds: u64) -> (Picture, Vec<String>) {
        let mut now = picture(&[""], &["a", "b"]);
        now.rows[0] = row;
        let at = Duration::from_secs(seconds);
        watched.look(&mut now, CLAIM, (at, at));
        let taken = taken(&now, "b", |_| true);
        (now, taken)
    }

    fn claimed(holder: &str, deadline_us: i64, free_ms: i64) -> Claimed {
        let mut row = picture(&[holder], &[]).rows.remove(0);
        row.stamp.deadline_us = deadline_us;
        row.has_expired = free_ms >= 0;
        row.free_ms = free_ms;
        row
    }

    #[test]
    fn a_claim_that_nobody_renews_is_free_after_two_lives_whatever_the_server_says() {
        let mut watched = Watched::default();
        let mut taken = |deadline_us, seconds| {
            look(&mut watched, claimed("a", deadline_us, -1_000_000), seconds).1
        };
        assert!(taken(7, 100).is_empty());
        assert!(taken(7, 109).is_empty());
        // Renewed, if only to an earlier instant of a clock that was set back.
        assert!(taken(3, 110).is_empty());
        assert!(taken(3, 119).is_empty());
        assert_eq!(taken(3, 120), ["i0"]);
    }

    #[test]
    fn a_claim_that_ran_out_by_the_servers_clock_alone_is_not_free() {
        let mut watched = Watched::default();
        let (_, taken) = look(&mut watched, claimed("a", 7, -5_000), 100);
        assert!(taken.is_empty());
        // The clock of the server was set an hour ahead: "a" works on, and says so as soon as it can.
        let (_, taken) = look(&mut watched, claimed("a", 7, 3_600_000), 101);
        assert!(taken.is_empty());
        let (_, taken) = look(&mut watched, claimed("a", 8, -5_000), 102);
        assert!(taken.is_empty());
        let (_, taken) = look(&mut watched, claimed("a", 8, 3_600_000), 106);
        assert!(taken.is_empty());
        let (now, taken) = look(&mut watched, claimed("a", 8, 3_600_000), 107);
        assert_eq!(taken, ["i0"]);
        // It may have worked until this very moment.
        assert_eq!(now.free_for("i0"), Duration::ZERO);
        let (now, _) = look(&mut watched, claimed("a", 8, 3_603_000), 110);
        assert_eq!(now.free_for("i0"), Duration::from_secs(3));
    }

    #[test]
    fn what_was_let_go_is_free_at_once_and_for_no_longer_than_was_watched() {
        let mut watched = Watched::default();
        let (now, taken) = look(&mut watched, claimed("", 7, 3_600_000), 100);
        assert_eq!(taken, ["i0"]);
        assert_eq!(now.free_for("i0"), Duration::ZERO);
        let (now, _) = look(&mut watched, claimed("", 7, 3_602_000), 102);
        assert_eq!(now.free_for("i0"), Duration::from_secs(2));
        let (now, _) = look(&mut watched, claimed("", 7, 500), 104);
        assert_eq!(now.free_for("i0"), Duration::from_millis(500));
    }

    #[test]
    fn how_long_a_look_took_counts_for_whoever_may_have_asked_meanwhile() {
        let mut watched = Watched::default();
        let mut at = |asked_at, looked| {
            let mut now = picture(&[""], &["a", "b"]);
            now.rows[0] = claimed("a", 7, 1_000);
            let (asked_at, looked) = (Duration::from_secs(asked_at), Duration::from_secs(looked));
            watched.look(&mut now, CLAIM, (asked_at, looked));
            taken(&now, "b", |_| true)
        };
        assert!(at(100, 102).is_empty());
        assert!(at(106, 108).is_empty());
        assert_eq!(at(107, 107), ["i0"]);
    }

    #[test]
    fn a_replica_with_two_more_than_another_gives_one_up() {
        let uneven = picture(&["a", "a", "b", "b"], &["a", "b", "c"]);
        assert_eq!(uneven.to_yield("a"), Some("i1"));
        assert_eq!(uneven.to_yield("c"), None);
        let even = picture(&["a", "a", "b"], &["a", "b"]);
        assert_eq!(even.to_yield("a"), None);
    }
}
