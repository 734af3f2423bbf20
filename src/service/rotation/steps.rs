//! The steps of a rotation, one for each stage.
//!
//! Owns what is done at a stage and where it leads. Never takes a step whose stage is not recorded.

use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::{Made, Memory, Move, Rotator, Trouble, Try};
use crate::domain::grant::LastError;
use crate::domain::rotation::{KeyMark, KeyRotation, Stage};
use crate::ports::keys::KeyInUse;
use crate::ports::provider::{Outcome, ReadError, Refusal};
use crate::ports::secrets::{ReplaceError, Replacement, digest};

/// Elastic Cloud answers 500 to keys that are deleted faster than this one after the other.
const BETWEEN_DELETIONS: TimeDelta = TimeDelta::seconds(1);

/// Pause before another try, for each that was made.
const BETWEEN_TRIES: TimeDelta = TimeDelta::seconds(20);

const AGAIN: &str = "wait; it is tried again";

type Step = Result<Move, Trouble>;

/// Whether anything of a rotation is left.
enum Swept {
    /// Nothing that could be seen.
    Clean,
    /// Something was deleted; whether it is gone has to be looked at.
    Deleted,
}

impl Rotator {
    pub(super) async fn step(&self, rotation: &KeyRotation, memory: &mut Memory) -> Step {
        match rotation.stage {
            Stage::Intended => self.begin(rotation, memory).await,
            Stage::Creating => self.make(rotation, memory).await,
            Stage::Created => self.prove(rotation, memory).await,
            Stage::Storing => self.keep(rotation, memory).await,
            Stage::Stored => self.switch(rotation).await,
            Stage::Switched => self.outlive(rotation).await,
            Stage::Deleting | Stage::Retrying | Stage::Discarding => {
                self.clear(rotation, memory).await
            }
            Stage::Done | Stage::Abandoned => Ok(Move::Wait(self.clock.now())),
        }
    }

    /// Finds out which key is replaced, and records that another one is about to be made.
    async fn begin(&self, rotation: &KeyRotation, memory: &mut Memory) -> Step {
        if !self.store.can_replace() {
            return Ok(self.give_up(
                rotation,
                "secret_unwritable",
                "use a secret store that can be written",
            ));
        }
        let in_use = self.loaded().await?;
        let by_record = rotation.old.as_ref();
        let by_record = by_record.filter(|old| old.digest == in_use.digest);
        let Some(id) = in_use.id.or_else(|| by_record.map(|old| old.id.clone())) else {
            return Ok(self.give_up(
                rotation,
                "key_hides_id",
                "replace this key by hand once: its text does not tell its id",
            ));
        };
        if rotation.tries >= self.settings.most_tries {
            return Ok(self.give_up(
                rotation,
                "too_many_tries",
                "look at the log for what went wrong each time",
            ));
        }
        let pause =
            rotation.stage_since + BETWEEN_TRIES * i32::try_from(rotation.tries).unwrap_or(1);
        if self.clock.now() < pause {
            return Ok(Move::Wait(pause));
        }
        // What an earlier try left behind goes first, so that there are never many.
        if rotation.tries > 0
            && let Swept::Deleted = self.sweep(rotation, memory).await?
        {
            return Ok(Move::Wait(self.clock.now() + BETWEEN_DELETIONS));
        }
        let now = self.clock.now();
        let mut next = rotation.at(Stage::Creating, now);
        next.old = Some(KeyMark {
            id,
            digest: in_use.digest,
        });
        next.new = None;
        next.tries += 1;
        next.strays_until = Some(now + self.settings.strays);
        memory.begun = Some(Try::of(&next));
        memory.made = None;
        Ok(to(next))
    }

