//! What to do when the wall clock was set back: no instant may lie further ahead than it could have been put.
//!
//! Owns bringing such instants back, so that a jump delays nothing for as long as it was wide. Never moves the end of
//! a grant: the wall clock decides about access, whichever way it was set. Pure.

use chrono::TimeDelta;

use super::Settings;
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::member::{MemberRecord, Phase};

/// Brings an instant back to the bound; answers whether it lay beyond.
fn back(instant: &mut Timestamp, bound: Timestamp) -> bool {
    let ahead = *instant > bound;
    if ahead {
        *instant = bound;
    }
    ahead
}

fn back_if(instant: &mut Option<Timestamp>, bound: Timestamp) -> bool {
    instant.as_mut().is_some_and(|instant| back(instant, bound))
}

/// Brings back what a record holds from before the clock was set back. Answers whether there was anything.
fn rewind(record: &mut MemberRecord, now: Timestamp, settings: &Settings) -> bool {
    let echo = now + settings.unknown_look_after;
    let look = echo.max(now + settings.bounds.request_lifetime);
    let mut moved = false;
    for row in &mut record.owned {
        moved |= back(&mut row.since, now);
        moved |= back(&mut row.last_write.at, now);
        moved |= back_if(&mut row.echo_until, echo);
        moved |= back_if(&mut row.removal_echo_until, echo);
        if let Phase::Closing { gone_at, look_at } = &mut row.phase {
            moved |= back(gone_at, now);
            moved |= back(look_at, look);
        }
        if let Some(blocked) = &mut row.blocked {
            moved |= back(&mut blocked.since, now);
            moved |= back(&mut blocked.retry_at, now + settings.blocked_retry);
        }
        for survivor in &mut row.must_survive {
            moved |= back_if(&mut survivor.restored_at, now);
        }
    }
    if let Some(backoff) = &mut record.backoff {
        let longest = settings.backoff_cap.max(settings.bounds.read_staleness);
        moved |= back(&mut backoff.until, now + longest);
    }
    if let Some(invitation) = &mut record.invitation {
        moved |= back(&mut invitation.intended_at, now);
    }
    let check = settings.first_check.max(settings.second_check);
    moved |= back_if(&mut record.check_at, now + check);
    moved |= back_if(&mut record.absent_since, now);
    if let Some(seen) = &mut record.last_seen {
        moved |= back(&mut seen.at, now);
    }
    moved
}

/// Whether a record holds instants from before the clock was set back.
pub(super) fn is_ahead(record: &MemberRecord, now: Timestamp, settings: &Settings) -> bool {
    rewind(&mut record.clone(), now + TimeDelta::seconds(1), settings)
}

impl Draft {
    /// Brings back what lies further ahead than anybody would have put it.
    pub fn rewind(&mut self, now: Timestamp, settings: &Settings) {
        self.changed |= rewind(&mut self.record, now, settings);
        self.each_grant(now, |grant| {
            if let GrantState::Activating { since, .. } = &mut grant.state {
                back(since, now)
            } else {
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{Backoff, MemberKey, Subject};

    #[test]
    fn a_clock_set_back_by_hours_leaves_no_pause_of_hours() {
        let key = MemberKey {
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::Member(UserId::parse("1").expect("well formed")),
        };
        let settings = Settings::default();
        let before = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let now = before - TimeDelta::hours(3);
        let mut record = MemberRecord::new(key);
        record.backoff = Some(Backoff {
            failures: 3,
            until: before + TimeDelta::seconds(4),
            code: "timeout".to_owned(),
        });
        record.absent_since = Some(before);
        assert!(!is_ahead(&record, before, &settings));
        assert!(is_ahead(&record, now, &settings));
        let mut draft = Draft::new(record);
        draft.rewind(now, &settings);
        assert!(draft.changed);
        assert_eq!(draft.record.absent_since, Some(now));
        let until = draft.record.backoff.as_ref().map(|backoff| backoff.until);
        assert_eq!(until, Some(now + settings.backoff_cap));
        let mut again = Draft::new(draft.record);
        again.rewind(now, &settings);
        assert!(!again.changed, "nothing is moved twice");
    }
}
