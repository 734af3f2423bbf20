//! The witness in one small append-only file, meant to lie on another volume than the ledger.
//!
//! Owns the file, its lock, and one task that writes: what arrives while an fsync is in flight shares the next one.
//! A file whose fsync failed is never trusted again: its records are written to a new one, which replaces it. Never
//! keeps the open intents in memory, and never cuts off more than a record that was not finished.

mod inspect;
pub(super) mod paths;
mod store;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

pub use self::inspect::inspect;
use self::store::Store;
use super::record::Record;
use crate::domain::assignment::Assignment;
use crate::domain::member::MemberKey;
use crate::ports::Witness;
use crate::ports::witness::{Binding, Found, Intent, Result, WitnessError};

/// Writes that share one fsync at most.
const BATCH: usize = 512;

/// Why the witness cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the witness {} is in use by another process: stop that one first; each connector needs a witness of its own",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

/// What a single command asks of the writer.
#[derive(Debug)]
enum Command {
    /// Records; durable before the answer where one is awaited.
    Append(Vec<Record>, Option<oneshot::Sender<io::Result<()>>>),
    Found(oneshot::Sender<Found>),
    Open(oneshot::Sender<io::Result<Vec<Intent>>>),
    Begin(Binding, u64, Vec<Intent>, oneshot::Sender<io::Result<()>>),
    Check(oneshot::Sender<io::Result<()>>),
    Close(oneshot::Sender<()>),
}

/// Handle of the witness.
#[derive(Clone)]
pub struct FileWitness {
    path: Arc<PathBuf>,
    commands: mpsc::UnboundedSender<Command>,
}

impl fmt::Debug for FileWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWitness")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FileWitness {
    /// Opens the witness at `path` and answers a handle and the writer, which must run for as long as it is used.
    /// A file that is not there is not made before [`Witness::begin`]; one that cannot be trusted is left as it is.
    /// Either is found out through [`Witness::found`].
    ///
    /// # Errors
    /// [`OpenError`] when another process has it.
    pub fn open(
        path: &Path,
    ) -> std::result::Result<(Self, impl Future<Output = ()> + Send + use<>), OpenError> {
        let store = Store::open(path)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let handle = Self {
            path: Arc::new(path.to_owned()),
            commands,
        };
        Ok((handle, run(store, receiver)))
    }

    async fn ask<T>(
        &self,
        action: &'static str,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let gone = || WitnessError {
            action,
            source: "the witness is closed".into(),
        };
        self.commands.send(command(sender)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn append(&self, action: &'static str, records: Vec<Record>) -> Result<()> {
        self.ask(action, |sender| Command::Append(records, Some(sender)))
            .await?
            .map_err(|error| failed(action, error))
    }

    fn append_later(&self, records: Vec<Record>) {
        // A writer that has ended has closed the file; what is lost with it is allowed to be.
        drop(self.commands.send(Command::Append(records, None)));
    }
}

fn failed(action: &'static str, error: io::Error) -> WitnessError {
    WitnessError {
        action,
        source: error.into(),
    }
}

#[async_trait]
impl Witness for FileWitness {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn found(&self) -> Result<Found> {
        self.ask("looking at it", Command::Found).await
    }

    async fn open_intents(&self) -> Result<Vec<Intent>> {
        const ACTION: &str = "reading open intents";
        self.ask(ACTION, Command::Open)
            .await?
            .map_err(|error| failed(ACTION, error))
    }

    async fn intend(&self, intents: Vec<Intent>, mark: u64) -> Result<()> {
        let records = intents
            .into_iter()
            .map(|intent| Record::Intent { mark, intent })
            .collect();
        self.append("noting intents", records).await
    }

    fn end(&self, key: &MemberKey, assignments: Vec<Assignment>, mark: u64) {
        let records = assignments
            .into_iter()
            .map(|assignment| Record::Ended {
                mark,
                integration: key.integration.clone(),
                subject: key.subject.clone(),
                assignment,
            })
            .collect();
        self.append_later(records);
    }

    fn tick(&self, mark: u64) {
        self.append_later(vec![Record::Tick { mark }]);
    }

    async fn bind(&self, binding: Binding, mark: u64) -> Result<()> {
        self.append(
            "binding it to a ledger",
            vec![Record::Bound { mark, binding }],
        )
        .await
    }

    async fn begin(&self, binding: Binding, mark: u64, intents: Vec<Intent>) -> Result<()> {
        const ACTION: &str = "beginning anew";
        self.ask(ACTION, |sender| {
            Command::Begin(binding, mark, intents, sender)
        })
        .await?
        .map_err(|error| failed(ACTION, error))
    }

    async fn check(&self) -> Result<()> {
        const ACTION: &str = "checking that it can be written";
        self.ask(ACTION, Command::Check)
            .await?
            .map_err(|error| failed(ACTION, error))
    }

    async fn close(&self) {
        // Without a writer there is nothing left to flush.
        drop(self.ask("closing it", Command::Close).await);
    }
}

/// Writes until closed or until every handle is gone.
async fn run(store: Store, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut store = Some(store);
    let mut batch = Vec::new();
    while commands.recv_many(&mut batch, BATCH).await > 0 {
        let Some(mut held) = store.take() else { return };
        let work = std::mem::take(&mut batch);
        let done = tokio::task::spawn_blocking(move || {
            let closing = held.serve(work);
            (held, closing)
        });
        match done.await {
            Ok((held, closing)) if closing.is_empty() => store = Some(held),
            Ok((held, closing)) => {
                drop(held);
                for waiting in closing {
                    // Whoever closes may not wait for it.
                    let _gone = waiting.send(());
                }
                return;
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests;
