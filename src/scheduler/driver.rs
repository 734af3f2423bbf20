//! Runs the passes of one organization when they are due.
//!
//! Owns the loop: one timer for the next deadline, a floor poll of the ledger, one pass per member at a time.
//! Never keeps what the ledger does not: a lost wake-up costs at most one poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::head_start::{HeadStart, Runner};
use super::queue::DueQueue;
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::domain::member::{Due, DueKind, MemberKey};
use crate::ports::{Clock, Ledger, Wake};
use crate::reconcile::{Reconciler, Report};
use crate::runtime::Pace;

/// Sizes and pauses of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The ledger is asked at least this often, whatever the timers say.
    pub floor_poll: Duration,
    /// How far ahead deadlines are held in memory.
    pub horizon: TimeDelta,
    /// Most members held in memory, and most that one page brings.
    pub window: usize,
    /// Passes at a time that take access away, and as many that give it: more would only wait for the rate budget.
    /// While all are taken, a removal that leaves more open than the lightest of them gets another place, up to as
    /// many again.
    pub changing: usize,
    /// Passes at a time that only read: they share reads, so many may wait together.
    pub reading: usize,
    /// Pause after a pass that the ledger refused.
    pub ledger_retry: Duration,
    /// The poll keeps step with everything else that shares this.
    pub epoch: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            floor_poll: Duration::from_secs(1),
            horizon: TimeDelta::seconds(30),
            window: 4096,
            changing: 64,
            reading: 1024,
            ledger_retry: Duration::from_secs(1),
            epoch: None,
        }
    }
}

/// Hands wake-ups to the drivers of all organizations.
#[derive(Debug, Clone, Default)]
pub struct Waker {
    senders: BTreeMap<IntegrationName, mpsc::UnboundedSender<(MemberKey, Due)>>,
}

impl Waker {
    /// Opens the channel of one organization; its driver takes the receiving end.
    pub fn open(
        &mut self,
        integration: IntegrationName,
    ) -> mpsc::UnboundedReceiver<(MemberKey, Due)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.senders.insert(integration, sender);
        receiver
    }
}

impl Wake for Waker {
    fn wake(&self, key: &MemberKey, due: Due) {
        if let Some(sender) = self.senders.get(&key.integration) {
            // A driver that has stopped needs no wake-up: the ledger holds what is due.
            drop(sender.send((key.clone(), due)));
        }
    }
}

/// What a watchdog needs to know: when the loop last turned, and since when the oldest due member waits.
#[derive(Debug, Default)]
pub struct Pulse {
    turned_at_ms: AtomicI64,
    oldest_due_ms: AtomicI64,
}

impl Pulse {
    fn beat(&self, clock: &dyn Clock, oldest: Option<Timestamp>) {
        let boot = i64::try_from(clock.since_boot().as_millis()).unwrap_or(i64::MAX);
        self.turned_at_ms.store(boot, Ordering::Relaxed);
        let waiting = oldest.map_or(0, |at| (clock.now() - at).num_milliseconds().max(0));
        self.oldest_due_ms.store(waiting, Ordering::Relaxed);
    }

    /// The loop has ended.
    fn retire(&self) {
        self.turned_at_ms.store(0, Ordering::Relaxed);
    }

    /// Time since boot, in milliseconds, at which the loop last turned; 0 before the first turn and after the end.
    #[must_use]
    pub fn turned_at_ms(&self) -> i64 {
        self.turned_at_ms.load(Ordering::Relaxed)
    }

    /// How long the oldest due member has been waiting for its pass to start, in milliseconds.
    #[must_use]
    pub fn oldest_due_ms(&self) -> i64 {
        self.oldest_due_ms.load(Ordering::Relaxed)
    }
}

/// A full page of the ledger is this many times what is asked for while enough removals wait in memory.
const PEEK: usize = 16;

/// Removals that go before everything else when the loop begins. Their intents are one commit, which every more would
/// make longer: few are on the wire long before dozens would be.
const FIRST: usize = 2;

/// How long those few keep everything else waiting at most: usually one of them is through well before.
const LEAD: Duration = Duration::from_millis(200);

/// How many passes run for what. Neither kind can take the places of another.
#[derive(Debug, Default)]
struct Lanes {
    /// Removals that run, by weight.
    removing: BTreeMap<u32, usize>,
    removals: usize,
    granting: usize,
    reading: usize,
}

