//! Rotating the key of an integration: make one, prove it, store it, take it into use, delete the old one.
//!
//! Owns the order of the steps and what a crash between them means: each is recorded before it is taken, so whoever
//! comes next knows what may have happened. A key is deleted only when it is neither in use nor in the secret store,
//! and is by the record or by its description one of this rotation. Never shows a key, and never holds up a
//! revocation: the key in use works on until another one was proven and stored.

mod steps;

use std::sync::Arc;

use chrono::TimeDelta;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, CallEvidence, EventKind};
use crate::domain::grant::LastError;
use crate::domain::ids::IntegrationName;
use crate::domain::rotation::{KeyMark, KeyRotation, Schedule, Stage};
use crate::ports::ledger::LedgerError;
use crate::ports::{Clock, KeyDesk, Ledger, SecretStore};

use super::error::{Result, ServiceError};

const ROTATIONS: &str = "latchkey_key_rotations_total";
const OPEN: &str = "latchkey_key_rotation_open_seconds";

/// Moves of one run: more than any rotation has stages, fewer than an endless loop.
const MOVES: usize = 24;

/// Who asks where nobody does.
const SCHEDULE: &str = "schedule";

/// Registers help texts.
pub fn describe_metrics() {
    describe_counter!(
        ROTATIONS,
        "Rotations of a key that are over, by outcome (done, abandoned)"
    );
    describe_gauge!(
        OPEN,
        metrics::Unit::Seconds,
        "How long the rotation of a key that is under way has been at its stage; 0 when there is none, and while it waits on purpose"
    );
}

/// Numbers of a rotation. The defaults fit Elastic Cloud.
#[derive(Debug, Clone)]
pub struct RotationSettings {
    /// When keys are rotated without being asked; `None` for never.
    pub schedule: Option<Schedule>,
    /// How long a new key lives where nobody says.
    pub lives: TimeDelta,
    /// How long the old key outlives the switch: longer than any request that was begun with it, and than it takes
    /// other replicas to fetch the new one.
    pub overlap: TimeDelta,
    /// How long a call of unknown outcome may still take effect.
    pub strays: TimeDelta,
    /// How long a new key may be unknown to upstream before it counts as unusable.
    pub patience: TimeDelta,
    /// After this a rotation that has not reached the secret store is given up.
    pub give_up: TimeDelta,
    /// Keys that one rotation may make.
    pub most_tries: u32,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self {
            schedule: None,
            lives: TimeDelta::days(90),
            overlap: TimeDelta::minutes(10),
            strays: TimeDelta::minutes(10),
            patience: TimeDelta::minutes(2),
            give_up: TimeDelta::hours(1),
            most_tries: 5,
        }
    }
}

/// The shortest and the longest life of a new key that may be asked for.
const LIVES: [TimeDelta; 2] = [TimeDelta::days(1), TimeDelta::days(365)];

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// There is no rotation, or the last one is over.
    Idle,
    /// Nothing is to be done before this instant.
    Waits(Timestamp),
    /// A step failed and is tried again in the next run.
    Troubled(String),
    /// There is more to do at once.
    Busy,
}

/// What only this process knows, and a crash forgets.
#[derive(Debug, Default)]
struct Memory {
    /// The try that was recorded and of which no byte was sent yet.
    begun: Option<Try>,
    /// The key that was made.
    made: Option<Made>,
    /// The rotation whose old key was asked away although upstream did not list it.
    unlisted: Option<String>,
}

/// One attempt to make a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Try {
    rotation: String,
    number: u32,
}

impl Try {
    fn of(rotation: &KeyRotation) -> Self {
        Self {
            rotation: rotation.id.clone(),
            number: rotation.tries,
        }
    }
}

/// A key that was made, with its text.
#[derive(Debug)]
struct Made {
    of: Try,
    mark: KeyMark,
    key: SecretString,
}

impl Memory {
    fn made(&self, rotation: &KeyRotation) -> Option<&Made> {
        self.made
            .as_ref()
            .filter(|made| made.of == Try::of(rotation))
    }
}

/// What a step came to.
enum Move {
    /// The record goes on, and then the next step is taken.
    To(Box<KeyRotation>),
    /// Nothing is to be done before this instant.
    Wait(Timestamp),
}

/// Why a step was not taken. It is taken again in the next run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    code: String,
    remedy: String,
}

impl Trouble {
    fn new(code: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            remedy: remedy.into(),
        }
    }
}

/// Rotates the key of one integration. One run at a time; several processes are told apart by the ledger.
#[derive(Debug)]
pub struct Rotator {
    integration: IntegrationName,
    desk: Arc<dyn KeyDesk>,
    store: Arc<dyn SecretStore>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    settings: RotationSettings,
    /// The ledger as anybody may write it, whoever works on the integration.
    front: Arc<dyn Ledger>,
    memory: Mutex<Memory>,
}

