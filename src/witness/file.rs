//! The witness in one small append-only file, meant to lie on another volume than the ledger.
//!
//! Owns the file, its lock, and one task that writes: what arrives while an fsync is in flight shares the next one.
//! A file whose fsync failed is never trusted again: its records are written to a new one, which replaces it. Never
//! keeps the open intents in memory, and never cuts off more than a record that was not finished.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::future::Future;
use std::io::{
    self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _,
};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::record::{self, LONGEST, Line, Record};
use crate::domain::assignment::Assignment;
use crate::domain::ids::IntegrationName;
use crate::domain::member::{MemberKey, Subject};
use crate::ports::Witness;
use crate::ports::witness::{Binding, Condition, Found, Intent, Result, WitnessError};

/// Writes that share one fsync at most.
const BATCH: usize = 512;

/// Records that are added before closed ones are dropped, at least; beyond it twice what was kept the last time.
const COMPACT_AFTER: u64 = 4_096;

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

/// The head of a record, for those who need no more of it.
#[derive(Debug, Deserialize)]
struct Head {
    k: Kind,
    mark: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Bound,
    Intent,
    Ended,
    Tick,
}

/// What names an assignment of a member in a record.
#[derive(Debug, Deserialize)]
struct Name {
    integration: IntegrationName,
    subject: Subject,
    assignment: Assignment,
}

impl Name {
    fn hash(&self) -> [u8; 16] {
        let Self {
            integration,
            subject,
            assignment,
        } = self;
        let text = format!("{integration} {subject} {assignment:?}");
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        short
    }
}

/// The file and what is known of it. Every method blocks.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    lock: Option<File>,
    /// `None` while there is nothing that can be appended to.
    file: Option<File>,
    condition: Condition,
    binding: Option<Binding>,
    mark: u64,
    /// Bytes of whole records that were written without an error.
    good: u64,
    /// Records written since closed ones were last dropped, and how many there were then.
    added: u64,
    kept: u64,
}

/// What a look at the file brought.
struct Scanned {
    good: u64,
    records: u64,
    torn: bool,
    binding: Option<Binding>,
    mark: u64,
}

