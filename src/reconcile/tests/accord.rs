//! What the witness is told while it is begun anew: late, and not lost.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::domain::event::AuditEvent;
use crate::domain::member::WriteKind;
use crate::ports::Witness;
use crate::ports::ledger::{Evidence, HoldRecord};
use crate::ports::witness::{Binding, Found, Intent, Result as Witnessed};
use crate::reconcile::hold::{Hold, ReleaseError, settle_at_start};
use crate::witness::MemoryWitness;

/// A witness that takes as long to begin anew as the test wants.
#[derive(Debug)]
struct Slow {
    inner: MemoryWitness,
    begins: Semaphore,
    ticks: AtomicUsize,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryWitness::new(),
            begins: Semaphore::new(1),
            ticks: AtomicUsize::new(0),
        })
    }

    fn open(&self) -> Vec<Assignment> {
        let open = ready(self.inner.open_intents()).expect("readable");
        open.into_iter().map(|intent| intent.assignment).collect()
    }
}

#[async_trait]
impl Witness for Slow {
    fn place(&self) -> String {
        self.inner.place()
    }

    async fn found(&self) -> Witnessed<Found> {
        self.inner.found().await
    }

    async fn open_intents(&self) -> Witnessed<Vec<Intent>> {
        self.inner.open_intents().await
    }

    async fn intend(&self, intents: Vec<Intent>, mark: u64) -> Witnessed<()> {
        self.inner.intend(intents, mark).await
    }

    fn end(&self, key: &MemberKey, assignments: Vec<Assignment>, mark: u64) {
        self.inner.end(key, assignments, mark);
    }

    fn tick(&self, mark: u64) {
        self.ticks.fetch_add(1, Ordering::SeqCst);
        self.inner.tick(mark);
    }

    async fn bind(&self, binding: Binding, mark: u64) -> Witnessed<()> {
        self.inner.bind(binding, mark).await
    }

    async fn begin(&self, binding: Binding, mark: u64, intents: Vec<Intent>) -> Witnessed<()> {
        let _turn = self.begins.acquire().await.expect("never closed");
        self.inner.begin(binding, mark, intents).await
    }