impl Rotator {
    /// A rotator; nothing is asked of anybody.
    #[must_use]
    pub fn new(
        integration: IntegrationName,
        desk: Arc<dyn KeyDesk>,
        store: Arc<dyn SecretStore>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        settings: RotationSettings,
    ) -> Self {
        Self {
            integration,
            desk,
            store,
            front: Arc::clone(&ledger),
            ledger,
            clock,
            settings,
            memory: Mutex::default(),
        }
    }

    /// Where a rotation may be asked for of any replica: `front` is the ledger without the claim under which steps are
    /// recorded.
    #[must_use]
    pub fn asked_through(mut self, front: Arc<dyn Ledger>) -> Self {
        self.front = front;
        self
    }

    /// The rotation that is under way, or the last one.
    ///
    /// # Errors
    /// Failures of the ledger.
    pub async fn last(&self) -> std::result::Result<Option<KeyRotation>, LedgerError> {
        self.front.rotation(&self.integration).await
    }

    /// Id of the key in use, where its text tells.
    #[must_use]
    pub fn key_id(&self) -> Option<String> {
        self.desk.in_use().and_then(|key| key.id)
    }

    /// Where the key is, and whether that place can be written.
    #[must_use]
    pub fn place(&self) -> (String, bool) {
        (self.store.describe(), self.store.can_replace())
    }

