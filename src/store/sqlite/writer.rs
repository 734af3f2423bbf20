//! The writer: one task with the one connection that changes the ledger.
//!
//! Owns group commit: what arrives while a commit is in flight goes into the next one, with no added delay, and
//! nobody is answered before the commit returned. A connection that failed to commit is closed and opened anew,
//! never asked again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use super::engine::{self, Admitted, Conn, Fence, Held, Readers, Source};
use super::errors;
use super::together::{self, TOGETHER};
use super::write::{self, Reply, Work};
use crate::ports::ledger::Result;

/// A write, and the claim that it is bound to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) work: Work,
    pub(super) fence: Option<Fence>,
}

/// One write and who waits for it.
#[derive(Debug)]
pub(super) enum Command {
    Write(Asked, oneshot::Sender<Result<Reply>>),
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
    pub(super) source: Source,
    /// `None` after a failed commit, until it is opened anew.
    pub(super) conn: Option<Conn>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) last_sequence: watch::Sender<u64>,
    pub(super) counters: Arc<Counters>,
    pub(super) readers: Readers,
    pub(super) held: Held,
}

/// Rows in one commit, beyond which the rest waits for the next one: an intent that comes now is not kept waiting by
/// everybody who fell due at the same instant.
const ROWS: usize = 512;

/// Writes that wait for a commit. Intents go first: upstream is asked the sooner, and each is the second step of
/// something whose first one is done.
#[derive(Debug, Default)]
struct Waiting {
    intents: VecDeque<(Asked, oneshot::Sender<Result<Reply>>)>,
    others: VecDeque<(Asked, oneshot::Sender<Result<Reply>>)>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.intents.len() + self.others.len()
    }

    fn push(&mut self, asked: Asked, reply: oneshot::Sender<Result<Reply>>) {
        if asked.work.is_intent() {
            self.intents.push_back((asked, reply));
        } else {
            self.others.push_back((asked, reply));
        }
    }

    /// The writes of the next commit: at least one if any waits, at most so many.
    fn next(&mut self, most: usize) -> Vec<(Asked, oneshot::Sender<Result<Reply>>)> {
        let mut batch = Vec::new();
        let mut rows = 0;
        while batch.len() < most.max(1)
            && rows < ROWS
            && let Some(next) = self.intents.pop_front().or_else(|| self.others.pop_front())
        {
            rows += next.0.work.rows();
            batch.push(next);
        }
        batch
    }
}

/// What became of each write of a batch, before anybody is told.
type Outcomes = Vec<Result<Reply>>;
/// The same and the newest sequence, before the commit.
type Attempted = std::result::Result<(Outcomes, u64), sqlx::Error>;

/// How often a batch is tried that the database took back for the sake of somebody else's.
const TRIES: u32 = 8;

