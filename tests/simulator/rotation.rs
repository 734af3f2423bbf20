//! A whole rotation of the key: real client, real file, simulated cloud, and every call of it interrupted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use latchkey::domain::ids::{IntegrationName, OrganizationId};
use latchkey::domain::rotation::{KeyRotation, Stage};
use latchkey::elastic::{Elastic, Options};
use latchkey::ports::provider::Priority;
use latchkey::ports::{AccessProvider as _, Clock, KeyDesk, Ledger, SecretStore};
use latchkey::runtime::ManualClock;
use latchkey::secrets::FileSecret;
use latchkey::service::rotation::{Progress, RotationSettings, Rotator};
use latchkey::sim::{Action, FaultRule, LateAnswer};
use latchkey::store::MemoryLedger;

use crate::harness::{Cloud, noon};

struct Bed {
    cloud: Cloud,
    clock: ManualClock,
    ledger: Arc<MemoryLedger>,
    path: PathBuf,
    elastic: Arc<Elastic>,
    rotator: Rotator,
    _folder: tempfile::TempDir,
}

fn name() -> IntegrationName {
    IntegrationName::parse("acme").unwrap()
}

impl Bed {
    async fn start() -> Self {
        let cloud = Cloud::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, &cloud.key).unwrap();
        let clock = ManualClock::at(noon());
        let ledger = Arc::new(MemoryLedger::new());
        let (elastic, rotator) = process(&cloud, &path, &clock, &ledger).await;
        Self {
            cloud,
            clock,
            ledger,
            path,
            elastic,
            rotator,
            _folder: folder,
        }
    }

    async fn restart(&mut self) {
        (self.elastic, self.rotator) =
            process(&self.cloud, &self.path, &self.clock, &self.ledger).await;
    }

    fn pass(&self, step: TimeDelta) {
        self.clock.advance(step);
        self.cloud.handle().advance(step);
    }

    async fn last(&self) -> KeyRotation {
        self.ledger.rotation(&name()).await.unwrap().unwrap()
    }

    async fn finish(&mut self, restarts: bool) -> KeyRotation {
        for _ in 0..200 {
            let now = self.clock.now();
            match self.rotator.run().await.unwrap() {
                Progress::Idle => return self.last().await,
                Progress::Waits(until) => self.pass(until - now),
                Progress::Troubled(_) => self.pass(TimeDelta::seconds(15)),
                Progress::Busy => {}
            }
            // What a connector needs at any moment: a key that works, in memory and in the file.
            let read = self.elastic.organization(Priority::Verify).await;
            assert!(read.is_ok(), "{read:?}");
            if restarts {
                self.restart().await;
                let read = self.elastic.organization(Priority::Verify).await;
                assert!(read.is_ok(), "after a restart: {read:?}");
            }
        }
        panic!("not over: {:?}", self.last().await);
    }

    /// Ids and texts of the keys that work.
    fn keys(&self) -> Vec<(String, String)> {
        self.cloud.handle().with(|core| {
            let keys = &core.world.organizations[0].api_keys;
            keys.iter()
                .map(|key| (key.id.clone(), key.key.clone()))
                .collect()
        })
    }
}

async fn process(
    cloud: &Cloud,
    path: &Path,
    clock: &ManualClock,
    ledger: &Arc<MemoryLedger>,
) -> (Arc<Elastic>, Rotator) {
    let store: Arc<dyn SecretStore> = Arc::new(FileSecret::new(path, "api_key"));
    let mut options = Options::new(cloud.base().parse().unwrap());
    options.organization = Some(OrganizationId::parse(&cloud.org).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let elastic = Arc::new(Elastic::new(options, Arc::clone(&store), Arc::clone(&clock)).unwrap());
    elastic.load_key().await.unwrap();
    let rotator = Rotator::new(
        name(),
        Arc::clone(&elastic) as Arc<dyn KeyDesk>,
        store,
        Arc::clone(ledger) as Arc<dyn Ledger>,
        clock,
        RotationSettings::default(),
    );
    (elastic, rotator)
}

#[tokio::test]
async fn a_rotation_leaves_one_key_which_is_new_stored_and_in_use() {
    let mut bed = Bed::start().await;
    let before = bed.keys();
    bed.rotator
        .ask("ada", "quarterly", Some(TimeDelta::days(30)))
        .await
        .unwrap();
    let last = bed.finish(false).await;
    assert_eq!(last.stage, Stage::Done, "{last:?}");
    let after = bed.keys();
    assert_eq!(after.len(), before.len());
    let stored = std::fs::read_to_string(&bed.path).unwrap();
    let id = last.new.unwrap().id;
    assert!(after.contains(&(id.clone(), stored)));
    assert!(!after.iter().any(|(_, text)| *text == bed.cloud.key));
    assert_eq!(bed.elastic.in_use().unwrap().id, Some(id));
    let status = bed.elastic.key_status();
    assert_eq!(status.sees_owners, Some(true));
    assert_eq!(status.expires_at, Some(noon() + TimeDelta::days(30)));
    bed.cloud.stop().await;
}

#[tokio::test]
async fn a_rotation_with_any_of_its_calls_broken_once_leaves_one_key() {
    let late = Action::ApplyLate {
        ms: 240_000,
        answer: LateAnswer::Drop,
    };
    let actions = [Action::DropBeforeApply, Action::DropAfterApply, late];
    for kind in ["keys.create", "keys.delete"] {
        for action in &actions {
            for restarts in [false, true] {
                let why = format!("{kind} {action:?} {restarts}");
                let mut bed = Bed::start().await;
                let before = bed.keys();
                bed.cloud
                    .handle()
                    .set_faults(vec![FaultRule::on(kind, action.clone()).times(1)]);
                bed.rotator.ask("ada", "quarterly", None).await.unwrap();
                let last = bed.finish(restarts).await;
                assert_eq!(last.stage, Stage::Done, "{why}: {last:?}");
                bed.pass(TimeDelta::minutes(10));
                let after = bed.keys();
                assert_eq!(after.len(), before.len(), "{why}: {after:?}");
                let stored = std::fs::read_to_string(&bed.path).unwrap();
                assert!(after.iter().any(|(_, text)| *text == stored), "{why}");
                bed.cloud.stop().await;
            }
        }
    }
}
