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
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::assignment::Assignment;
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{
        Backoff, Blocked, Invitation, LastSeen, MemberKey, Owned, Subject, Survivor, WriteKind,
        WriteOutcome,
    };

    fn key() -> MemberKey {
        MemberKey {
            integration: IntegrationName::parse("main").expect("well formed"),
            subject: Subject::Member(UserId::parse("1").expect("well formed")),
        }
    }

    #[test]
    fn a_clock_set_back_by_hours_leaves_no_pause_of_hours() {
        let settings = Settings::default();
        let before = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let now = before - TimeDelta::hours(3);
        let mut record = MemberRecord::new(key());
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

    /// Everything that a record can hold an instant in, put there at `now`.
    fn full(now: Timestamp, settings: &Settings) -> MemberRecord {
        let parsed = |text: &str| Assignment::parse(text).expect("well formed");
        let mut draft = Draft::new(MemberRecord::new(key()));
        let ours = [
            parsed("deployment-viewer on deployment/a"),
            parsed("deployment-viewer on deployment/b"),
        ];
        draft.intend(WriteKind::Add, &ours, now, settings);
        let mut record = draft.record;
        record.owned[0].removal_echo_until = Some(now);
        record.owned[0].blocked = Some(Blocked {
            code: "last_owner".to_owned(),
            since: now,
            retry_at: now,
            refusals: 1,
        });
        record.owned[0].must_survive = vec![Survivor {
            assignment: parsed("deployment-viewer on deployment/c"),
            restored_at: Some(now),
            restores: 1,
        }];
        record.owned[1].phase = Phase::Closing {
            gone_at: now,
            look_at: now,
        };
        record.backoff = Some(Backoff {
            failures: 1,
            until: now,
            code: "timeout".to_owned(),
        });
        record.invitation = Some(Invitation {
            token: None,
            intended_at: now,
            expires_at: None,
            ours: true,
            outcome: WriteOutcome::Unknown,
            echo_until: None,
        });
        record.check_at = Some(now);
        record.absent_since = Some(now);
        record.last_seen = Some(LastSeen {
            at: now,
            assignments: BTreeSet::new(),
        });
        record
    }

    fn blocked(record: &mut MemberRecord) -> &mut Blocked {
        record.owned[0].blocked.as_mut().expect("it is blocked")
    }

    fn closing(row: &mut Owned, gone: Option<Timestamp>, look: Option<Timestamp>) {
        let Phase::Closing { gone_at, look_at } = &mut row.phase else {
            panic!("{row:?}");
        };
        *gone_at = gone.unwrap_or(*gone_at);
        *look_at = look.unwrap_or(*look_at);
    }

    #[test]
    fn every_instant_is_brought_back_to_where_it_could_have_been_put_at_the_latest_and_no_further()
    {
        let usual = Settings::default();
        check(&usual);
        // Where a call is known to land sooner than it can be answered.
        check(&Settings {
            unknown_look_after: usual.bounds.request_lifetime / 2,
            ..usual
        });
    }

    fn check(settings: &Settings) {
        type Put = fn(&mut MemberRecord, Timestamp);
        let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let zero = TimeDelta::zero();
        let echo = settings.unknown_look_after;
        let rows: [(&str, Put, TimeDelta); 14] = [
            ("since", |one, at| one.owned[0].since = at, zero),
            ("write", |one, at| one.owned[0].last_write.at = at, zero),
            ("echo", |one, at| one.owned[0].echo_until = Some(at), echo),
            (
                "removal echo",
                |one, at| one.owned[0].removal_echo_until = Some(at),
                echo,
            ),
            (
                "gone",
                |one, at| closing(&mut one.owned[1], Some(at), None),
                zero,
            ),
            (
                "second look",
                |one, at| closing(&mut one.owned[1], None, Some(at)),
                echo.max(settings.bounds.request_lifetime),
            ),
            ("blocked", |one, at| blocked(one).since = at, zero),
            (
                "tried again",
                |one, at| blocked(one).retry_at = at,
                settings.blocked_retry,
            ),
            (
                "put back",
                |one, at| one.owned[0].must_survive[0].restored_at = Some(at),
                zero,
            ),
            (
                "pause",
                |one, at| one.backoff.as_mut().expect("it pauses").until = at,
                settings.backoff_cap,
            ),
            (
                "invited",
                |one, at| one.invitation.as_mut().expect("invited").intended_at = at,
                zero,
            ),
            (
                "check",
                |one, at| one.check_at = Some(at),
                settings.second_check,
            ),
            ("absent", |one, at| one.absent_since = Some(at), zero),
            (
                "seen",
                |one, at| one.last_seen.as_mut().expect("seen").at = at,
                zero,
            ),
        ];
        for (what, put, ahead) in rows {
            let mut latest = full(now, settings);
            put(&mut latest, now + ahead);
            let mut draft = Draft::new(latest.clone());
            draft.rewind(now, settings);
            assert!(!draft.changed, "{what} could have been put there");
            let mut record = latest.clone();
            put(&mut record, now + ahead + TimeDelta::days(2));
            assert!(is_ahead(&record, now, settings), "{what}");
            let mut draft = Draft::new(record);
            draft.rewind(now, settings);
            assert!(draft.changed, "{what}");
            assert_eq!(draft.record, latest, "{what}");
        }
    }
}