impl Store {
    fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        let mut store = Self {
            path: path.to_owned(),
            lock: None,
            file: None,
            condition: Condition::Missing,
            binding: None,
            mark: 0,
            good: 0,
            added: 0,
            kept: 0,
        };
        match store.take_lock() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(OpenError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(error) => {
                store.condition = Condition::Damaged {
                    detail: format!("it cannot be reached ({})", error.kind()),
                };
                return Ok(store);
            }
        }
        if let Err(error) = store.load() {
            store.condition = Condition::Damaged {
                detail: error.to_string(),
            };
        }
        Ok(store)
    }

    fn take_lock(&mut self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory(&self.path))?;
        let lock = private(&beside(&self.path, ".lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        self.lock = Some(lock);
        Ok(())
    }

    /// Reads the file from end to end; cuts off a record that was not finished.
    fn load(&mut self) -> io::Result<()> {
        let size = match std::fs::metadata(&self.path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if size == 0 {
            self.condition = Condition::Missing;
            return Ok(());
        }
        let scanned = scan(&self.path, u64::MAX, |_, _, _| Ok(()))?;
        let file = OpenOptions::new().append(true).open(&self.path)?;
        if scanned.torn {
            tracing::warn!(
                path = %self.path.display(),
                bytes = size - scanned.good,
                "Witness ends in a record that was never finished; it was cut off"
            );
            file.set_len(scanned.good)?;
            file.sync_all()?;
        }
        self.condition = Condition::Whole;
        self.binding = scanned.binding;
        self.mark = scanned.mark;
        self.good = scanned.good;
        self.added = scanned.records;
        self.file = Some(file);
        Ok(())
    }

    /// Carries out a batch; answers who waits for the end, if it is to end.
    fn serve(&mut self, batch: Vec<Command>) -> Vec<oneshot::Sender<()>> {
        let mut closing = Vec::new();
        let mut waiting = Vec::new();
        let mut records = Vec::new();
        for command in batch {
            match command {
                Command::Append(more, None) => records.extend(more),
                Command::Append(more, Some(answer)) => {
                    records.extend(more);
                    waiting.push(answer);
                }
                // Everything else sees what came before it.
                Command::Found(answer) => {
                    self.flush(&mut records, &mut waiting);
                    drop(answer.send(Found {
                        condition: self.condition.clone(),
                        binding: self.binding.clone(),
                        mark: self.mark,
                    }));
                }
                Command::Open(answer) => {
                    self.flush(&mut records, &mut waiting);
                    drop(answer.send(self.open_intents()));
                }
                Command::Begin(binding, mark, intents, answer) => {
                    self.flush(&mut records, &mut waiting);
                    drop(answer.send(self.begin(binding, mark, intents)));
                }
                Command::Check(answer) => {
                    self.flush(&mut records, &mut waiting);
                    drop(answer.send(self.check()));
                }
                Command::Close(answer) => closing.push(answer),
            }
        }
        self.flush(&mut records, &mut waiting);
        if !closing.is_empty()
            && let Some(file) = &self.file
            && let Err(error) = file.sync_all()
        {
            tracing::warn!(%error, "Witness was not synced when it was closed");
        }
        closing
    }

    fn flush(
        &mut self,
        records: &mut Vec<Record>,
        waiting: &mut Vec<oneshot::Sender<io::Result<()>>>,
    ) {
        let records = std::mem::take(records);
        let waiting = std::mem::take(waiting);
        if records.is_empty() && waiting.is_empty() {
            return;
        }
        let done = self.append(&records, !waiting.is_empty());
        if let Err(error) = &done {
            tracing::error!(path = %self.path.display(), %error, "Witness cannot be written; nothing is granted until it can");
        }
        for answer in waiting {
            // Whoever asked may have gone away.
            drop(answer.send(match &done {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            }));
        }
    }

    fn append(&mut self, records: &[Record], durable: bool) -> io::Result<()> {
        self.restore_file()?;
        let mut text = Vec::new();
        for record in records {
            text.extend(record.line());
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("there is no witness to write to"));
        };
        let written = file
            .write_all(&text)
            .and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // What is on the disk is not known any more, and asking the same descriptor again would not tell.
            self.file = None;
            return Err(error);
        }
        self.good += text.len() as u64;
        self.added += records.len() as u64;
        for record in records {
            if let Record::Bound { binding, mark } = record {
                self.binding = Some(binding.clone());
                self.mark = *mark;
            } else {
                self.mark = self.mark.max(record.mark());
            }
        }
        if self.added > COMPACT_AFTER.max(self.kept.saturating_mul(2))
            && let Err(error) = self.rewrite()
        {
            // What is there is whole; dropping what is closed can wait.
            self.added = 0;
            tracing::warn!(%error, "Closed records of the witness were not dropped");
            self.file = OpenOptions::new().append(true).open(&self.path).ok();
        }
        Ok(())
    }

    /// After a failed write: the records that were written without one go to a new file.
    fn restore_file(&mut self) -> io::Result<()> {
        if self.file.is_some() || self.condition != Condition::Whole {
            return Ok(());
        }
        self.rewrite()
    }

    fn check(&mut self) -> io::Result<()> {
        match &self.condition {
            Condition::Whole => self.restore_file(),
            Condition::Missing => Err(io::Error::new(io::ErrorKind::NotFound, "it is missing")),
            Condition::Damaged { detail } => Err(io::Error::other(detail.clone())),
        }
    }

    /// Where the last record of each open intent stands, in the order of the file.
    fn open_offsets(&self) -> io::Result<Vec<u64>> {
        let mut open: BTreeMap<[u8; 16], u64> = BTreeMap::new();
        scan(&self.path, self.good, |offset, kind, json| {
            match kind {
                Kind::Intent => {
                    let name: Name = serde_json::from_slice(json)?;
                    open.insert(name.hash(), offset);
                }
                Kind::Ended => {
                    let name: Name = serde_json::from_slice(json)?;
                    open.remove(&name.hash());
                }
                Kind::Bound | Kind::Tick => {}
            }
            Ok(())
        })?;
        let mut offsets: Vec<u64> = open.into_values().collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    fn open_intents(&self) -> io::Result<Vec<Intent>> {
        if self.condition != Condition::Whole {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        self.each_open(|json| {
            let record: Record = serde_json::from_slice(json)?;
            if let Record::Intent { intent, .. } = record {
                found.push(intent);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn each_open(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
        let offsets = self.open_offsets()?;
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut line = Vec::new();
        for offset in &offsets {
            let here = reader.stream_position()?;
            reader.seek_relative(i64::try_from(*offset - here).unwrap_or(i64::MAX))?;
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let Line::Whole(json) = record::read(&line) else {
                return Err(io::Error::other("a record changed while it was read"));
            };
            take(json)?;
        }
        Ok(offsets.len() as u64)
    }

    /// Writes the binding and the open intents to a new file, which takes the place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        self.file = None;
        let fresh = beside(&self.path, ".new");
        let mut writer = BufWriter::new(truncated(&fresh)?);
        let mut good = 0;
        let mut put = |text: &[u8]| {
            good += text.len() as u64;
            writer.write_all(text)
        };
        if let Some(binding) = self.binding.clone() {
            let mark = self.mark;
            put(&Record::Bound { mark, binding }.line())?;
        }
        let kept = self.each_open(|json| {
            let record: Record = serde_json::from_slice(json)?;
            put(&record.line())
        })?;
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        self.replace(&fresh)?;
        self.good = good;
        self.kept = kept;
        self.added = 0;
        Ok(())
    }

    fn begin(&mut self, binding: Binding, mark: u64, intents: Vec<Intent>) -> io::Result<()> {
        self.take_lock()?;
        self.file = None;
        let fresh = beside(&self.path, ".new");
        let mut writer = BufWriter::new(truncated(&fresh)?);
        let mut good = 0;
        let mut put = |record: Record| {
            let text = record.line();
            good += text.len() as u64;
            writer.write_all(&text)
        };
        put(Record::Bound {
            mark,
            binding: binding.clone(),
        })?;
        let kept = intents.len() as u64;
        for intent in intents {
            put(Record::Intent { mark, intent })?;
        }
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        if matches!(self.condition, Condition::Damaged { .. }) && self.path.try_exists()? {
            let aside = (1..)
                .map(|number: u32| beside(&self.path, &format!(".damaged-{number}")))
                .find(|path| !path.exists())
                .expect("some number is free");
            std::fs::rename(&self.path, &aside)?;
            tracing::warn!(path = %aside.display(), "Damaged witness was put aside");
        }
        self.replace(&fresh)?;
        self.condition = Condition::Whole;
        self.binding = Some(binding);
        self.mark = mark;
        self.good = good;
        self.kept = kept;
        self.added = 0;
        Ok(())
    }

    fn replace(&mut self, fresh: &Path) -> io::Result<()> {
        std::fs::rename(fresh, &self.path)?;
        File::open(directory(&self.path))?.sync_all()?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }
}

/// Goes through the records up to the byte `until`. Its error says where the file does not fit.
fn scan(
    path: &Path,
    until: u64,
    mut visit: impl FnMut(u64, Kind, &[u8]) -> io::Result<()>,
) -> io::Result<Scanned> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut scanned = Scanned {
        good: 0,
        records: 0,
        torn: false,
        binding: None,
        mark: 0,
    };
    let mut line = Vec::new();
    while scanned.good < until {
        line.clear();
        let longest = (LONGEST + 64) as u64;
        if (&mut reader).take(longest).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let broken = |problem: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the record at byte {} {problem}; the file was changed or its disk is failing",
                    scanned.good
                ),
            )
        };
        match record::read(&line) {
            Line::Torn => {
                scanned.torn = true;
                break;
            }
            Line::Broken(problem) => return Err(broken(problem)),
            Line::Whole(json) => {
                let head: Head = serde_json::from_slice(json)
                    .map_err(|_| broken("was written by a newer release"))?;
                visit(scanned.good, head.k, json)?;
                if head.k == Kind::Bound {
                    let binding: Binding = serde_json::from_slice(json)?;
                    scanned.binding = Some(binding);
                    scanned.mark = head.mark;
                } else {
                    scanned.mark = scanned.mark.max(head.mark);
                }
                scanned.good += line.len() as u64;
                scanned.records += 1;
            }
        }
    }
    Ok(scanned)
}

