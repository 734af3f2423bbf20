//! One process after the other: service, driver, reconciler and sweeps on the ledger that survives them.
//!
//! Owns births and deaths. A process that dies stops at the point where it is: every task of it is dropped, and what
//! it had sent goes on its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::TimeDelta;
use latchkey::domain::ids::IntegrationName;
use latchkey::domain::ttl::Ttl;
use latchkey::policy::Rules;
use latchkey::ports::{Clock, Ledger, Wake};
use latchkey::reconcile::{Observer, Reconciler, Settings};
use latchkey::scheduler::driver::{Driver, Limits, Waker};
use latchkey::scheduler::hidden::{LATE, raise_hidden};
use latchkey::service::{Details, IntegrationParts, Service};
use latchkey::store::MemoryLedger;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cast::integration;
use super::clock::{Dice, MINUTE, Ms, SECOND, sleep};
use super::cloud::Cloud;
use super::invariants::PAUSE;
use super::ledger::Store;
use super::stage::{Stage, say};

/// The process that lives now, as callers reach it.
#[derive(Debug, Clone)]
struct Live {
    service: Arc<Service>,
    gone: CancellationToken,
}

/// Where callers find the process.
#[derive(Debug, Default)]
pub(crate) struct Office {
    live: Mutex<Option<Live>>,
}

impl Office {
    fn door(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().expect("no code panics at the door")
    }

    /// Makes one call. Nothing comes back when there is no process, when it dies, or when the caller hangs up.
    pub(crate) async fn ask<T, F>(
        &self,
        patience: Option<Ms>,
        call: impl FnOnce(Arc<Service>) -> F,
    ) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let live = self.door().clone()?;
        let answer = async {
            tokio::select! {
                biased;
                () = live.gone.cancelled() => None,
                answer = call(live.service) => Some(answer),
            }
        };
        match patience {
            None => answer.await,
            Some(ms) => {
                tokio::select! {
                    biased;
                    answer = answer => answer,
                    () = sleep(ms) => None,
                }
            }
        }
    }
}

pub(crate) fn rules() -> Rules {
    Rules {
        organization_roles: true,
        all_targets: true,
        max_duration: Ttl::from_seconds(12 * 3600).expect("in range"),
        ..Rules::default()
    }
}

/// Keeps a process alive until it is dropped.
pub(crate) async fn keep_alive(
    stage: Arc<Stage>,
    office: Arc<Office>,
    memory: Arc<MemoryLedger>,
    mut dice: Dice,
) {
    let mut life = 0;
    loop {
        life += 1;
        let died = {
            let mut on = stage.on();
            on.crash.life = life;
            on.crash.alive = true;
            on.crash.countdown = None;
            on.told_since = None;
            on.sees_owners = None;
            say!(on, None, "process {life} starts");
            Arc::clone(&on.crash.died)
        };
        let gone = CancellationToken::new();
        let (service, mut tasks) = begin(&stage, &memory, life, &gone);
        *office.door() = Some(Live {
            service,
            gone: gone.clone(),
        });
        let ended = tokio::select! {
            biased;
            () = died.notified() => None,
            ended = tasks.join_next() => ended,
        };
        *office.door() = None;
        gone.cancel();
        {
            let mut on = stage.on();
            on.crash.alive = false;
            for who in 0..on.cast.len() {
                on.model.unended[who] = false;
                on.unrecorded[who] = false;
                if let Some(at) = on.model.invitation_intended[who].take() {
                    let until = at + on.setup.look_after + PAUSE;
                    let doubt = &mut on.model.invitation_in_doubt[who];
                    *doubt = until.max(*doubt);
                }
            }
            if let Some(Err(error)) = ended
                && error.is_panic()
            {
                on.violate("no panic", None, format!("a task of the process: {error}"));
            }
        }
        // Whatever is left of it goes now, at whichever await it stands.
        drop(tasks);
        let down = match dice.below(4) {
            0 => dice.range(1, 50),
            1 | 2 => dice.range(SECOND, 20 * SECOND),
            _ => dice.range(20 * SECOND, 4 * MINUTE),
        };
        let calm_from = stage.on().weather.calm_from;
        let now = stage.clock.elapsed();
        sleep(down.min((calm_from - now).max(1))).await;
    }
}

fn begin(
    stage: &Arc<Stage>,
    memory: &Arc<MemoryLedger>,
    life: u64,
    gone: &CancellationToken,
) -> (Arc<Service>, JoinSet<()>) {
    let setup = stage.on().setup;
    let clock: Arc<dyn Clock> = stage.clock.clone();
    let ledger: Arc<dyn Ledger> = Arc::new(Store::new(memory.clone(), stage.clone(), life));
    let provider = Arc::new(Cloud::new(stage.clone(), life));
    let mut waker = Waker::default();
    let wakes = waker.open(integration());
    let wake: Arc<dyn Wake> = Arc::new(waker);
    let observer = Arc::new(Observer::new(
        integration(),
        provider.clone(),
        ledger.clone(),
        clock.clone(),
    ));
    let settings = Settings {
        unknown_look_after: TimeDelta::milliseconds(setup.look_after),
        blocked_retry: TimeDelta::milliseconds(setup.blocked_retry),
        ..Settings::default()
    };
    let reconciler = Arc::new(Reconciler::new(
        integration(),
        provider.clone(),
        observer.clone(),
        ledger.clone(),
        clock.clone(),
        wake.clone(),
        settings,
    ));
    let parts = IntegrationParts {
        provider,
        observer,
        details: Details::default(),
    };
    let service = Arc::new(Service::new(
        ledger.clone(),
        clock.clone(),
        wake.clone(),
        BTreeMap::from([(integration(), parts)]),
        rules(),
        latchkey::service::Settings::default(),
    ));
    let driver = Driver::new(
        reconciler.clone(),
        ledger.clone(),
        clock.clone(),
        Limits::default(),
        wakes,
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(gone.clone()));
    tasks.spawn(drift(reconciler));
    tasks.spawn(hand_over(ledger, clock, wake, integration()));
    tasks.spawn(directory(service.clone()));
    (service, tasks)
}

/// Compares everybody with the ledger, every minute.
async fn drift(reconciler: Arc<Reconciler>) {
    loop {
        sleep(MINUTE).await;
        // A sweep that fails is tried again at its next turn.
        drop(reconciler.sweep().await);
    }
}

/// The safety net under the driver: what is overdue, twice a minute, and what is due at all, every minute.
async fn hand_over(
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    wake: Arc<dyn Wake>,
    name: IntegrationName,
) {
    let mut turn = 0_u32;
    loop {
        sleep(30 * SECOND).await;
        turn += 1;
        let late_by = if turn.is_multiple_of(2) {
            TimeDelta::zero()
        } else {
            LATE
        };
        if let Ok(due) = ledger.due(&name, clock.now() - late_by, 1_000).await {
            for member in due {
                wake.wake(&member.key, member.due);
            }
        }
        // What cannot be read now is asked for again at the next turn.
        drop(raise_hidden(ledger.as_ref(), wake.as_ref(), &name, clock.now()).await);
    }
}

async fn directory(service: Arc<Service>) {
    loop {
        drop(service.refresh_directory().await);
        sleep(5 * MINUTE).await;
    }
}
