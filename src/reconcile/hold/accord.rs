//! The witness as the integrations of one process share it.
//!
//! Owns the order of what the witness is told: intents and ends as they come, and beginning it anew only while nobody
//! else tells it anything. Never decides what is open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::{Mutex, RwLock, RwLockWriteGuard};

use crate::domain::assignment::Assignment;
use crate::domain::ids::IntegrationName;
use crate::domain::member::MemberKey;
use crate::ports::witness::{Binding, Intent, Result as Witnessed};
use crate::ports::{Clock, Ledger, Witness};

/// The witness, shared by all integrations of a process.
#[derive(Debug)]
pub(in crate::reconcile) struct Accord {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) witness: Option<Arc<dyn Witness>>,
    pub(super) integrations: Vec<IntegrationName>,
    /// Whether the witness belongs to this ledger, so that what it is told about the ledger is true of it.
    pub(super) agreed: AtomicBool,
    /// Whether the last write of the witness came through.
    pub(super) writable: AtomicBool,
    /// How far the witness was last told that the ledger is.
    pub(super) ticked: AtomicU64,
    /// Held by whoever makes ledger and witness agree.
    pub(super) turn: Mutex<()>,
    /// Shared by who tells it of intents; taken alone by who begins it anew.
    gate: RwLock<()>,
    ends: std::sync::Mutex<Ends>,
}

/// Assignments of one member that are no longer ours.
type End = (MemberKey, Vec<Assignment>);

/// Ends that a witness which is begun anew meanwhile would not know of.
#[derive(Debug, Default)]
struct Ends {
    is_alone: bool,
    numbered: u64,
    /// Told, and not yet given up in the ledger.
    under_way: BTreeMap<u64, End>,
    /// To be told once the witness was begun anew.
    put_off: Vec<End>,
}

/// An end that was told and whose commit is under way, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped at once it does not reach a witness that is begun anew before the commit"]
pub(in crate::reconcile) struct Ending {
    accord: Arc<Accord>,
    number: u64,
}

/// The right to begin the witness anew: nobody else tells it anything before this is dropped.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    accord: &'a Accord,
    _gate: RwLockWriteGuard<'a, ()>,
}

impl Accord {
    pub(super) fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        witness: Option<Arc<dyn Witness>>,
        integrations: Vec<IntegrationName>,
    ) -> Self {
        Self {
            ledger,
            clock,
            witness,
            integrations,
            agreed: AtomicBool::new(false),
            writable: AtomicBool::new(true),
            ticked: AtomicU64::new(0),
            turn: Mutex::new(()),
            gate: RwLock::new(()),
            ends: std::sync::Mutex::default(),
        }
    }

    /// How far the ledger is, where that says something to this witness.
    pub(super) fn mark(&self) -> u64 {
        if !self.agreed.load(Ordering::SeqCst) {
            return 0;
        }
        *self.ledger.changes().borrow()
    }

    /// Makes intents durable, after a beginning that is under way.
    pub(super) async fn intend(&self, intents: Vec<Intent>) -> Witnessed<()> {
        let Some(witness) = &self.witness else {
            return Ok(());
        };
        if intents.is_empty() {
            return Ok(());
        }
        let _shared = self.gate.read().await;
        let done = witness.intend(intents, self.mark()).await;
        self.writable.store(done.is_ok(), Ordering::SeqCst);
        done
    }

    /// Tells what the ledger has given up already. Does not wait: while the witness is begun anew it is put off.
    pub(super) fn end(&self, key: &MemberKey, assignments: Vec<Assignment>) {
        self.tell(&mut self.ends(), (key.clone(), assignments));
    }

    /// The same for what a commit is about to give up.
    pub(super) fn end_before_commit(
        self: &Arc<Self>,
        key: &MemberKey,
        assignments: Vec<Assignment>,
    ) -> Option<Ending> {
        if assignments.is_empty() || self.witness.is_none() {
            return None;
        }
        let end = (key.clone(), assignments);
        let mut ends = self.ends();
        let number = ends.numbered;
        ends.numbered += 1;
        ends.under_way.insert(number, end.clone());
        self.tell(&mut ends, end);
        Some(Ending {
            accord: Arc::clone(self),
            number,
        })
    }

    /// Waits until nobody tells the witness anything. What is read from now on can be what it is begun anew with: an
    /// intent or an end that is not in it yet comes after it.
    pub(super) async fn alone(&self) -> Alone<'_> {
        let gate = self.gate.write().await;
        let mut ends = self.ends();
        ends.is_alone = true;
        let under_way: Vec<End> = ends.under_way.values().cloned().collect();
        ends.put_off.extend(under_way);
        Alone {
            accord: self,
            _gate: gate,
        }
    }

    fn tell(&self, ends: &mut Ends, end: End) {
        if ends.is_alone {
            ends.put_off.push(end);
        } else if let Some(witness) = &self.witness {
            witness.end(&end.0, end.1, self.mark());
        }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        // Plain values: a panic elsewhere leaves them usable.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.accord.ends().under_way.remove(&self.number);
    }
}

impl Alone<'_> {
    /// Begins the witness anew.
    pub(super) async fn begin(
        &self,
        binding: Binding,
        mark: u64,
        intents: Vec<Intent>,
    ) -> Witnessed<()> {
        match &self.accord.witness {
            None => Ok(()),
            Some(witness) => witness.begin(binding, mark, intents).await,
        }
    }
}

impl Drop for Alone<'_> {
    /// Tells what came meanwhile before anybody else can tell anything, also where the beginning failed.
    fn drop(&mut self) {
        let mut ends = self.accord.ends();
        ends.is_alone = false;
        for end in std::mem::take(&mut ends.put_off) {
            self.accord.tell(&mut ends, end);
        }
    }
}