impl Lanes {
    fn begin(&mut self, due: &Due) {
        match due.kind {
            DueKind::Remove => {
                *self.removing.entry(due.weight).or_default() += 1;
                self.removals += 1;
            }
            DueKind::Grant => self.granting += 1,
            DueKind::Verify | DueKind::Look => self.reading += 1,
        }
    }

    fn end(&mut self, due: &Due) {
        match due.kind {
            DueKind::Remove => {
                self.removals -= 1;
                if let Some(count) = self.removing.get_mut(&due.weight) {
                    *count -= 1;
                    if *count == 0 {
                        self.removing.remove(&due.weight);
                    }
                }
            }
            DueKind::Grant => self.granting -= 1,
            DueKind::Verify | DueKind::Look => self.reading -= 1,
        }
    }

    /// Whether it is one of those that go before everything else.
    fn leads(&self, due: &Due) -> bool {
        due.kind == DueKind::Remove && self.removals < FIRST
    }

    fn admits(&self, due: &Due, limits: &Limits) -> bool {
        match due.kind {
            DueKind::Remove => {
                let lightest = self.removing.first_key_value().map(|(weight, _)| *weight);
                self.removals < limits.changing
                    || (self.removals < limits.changing * 2
                        && lightest.is_some_and(|lightest| due.weight > lightest))
            }
            DueKind::Grant => self.granting < limits.changing,
            DueKind::Verify | DueKind::Look => self.reading < limits.reading,
        }
    }
}

/// What the ledger answered last: its stamp then, and until when the queue holds everything that is due.
#[derive(Debug, Clone, Copy, Default)]
struct Answered(Option<(u64, Timestamp)>);

impl Answered {
    /// Whether the ledger would answer the same. It is asked again long before the horizon, whatever the stamp says.
    fn stands(self, stamp: Option<u64>, now: Timestamp, horizon: TimeDelta) -> bool {
        match (stamp, self.0) {
            (Some(stamp), Some((known, until))) => stamp == known && now + horizon / 2 <= until,
            (None, _) | (_, None) => false,
        }
    }
}

/// The loop of one organization.
#[derive(Debug)]
pub struct Driver {
    reconciler: Arc<Reconciler>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    pulse: Arc<Pulse>,
    wakes: mpsc::UnboundedReceiver<(MemberKey, Due)>,
    queue: DueQueue,
    /// Members whose pass is running, what for, and what came up for them meanwhile.
    running: BTreeMap<MemberKey, (Due, Option<Due>)>,
    lanes: Lanes,
    passes: JoinSet<(MemberKey, Result<Report, &'static str>)>,
    answered: Answered,
    /// Until when only the first removals run.
    lead: Option<Instant>,
    /// Keeps others waiting until those are on their way.
    runner: Option<Runner>,
    /// What other processes commit to the same ledger, where there are any.
    news: Option<watch::Receiver<u64>>,
}

/// Between looks at what fell due while the ledger is waited for.
const SHORTEST: Duration = Duration::from_millis(20);

/// News that come close together are looked at together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Waits for news, without taking note of them.
async fn heard(news: &Option<watch::Receiver<u64>>) {
    if let Some(news) = news {
        let mut news = news.clone();
        if news.changed().await.is_ok() {
            return tokio::time::sleep(TOGETHER).await;
        }
    }
    std::future::pending().await
}

impl Driver {
    /// A driver for one organization.
    #[must_use]
    pub fn new(
        reconciler: Arc<Reconciler>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        wakes: mpsc::UnboundedReceiver<(MemberKey, Due)>,
    ) -> Self {
        Self {
            reconciler,
            ledger,
            clock,
            limits,
            pulse: Arc::default(),
            wakes,
            queue: DueQueue::default(),
            running: BTreeMap::new(),
            lanes: Lanes::default(),
            passes: JoinSet::new(),
            answered: Answered::default(),
            lead: None,
            runner: None,
            news: None,
        }
    }

    /// The same, whose first removals have a head start over what waits for it.
    #[must_use]
    pub fn ahead_in(mut self, head: &HeadStart) -> Self {
        self.runner = Some(head.runner());
        self
    }

    /// The same, which asks the ledger as soon as another process has committed something to it.
    #[must_use]
    pub fn hearing(mut self, news: watch::Receiver<u64>) -> Self {
        self.news = Some(news);
        self
    }