    /// Makes a key, unless somebody may have done so already.
    async fn make(&self, rotation: &KeyRotation, memory: &mut Memory) -> Step {
        let this = Try::of(rotation);
        if memory.made(rotation).is_none() {
            if memory.begun.take().is_none_or(|begun| begun != this) {
                // The key may have been made, but its text is lost with the answer.
                return Ok(to(self.again(rotation, "answer_lost")));
            }
            let lives = TimeDelta::seconds(rotation.lives_seconds);
            let outcome = self.desk.make_key(&rotation.description(), lives).await;
            self.note_call(outcome.name(), outcome.evidence()).await;
            match outcome {
                Outcome::Done(made, _) => {
                    let mark = KeyMark {
                        id: made.id,
                        digest: digest(&made.key),
                    };
                    memory.made = Some(Made {
                        of: this,
                        mark,
                        key: made.key,
                    });
                }
                Outcome::Refused(refusal, _) if refusal.is_transient() => {
                    // Nothing was made, so it was no try.
                    let mut next = rotation.at(Stage::Intended, self.clock.now());
                    next.tries -= 1;
                    next.last_error = Some(self.error(refusal.code(), AGAIN));
                    self.record(next).await.map_err(ledger)?;
                    return Err(Trouble::new(refusal.code(), AGAIN));
                }
                Outcome::Refused(refusal, _) => {
                    return Ok(self.give_up(
                        rotation,
                        refusal.code(),
                        "give the key the role organization-admin, and look whether the organization may have more keys",
                    ));
                }
                Outcome::Unknown(_) => {
                    let next = self.again(rotation, "answer_lost");
                    self.record(next).await.map_err(ledger)?;
                    return Err(lost());
                }
            }
        }
        let mut next = rotation.at(Stage::Created, self.clock.now());
        next.new = memory.made(rotation).map(|made| made.mark.clone());
        Ok(to(next))
    }

    /// Proves the new key before anybody depends on it.
    async fn prove(&self, rotation: &KeyRotation, memory: &Memory) -> Step {
        let Some(made) = memory.made(rotation) else {
            return Ok(to(rotation.at(Stage::Retrying, self.clock.now())));
        };
        let proof = self.desk.prove(&made.key).await;
        let (outcome, evidence) = match &proof {
            Ok((_, evidence)) => ("done", evidence),
            Err((_, evidence)) => ("refused", evidence),
        };
        self.note_call(outcome, evidence).await;
        let (code, remedy) = match proof {
            Ok((true, _)) => return Ok(to(fine(rotation.at(Stage::Storing, self.clock.now())))),
            Ok((false, _)) => (
                "new_key_is_not_owner".to_owned(),
                "give whoever is behind the key the role organization-admin",
            ),
            Err((ReadError::Refused(refusal), _)) if !is_passing(&refusal) => (
                refusal.code().to_owned(),
                "look at the new key in the Elastic Cloud console",
            ),
            Err((error, _)) => return Err(Trouble::new(error.code(), AGAIN)),
        };
        // A key that is seconds old may not be known everywhere.
        if self.clock.now() - rotation.stage_since < self.settings.patience {
            return Err(Trouble::new(code, remedy));
        }
        Ok(self.give_up(rotation, &code, remedy))
    }

    /// Writes the new key to the store, or finds out whether somebody did.
    async fn keep(&self, rotation: &KeyRotation, memory: &Memory) -> Step {
        let (old, new) = both(rotation)?;
        let token = format!("latchkey-rotation-{}-{}", rotation.id, rotation.tries);
        let now = self.clock.now();
        let Some(made) = memory.made(rotation) else {
            let stored = self.store.fetch().await.map_err(|error| secret(&error))?;
            let there = digest(&stored);
            if there == new.digest {
                return Ok(to(fine(rotation.at(Stage::Stored, now))));
            }
            if there != old.digest {
                return Ok(self.overtaken(rotation));
            }
            // A write may still be on its way. Once the old key was written anew, that one cannot land any more.
            let fence = Replacement {
                expected: &old.digest,
                key: &stored,
                token: &token,
            };
            return match self.store.replace(&fence).await {
                Ok(()) | Err(ReplaceError::Unwritable { .. }) => {
                    Ok(to(rotation.at(Stage::Retrying, now)))
                }
                // It landed just now: the next run sees it.
                Err(error @ ReplaceError::Changed { .. }) => Err(replacing(&error)),
                Err(_) if now - rotation.stage_since > self.settings.strays => {
                    Ok(to(rotation.at(Stage::Retrying, now)))
                }
                Err(error @ ReplaceError::Failed(_)) => Err(replacing(&error)),
            };
        };
        let replacement = Replacement {
            expected: &old.digest,
            key: &made.key,
            token: &token,
        };
        match self.store.replace(&replacement).await {
            Ok(()) => Ok(to(fine(rotation.at(Stage::Stored, now)))),
            Err(ReplaceError::Unwritable { .. }) => Ok(self.give_up(
                rotation,
                "secret_unwritable",
                "use a secret store that can be written",
            )),
            Err(error @ ReplaceError::Changed { .. }) => {
                let there = self.stored().await?;
                if there == new.digest {
                    Ok(to(fine(rotation.at(Stage::Stored, now))))
                } else if there == old.digest {
                    Err(replacing(&error))
                } else {
                    Ok(self.overtaken(rotation))
                }
            }
            Err(error @ ReplaceError::Failed(_)) => Err(replacing(&error)),
        }
    }

