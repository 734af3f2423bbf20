//! A rotation, interrupted at every one of its calls: it never leaves two working keys, and never none.

mod world;

use chrono::TimeDelta;

use self::world::{Bed, Effect, Fault, Scene, rotated};
use super::RotationSettings;
use crate::domain::rotation::{KeyMark, Schedule, Stage};
use crate::ports::Clock as _;
use crate::service::ServiceError;

#[tokio::test]
async fn a_rotation_ends_with_the_new_key_in_store_and_in_use_and_the_old_one_deleted() {
    let (bed, last) = rotated(Vec::new()).await;
    assert_eq!(last.stage, Stage::Done);
    assert_eq!(last.last_error, None);
    bed.assert_no_orphan("done");
    let id = |mark: Option<KeyMark>| mark.map(|mark| mark.id);
    assert_eq!(id(last.old).as_deref(), Some("k1"));
    assert_eq!(id(last.new).as_deref(), Some("k3"));
    let overlap = last.stage_since - last.switched_at.expect("switched");
    assert!(overlap >= RotationSettings::default().overlap, "{overlap}");
}

#[tokio::test]
async fn a_rotation_interrupted_at_every_call_ends_with_one_working_key_and_no_orphan() {
    let calls = rotated(Vec::new()).await.0.scene.world().calls.len();
    assert!(calls > 10, "{calls}");
    let effects = [
        Effect::Never,
        Effect::Now,
        Effect::Later(1),
        Effect::Later(3),
        Effect::Later(1_000),
    ];
    for at in 0..calls {
        for dies in [true, false] {
            for effect in effects {
                let fault = Fault { at, dies, effect };
                let (bed, last) = rotated(vec![fault]).await;
                bed.assert_no_orphan(&format!("{fault:?}"));
                assert_eq!(last.stage, Stage::Done, "{fault:?}: {last:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_rotation_interrupted_twice_ends_with_one_working_key_and_no_orphan() {
    let calls = rotated(Vec::new()).await.0.scene.world().calls.len() + 6;
    let effects = [Effect::Never, Effect::Now, Effect::Later(2)];
    for first in 0..calls {
        for second in first + 1..calls {
            for (one, two) in effects
                .iter()
                .flat_map(|one| effects.map(|two| (*one, two)))
            {
                let faults = vec![
                    Fault {
                        at: first,
                        dies: true,
                        effect: one,
                    },
                    Fault {
                        at: second,
                        dies: (first + second).is_multiple_of(2),
                        effect: two,
                    },
                ];
                let why = format!("{faults:?}");
                let (bed, last) = rotated(faults).await;
                bed.assert_no_orphan(&why);
                assert!(last.stage.is_over(), "{why}");
            }
        }
    }
}

#[tokio::test]
async fn a_new_key_without_the_rights_of_an_owner_never_reaches_the_store() {
    let scene = Scene::new();
    scene.world().powerless = true;
    let mut bed = Bed::new(scene);
    bed.rotator.ask("ada", "why", None).await.expect("accepted");
    let last = bed.finish().await;
    assert_eq!(last.stage, Stage::Abandoned);
    let code = last.last_error.map(|error| error.code);
    assert_eq!(code.as_deref(), Some("new_key_is_not_owner"));
    bed.assert_no_orphan("abandoned");
    assert_eq!(bed.desk.text(), "text-1");
    assert!(!bed.scene.world().calls.contains(&"replace"));
}

#[tokio::test]
async fn a_key_that_somebody_else_stores_meanwhile_wins() {
    let scene = Scene::new();
    let mut bed = Bed::new(scene);
    bed.rotator.ask("ada", "why", None).await.expect("accepted");
    // The store does not answer until somebody has put a key of their own there.
    let faults = (0..40).map(|at| Fault {
        at: at + 3,
        dies: false,
        effect: Effect::Never,
    });
    bed.scene.world().faults = faults.collect();
    for _ in 0..4 {
        bed.rotator.run().await.expect("the ledger works");
        bed.scene.clock.advance(TimeDelta::seconds(15));
    }
    {
        let mut world = bed.scene.world();
        let (_, text) = world.add("an operator's");
        world.stored = text;
        world.version += 1;
        world.faults.clear();
    }
    bed.finish().await;
    let world = bed.scene.world();
    assert_eq!(world.stored, bed.desk.text(), "theirs is in use at the end");
    let ours = |(description, _): &&(String, String)| description.starts_with("latchkey/");
    let stored = &world.stored;
    let strays = world
        .keys
        .values()
        .filter(ours)
        .filter(|(_, text)| text != stored);
    assert_eq!(strays.count(), 0, "{:?}", world.keys);
}

#[tokio::test]
async fn asking_twice_is_one_rotation_and_a_place_that_cannot_be_written_is_refused() {
    let bed = Bed::new(Scene::new());
    let first = bed.rotator.ask("ada", "why", None).await.expect("accepted");
    let again = bed.rotator.ask("bob", "too", None).await.expect("answered");
    assert_eq!(first.id, again.id);
    let scene = Scene::new();
    scene.world().read_only = true;
    let refused = Bed::new(scene).rotator.ask("ada", "why", None).await;
    assert!(
        matches!(
            refused,
            Err(ServiceError::Unfit {
                code: "secret_unwritable",
                ..
            })
        ),
        "{refused:?}"
    );
    let endless = bed
        .rotator
        .ask("ada", "why", Some(TimeDelta::days(366)))
        .await;
    assert!(matches!(endless, Err(ServiceError::InvalidField { .. })));
}

#[tokio::test]
async fn a_schedule_rotates_a_key_that_ends_soon_and_then_waits_its_time() {
    let schedule = Schedule {
        every: TimeDelta::days(60),
        lives: TimeDelta::days(90),
    };
    let settings = RotationSettings {
        schedule: Some(schedule),
        ..RotationSettings::default()
    };
    let mut bed = Bed::with(Scene::new(), settings);
    let now = bed.scene.clock.now();
    let asked = |until: TimeDelta| Some(now + until);
    assert!(
        !bed.rotator
            .ask_if_due(asked(TimeDelta::days(31)))
            .await
            .expect("readable")
    );
    assert!(
        bed.rotator
            .ask_if_due(asked(TimeDelta::days(30)))
            .await
            .expect("asked")
    );
    let last = bed.finish().await;
    assert_eq!(
        (last.stage, last.asked_by.as_str()),
        (Stage::Done, "schedule")
    );
    let fresh = asked(TimeDelta::days(90));
    assert!(!bed.rotator.ask_if_due(fresh).await.expect("readable"));
    bed.scene.clock.advance(TimeDelta::days(60));
    assert!(bed.rotator.ask_if_due(fresh).await.expect("asked"));
}