    /// When keys are rotated without being asked.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        self.settings.schedule
    }

    /// Records that a rotation is wanted. One that is under way is answered instead; it is not begun twice.
    ///
    /// # Errors
    /// [`ServiceError::InvalidField`] for a life out of bounds, [`ServiceError::Unfit`] when this key or its store
    /// cannot be rotated, [`ServiceError::Contended`], and failures of the ledger.
    pub async fn ask(
        &self,
        by: &str,
        reason: &str,
        lives: Option<TimeDelta>,
    ) -> Result<KeyRotation> {
        let lives = lives.unwrap_or(self.settings.lives);
        if lives < LIVES[0] || lives > LIVES[1] {
            return Err(ServiceError::invalid(
                "expires_in",
                "must be between one day and 365 days",
            ));
        }
        let last = self.last().await?;
        if let Some(open) = last.as_ref().filter(|last| !last.stage.is_over()) {
            return Ok(open.clone());
        }
        if !self.store.can_replace() {
            return Err(ServiceError::Unfit {
                code: "secret_unwritable",
                problem: "the key is in a place that Latchkey cannot write; put a new key there by hand, or use another secret store",
            });
        }
        // A key that was made by a rotation is known by the record of it, whatever its text tells.
        let old = self.desk.in_use().and_then(|key| {
            let made = last.as_ref().and_then(|last| last.new.clone());
            made.filter(|made| made.digest == key.digest)
        });
        if old.is_none() && self.desk.in_use().is_some_and(|key| key.id.is_none()) {
            return Err(ServiceError::Unfit {
                code: "key_hides_id",
                problem: "the text of the key does not tell its id, so it could not be deleted afterwards; replace it by hand once",
            });
        }
        let now = self.clock.now();
        let mut asked = KeyRotation::asked(
            self.integration.clone(),
            hex::encode(self.clock.entropy()),
            now,
            (by.to_owned(), reason.to_owned()),
            lives,
        );
        asked.old = old;
        asked.version = last.map_or(0, |last| last.version);
        let event = self.event(&asked, now);
        if !self.front.put_rotation(asked.clone(), vec![event]).await? {
            return Err(ServiceError::Contended);
        }
        tracing::info!(integration = %self.integration, rotation = asked.id, by, "Rotation of the key was asked for");
        asked.version += 1;
        Ok(asked)
    }

    /// Asks for a rotation where the schedule says that it is time.
    ///
    /// # Errors
    /// Those of [`Self::ask`].
    pub async fn ask_if_due(&self, expires_at: Option<Timestamp>) -> Result<bool> {
        let Some(schedule) = self.settings.schedule else {
            return Ok(false);
        };
        let last = self.last().await?;
        if !schedule.is_due(last.as_ref(), expires_at, self.clock.now()) {
            return Ok(false);
        }
        self.ask(
            SCHEDULE,
            "the schedule of the configuration",
            Some(schedule.lives),
        )
        .await?;
        Ok(true)
    }

    /// Goes as far as it can now. Safe to be called at any time, and after any crash.
    ///
    /// # Errors
    /// Failures of the ledger; nothing is done that was not recorded.
    pub async fn run(&self) -> std::result::Result<Progress, LedgerError> {
        let mut memory = self.memory.lock().await;
        for _ in 0..MOVES {
            let Some(rotation) = self.last().await? else {
                self.show(None);
                return Ok(Progress::Idle);
            };
            if rotation.stage.is_over() {
                *memory = Memory::default();
                self.show(None);
                return Ok(Progress::Idle);
            }
            self.show(Some(&rotation));
            match self.step(&rotation, &mut memory).await {
                Ok(Move::Wait(until)) => return Ok(Progress::Waits(until)),
                Ok(Move::To(next)) => self.record(*next).await?,
                Err(trouble) => {
                    let code = trouble.code.clone();
                    self.note_trouble(&rotation, trouble, &mut memory).await?;
                    return Ok(Progress::Troubled(code));
                }
            }
        }
        Ok(Progress::Busy)
    }

    /// Stores where the rotation goes. Whether somebody else went on meanwhile shows in the next move.
    async fn record(&self, next: KeyRotation) -> std::result::Result<(), LedgerError> {
        let event = self.event(&next, self.clock.now());
        let (stage, id) = (next.stage, next.id.clone());
        if self.ledger.put_rotation(next, vec![event]).await? {
            tracing::info!(integration = %self.integration, rotation = id, stage = stage.name(), "Rotation of the key goes on");
            if stage.is_over() {
                counter!(ROTATIONS, "integration" => self.integration.to_string(), "outcome" => stage.name())
                    .increment(1);
            }
        }
        Ok(())
    }

    /// Writes down what went wrong, once for each code, and gives up what has taken too long.
    async fn note_trouble(
        &self,
        rotation: &KeyRotation,
        trouble: Trouble,
        memory: &mut Memory,
    ) -> std::result::Result<(), LedgerError> {
        let now = self.clock.now();
        let Trouble { code, remedy } = trouble;
        let is_new = rotation
            .last_error
            .as_ref()
            .is_none_or(|last| last.code != code);
        let has_taken_too_long =
            rotation.stage.is_before_store() && now - rotation.asked_at > self.settings.give_up;
        let mut next = rotation.clone();
        next.last_error = Some(LastError {
            code,
            message: remedy,
            at: now,
        });
        if has_taken_too_long {
            if rotation.stage == Stage::Storing {
                // Whether it was stored has to be found out first, which is done without the text.
                memory.made = None;
            } else {
                next = next.at(Stage::Discarding, now);
            }
        }
        if is_new || next.stage != rotation.stage {
            if let Some(error) = &next.last_error {
                tracing::warn!(
                    integration = %self.integration, rotation = rotation.id, stage = rotation.stage.name(),
                    code = error.code, remedy = error.message, "Rotation of the key is held up"
                );
            }
            self.record(next).await?;
        }
        Ok(())
    }

    fn event(&self, rotation: &KeyRotation, now: Timestamp) -> AuditEvent {
        let id = |mark: &Option<KeyMark>| mark.as_ref().map(|mark| mark.id.clone());
        let kind = EventKind::KeyRotation {
            rotation: rotation.id.clone(),
            stage: rotation.stage.name().to_owned(),
            by: rotation.asked_by.clone(),
            reason: rotation.reason.clone(),
            old_key: id(&rotation.old),
            new_key: id(&rotation.new),
            code: rotation.last_error.as_ref().map(|error| error.code.clone()),
        };
        AuditEvent::integration(now, &self.integration, kind)
    }

    /// Leaves an audit event behind a call.
    async fn note_call(&self, outcome: &str, evidence: &CallEvidence) {
        let kind = EventKind::CallMade {
            outcome: outcome.to_owned(),
            evidence: evidence.clone(),
        };
        let event = AuditEvent::integration(self.clock.now(), &self.integration, kind);
        if let Err(error) = self.ledger.append(vec![event]).await {
            tracing::warn!(integration = %self.integration, code = error.code(), "Call left no audit event");
        }
    }

    fn show(&self, rotation: Option<&KeyRotation>) {
        let now = self.clock.now();
        let held_up = rotation
            .filter(|rotation| match rotation.stage {
                Stage::Switched => rotation.delete_at.is_none_or(|at| at < now),
                Stage::Deleting | Stage::Discarding => {
                    rotation.strays_until.is_none_or(|at| at < now)
                }
                Stage::Intended
                | Stage::Creating
                | Stage::Created
                | Stage::Storing
                | Stage::Stored
                | Stage::Retrying
                | Stage::Done
                | Stage::Abandoned => true,
            })
            .map_or(0, |rotation| (now - rotation.stage_since).num_seconds());
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds of a rotation are few, and a gauge is a float"
        )]
        gauge!(OPEN, "integration" => self.integration.to_string()).set(held_up as f64);
    }
}

#[cfg(test)]
mod tests;