    /// Takes what the store gives into use, and proves it.
    async fn switch(&self, rotation: &KeyRotation) -> Step {
        let (_, new) = both(rotation)?;
        let is_new = || {
            self.desk
                .in_use()
                .is_some_and(|key| key.digest == new.digest)
        };
        if !is_new() {
            self.desk.reload().await.map_err(|error| secret(&error))?;
        }
        if !is_new() {
            if self.stored().await? == new.digest {
                return Err(Trouble::new("store_differs", AGAIN));
            }
            return Ok(self.overtaken(rotation));
        }
        let proof = self.desk.prove_in_use().await;
        let (outcome, evidence) = match &proof {
            Ok((_, evidence)) => ("done", evidence),
            Err((_, evidence)) => ("refused", evidence),
        };
        self.note_call(outcome, evidence).await;
        match proof {
            Ok((true, _)) => {
                let now = self.clock.now();
                let mut next = fine(rotation.at(Stage::Switched, now));
                next.switched_at = Some(now);
                next.delete_at = Some(now + self.settings.overlap);
                Ok(to(next))
            }
            Ok((false, _)) => Err(Trouble::new(
                "key_is_not_owner",
                "give whoever is behind the key the role organization-admin",
            )),
            Err((error, _)) => Err(Trouble::new(
                error.code(),
                "look whether Elastic Cloud takes the new key; the old one was not deleted",
            )),
        }
    }

    /// Waits until nobody uses the old key any more.
    async fn outlive(&self, rotation: &KeyRotation) -> Step {
        let now = self.clock.now();
        if let Some(at) = rotation.delete_at.filter(|at| now < *at) {
            return Ok(Move::Wait(at));
        }
        self.loaded().await?;
        Ok(to(rotation.at(Stage::Deleting, now)))
    }

    /// Deletes what must not stay, looks whether it is gone, and waits for what may still appear.
    async fn clear(&self, rotation: &KeyRotation, memory: &mut Memory) -> Step {
        let now = self.clock.now();
        if rotation.stage != Stage::Deleting
            && let Some(new) = &rotation.new
        {
            let in_use = self.desk.in_use().map(|key| key.digest);
            if self.stored().await? == new.digest || in_use.as_ref() == Some(&new.digest) {
                // It is what everybody uses by now.
                return Ok(to(rotation.at(Stage::Stored, now)));
            }
        }
        if rotation.stage == Stage::Discarding {
            // Whoever put another key there may take the old one away at any moment.
            self.loaded().await?;
        }
        if let Swept::Deleted = self.sweep(rotation, memory).await? {
            return Ok(Move::Wait(now + BETWEEN_DELETIONS));
        }
        if rotation.stage == Stage::Retrying {
            let mut next = rotation.at(Stage::Intended, now);
            next.new = None;
            return Ok(to(next));
        }
        if let Some(until) = rotation.strays_until.filter(|until| now < *until) {
            return Ok(Move::Wait(until));
        }
        Ok(to(if rotation.stage == Stage::Deleting {
            fine(rotation.at(Stage::Done, now))
        } else {
            rotation.at(Stage::Abandoned, now)
        }))
    }

    /// Deletes one key of this rotation that nobody uses. The old key is one of them only when it was replaced.
    async fn sweep(&self, rotation: &KeyRotation, memory: &mut Memory) -> Result<Swept, Trouble> {
        let is_replaced = rotation.stage == Stage::Deleting;
        let (in_use, stored) = (self.key_in_use()?, self.stored().await?);
        let listed = self.desk.list_keys().await;
        let listed = match listed {
            Ok((listed, evidence)) => {
                self.note_call("done", &evidence).await;
                listed
            }
            Err((error, evidence)) => {
                self.note_call("refused", &evidence).await;
                return Err(Trouble::new(error.code(), AGAIN));
            }
        };
        let mut doomed: BTreeSet<String> = listed
            .iter()
            .filter(|key| rotation.owns(&key.id, &key.description) && !key.is_own)
            .map(|key| key.id.clone())
            .collect();
        // What upstream does not list may be there all the same.
        if is_replaced
            && memory.unlisted.as_ref() != Some(&rotation.id)
            && let Some(old) = &rotation.old
        {
            doomed.insert(old.id.clone());
        }
        for mark in [&rotation.old, &rotation.new].into_iter().flatten() {
            if mark.digest == in_use.digest || mark.digest == stored {
                doomed.remove(&mark.id);
            }
        }
        if let Some(old) = rotation.old.as_ref().filter(|_| !is_replaced) {
            doomed.remove(&old.id);
        }
        if let Some(own) = &in_use.id {
            doomed.remove(own);
        }
        for id in doomed {
            if rotation.old.as_ref().is_some_and(|old| old.id == id) {
                memory.unlisted = Some(rotation.id.clone());
            }
            let outcome = self.desk.delete_key(&id).await;
            self.note_call(outcome.name(), outcome.evidence()).await;
            match outcome {
                // Neither shown nor known: it is gone.
                Outcome::Refused(Refusal::NotFound { .. }, _)
                    if listed.iter().all(|key| key.id != id) => {}
                Outcome::Done(..) | Outcome::Refused(Refusal::NotFound { .. }, _) => {
                    tracing::info!(integration = %self.integration, rotation = rotation.id, key.id = id, "Key was deleted");
                    return Ok(Swept::Deleted);
                }
                Outcome::Refused(refusal, _) => {
                    return Err(Trouble::new(
                        refusal.code(),
                        format!("delete the key {id} in the Elastic Cloud console if this goes on"),
                    ));
                }
                Outcome::Unknown(_) => {
                    return Err(Trouble::new(
                        "deletion_unknown",
                        "wait; it is looked at again",
                    ));
                }
            }
        }
        Ok(Swept::Clean)
    }

