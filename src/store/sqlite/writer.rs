//! The writer: one task with the one connection that changes the ledger.
//!
//! Owns group commit: what arrives while a commit is in flight goes into the next one, with no added delay, and
//! nobody is answered before the commit returned. A connection that failed to commit is closed and opened anew,
//! never asked again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{query, query_scalar};
use tokio::sync::{mpsc, oneshot, watch};

use super::errors;
use super::open::{self, Lock, Options};
use super::together::{self, TOGETHER};
use super::write::{self, Reply, Work};
use crate::ports::ledger::Result;
use crate::store::rows;

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
    /// Transactions that ended, one way or another, and that may have changed what is due.
    pub(super) changes: AtomicU64,
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

/// Ends a transaction, and tells how far the audit goes then.
const COMMIT: &str = "SELECT MAX(sequence) FROM events; COMMIT";

/// Rows in one commit, beyond which the rest waits for the next one: an intent that comes now is not kept waiting by
/// everybody who fell due at the same instant.
const ROWS: usize = 512;

/// Writes that wait for a commit. Intents go first: upstream is asked the sooner, and each is the second step of
/// something whose first one is done.
#[derive(Debug, Default)]
struct Waiting {
    intents: VecDeque<(Work, oneshot::Sender<Result<Reply>>)>,
    others: VecDeque<(Work, oneshot::Sender<Result<Reply>>)>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.intents.len() + self.others.len()
    }

    fn push(&mut self, work: Work, reply: oneshot::Sender<Result<Reply>>) {
        if work.is_intent() {
            self.intents.push_back((work, reply));
        } else {
            self.others.push_back((work, reply));
        }
    }

    /// The writes of the next commit: at least one if any waits, at most so many.
    fn next(&mut self, most: usize) -> Vec<(Work, oneshot::Sender<Result<Reply>>)> {
        let mut batch = Vec::new();
        let mut rows = 0;
        while batch.len() < most.max(1)
            && rows < ROWS
            && let Some(next) = self.intents.pop_front().or_else(|| self.others.pop_front())
        {
            rows += next.0.rows();
            batch.push(next);
        }
        batch
    }
}

/// What became of each write of a batch, before anybody is told.
type Outcomes = Vec<Result<Reply>>;

impl Writer {
    /// Runs until the ledger is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut arrived = Vec::with_capacity(self.options.batch);
        let mut waiting = Waiting::default();
        let mut closing = Vec::new();
        loop {
            if waiting.is_empty() {
                let limit = self.options.batch.max(1);
                if self.commands.recv_many(&mut arrived, limit).await == 0 {
                    break;
                }
            }
            while arrived.len() + waiting.len() < self.options.batch {
                match self.commands.try_recv() {
                    Ok(command) => arrived.push(command),
                    Err(_) => break,
                }
            }
            for command in arrived.drain(..) {
                match command {
                    Command::Write(work, reply) => waiting.push(work, reply),
                    Command::Close(done) => closing.push(done),
                }
            }
            if !closing.is_empty() {
                // What was sent before is still received and served; nothing more can be sent.
                self.commands.close();
            }
            self.serve(waiting.next(self.options.batch)).await;
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

    async fn serve(&mut self, batch: Vec<(Work, oneshot::Sender<Result<Reply>>)>) {
        if batch.is_empty() {
            return;
        }
        let (works, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let outcomes = self.transact(&works).await;
        // What only proves that the disk can be written, or only tells the audit, makes nothing due.
        let tells_only = |work: &Work| matches!(work, Work::Check | Work::Append(_));
        if !works.iter().all(tells_only) {
            self.counters.changes.fetch_add(1, Ordering::Release);
        }
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A caller that went away loses the answer, not the write.
            reply.send(outcome).ok();
        }
    }

    /// Tells followers of the audit how far it goes now.
    fn publish(&self, last: u64) {
        self.last_sequence.send_if_modified(|known| {
            let is_news = *known != last;
            *known = last;
            is_news
        });
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
        match query_scalar(COMMIT).fetch_all(&mut *conn).await {
            Ok(last) => {
                let last: Option<i64> = last.into_iter().next().flatten();
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .writes
                    .fetch_add(works.len() as u64, Ordering::Relaxed);
                self.publish(last.map_or(0, rows::uint));
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
    let mut rest = works;
    while let Some((work, others)) = rest.split_first() {
        // Each text is a round trip to the connection's thread, which costs more than the text itself.
        let accepts: Vec<_> = rest
            .iter()
            .take(TOGETHER)
            .map_while(together::plain_accept)
            .collect();
        if accepts.len() < TOGETHER {
            outcomes.push(write::apply(conn, work).await?);
            rest = others;
            continue;
        }
        let (these, others) = rest.split_at(TOGETHER);
        if together::accepts(conn, &accepts).await? {
            outcomes.extend(these.iter().map(|_| Ok(Reply::Created)));
        } else {
            for work in these {
                outcomes.push(write::apply(conn, work).await?);
            }
        }
        rest = others;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{AuditEvent, EventKind};
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{MemberKey, MemberRecord, Subject, WriteKind};
    use crate::ports::ledger::MemberCommit;
    use crate::store::rows::CommitRows;

    fn commit(name: u32, events: usize, is_intent: bool) -> Work {
        let key = MemberKey {
            integration: IntegrationName::parse("main").expect("valid"),
            subject: Subject::Member(UserId::parse(name.to_string()).expect("valid")),
        };
        let at = crate::domain::Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
        let kind = if is_intent {
            EventKind::CallIntended {
                write: WriteKind::Remove,
                assignments: Vec::new(),
                must_survive: Vec::new(),
            }
        } else {
            EventKind::Lifecycle {
                action: "test".to_owned(),
                version: String::new(),
            }
        };
        Work::Commit(Box::new(CommitRows::new(MemberCommit {
            record: MemberRecord::new(key.clone()),
            audit: vec![AuditEvent::member(at, &key, kind); events],
            request: None,
        })))
    }

    fn names(batch: &[(Work, oneshot::Sender<Result<Reply>>)]) -> Vec<String> {
        batch
            .iter()
            .map(|(work, _)| {
                let Work::Commit(rows) = work else {
                    panic!("{work:?}");
                };
                rows.member.subject.clone()
            })
            .collect()
    }

    #[test]
    fn an_intent_goes_before_what_waits_and_no_commit_takes_all_of_a_storm() {
        let mut waiting = Waiting::default();
        for name in 0..100 {
            waiting.push(commit(name, 20, false), oneshot::channel().0);
        }
        waiting.push(commit(100, 1, true), oneshot::channel().0);
        let first = waiting.next(512);
        let order = names(&first);
        assert_eq!(order[..2], ["user:100", "user:0"]);
        assert!((2..=30).contains(&order.len()), "{order:?}");
        let mut rest = order.len();
        while !waiting.is_empty() {
            let batch = waiting.next(512);
            assert!(!batch.is_empty());
            rest += batch.len();
        }
        assert_eq!(rest, 101, "nothing is lost");
    }

    #[test]
    fn a_write_larger_than_a_commit_should_be_goes_alone_and_one_at_a_time_means_one() {
        let mut waiting = Waiting::default();
        waiting.push(commit(1, 10_000, false), oneshot::channel().0);
        waiting.push(commit(2, 1, false), oneshot::channel().0);
        waiting.push(commit(3, 1, false), oneshot::channel().0);
        assert_eq!(names(&waiting.next(512)), ["user:1"]);
        assert_eq!(names(&waiting.next(1)), ["user:2"]);
    }
}