impl Writer {
    /// Runs until the ledger is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut arrived = Vec::with_capacity(self.source.batch());
        let mut waiting = Waiting::default();
        let mut closing = Vec::new();
        loop {
            if waiting.is_empty() {
                let limit = self.source.batch().max(1);
                if self.commands.recv_many(&mut arrived, limit).await == 0 {
                    break;
                }
            }
            while arrived.len() + waiting.len() < self.source.batch() {
                match self.commands.try_recv() {
                    Ok(command) => arrived.push(command),
                    Err(_) => break,
                }
            }
            for command in arrived.drain(..) {
                match command {
                    Command::Write(asked, reply) => waiting.push(asked, reply),
                    Command::Close(done) => closing.push(done),
                }
            }
            if !closing.is_empty() {
                // What was sent before is still received and served; nothing more can be sent.
                self.commands.close();
            }
            self.serve(waiting.next(self.source.batch())).await;
        }
        // Readers first: the last connection to close writes the log back into the file and removes it.
        self.readers.close().await;
        if let Some(conn) = self.conn.take() {
            write::close(conn).await;
        }
        engine::let_go(self.held);
        for done in closing {
            // Whoever asked to close may have stopped waiting.
            done.send(()).ok();
        }
    }

    async fn serve(&mut self, batch: Vec<(Asked, oneshot::Sender<Result<Reply>>)>) {
        if batch.is_empty() {
            return;
        }
        let (works, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let outcomes = self.transact(&works).await;
        // What only proves that the disk can be written, or only concerns the audit, makes nothing due.
        let tells_only = |asked: &Asked| {
            matches!(
                asked.work,
                Work::Check | Work::Append(_) | Work::MoveCursor { .. } | Work::PutRotation(..)
            )
        };
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
            let is_news = *known < last;
            *known = last.max(*known);
            is_news
        });
    }

    async fn transact(&mut self, works: &[Asked]) -> Outcomes {
        let mut tries = 1;
        loop {
            match self.attempt(works).await {
                Ok(outcomes) => return outcomes,
                Err(conflict) if tries < TRIES => {
                    tracing::debug!(error = %conflict, tries, "A transaction of the ledger is tried again");
                    tries += 1;
                }
                Err(conflict) => {
                    tracing::warn!(error = %conflict, tries, "A transaction of the ledger was given up");
                    return all(works, conflict, errors::of_statement);
                }
            }
        }
    }

    /// One try. The error is a conflict: nothing happened, and trying again may help.
    async fn attempt(
        &mut self,
        works: &[Asked],
    ) -> std::result::Result<Outcomes, Arc<sqlx::Error>> {
        if self.conn.is_none() {
            match engine::patient(self.source.anew()).await {
                Ok(conn) => {
                    tracing::warn!("Opened the ledger anew");
                    self.conn = Some(conn);
                }
                Err(error) => {
                    tracing::error!(%error, "Opening the ledger anew failed");
                    return Ok(all(works, Arc::new(error), errors::of_statement));
                }
            }
        }
        let Some(conn) = &mut self.conn else {
            return Ok(Vec::new());
        };
        let known = *self.last_sequence.borrow();
        let attempted = match engine::patient(together(conn, works, known)).await {
            Err(error)
                if works.len() == 1 || errors::is_broken(&error) || errors::is_conflict(&error) =>
            {
                Err(error)
            }
            // One of them failed: it alone must not take the others along.
            Err(_) => engine::patient(one_by_one(conn, works, known)).await,
            done => done,
        };
        let (outcomes, last) = match attempted {
            Ok(attempted) => attempted,
            Err(error) => {
                let is_usable = engine::rolled_back(conn).await && !errors::is_broken(&error);
                if !is_usable && let Some(conn) = self.conn.take() {
                    write::close(conn).await;
                }
                if errors::is_conflict(&error) {
                    return Err(Arc::new(error));
                }
                tracing::warn!(%error, writes = works.len(), "A transaction of the ledger was rolled back");
                return Ok(all(works, Arc::new(error), errors::of_statement));
            }
        };
        match engine::patient(engine::commit(conn, last)).await {
            Ok(last) => {
                self.publish(last);
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .writes
                    .fetch_add(works.len() as u64, Ordering::Relaxed);
                Ok(outcomes)
            }
            Err(error) if errors::is_conflict(&error) => {
                if !engine::rolled_back(conn).await
                    && let Some(conn) = self.conn.take()
                {
                    write::close(conn).await;
                }
                Err(Arc::new(error))
            }
            Err(error) => {
                tracing::error!(%error, writes = works.len(), "A commit of the ledger failed; opening it anew");
                engine::rolled_back(conn).await;
                if let Some(conn) = self.conn.take() {
                    write::close(conn).await;
                }
                let error = Arc::new(error);
                Ok(outcomes
                    .into_iter()
                    .zip(works)
                    .map(|(outcome, asked)| {
                        outcome.and_then(|_| {
                            Err(errors::of_commit(asked.work.action(), Arc::clone(&error)))
                        })
                    })
                    .collect())
            }
        }
    }
}

