//! The rotation of a key: what was asked for, how far it is, and which keys it may delete.
//!
//! Owns the record that stands before every step. Holds no key: only ids, and digests that tell keys apart.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::grant::LastError;
use super::ids::IntegrationName;

/// What every description of a key that was made by a rotation begins with.
const PREFIX: &str = "latchkey";

/// A key, told apart from others without showing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMark {
    /// Its id in Elastic Cloud.
    pub id: String,
    /// SHA-256 of its text, in hexadecimal digits. Keys are random, so that nothing can be found out from it.
    pub digest: String,
}

/// How far a rotation is. Every one is recorded before what it names is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asked for; nothing is under way.
    Intended,
    /// A key is being made. If nobody remembers the answer, its text is lost for ever.
    Creating,
    /// A key was made and is being proven. Its text is in the memory of one process only.
    Created,
    /// The key is being written to the secret store.
    Storing,
    /// The secret store holds the key; it is being taken into use.
    Stored,
    /// The key is in use and proven. The old one lives on for those who still use it.
    Switched,
    /// The old key, and whatever this rotation left behind, is being deleted.
    Deleting,
    /// Over: the new key works, and nothing is left of the old one.
    Done,
    /// What was made is being deleted, because it cannot be used any more; then another key is made.
    Retrying,
    /// What was made is being deleted, because this rotation cannot succeed.
    Discarding,
    /// Over: given up. The key that worked before works on.
    Abandoned,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 11] = [
        Self::Intended,
        Self::Creating,
        Self::Created,
        Self::Storing,
        Self::Stored,
        Self::Switched,
        Self::Deleting,
        Self::Done,
        Self::Retrying,
        Self::Discarding,
        Self::Abandoned,
    ];

    /// Stable name for audit, metrics and callers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Storing => "storing",
            Self::Stored => "stored",
            Self::Switched => "switched",
            Self::Deleting => "deleting",
            Self::Done => "done",
            Self::Retrying => "retrying",
            Self::Discarding => "discarding",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Abandoned)
    }

    /// Whether the new key may still be given up: it is not in the store for all that is known.
    #[must_use]
    pub fn is_before_store(self) -> bool {
        matches!(
            self,
            Self::Intended | Self::Creating | Self::Created | Self::Storing
        )
    }
}

/// One rotation of the key of one integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotation {
    /// Whose key.
    pub integration: IntegrationName,
    /// Raised by the ledger with every change; 0 for one that was never stored.
    pub version: u64,
    /// Its id: 20 hexadecimal digits.
    pub id: String,
    /// How far it is.
    pub stage: Stage,
    /// Since when it is there.
    pub stage_since: Timestamp,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Who asked: a person, or `schedule`.
    pub asked_by: String,
    /// Why.
    pub reason: String,
    /// How long the new key lives, in seconds.
    pub lives_seconds: i64,
    /// The key that is replaced.
    pub old: Option<KeyMark>,
    /// The key that replaces it.
    pub new: Option<KeyMark>,
    /// Keys that were begun to be made.
    pub tries: u32,
    /// Until when a key of which nobody knows may still appear in Elastic Cloud.
    pub strays_until: Option<Timestamp>,
    /// When the new key came into use.
    pub switched_at: Option<Timestamp>,
    /// When the old key is deleted.
    pub delete_at: Option<Timestamp>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
}

impl KeyRotation {
    /// A rotation that somebody asks for.
    #[must_use]
    pub fn asked(
        integration: IntegrationName,
        id: String,
        at: Timestamp,
        (by, reason): (String, String),
        lives: TimeDelta,
    ) -> Self {
        Self {
            integration,
            version: 0,
            id,
            stage: Stage::Intended,
            stage_since: at,
            asked_at: at,
            asked_by: by,
            reason,
            lives_seconds: lives.num_seconds(),
            old: None,
            new: None,
            tries: 0,
            strays_until: None,
            switched_at: None,
            delete_at: None,
            last_error: None,
        }
    }

    /// What every key of this rotation, and no other, is described as.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{PREFIX}/{}/{}", self.integration, self.id)
    }

    /// The same rotation at another stage.
    #[must_use]
    pub fn at(&self, stage: Stage, now: Timestamp) -> Self {
        Self {
            stage,
            stage_since: now,
            ..self.clone()
        }
    }

    /// Whether a key of Elastic Cloud belongs to this rotation, so that it may be deleted by it.
    #[must_use]
    pub fn owns(&self, id: &str, description: &str) -> bool {
        let is = |mark: &Option<KeyMark>| mark.as_ref().is_some_and(|mark| mark.id == id);
        is(&self.new) || is(&self.old) || description == self.description()
    }
}

/// When keys are rotated without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How old a key may become.
    pub every: TimeDelta,
    /// How long a new key lives.
    pub lives: TimeDelta,
}

/// How long a rotation that was given up is left alone by the schedule.
const AFTER_ABANDONED: TimeDelta = TimeDelta::hours(6);