    /// The key in use, once it is the one that the store gives.
    async fn loaded(&self) -> Result<KeyInUse, Trouble> {
        let stored = self.stored().await?;
        if self.key_in_use().is_ok_and(|key| key.digest == stored) {
            return self.key_in_use();
        }
        self.desk.reload().await.map_err(|error| secret(&error))?;
        let in_use = self.key_in_use()?;
        if in_use.digest == stored {
            Ok(in_use)
        } else {
            Err(Trouble::new("store_differs", AGAIN))
        }
    }

    fn key_in_use(&self) -> Result<KeyInUse, Trouble> {
        self.desk
            .in_use()
            .ok_or_else(|| Trouble::new("no_key", "put a key into the secret store"))
    }

    /// Which key the store holds.
    async fn stored(&self) -> Result<String, Trouble> {
        let key = self.store.fetch().await.map_err(|error| secret(&error))?;
        Ok(digest(&key))
    }

    fn error(&self, code: &str, message: &str) -> LastError {
        LastError {
            code: code.to_owned(),
            message: message.to_owned(),
            at: self.clock.now(),
        }
    }

    /// The rotation cannot succeed; what it made goes.
    fn give_up(&self, rotation: &KeyRotation, code: &str, remedy: &str) -> Move {
        let mut next = rotation.at(Stage::Discarding, self.clock.now());
        next.last_error = Some(self.error(code, remedy));
        to(next)
    }

    /// Somebody else put another key into the store, which is the one that counts.
    fn overtaken(&self, rotation: &KeyRotation) -> Move {
        self.give_up(
            rotation,
            "secret_changed",
            "somebody else put a key into the secret store meanwhile, and that one is used; delete the old one by hand if nothing uses it",
        )
    }

    /// Nobody knows whether a key was made: it is looked for, deleted, and another one is made.
    fn again(&self, rotation: &KeyRotation, code: &str) -> KeyRotation {
        let mut next = rotation.at(Stage::Intended, self.clock.now());
        next.last_error = Some(self.error(code, AGAIN));
        next
    }
}

fn to(next: KeyRotation) -> Move {
    Move::To(Box::new(next))
}

/// The same without what went wrong before it went well.
fn fine(rotation: KeyRotation) -> KeyRotation {
    KeyRotation {
        last_error: None,
        ..rotation
    }
}

/// Both keys of a rotation, which are known from when one was made.
fn both(rotation: &KeyRotation) -> Result<(&KeyMark, &KeyMark), Trouble> {
    rotation
        .old
        .as_ref()
        .zip(rotation.new.as_ref())
        .ok_or_else(|| {
            Trouble::new(
                "record_incomplete",
                "delete the keys of this rotation in the Elastic Cloud console",
            )
        })
}

/// Whether a refusal of a read says nothing of the key.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Throttled { .. } | Refusal::NotSent { .. })
}

fn secret(error: &crate::ports::secrets::SecretError) -> Trouble {
    Trouble::new(error.code(), error.remedy())
}

fn lost() -> Trouble {
    Trouble::new("answer_lost", AGAIN)
}

fn replacing(error: &ReplaceError) -> Trouble {
    Trouble::new(error.code(), error.remedy())
}

fn ledger(error: crate::ports::ledger::LedgerError) -> Trouble {
    Trouble::new(error.code(), "look at the ledger")
}