fn all(
    works: &[Asked],
    error: Arc<sqlx::Error>,
    meaning: impl Fn(&'static str, Arc<sqlx::Error>) -> crate::ports::ledger::LedgerError,
) -> Outcomes {
    works
        .iter()
        .map(|asked| Err(meaning(asked.work.action(), Arc::clone(&error))))
        .collect()
}

/// The usual way: every write of the batch, one after the other, in one open transaction.
async fn together(conn: &mut Conn, works: &[Asked], known: u64) -> Attempted {
    engine::begin(conn).await?;
    let mut admitted = Admitted::default();
    let mut outcomes = Vec::with_capacity(works.len());
    let mut rest = works;
    while let Some((asked, others)) = rest.split_first() {
        // Each text is a round trip to the database, which costs more than the text itself.
        let accepts: Vec<_> = rest
            .iter()
            .take(TOGETHER)
            .map_while(|asked| together::plain_accept(&asked.work))
            .collect();
        if accepts.len() < TOGETHER {
            outcomes.push(one(conn, asked, &mut admitted).await?);
            rest = others;
            continue;
        }
        let (these, others) = rest.split_at(TOGETHER);
        if together::accepts(conn, &accepts).await? {
            outcomes.extend(these.iter().map(|_| Ok(Reply::Created)));
        } else {
            for asked in these {
                outcomes.push(one(conn, asked, &mut admitted).await?);
            }
        }
        rest = others;
    }
    Ok((outcomes, engine::announce(conn, known).await?))
}

/// One write, if the claim that it is bound to still stands.
async fn one(conn: &mut Conn, asked: &Asked, admitted: &mut Admitted) -> write::Applied {
    if let Some(fence) = &asked.fence
        && let Some(refusal) = admitted.admit(conn, fence, asked.work.action()).await?
    {
        return Ok(Err(refusal));
    }
    write::apply(conn, &asked.work).await
}

/// The careful way, after a batch failed: each write in its own savepoint, so that what fails goes alone.
async fn one_by_one(conn: &mut Conn, works: &[Asked], known: u64) -> Attempted {
    if !engine::rolled_back(conn).await {
        return Err(sqlx::Error::WorkerCrashed);
    }
    engine::begin(conn).await?;
    let mut outcomes = Vec::with_capacity(works.len());
    for asked in works {
        engine::run(conn, "SAVEPOINT one").await?;
        // What a savepoint takes back takes the lock of a claim along: each asks anew.
        let outcome = match one(conn, asked, &mut Admitted::default()).await {
            Ok(outcome) => {
                engine::run(conn, "RELEASE one").await?;
                outcome
            }
            Err(error) if errors::is_broken(&error) || errors::is_conflict(&error) => {
                return Err(error);
            }
            Err(error) => {
                let action = asked.work.action();
                tracing::warn!(%error, action, "A write to the ledger was rolled back");
                engine::run(conn, "ROLLBACK TO one; RELEASE one").await?;
                Err(errors::of_statement(action, error))
            }
        };
        outcomes.push(outcome);
    }
    Ok((outcomes, engine::announce(conn, known).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{AuditEvent, EventKind};
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{MemberKey, MemberRecord, Subject, WriteKind};
    use crate::ports::ledger::MemberCommit;
    use crate::store::rows::CommitRows;

    fn commit(name: u32, events: usize, is_intent: bool) -> Asked {
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
                put_back: false,
            }
        } else {
            EventKind::Lifecycle {
                action: "test".to_owned(),
                version: String::new(),
            }
        };
        let work = Work::Commit(Box::new(CommitRows::new(MemberCommit {
            record: MemberRecord::new(key.clone()),
            audit: vec![AuditEvent::member(at, &key, kind); events],
            request: None,
        })));
        Asked { work, fence: None }
    }

    fn names(batch: &[(Asked, oneshot::Sender<Result<Reply>>)]) -> Vec<String> {
        batch
            .iter()
            .map(|(asked, _)| {
                let Work::Commit(rows) = &asked.work else {
                    panic!("{asked:?}");
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
