//! The writer: one task with the one connection that changes the ledger.
//!
//! Owns group commit: what arrives while a commit is in flight goes into the next one, with no added delay, and
//! nobody is answered before the commit returned. A connection that failed to commit is closed and opened anew,
//! never asked again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::query;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot, watch};

use super::errors;
use super::open::{self, Lock, Options};
use super::read;
use super::write::{self, Reply, Work};
use crate::ports::ledger::Result;

/// One write and who waits for it.
#[derive(Debug)]
pub(super) enum Command {
    Write(Work, oneshot::Sender<Result<Reply>>),
    Close(oneshot::Sender<()>),
}

/// Counters that the writer keeps.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
}

/// Everything that the writer's task owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    /// `None` after a failed commit, until it is opened anew.
    pub(super) conn: Option<SqliteConnection>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) last_sequence: watch::Sender<u64>,
    pub(super) counters: Arc<Counters>,
    pub(super) readers: SqlitePool,
    pub(super) lock: Lock,
}

/// What became of each write of a batch, before anybody is told.
type Outcomes = Vec<Result<Reply>>;

impl Writer {
    /// Runs until the ledger is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.options.batch);
        let mut closing = Vec::new();
        while closing.is_empty()
            && self
                .commands
                .recv_many(&mut batch, self.options.batch.max(1))
                .await
                > 0
        {
            self.serve(&mut batch, &mut closing).await;
        }
        self.commands.close();
        while self
            .commands
            .recv_many(&mut batch, self.options.batch.max(1))
            .await
            > 0
        {
            self.serve(&mut batch, &mut closing).await;
        }
        // Readers first: the last connection to close writes the log back into the file and removes it.
        self.readers.close().await;
        if let Some(conn) = self.conn.take() {
            write::close(conn).await;
        }
        drop(self.lock);
        for done in closing {
            // Whoever asked to close may have stopped waiting.
            done.send(()).ok();
        }
    }

    async fn serve(&mut self, batch: &mut Vec<Command>, closing: &mut Vec<oneshot::Sender<()>>) {
        let mut works = Vec::with_capacity(batch.len());
        let mut replies = Vec::with_capacity(batch.len());
        for command in batch.drain(..) {
            match command {
                Command::Write(work, reply) => {
                    works.push(work);
                    replies.push(reply);
                }
                Command::Close(done) => closing.push(done),
            }
        }
        if works.is_empty() {
            return;
        }
        let outcomes = self.transact(&works).await;
        self.publish().await;
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A caller that went away loses the answer, not the write.
            reply.send(outcome).ok();
        }
    }

    /// Tells followers of the audit how far it goes now.
    async fn publish(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        match read::last_sequence(conn).await {
            Ok(last) => {
                self.last_sequence.send_if_modified(|known| {
                    let is_news = *known != last;
                    *known = last;
                    is_news
                });
            }
            Err(error) => tracing::warn!(%error, "Reading the last audit sequence failed"),
        }
    }

    async fn transact(&mut self, works: &[Work]) -> Outcomes {
        if self.conn.is_none() {
            match open::anew(&self.path, &self.options).await {
                Ok(conn) => {
                    tracing::warn!("Opened the ledger anew");
                    self.conn = Some(conn);
                }
                Err(error) => {
                    tracing::error!(%error, "Opening the ledger anew failed");
                    return all(works, Arc::new(error), errors::of_statement);
                }
            }
        }
        let Some(conn) = &mut self.conn else {
            return Vec::new();
        };
        let attempted = match together(conn, works).await {
            Err(error) if works.len() == 1 || errors::is_broken(&error) => Err(error),
            // One of them failed: it alone must not take the others along.
            Err(_) => one_by_one(conn, works).await,
            done => done,
        };
        let outcomes = match attempted {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!(%error, writes = works.len(), "A transaction of the ledger was rolled back");
                let is_usable = rolled_back(conn).await && !errors::is_broken(&error);
                if !is_usable && let Some(conn) = self.conn.take() {
                    write::close(conn).await;
                }
                return all(works, Arc::new(error), errors::of_statement);
            }
        };
        match query("COMMIT").execute(&mut *conn).await {
            Ok(_) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .writes
                    .fetch_add(works.len() as u64, Ordering::Relaxed);
                outcomes
            }
            Err(error) => {
                tracing::error!(%error, writes = works.len(), "A commit of the ledger failed; opening it anew");
                rolled_back(conn).await;
                if let Some(conn) = self.conn.take() {
                    write::close(conn).await;
                }
                let error = Arc::new(error);
                outcomes
                    .into_iter()
                    .zip(works)
                    .map(|(outcome, work)| {
                        outcome
                            .and_then(|_| Err(errors::of_commit(work.action(), Arc::clone(&error))))
                    })
                    .collect()
            }
        }
    }
}

fn all(
    works: &[Work],
    error: Arc<sqlx::Error>,
    meaning: impl Fn(&'static str, Arc<sqlx::Error>) -> crate::ports::ledger::LedgerError,
) -> Outcomes {
    works
        .iter()
        .map(|work| Err(meaning(work.action(), Arc::clone(&error))))
        .collect()
}

/// The usual way: every write of the batch, one after the other, in one open transaction.
async fn together(
    conn: &mut SqliteConnection,
    works: &[Work],
) -> std::result::Result<Outcomes, sqlx::Error> {
    query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        outcomes.push(write::apply(conn, work).await?);
    }
    Ok(outcomes)
}

/// The careful way, after a batch failed: each write in its own savepoint, so that what fails goes alone.
async fn one_by_one(
    conn: &mut SqliteConnection,
    works: &[Work],
) -> std::result::Result<Outcomes, sqlx::Error> {
    if !rolled_back(conn).await {
        return Err(sqlx::Error::WorkerCrashed);
    }
    query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        query("SAVEPOINT one").execute(&mut *conn).await?;
        let outcome = match write::apply(conn, work).await {
            Ok(outcome) => {
                query("RELEASE one").execute(&mut *conn).await?;
                outcome
            }
            Err(error) if errors::is_broken(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, action = work.action(), "A write to the ledger was rolled back");
                query("ROLLBACK TO one; RELEASE one")
                    .execute(&mut *conn)
                    .await?;
                Err(errors::of_statement(work.action(), error))
            }
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Ends a failed transaction; SQLite may have ended it by itself. Answers whether the connection can be used again.
async fn rolled_back(conn: &mut SqliteConnection) -> bool {
    match query("ROLLBACK").execute(conn).await {
        Ok(_) => true,
        Err(error) => {
            let ended = error
                .as_database_error()
                .is_some_and(|error| error.message().contains("no transaction is active"));
            if !ended {
                tracing::warn!(%error, "Rolling back failed");
            }
            ended
        }
    }
}
