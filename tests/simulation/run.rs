//! One run from one seed: set up, let it go on, let it come to rest, judge.
//!
//! Owns the end of a run: whatever happened, nothing of ours is left and nothing is owed.

use std::sync::Arc;
use std::time::Duration;

use latchkey::ports::Ledger;
use latchkey::store::MemoryLedger;
use tokio::task::JoinSet;

use super::callers::{Caller, end_everything};
use super::clock::{Dice, MINUTE, Ms, SECOND, SimClock, sleep};
use super::meddlers;
use super::process::{Office, keep_alive};
use super::stage::{Stage, Tally, Violation, say};
use super::storm::storm;
use super::weather::{Setup, Weather};
use super::world::Giver;

/// How long a run's troubles last unless told otherwise.
pub(crate) const TROUBLED: Ms = 35 * MINUTE;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) wrong: Vec<Violation>,
    pub(crate) tally: Tally,
    /// Virtual time that passed.
    pub(crate) lasted: Ms,
    pub(crate) fingerprint: u64,
    /// The story of the person in trouble, when it was to be told.
    pub(crate) story: Option<String>,
    /// The story of everybody.
    pub(crate) whole: String,
}

/// One run in so many is followed by a storm.
const STORMS: u64 = 250;

/// Runs a seed.
pub(crate) fn run(seed: u64, troubled: Ms, told: bool) -> Outcome {
    let mut outcome = paused(live(seed, troubled, told));
    if seed % STORMS == 7
        && let Some(text) = paused(storm(seed))
    {
        outcome.wrong.push(Violation {
            at: outcome.lasted,
            rule: "I11 order",
            who: None,
            text,
        });
    }
    outcome
}

/// Runs something in one thread on time that moves only when everybody waits.
fn paused<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built")
        .block_on(run)
}

/// How long coming to rest takes at most: an unknown outcome is looked at again, a blocked removal tried again.
fn heals_within(setup: &Setup) -> Ms {
    setup.look_after + setup.blocked_retry + 4 * MINUTE
}

async fn live(seed: u64, troubled: Ms, told: bool) -> Outcome {
    let mut dice = Dice::new(seed, 0);
    let setup = Setup::draw(&mut dice);
    let weather = Weather::draw(&mut dice, troubled);
    let clock = Arc::new(SimClock::new(seed));
    let stage = Arc::new(Stage::new(clock, seed, weather, setup, told));
    {
        let mut on = stage.on();
        let unknowns = on.unknowns;
        say!(on, None, "{unknowns:?}");
        say!(on, None, "{weather:?}");
        say!(on, None, "{setup:?}");
    }
    meddlers::settle(&stage, &mut dice);
    let memory = Arc::new(MemoryLedger::new());
    let office = Arc::new(Office::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_alive(
        stage.clone(),
        office.clone(),
        memory.clone(),
        Dice::new(seed, 3),
    ));
    tasks.spawn(meddlers::run(stage.clone(), Dice::new(seed, 4)));
    tasks.spawn(meddlers::kill(stage.clone(), Dice::new(seed, 5)));
    tasks.spawn(meddlers::calm(stage.clone(), Dice::new(seed, 6)));
    tasks.spawn(end_everything(
        stage.clone(),
        office.clone(),
        Dice::new(seed, 7),
    ));
    for number in 0..setup.callers {
        let dice = Dice::new(seed, 16 + number as u64);
        tasks.spawn(Caller::new(stage.clone(), office.clone(), dice, number).run());
    }
    let over = troubled + heals_within(&setup);
    while stage.clock.elapsed() < over {
        let tick = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(tick);
        loop {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        stage.on().violate("no panic", None, error.to_string());
                    }
                }
                () = &mut tick => break,
            }
        }
        let mut on = stage.on();
        on.check_all();
        if !on.wrong.is_empty() && on.now > on.wrong[0].at + 2 * SECOND {
            break;
        }
    }
    tasks.shutdown().await;
    if stage.on().wrong.is_empty() {
        judge(&stage, &memory).await;
    }
    sleep(0).await;
    let on = stage.on();
    Outcome {
        wrong: on.wrong.clone(),
        tally: on.tally,
        lasted: on.now,
        fingerprint: on.story.fingerprint(),
        story: told.then(|| {
            let about = on.wrong.first().and_then(|violation| violation.who);
            on.story.tell(about)
        }),
        whole: on.story.tell(None),
    }
}

/// Long after the last trouble: quiescent, nothing owned, nothing due, nothing of ours left.
async fn judge(stage: &Stage, memory: &MemoryLedger) {
    const RULE: &str = "I9 heals";
    let (keys, ids) = {
        let on = stage.on();
        let keys: Vec<_> = (0..on.cast.len())
            .flat_map(|who| on.cast.keys(who).map(|key| (who, key)))
            .collect();
        let ids: Vec<_> = on
            .model
            .promises
            .iter()
            .map(|(id, promise)| (*id, promise.who))
            .collect();
        (keys, ids)
    };
    for (who, key) in keys {
        let record = memory.member(&key).await.expect("memory can be read");
        let mut on = stage.on();
        if !record.is_quiet() || record.due.is_some() {
            let text = format!("{key} is not at rest: {record:#?}");
            on.violate(RULE, Some(who), text);
        }
    }
    for (id, who) in ids {
        let grant = memory.grant(id).await.expect("memory can be read");
        if !grant.as_ref().is_some_and(|grant| grant.state.is_ended()) {
            let text = format!("grant {id} has not ended: {grant:?}");
            stage.on().violate(RULE, Some(who), text);
        }
    }
    let mut on = stage.on();
    let on = &mut *on;
    for who in 0..on.cast.len() {
        let left: Vec<usize> = on.world.people[who]
            .iter()
            .flat_map(|person| &person.held)
            .filter(|(_, entry)| entry.giver == Giver::Ours)
            .map(|(pair, _)| *pair)
            .collect();
        for pair in left {
            let text = format!("{} of ours is left", on.cast.names[pair]);
            on.violate(RULE, Some(who), text);
        }
    }
    let lost: Vec<_> = on
        .world
        .lost
        .iter()
        .filter(|(_, lost)| lost.owed)
        .map(|(spot, _)| *spot)
        .collect();
    for (who, pair) in lost {
        let text = format!("standing {} is lost", on.cast.names[pair]);
        on.violate(RULE, Some(who), text);
    }
    let now = on.now;
    let open: Vec<_> = on
        .world
        .invitations
        .iter()
        .filter(|open| open.ours && !open.excused && open.expires > now)
        .map(|open| (open.who, open.token.clone()))
        .collect();
    for (who, token) in open {
        on.violate(
            RULE,
            Some(who),
            format!("invitation {token} of ours is left"),
        );
    }
}