impl Schedule {
    /// Whether it is time. `last` is the last rotation of this integration; a key of which nothing is known, neither
    /// when it came nor when it goes, is rotated now.
    #[must_use]
    pub fn is_due(
        &self,
        last: Option<&KeyRotation>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        // What a rotated key has left when its time comes.
        let spare = self.lives - self.every;
        let ends_soon = expires_at.is_some_and(|at| at - now <= spare);
        match last {
            Some(last) if !last.stage.is_over() => false,
            Some(last) if last.stage == Stage::Abandoned => {
                now - last.stage_since >= AFTER_ABANDONED
                    && (ends_soon || expires_at.is_none() || now - last.asked_at >= self.every)
            }
            Some(last) => {
                ends_soon
                    || last
                        .switched_at
                        .is_some_and(|switched| now - switched >= self.every)
            }
            None => ends_soon || expires_at.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000, 0).expect("valid") + TimeDelta::days(days)
    }

    fn rotation() -> KeyRotation {
        KeyRotation::asked(
            IntegrationName::parse("acme").expect("valid"),
            "00112233445566778899".to_owned(),
            at(0),
            ("ada".to_owned(), "quarterly".to_owned()),
            TimeDelta::days(90),
        )
    }

    #[test]
    fn names_of_stages_are_those_of_the_record() {
        for stage in Stage::ALL {
            let stored = serde_json::to_value(stage).expect("serialises");
            assert_eq!(stored, stage.name());
        }
    }

    #[test]
    fn only_keys_of_the_rotation_are_its_own() {
        let mut rotation = rotation();
        let other = "latchkey/acme/00112233445566778898";
        assert!(rotation.owns("k9", "latchkey/acme/00112233445566778899"));
        assert!(!rotation.owns("k9", other));
        assert!(!rotation.owns("k9", "latchkey/acme"));
        let mark = |id: &str| {
            Some(KeyMark {
                id: id.to_owned(),
                digest: String::new(),
            })
        };
        (rotation.old, rotation.new) = (mark("k1"), mark("k2"));
        assert!(rotation.owns("k1", "made by hand") && rotation.owns("k2", ""));
        assert!(!rotation.owns("k3", "made by hand"));
    }

    #[test]
    fn a_schedule_is_due_by_age_or_by_the_end_of_the_key_and_never_twice() {
        let schedule = Schedule {
            every: TimeDelta::days(60),
            lives: TimeDelta::days(90),
        };
        // By the end of a key that was made by hand.
        assert!(!schedule.is_due(None, Some(at(31)), at(0)));
        assert!(schedule.is_due(None, Some(at(30)), at(0)));
        assert!(schedule.is_due(None, None, at(0)));
        // By age.
        let mut last = rotation().at(Stage::Done, at(0));
        last.switched_at = Some(at(0));
        assert!(!schedule.is_due(Some(&last), Some(at(90)), at(59)));
        assert!(schedule.is_due(Some(&last), Some(at(90)), at(60)));
        // Not while one is under way, and not right after one was given up.
        for stage in Stage::ALL.into_iter().filter(|stage| !stage.is_over()) {
            assert!(!schedule.is_due(Some(&last.at(stage, at(0))), Some(at(1)), at(80)));
        }
        let abandoned = rotation().at(Stage::Abandoned, at(0));
        let soon = Some(at(1));
        assert!(!schedule.is_due(Some(&abandoned), soon, at(0) + TimeDelta::hours(5)));
        assert!(schedule.is_due(Some(&abandoned), soon, at(0) + TimeDelta::hours(6)));
    }

    #[test]
    fn a_key_may_be_given_up_only_until_it_may_be_in_the_store() {
        let early = ["intended", "creating", "created", "storing"];
        for stage in Stage::ALL {
            assert_eq!(
                stage.is_before_store(),
                early.contains(&stage.name()),
                "{stage:?}"
            );
            let is_over = matches!(stage.name(), "done" | "abandoned");
            assert_eq!(stage.is_over(), is_over, "{stage:?}");
        }
    }

    #[test]
    fn a_rotation_that_was_given_up_is_tried_again_for_a_reason_only() {
        let schedule = Schedule {
            every: TimeDelta::days(60),
            lives: TimeDelta::days(90),
        };
        let given_up = rotation().at(Stage::Abandoned, at(0));
        let far = Some(at(365));
        assert!(
            !schedule.is_due(Some(&given_up), far, at(59)),
            "neither age nor end"
        );
        assert!(
            schedule.is_due(Some(&given_up), far, at(60)),
            "by age since it was asked for"
        );
        assert!(
            schedule.is_due(Some(&given_up), None, at(1)),
            "the end is not known"
        );
        let done = rotation().at(Stage::Done, at(0));
        assert!(!schedule.is_due(Some(&done), far, at(59)));
    }

    #[test]
    fn a_rotated_key_goes_by_its_age_or_by_its_end_whichever_comes_first() {
        let schedule = Schedule {
            every: TimeDelta::days(60),
            lives: TimeDelta::days(90),
        };
        let mut last = rotation().at(Stage::Done, at(0));
        last.switched_at = Some(at(0));
        let far = Some(at(365));
        assert!(!schedule.is_due(Some(&last), far, at(59)));
        assert!(schedule.is_due(Some(&last), far, at(60)), "by age alone");
        assert!(
            schedule.is_due(Some(&last), Some(at(40)), at(20)),
            "by its end alone"
        );
        assert!(
            !schedule.is_due(Some(&last), None, at(59)),
            "no end is known, but its age is"
        );
    }
}