/// Looks at the witness at `path` without opening it for writing: for `doctor` and `adopt`, also while a connector
/// runs on it.
///
/// # Errors
/// When it can be trusted and its intents cannot be read all the same.
pub fn inspect(path: &Path) -> io::Result<(Found, Vec<Intent>)> {
    let mut store = Store {
        path: path.to_owned(),
        lock: None,
        file: None,
        condition: Condition::Missing,
        binding: None,
        mark: 0,
        good: 0,
        added: 0,
        kept: 0,
    };
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => match scan(path, u64::MAX, |_, _, _| Ok(())) {
            Ok(scanned) => {
                store.condition = Condition::Whole;
                store.binding = scanned.binding;
                store.mark = scanned.mark;
                store.good = scanned.good;
            }
            Err(error) => {
                store.condition = Condition::Damaged {
                    detail: error.to_string(),
                };
            }
        },
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            store.condition = Condition::Damaged {
                detail: format!("it cannot be read ({})", error.kind()),
            };
        }
    }
    let intents = store.open_intents()?;
    let found = Found {
        condition: store.condition,
        binding: store.binding,
        mark: store.mark,
    };
    Ok((found, intents))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn truncated(path: &Path) -> io::Result<File> {
    let file = private(path)?;
    file.set_len(0)?;
    (&file).seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
