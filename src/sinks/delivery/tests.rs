//! The cursor under a sink that fails, a ledger that fails, and other replicas. Time is moved by hand.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::ports::audit::AuditBlock;
use crate::ports::ledger::{LedgerError, Result as LedgerResult};
use crate::runtime::ManualClock;

#[derive(Debug, Default)]
struct State {
    records: Vec<AuditRecord>,
    cursor: u64,
    /// Moves that fail after they were asked for.
    broken_moves: usize,
}

#[derive(Debug, Default)]
struct Store(Mutex<State>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }
}

#[async_trait]
impl AuditStore for Store {
    async fn records(&self, after: u64, limit: usize) -> LedgerResult<Vec<AuditRecord>> {
        let state = self.lock();
        let next = state.records.iter().filter(|one| one.sequence > after);
        Ok(next.take(limit).cloned().collect())
    }
    async fn last_block(&self) -> LedgerResult<Option<AuditBlock>> {
        Ok(None)
    }
    async fn blocks(&self, _: u64, _: usize) -> LedgerResult<Vec<AuditBlock>> {
        Ok(Vec::new())
    }
    async fn add_block(&self, _: AuditBlock) -> LedgerResult<()> {
        Ok(())
    }
    async fn cursor(&self, _: &str) -> LedgerResult<u64> {
        Ok(self.lock().cursor)
    }
    async fn move_cursor(&self, _: &str, from: u64, to: u64) -> LedgerResult<bool> {
        let mut state = self.lock();
        if state.broken_moves > 0 {
            state.broken_moves -= 1;
            return Err(LedgerError::Unavailable {
                action: "moving",
                source: "the disk is full".into(),
            });
        }
        let stands = state.cursor == from;
        if stands {
            state.cursor = to;
        }
        Ok(stands)
    }
}

type Outcome = std::result::Result<(), Undelivered>;

/// Remembers what it was given and when, and answers as it was told; then it takes everything.
#[derive(Debug)]
struct Sink {
    begun: Instant,
    given: Mutex<Vec<(Duration, Vec<u64>)>>,
    answers: Mutex<VecDeque<Outcome>>,
}

impl Sink {
    fn given(&self) -> Vec<Vec<u64>> {
        let given = self.given.lock().expect("not poisoned");
        given
            .iter()
            .map(|(_, sequences)| sequences.clone())
            .collect()
    }
    fn times(&self) -> Vec<u64> {
        let given = self.given.lock().expect("not poisoned");
        given.iter().map(|(at, _)| at.as_secs()).collect()
    }
}

#[async_trait]
impl AuditSink for Sink {
    async fn deliver(&self, records: &[AuditRecord]) -> Outcome {
        let sequences = records.iter().map(|record| record.sequence).collect();
        let at = self.begun.elapsed();
        self.given
            .lock()
            .expect("not poisoned")
            .push((at, sequences));
        let next = self.answers.lock().expect("not poisoned").pop_front();
        next.unwrap_or(Ok(()))
    }
}

fn failed(acknowledged: u64, is_refused: bool) -> Outcome {
    Err(Undelivered {
        acknowledged,
        code: "http_500".to_owned(),
        problem: "it answered 500".to_owned(),
        is_refused,
        retry_after: None,
    })
}

struct World {
    store: Arc<Store>,
    sink: Arc<Sink>,
    newest: watch::Sender<u64>,
    tenure: watch::Sender<Tenure>,
    begin: CancellationToken,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
}

impl World {
    /// A delivery of three events at a time that has not begun.
    fn new(answers: impl IntoIterator<Item = Outcome>) -> Self {
        let world = Self {
            store: Arc::default(),
            sink: Arc::new(Sink {
                begun: Instant::now(),
                given: Mutex::default(),
                answers: Mutex::new(answers.into_iter().collect()),
            }),
            newest: watch::channel(0).0,
            tenure: watch::channel(Tenure::Held).0,
            begin: CancellationToken::new(),
            shutdown: Shutdown::new(Duration::from_secs(30)),
            tasks: JoinSet::new(),
        };
        world.begin.cancel();
        world
    }

    fn write(&self, count: u64) {
        let mut state = self.store.lock();
        let last = state.records.len() as u64;
        state
            .records
            .extend((last + 1..=last + count).map(|sequence| AuditRecord {
                sequence,
                body: format!("{{\"n\":{sequence}}}"),
            }));
        self.newest.send_replace(last + count);
    }

