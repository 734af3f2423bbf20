//! The witness in memory: for simulation and tests, with the same answers as the file.
//!
//! Owns nothing that outlives the process, unless a test keeps it over a restart. Deterministic. Never to be used
//! where a ledger can get lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::domain::assignment::Assignment;
use crate::domain::member::MemberKey;
use crate::ports::Witness;
use crate::ports::witness::{Binding, Condition, Found, Intent, Result, WitnessError};

#[derive(Debug)]
struct State {
    condition: Condition,
    binding: Option<Binding>,
    mark: u64,
    open: BTreeMap<(MemberKey, Assignment), Intent>,
    /// Times that something was intended.
    intended: u64,
    fails: bool,
    hidden: bool,
}

/// A witness that forgets everything with the process.
#[derive(Debug)]
pub struct MemoryWitness {
    state: Mutex<State>,
}

impl Default for MemoryWitness {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryWitness {
    /// An empty witness.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                condition: Condition::Missing,
                binding: None,
                mark: 0,
                open: BTreeMap::new(),
                intended: 0,
                fails: false,
                hidden: false,
            }),
        }
    }

    /// From now on writing fails, or works again.
    pub fn fail(&self, fails: bool) {
        self.lock().fails = fails;
    }

    /// From now on its open intents cannot be read, or can be again.
    pub fn hide(&self, hidden: bool) {
        self.lock().hidden = hidden;
    }

    /// Loses everything, as a deleted file does, or one that cannot be read.
    pub fn lose(&self, condition: Condition) {
        let mut state = self.lock();
        state.condition = condition;
        state.binding = None;
        state.mark = 0;
        state.open.clear();
    }

    /// Intents that were made durable so far.
    #[must_use]
    pub fn intended(&self) -> u64 {
        self.lock().intended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic elsewhere leaves them usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self, action: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.fails {
            return Err(WitnessError {
                action,
                source: "it was made to fail".into(),
            });
        }
        Ok(state)
    }
}

#[async_trait]
impl Witness for MemoryWitness {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn found(&self) -> Result<Found> {
        let state = self.lock();
        Ok(Found {
            condition: state.condition.clone(),
            binding: state.binding.clone(),
            mark: state.mark,
        })
    }

    async fn open_intents(&self) -> Result<Vec<Intent>> {
        let state = self.lock();
        if state.hidden {
            return Err(WitnessError {
                action: "reading open intents",
                source: "it was made to fail".into(),
            });
        }
        Ok(state.open.values().cloned().collect())
    }

    async fn intend(&self, intents: Vec<Intent>, mark: u64) -> Result<()> {
        let mut state = self.writable("noting intents")?;
        state.mark = state.mark.max(mark);
        for intent in intents {
            state.intended += 1;
            state
                .open
                .insert((intent.key(), intent.assignment.clone()), intent);
        }
        Ok(())
    }

    fn end(&self, key: &MemberKey, assignments: Vec<Assignment>, mark: u64) {
        if let Ok(mut state) = self.writable("noting ends") {
            state.mark = state.mark.max(mark);
            for assignment in assignments {
                state.open.remove(&(key.clone(), assignment));
            }
        }
    }

    fn tick(&self, mark: u64) {
        if let Ok(mut state) = self.writable("noting how far the ledger is") {
            state.mark = state.mark.max(mark);
        }
    }

    async fn bind(&self, binding: Binding, mark: u64) -> Result<()> {
        let mut state = self.writable("binding it to a ledger")?;
        state.binding = Some(binding);
        state.mark = mark;
        Ok(())
    }

    async fn begin(&self, binding: Binding, mark: u64, intents: Vec<Intent>) -> Result<()> {
        let mut state = self.writable("beginning anew")?;
        state.condition = Condition::Whole;
        state.binding = Some(binding);
        state.mark = mark;
        state.open = intents
            .into_iter()
            .map(|intent| ((intent.key(), intent.assignment.clone()), intent))
            .collect();
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.writable("checking that it can be written").map(drop)
    }

    async fn close(&self) {}
}
