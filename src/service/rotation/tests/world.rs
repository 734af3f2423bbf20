//! A small world of keys and one secret, any call of which can be interrupted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::super::{Progress, RotationSettings, Rotator};
use crate::domain::Timestamp;
use crate::domain::event::CallEvidence;
use crate::domain::ids::IntegrationName;
use crate::domain::rotation::KeyRotation;
use crate::ports::keys::{KeyInUse, MadeKey};
use crate::ports::provider::{ObservedKey, Outcome, ReadError, ReadResult, Refusal};
use crate::ports::secrets::{ReplaceError, Replacement, SecretError, digest};
use crate::ports::{Clock, KeyDesk, Ledger, SecretStore};
use crate::runtime::ManualClock;
use crate::store::MemoryLedger;

/// What becomes of the call that is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Never,
    Now,
    /// After so many more calls, or within five minutes.
    Later(usize),
}

/// How a call is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// Which call, counted from 0.
    pub(super) at: usize,
    /// Whether the process dies with it; otherwise only the answer is lost.
    pub(super) dies: bool,
    pub(super) effect: Effect,
}

type Late = Box<dyn FnOnce(&mut World) + Send>;

#[derive(Default)]
pub(super) struct World {
    /// Keys that work, by id: description and text.
    pub(super) keys: BTreeMap<String, (String, String)>,
    /// Keys that were ever made.
    made: usize,
    pub(super) stored: String,
    pub(super) version: u64,
    pub(super) calls: Vec<&'static str>,
    pub(super) faults: Vec<Fault>,
    late: Vec<(usize, Timestamp, Late)>,
    /// New keys are not an owner's.
    pub(super) powerless: bool,
    pub(super) read_only: bool,
}

#[derive(Clone)]
pub(super) struct Scene {
    world: Arc<Mutex<World>>,
    pub(super) clock: ManualClock,
    crash: Arc<Notify>,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scene")
    }
}

impl World {
    pub(super) fn add(&mut self, description: &str) -> (String, String) {
        self.made += 1;
        let (id, text) = (format!("k{}", self.made), format!("text-{}", self.made));
        self.keys
            .insert(id.clone(), (description.to_owned(), text.clone()));
        (id, text)
    }

    fn works(&self, text: &str) -> bool {
        self.keys.values().any(|(_, known)| known == text)
    }

    fn id_of(&self, text: &str) -> Option<String> {
        let number = text.strip_prefix("text-")?;
        Some(format!("k{number}"))
    }