    fn start(&mut self) {
        let batch = Batch {
            events: 3,
            bytes: 1_000,
        };
        let sink = Arc::clone(&self.sink) as Arc<dyn AuditSink>;
        let delivery = Delivery::new(
            "siem".to_owned(),
            (sink, batch),
            Arc::clone(&self.store) as Arc<dyn AuditStore>,
            self.newest.subscribe(),
            self.tenure.subscribe(),
            Arc::new(ManualClock::default()),
        );
        let run = delivery.run(self.begin.clone(), self.shutdown.clone());
        self.tasks
            .spawn(async move { run.await.expect("it ends in order") });
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn cursor(&self) -> u64 {
        self.store.lock().cursor
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_delivered_once_and_in_order_while_nothing_fails() {
    let mut world = World::new([]);
    world.write(7);
    world.start();
    world.pass(1).await;
    assert_eq!(world.sink.given(), [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    world.write(1);
    world.pass(1).await;
    assert_eq!(world.sink.given().last(), Some(&vec![8]));
    assert_eq!(world.cursor(), 8);
    world.pass(3600).await;
    assert_eq!(world.sink.given().len(), 4, "an idle sink is left alone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_before_it_begins_and_nothing_after_it_closes() {
    let mut world = World::new([]);
    world.begin = CancellationToken::new();
    world.write(1);
    world.start();
    world.pass(60).await;
    assert!(world.sink.given().is_empty());
    world.begin.cancel();
    world.pass(1).await;
    assert_eq!(world.cursor(), 1);
    world.shutdown.drain();
    world.write(1);
    world.pass(1).await;
    assert_eq!(world.cursor(), 2, "what a drain writes goes out");
    world.shutdown.close();
    assert!(
        world
            .tasks
            .join_next()
            .await
            .is_some_and(|ended| ended.is_ok())
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_loses_nothing_and_is_asked_again_at_growing_intervals() {
    let mut world = World::new((0..9).map(|_| failed(0, false)));
    world.write(4);
    world.start();
    world.pass(600).await;
    let given = world.sink.given();
    assert!(
        given[..10].iter().all(|batch| *batch == [1, 2, 3]),
        "{given:?}"
    );
    assert_eq!(given[10..], [[4]]);
    let times = world.sink.times();
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses[..6].is_sorted() && pauses[..9].iter().all(|pause| *pause <= 60),
        "{pauses:?}"
    );
    assert!(pauses[8] >= 30, "{pauses:?}");
    assert_eq!(world.cursor(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_repeated_slowly_and_for_ever() {
    let mut world = World::new((0..200).map(|_| failed(0, true)));
    world.write(1);
    world.start();
    world.pass(3600).await;
    let first = world.sink.given().len();
    assert!((7..20).contains(&first), "{first}");
    world.pass(3600 * 60).await;
    assert_eq!(world.cursor(), 1);
    assert_eq!(world.sink.given().len(), 201);
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_failure_is_not_sent_again() {
    let mut world = World::new([failed(2, false)]);
    world.write(4);
    world.start();
    world.pass(60).await;
    assert_eq!(world.sink.given(), [vec![1, 2, 3], vec![3, 4]]);
    assert_eq!(world.cursor(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_could_not_be_moved_repeats_events_and_skips_none() {
    let mut world = World::new([]);
    world.store.lock().broken_moves = 2;
    world.write(4);
    world.start();
    world.pass(60).await;
    assert_eq!(
        world.sink.given(),
        [vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3], vec![4]]
    );
    assert_eq!(world.cursor(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_replica_delivers_while_it_is_its_turn_and_goes_on_where_the_other_one_stopped() {
    let mut world = World::new([]);
    world.tenure.send_replace(Tenure::Not);
    world.write(2);
    world.start();
    world.pass(600).await;
    assert!(world.sink.given().is_empty(), "another one delivers");
    world.store.lock().cursor = 1;
    world.tenure.send_replace(Tenure::Held);
    world.pass(1).await;
    assert_eq!(world.sink.given(), [[2]]);
    // Somebody else moved it meanwhile: it is read again and nothing is left out.
    world.tenure.send_replace(Tenure::Not);
    world.pass(1).await;
    world.write(3);
    world.store.lock().cursor = 4;
    world.tenure.send_replace(Tenure::Yielding);
    world.pass(1).await;
    assert_eq!(world.sink.given().last(), Some(&vec![5]));
    assert_eq!(world.cursor(), 5);
}

#[test]
fn a_batch_has_at_most_so_many_bytes_and_at_least_one_event() {
    let of = |sizes: &[usize]| -> Vec<AuditRecord> {
        let sized = |(at, size): (usize, &usize)| AuditRecord {
            sequence: at as u64,
            body: "x".repeat(*size),
        };
        sizes.iter().enumerate().map(sized).collect()
    };
    for (sizes, left) in [
        (&[4, 4, 4][..], 2),
        (&[90, 1], 1),
        (&[10], 1),
        (&[5, 5], 2),
        (&[5, 6], 1),
    ] {
        let mut records = of(sizes);
        shorten(&mut records, 10);
        assert_eq!(records.len(), left, "{sizes:?}");
    }
}