    async fn check(&self) -> Witnessed<()> {
        self.inner.check().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// One process with two integrations.
struct Two {
    clock: ManualClock,
    ledger: Arc<MemoryLedger>,
    main: Arc<Hold>,
    other: Arc<Hold>,
}

impl Two {
    fn start(witness: &Arc<Slow>) -> Self {
        Self::start_on(witness, Arc::new(MemoryLedger::new()))
    }

    fn start_on(witness: &Arc<Slow>, ledger: Arc<MemoryLedger>) -> Self {
        let clock = ManualClock::default();
        let names = [main_integration(), other_integration()];
        let started = settle_at_start(
            Arc::clone(&ledger) as Arc<dyn Ledger>,
            Some(Arc::clone(witness) as Arc<dyn Witness>),
            &names,
            Arc::new(clock.clone()),
        );
        let holds = ready(started).expect("the ledger works");
        Self {
            clock,
            ledger,
            main: holds[&names[0]].clone(),
            other: holds[&names[1]].clone(),
        }
    }

    /// Makes the ledger own this of a member of the other integration.
    fn own(&self, assignments: &[Assignment]) -> MemberRecord {
        let key = MemberKey {
            integration: other_integration(),
            subject: Subject::Member(user("ada")),
        };
        let mut draft = Draft::new(ready(self.ledger.member(&key)).expect("readable"));
        draft.record.owned.clear();
        draft.intend(
            WriteKind::Add,
            assignments,
            self.clock.now(),
            &Settings::default(),
        );
        let commit = MemberCommit {
            record: draft.record,
            audit: Vec::new(),
            request: None,
        };
        ready(self.ledger.commit(commit)).expect("nobody in between");
        ready(self.ledger.member(&key)).expect("readable")
    }
}

fn other_integration() -> IntegrationName {
    IntegrationName::parse("other").expect("well formed")
}

#[test]
fn what_is_told_of_another_integration_during_a_release_is_kept() {
    let witness = Slow::new();
    let another = Binding {
        ledger: "another".to_owned(),
        generation: 1,
    };
    ready(witness.begin(another, 5, Vec::new())).expect("made");
    let two = Two::start(&witness);
    assert!(two.main.record().is_some());
    ready(two.other.release("ops", "looked")).expect("released");
    let record = two.own(&[viewer("a"), viewer("b")]);
    ready(
        two.other
            .note_extension(&record, &[viewer("a"), viewer("b")]),
    );
    assert_eq!(witness.open(), [viewer("a"), viewer("b")]);

    let pause = witness.begins.try_acquire().expect("free");
    let mut release = Box::pin(two.main.release("ops", "looked"));
    assert!(release.as_mut().now_or_never().is_none());
    let record = two.own(&[viewer("a"), viewer("c")]);
    ready(two.other.note_given_up(&record.key, &viewer("b")));
    let added = [viewer("c")];
    let mut intends = Box::pin(two.other.note_extension(&record, &added));
    let waits = intends.as_mut().now_or_never().is_none();
    drop(pause);
    ready(release).expect("released");
    if waits {
        ready(intends);
    }
    assert_eq!(witness.open(), [viewer("a"), viewer("c")]);
    assert!(two.main.record().is_none());
}

#[test]
fn what_is_told_while_a_witness_is_used_for_the_first_time_is_kept() {
    let witness = Slow::new();
    witness.inner.fail(true);
    let two = Two::start(&witness);
    assert!(two.main.record().is_none());
    two.own(&[viewer("a"), viewer("b")]);
    witness.inner.fail(false);

    let pause = witness.begins.try_acquire().expect("free");
    let mut first = Box::pin(two.main.tend());
    assert!(first.as_mut().now_or_never().is_none());
    let record = two.own(&[viewer("a"), viewer("c")]);
    ready(two.other.note_given_up(&record.key, &viewer("b")));
    let added = [viewer("c")];
    let mut intends = Box::pin(two.other.note_extension(&record, &added));
    let waits = intends.as_mut().now_or_never().is_none();
    drop(pause);
    ready(first);
    if waits {
        ready(intends);
    }
    assert_eq!(witness.open(), [viewer("a"), viewer("c")]);
}

#[test]
fn what_is_given_up_and_ours_again_at_once_stays_open() {
    let witness = Slow::new();
    let two = Two::start(&witness);
    let record = two.own(&[viewer("a")]);
    ready(two.other.note_given_up(&record.key, &viewer("a")));
    assert_eq!(witness.open(), [viewer("a")]);
}

#[test]
fn how_far_the_ledger_is_is_noted_when_it_moved_and_not_while_it_stands_still() {
    let witness = Slow::new();
    let two = Two::start(&witness);
    for moves in 1..4 {
        let kind = EventKind::HoldBegan {
            reasons: Vec::new(),
        };
        let event = AuditEvent::connector(two.clock.now(), kind);
        ready(two.ledger.append(vec![event])).expect("writable");
        for _ in 0..3 {
            ready(two.main.tend());
            ready(two.other.tend());
        }
        assert_eq!(witness.ticks.load(Ordering::SeqCst), moves);
        let found = ready(witness.found()).expect("readable");
        let last = ready(two.ledger.last_sequence()).expect("readable");
        assert_eq!(found.mark, last);
    }
}

#[test]
fn an_unreadable_witness_stops_a_release_where_another_hold_goes_by_it_and_only_there() {
    let rows = [
        (None, true),
        (Some(Evidence::Ledger), true),
        (Some(Evidence::Nothing), true),
        (Some(Evidence::Witness), false),
    ];
    for (other, is_released) in rows {
        let witness = Slow::new();
        let ledger = Arc::new(MemoryLedger::new());
        let hold = |integration, evidence| {
            let record = HoldRecord {
                integration,
                since: ManualClock::default().now(),
                reasons: Vec::new(),
                evidence,
            };
            ready(ledger.put_hold(record, Vec::new())).expect("writable");
        };
        hold(main_integration(), Evidence::Ledger);
        if let Some(evidence) = other {
            hold(other_integration(), evidence);
        }
        let two = Two::start_on(&witness, Arc::clone(&ledger));
        witness.inner.hide(true);
        let released = ready(two.main.release("ops", "looked"));
        if is_released {
            assert!(released.is_ok(), "{other:?}: {released:?}");
        } else {
            assert!(matches!(released, Err(ReleaseError::Unreadable(_))));
        }
        assert_eq!(two.main.record().is_none(), is_released, "{other:?}");
    }
}

#[test]
fn a_release_leaves_to_others_what_the_witness_holds_open_for_them_and_begins_anew_with_its_own() {
    let witness = Slow::new();
    let ledger = Arc::new(MemoryLedger::new());
    drop(Two::start_on(&witness, Arc::clone(&ledger)));
    held_by_the_ledger(&ledger);
    let intents = [
        open_intent(main_integration(), "over"),
        open_intent(other_integration(), "open"),
    ];
    ready(witness.intend(intents.to_vec(), 0)).expect("writable");
    let two = Two::start_on(&witness, ledger);
    ready(two.main.release("ops", "looked")).expect("released");
    assert_eq!(witness.open(), [viewer("open")]);
}

#[test]
fn a_hold_by_the_ledger_takes_nothing_over_from_a_witness_that_can_be_read_again() {
    let witness = Slow::new();
    let ledger = Arc::new(MemoryLedger::new());
    drop(Two::start_on(&witness, Arc::clone(&ledger)));
    held_by_the_ledger(&ledger);
    let intent = open_intent(main_integration(), "unknown");
    ready(witness.intend(vec![intent.clone()], 0)).expect("writable");
    witness.inner.hide(true);
    let two = Two::start_on(&witness, Arc::clone(&ledger));
    witness.inner.hide(false);
    ready(two.main.tend());
    assert!(two.main.record().is_some());
    let record = ready(ledger.member(&intent.key())).expect("readable");
    assert_eq!(record.owned, []);
}

fn held_by_the_ledger(ledger: &MemoryLedger) {
    let record = HoldRecord {
        integration: main_integration(),
        since: ManualClock::default().now(),
        reasons: Vec::new(),
        evidence: Evidence::Ledger,
    };
    ready(ledger.put_hold(record, Vec::new())).expect("writable");
}

fn open_intent(integration: IntegrationName, deployment: &str) -> Intent {
    Intent {
        integration,
        subject: Subject::Member(user("ada")),
        assignment: viewer(deployment),
        must_end_by: None,
        at: ManualClock::default().now(),
    }
}