    /// Forgets what comes up, for as long as another process works on this organization.
    pub async fn rest(&mut self) {
        while self.wakes.recv().await.is_some() {}
        std::future::pending().await
    }

    /// Shared with the watchdog.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Runs until `stop`, then lets the passes that have begun finish.
    pub async fn run(mut self, stop: CancellationToken) {
        self.work(stop).await;
    }

    /// The same, which can be called again.
    pub async fn work(&mut self, stop: CancellationToken) {
        self.queue = DueQueue::default();
        self.answered = Answered::default();
        // The watchdog looks from here on: the first question to the ledger may be the one that never ends.
        self.pulse.beat(self.clock.as_ref(), None);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.take_lead() => {}
        }
        let mut poll = Pace::new(self.limits.epoch, self.limits.floor_poll);
        while !stop.is_cancelled() {
            self.start_due();
            self.pulse
                .beat(self.clock.as_ref(), self.queue.oldest_ready());
            let wait = self.until_next();
            let lead = self.lead;
            tokio::select! {
                // A fixed order, so that simulated runs repeat. The poll comes before what can come in a stream: it
                // is ready once a second at most, and starves nobody.
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(lead.unwrap_or_else(Instant::now)), if lead.is_some() => self.set_off(),
                () = poll.tick(), if lead.is_none() => self.refill().await,
                Some(done) = self.passes.join_next(), if !self.passes.is_empty() => {
                    self.set_off();
                    self.finished(done);
                }
                Some((key, due)) = self.wakes.recv() => self.woken(key, due),
                () = heard(&self.news), if self.news.is_some() => {
                    if let Some(news) = &mut self.news {
                        news.mark_unchanged();
                    }
                    self.refill().await;
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
        self.set_off();
        // From here on nothing turns, and a pass may rightly take long: the drain has its own limit.
        self.pulse.retire();
        while let Some(done) = self.passes.join_next().await {
            self.finished(done);
        }
    }

    /// Asks for the first removals that are due, so that they are on their way before a whole page is read, and before
    /// anything else begins.
    async fn take_lead(&mut self) {
        let integration = self.reconciler.integration();
        let first = self.ledger.due(integration, self.clock.now(), FIRST).await;
        // The poll that follows complains of a ledger that cannot be asked.
        for member in first.unwrap_or_default() {
            if member.due.kind == DueKind::Remove {
                self.schedule(member.key, member.due);
            }
        }
        if self.queue.is_empty() {
            self.set_off();
        } else {
            self.lead = Some(Instant::now() + LEAD);
        }
    }

    /// From now on everything runs.
    fn set_off(&mut self) {
        self.lead = None;
        self.runner = None;
    }

    /// How long until the next deadline in memory. Waits are capped by the floor poll, so a jump of the wall clock costs
    /// at most one. Where there is no deadline, the poll alone turns the loop: a timer beside it would wake the process
    /// for nothing.
    fn until_next(&self) -> Option<Duration> {
        let at = self.queue.next_wakeup()?;
        let wait = (at - self.clock.now()).to_std().unwrap_or(Duration::ZERO);
        Some(wait.min(self.limits.floor_poll))
    }

    fn start_due(&mut self) {
        let now = self.clock.now();
        loop {
            let Self {
                queue,
                lanes,
                limits,
                lead,
                ..
            } = self;
            let admits =
                |due: &Due| lanes.admits(due, limits) && (lead.is_none() || lanes.leads(due));
            let Some((key, due)) = queue.pop_admitted(now, admits) else {
                return;
            };
            if let Some((_, again)) = self.running.get_mut(&key) {
                *again = Some(again.map_or(due, |known| known.or_sooner(due, now)));
                continue;
            }
            self.lanes.begin(&due);
            self.running.insert(key.clone(), (due, None));
            let reconciler = Arc::clone(&self.reconciler);
            self.passes.spawn(async move {
                let result = match reconciler.pass(&key).await {
                    Ok(report) => Ok(report),
                    Err(error) => {
                        let code = error.code();
                        tracing::error!(member = %key, code, error = %Chain(&error), "Pass was ended by the ledger");
                        Err(code)
                    }
                };
                (key, result)
            });
        }
    }

    fn woken(&mut self, key: MemberKey, due: Due) {
        let now = self.clock.now();
        match self.running.get_mut(&key) {
            Some((_, again)) => {
                *again = Some(again.map_or(due, |known| known.or_sooner(due, now)));
            }
            None if due.at <= now + self.limits.horizon => {
                self.schedule(key, due);
            }
            None => {}
        }
    }

    fn finished(
        &mut self,
        done: Result<(MemberKey, Result<Report, &'static str>), tokio::task::JoinError>,
    ) {
        let (key, result) = match done {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                // A panic in a pass is a bug that must not be survived in silence.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        let again = self.running.remove(&key).and_then(|(ran, again)| {
            self.lanes.end(&ran);
            again
        });
        let now = self.clock.now();
        let next = match result {
            Ok(report) => {
                if let Some(failure) = &report.failure {
                    tracing::warn!(member = %key, code = failure, "Pass did not get through; it is tried again");
                }
                report.next
            }
            Err(_) => {
                let pause =
                    TimeDelta::from_std(self.limits.ledger_retry).unwrap_or(TimeDelta::seconds(1));
                Some(Due {
                    at: now + pause,
                    kind: DueKind::Remove,
                    weight: 0,
                })
            }
        };
        let next = match (next, again) {
            (Some(next), Some(again)) => Some(next.or_sooner(again, now)),
            (next, again) => next.or(again),
        };
        if let Some(due) = next
            && due.at <= now + self.limits.horizon
        {
            self.schedule(key, due);
        }
    }

    fn schedule(&mut self, key: MemberKey, due: Due) {
        if self.queue.len() >= self.limits.window {
            // Somebody gives way and has to be brought in again.
            self.answered = Answered::default();
        }
        let now = self.clock.now();
        self.queue
            .schedule_within(key, due, now, self.limits.window);
    }

    /// Brings in what the ledger says is due, and then what will be within the horizon. What runs already says itself
    /// when it is due again.
    async fn refill(&mut self) {
        let now = self.clock.now();
        let stamp = self.ledger.stamp();
        if self.answered.stands(stamp, now, self.limits.horizon) {
            return;
        }
        self.answered = Answered::default();
        // With enough to do in memory, only what is more urgent than that is of interest.
        let busy = self.queue.ready_removals() * 2 >= self.limits.window;
        let page = if busy {
            (self.limits.window / PEEK).max(1)
        } else {
            self.limits.window
        };
        // What is due comes first: a page of what is heavy and due soon must not hide it.
        for until in [now, now + self.limits.horizon] {
            let integration = self.reconciler.integration();
            let (ledger, integration) = (Arc::clone(&self.ledger), integration.clone());
            let asked = async move { ledger.due(&integration, until, page).await };
            match self.meanwhile(asked).await {
                Ok(members) => {
                    let full = members.len() >= page;
                    for member in members {
                        if !self.running.contains_key(&member.key) {
                            self.schedule(member.key, member.due);
                        }
                    }
                    if full {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(code = error.code(), error = %Chain(&error), "Ledger cannot be asked for what is due");
                    return;
                }
            }
        }
        self.answered = self.answered(stamp, now);
        if self.reconciler.goes_on_without_ledger() {
            let reconciler = Arc::clone(&self.reconciler);
            self.meanwhile(async move { reconciler.look_ahead().await })
                .await;
        }
    }

    /// What the ledger answered, now that it was asked for everything. A full window may have left somebody out.
    fn answered(&self, stamp: Option<u64>, now: Timestamp) -> Answered {
        let is_whole = self.queue.len() < self.limits.window;
        let until = now + self.limits.horizon;
        Answered(stamp.filter(|_| is_whole).map(|stamp| (stamp, until)))
    }

    /// Waits for an answer of the ledger. Where removals go on without it, what falls due in memory is begun meanwhile:
    /// a ledger that is gone may take longer to say so than there is time.
    async fn meanwhile<T>(&mut self, asked: impl Future<Output = T>) -> T {
        if !self.reconciler.goes_on_without_ledger() {
            return asked.await;
        }
        tokio::pin!(asked);
        loop {
            let wait = self.until_next().unwrap_or(self.limits.floor_poll);
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Some(done) = self.passes.join_next(), if !self.passes.is_empty() => self.finished(done),
                () = tokio::time::sleep(wait.max(SHORTEST)) => self.start_due(),
            }
        }
    }
}

/// An error with its causes, for logs.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