    fn land(&mut self, now: Timestamp, all: bool) {
        let calls = self.calls.len();
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition::<Vec<_>, _>(|(after, at, _)| all || calls >= *after || now >= *at);
        self.late = later;
        for (_, _, effect) in due {
            effect(self);
        }
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut world = World::default();
        let (_, text) = world.add("made by hand");
        world.add("somebody else's");
        world.stored = text;
        Self {
            world: Arc::new(Mutex::new(world)),
            clock: ManualClock::default(),
            crash: Arc::default(),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }

    /// One call with an effect; `None` when its answer is lost.
    async fn call<T: Send>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Option<T> {
        let mut answer = None;
        let mut dies = false;
        {
            let mut world = self.world();
            let now = self.clock.now();
            world.land(now, false);
            // What everybody starts with after a crash must work, whatever happens when.
            let stored = world.stored.clone();
            assert!(
                world.works(&stored),
                "the store holds a dead key: {:?}",
                world.calls
            );
            let number = world.calls.len();
            world.calls.push(name);
            let fault = world
                .faults
                .iter()
                .find(|fault| fault.at == number)
                .copied();
            match fault {
                None => answer = Some(effect(&mut world)),
                Some(fault) => {
                    dies = fault.dies;
                    match fault.effect {
                        Effect::Never => {}
                        Effect::Now => drop(effect(&mut world)),
                        Effect::Later(calls) => world.late.push((
                            number + 1 + calls,
                            now + TimeDelta::minutes(5),
                            Box::new(move |world| drop(effect(world))),
                        )),
                    }
                }
            }
        }
        if dies {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// The secret, with compare and swap.
#[derive(Debug)]
struct Shelf(Scene);

#[async_trait]
impl SecretStore for Shelf {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        self.0
            .call("fetch", |world| SecretString::from(world.stored.as_str()))
            .await
            .ok_or_else(|| away("fetch"))
    }

    fn describe(&self) -> String {
        "the shelf".to_owned()
    }

    fn can_replace(&self) -> bool {
        !self.0.world().read_only
    }

    async fn replace(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        let wanted = replacement.key.expose_secret().to_owned();
        let (there, version) = {
            let world = self.0.world();
            (
                digest(&SecretString::from(world.stored.as_str())),
                world.version,
            )
        };
        let changed = || ReplaceError::Changed {
            place: self.describe(),
        };
        if there == digest(replacement.key) && there != replacement.expected {
            return Ok(());
        }
        if there != replacement.expected {
            return Err(changed());
        }
        let written = self
            .0
            .call("replace", move |world| {
                let fits = world.version == version;
                if fits {
                    world.stored = wanted;
                    world.version += 1;
                }
                fits
            })
            .await;
        match written {
            Some(true) => Ok(()),
            Some(false) => Err(changed()),
            None => Err(ReplaceError::Failed(away("replace"))),
        }
    }
}

fn away(code: &str) -> SecretError {
    SecretError::Unavailable {
        place: "the shelf".to_owned(),
        code: code.to_owned(),
        remedy: "wait".to_owned(),
    }
}

/// One process: it has a key in memory.
#[derive(Debug)]
pub(super) struct Desk {
    scene: Scene,
    current: Mutex<String>,
}

impl Desk {
    pub(super) fn text(&self) -> String {
        self.current.lock().expect("no test panics with it").clone()
    }
}

fn evidence() -> CallEvidence {
    CallEvidence::default()
}

fn unavailable<T>() -> ReadResult<T> {
    let code = "timeout".to_owned();
    Err((ReadError::Unavailable { code }, evidence()))
}

fn unknown_key() -> Refusal {
    Refusal::Unauthenticated {
        code: "http_401".to_owned(),
    }
}

#[async_trait]
impl KeyDesk for Desk {
    fn in_use(&self) -> Option<KeyInUse> {
        let text = self.text();
        Some(KeyInUse {
            id: self.scene.world().id_of(&text),
            digest: digest(&SecretString::from(text)),
        })
    }

    async fn make_key(&self, description: &str, _lives: TimeDelta) -> Outcome<MadeKey> {
        let (description, text) = (description.to_owned(), self.text());
        let made = self
            .scene
            .call("make", move |world| {
                world.works(&text).then(|| world.add(&description))
            })
            .await;
        match made {
            Some(Some((id, text))) => {
                let made = MadeKey {
                    id,
                    key: SecretString::from(text),
                    expires_at: None,
                };
                Outcome::Done(made, evidence())
            }
            Some(None) => Outcome::Refused(unknown_key(), evidence()),
            None => Outcome::Unknown(evidence()),
        }
    }

    async fn list_keys(&self) -> ReadResult<Vec<ObservedKey>> {
        let own = self.text();
        let listed = self
            .scene
            .call("list", move |world| {
                let keys = world.keys.iter();
                keys.map(|(id, (description, text))| ObservedKey {
                    id: id.clone(),
                    description: description.clone(),
                    expires_at: None,
                    is_own: *text == own,
                })
                .collect()
            })
            .await;
        listed.map_or_else(unavailable, |listed| Ok((listed, evidence())))
    }

    async fn delete_key(&self, id: &str) -> Outcome<()> {
        let (id, text) = (id.to_owned(), self.text());
        let deleted = self
            .scene
            .call("delete", move |world| {
                assert!(world.works(&text), "deleting with a dead key");
                world.keys.remove(&id).is_some()
            })
            .await;
        match deleted {
            Some(true) => Outcome::Done((), evidence()),
            Some(false) => {
                let code = "api_keys.key_not_found".to_owned();
                Outcome::Refused(Refusal::NotFound { code }, evidence())
            }
            None => Outcome::Unknown(evidence()),
        }
    }

    async fn prove(&self, key: &SecretString) -> ReadResult<bool> {
        let text = key.expose_secret().to_owned();
        let proven = self
            .scene
            .call("prove", move |world| {
                world.works(&text).then_some(!world.powerless)
            })
            .await;
        match proven {
            Some(Some(owner)) => Ok((owner, evidence())),
            Some(None) => Err((ReadError::Refused(unknown_key()), evidence())),
            None => unavailable(),
        }
    }

    async fn prove_in_use(&self) -> ReadResult<bool> {
        self.prove(&SecretString::from(self.text())).await
    }

    async fn reload(&self) -> Result<bool, SecretError> {
        let stored = self
            .scene
            .call("reload", |world| world.stored.clone())
            .await
            .ok_or_else(|| away("reload"))?;
        let mut current = self.current.lock().expect("no test panics with it");
        let changed = *current != stored;
        *current = stored;
        Ok(changed)
    }
}

fn name() -> IntegrationName {
    IntegrationName::parse("acme").expect("valid")
}

pub(super) struct Bed {
    pub(super) scene: Scene,
    ledger: Arc<MemoryLedger>,
    pub(super) desk: Arc<Desk>,
    pub(super) rotator: Rotator,
    settings: RotationSettings,
}

impl Bed {
    pub(super) fn new(scene: Scene) -> Self {
        Self::with(scene, RotationSettings::default())
    }

    pub(super) fn with(scene: Scene, settings: RotationSettings) -> Self {
        let ledger = Arc::new(MemoryLedger::new());
        let (desk, rotator) = process(&scene, &ledger, &settings);
        Self {
            scene,
            ledger,
            desk,
            rotator,
            settings,
        }
    }

    async fn last(&self) -> KeyRotation {
        let last = self.ledger.rotation(&name()).await.expect("readable");
        last.expect("one was asked for")
    }

    /// Runs, restarts after crashes and lets time pass, until the rotation is over.
    pub(super) async fn finish(&mut self) -> KeyRotation {
        for _ in 0..500 {
            let ran = tokio::select! {
                ran = self.rotator.run() => Some(ran.expect("the ledger works")),
                () = self.scene.crash.notified() => None,
            };
            let now = self.scene.clock.now();
            match ran {
                None => {
                    (self.desk, self.rotator) = process(&self.scene, &self.ledger, &self.settings);
                }
                Some(Progress::Idle) => {
                    self.scene.world().land(now, true);
                    return self.last().await;
                }
                Some(Progress::Waits(until)) => self.scene.clock.advance(until - now),
                Some(Progress::Troubled(_)) => {
                    self.scene.clock.advance(TimeDelta::seconds(15));
                }
                Some(Progress::Busy) => {}
            }
            let world = self.scene.world();
            assert!(
                world.works(&self.desk.text()),
                "the connector holds a dead key after {:?}",
                world.calls
            );
        }
        panic!("not over: {:?}", self.last().await);
    }

    /// One working key, which everybody uses, and nothing else of ours.
    pub(super) fn assert_no_orphan(&self, why: &str) {
        let world = self.scene.world();
        let in_use = self.desk.text();
        assert_eq!(world.stored, in_use, "{why}: {:?}", world.calls);
        let left: Vec<&String> = world
            .keys
            .iter()
            .filter(|(_, (description, _))| description != "somebody else's")
            .map(|(_, (_, text))| text)
            .collect();
        assert_eq!(left, [&in_use], "{why}: {:?}", world.calls);
        assert!(
            world.keys.contains_key("k2"),
            "{why}: a stranger's key is gone"
        );
    }
}

/// A process as it starts: with the key that the store holds.
fn process(
    scene: &Scene,
    ledger: &Arc<MemoryLedger>,
    settings: &RotationSettings,
) -> (Arc<Desk>, Rotator) {
    let desk = Arc::new(Desk {
        scene: scene.clone(),
        current: Mutex::new(scene.world().stored.clone()),
    });
    let rotator = Rotator::new(
        name(),
        Arc::clone(&desk) as Arc<dyn KeyDesk>,
        Arc::new(Shelf(scene.clone())),
        Arc::clone(ledger) as Arc<dyn Ledger>,
        Arc::new(scene.clock.clone()),
        settings.clone(),
    );
    (desk, rotator)
}

pub(super) async fn rotated(faults: Vec<Fault>) -> (Bed, KeyRotation) {
    let scene = Scene::new();
    scene.world().faults = faults;
    let mut bed = Bed::new(scene);
    bed.rotator
        .ask("ada", "quarterly", None)
        .await
        .expect("accepted");
    let last = bed.finish().await;
    (bed, last)
}
