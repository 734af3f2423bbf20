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
    /// Empty for nobody.
    pub(super) holder: String,
    /// For how many milliseconds nobody has had it.
    pub(super) free_ms: i64,
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

/// Which claims have stood still, and since when by this process's own clock. Where the clock of the server was set
/// back, or another server with an earlier one took over, the deadline of an owner that is gone lies far ahead: nobody
/// could take its organizations before that. Whoever lives renews, whatever the clock says.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<String, (Stamp, Duration)>);

impl Watched {
    /// Takes a look at the table, and calls free what nobody has renewed for two claims.
    pub(super) fn look(&mut self, picture: &mut Picture, claim: Duration, now: Duration) {
        let still = claim * 2;
        for row in &mut picture.rows {
            let seen = self
                .0
                .entry(row.integration.clone())
                .or_insert((row.stamp, now));
            if seen.0 != row.stamp {
                *seen = (row.stamp, now);
            }
            if !row.holder.is_empty() && now.saturating_sub(seen.1) >= still {
                row.is_stuck = true;
                row.holder.clear();
                row.free_ms = millis(still);
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

    #[test]
    fn a_claim_that_nobody_renews_is_free_after_two_lives_whatever_the_server_says() {
        let mut watched = Watched::default();
        let look = |watched: &mut Watched, deadline_us, seconds| {
            let mut now = picture(&["a"], &["a", "b"]);
            now.rows[0].stamp.deadline_us = deadline_us;
            watched.look(&mut now, CLAIM, Duration::from_secs(seconds));
            taken(&now, "b", |_| true)
        };
        assert!(look(&mut watched, 7, 100).is_empty());
        assert!(look(&mut watched, 7, 109).is_empty());
        // Renewed, if only to an earlier instant of a clock that was set back.
        assert!(look(&mut watched, 3, 110).is_empty());
        assert!(look(&mut watched, 3, 119).is_empty());
        assert_eq!(look(&mut watched, 3, 120), ["i0"]);
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
