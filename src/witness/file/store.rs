//! The file itself and what is known of it.
//!
//! Owns its lock, the records in it, and taking its place with a new file. Blocks, so it never runs on a thread that
//! others wait for, and it never trusts a descriptor whose fsync failed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::paths::{beside, directory, private, truncated};
use super::{Command, OpenError};
use crate::domain::assignment::Assignment;
use crate::domain::ids::IntegrationName;
use crate::domain::member::Subject;
use crate::ports::witness::{Binding, Condition, Found, Intent};
use crate::witness::record::{self, LONGEST, Line, Record};

/// Records that are added before closed ones are dropped, at least; beyond it twice what was kept the last time.
pub(super) const COMPACT_AFTER: u64 = 4_096;

/// The head of a record, for those who need no more of it.
#[derive(Debug, Deserialize)]
struct Head {
    k: Kind,
    mark: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
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
pub(super) struct Store {
    path: PathBuf,
    lock: Option<File>,
    /// `None` while there is nothing that can be appended to.
    pub(super) file: Option<File>,
    pub(super) condition: Condition,
    pub(super) binding: Option<Binding>,
    pub(super) mark: u64,
    /// Bytes of whole records that were written without an error.
    pub(super) good: u64,
    /// Records written since closed ones were last dropped, and how many there were then.
    pub(super) added: u64,
    kept: u64,
}

/// What a look at the file brought.
pub(super) struct Scanned {
    pub(super) good: u64,
    records: u64,
    torn: bool,
    pub(super) binding: Option<Binding>,
    pub(super) mark: u64,
}

impl Store {
    /// Nothing is known of the file yet, and nothing of it is held.
    pub(super) fn unopened(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
            file: None,
            condition: Condition::Missing,
            binding: None,
            mark: 0,
            good: 0,
            added: 0,
            kept: 0,
        }
    }

    pub(super) fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        let mut store = Self::unopened(path);
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
    pub(super) fn serve(&mut self, batch: Vec<Command>) -> Vec<oneshot::Sender<()>> {
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

    pub(super) fn append(&mut self, records: &[Record], durable: bool) -> io::Result<()> {
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

    pub(super) fn open_intents(&self) -> io::Result<Vec<Intent>> {
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

    pub(super) fn begin(
        &mut self,
        binding: Binding,
        mark: u64,
        intents: Vec<Intent>,
    ) -> io::Result<()> {
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
pub(super) fn scan(
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
