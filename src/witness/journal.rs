//! The journal in one small append-only file in a directory of its own.
//!
//! Owns the file and its lock. Its lines are laid out as those of the witness: a checksum each, a torn end is cut off,
//! a broken file is put aside with what could still be read taken over. Every record is synced before anybody is
//! answered, and a descriptor that failed to sync is never asked again: what is known is written to a new file. Never
//! holds more than what the ledger does not know yet.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::file::paths::{beside, directory, private, truncated};
use super::record::{self, Line};
use crate::ports::Journal;
use crate::ports::journal::{Ending, Entry, JournalError, Removal, Result};

/// Name of the file in its directory.
const NAME: &str = "removals";

/// Records that are added before told ones are dropped, at least.
const COMPACT_AFTER: usize = 1_024;

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the journal in {} is in use by another process: each replica needs a directory of its own",
        place.display()
    )]
    Locked {
        /// The directory.
        place: PathBuf,
    },
    /// It holds removals of another ledger, which this one must not be told.
    #[error(
        "the journal in {} belongs to another ledger and holds removals that were not told to it: start once with that ledger, or move the file away",
        place.display()
    )]
    Foreign {
        /// The directory.
        place: PathBuf,
    },
    /// The directory or the file cannot be used.
    #[error("opening the journal in {}: check that the directory can be written", place.display())]
    Disk {
        /// The directory.
        place: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One line of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
enum Record {
    /// The file belongs to this ledger. Always the first line.
    Journal {
        ledger: String,
    },
    Intent {
        number: u64,
        #[serde(flatten)]
        removal: Removal,
    },
    Ended {
        number: u64,
        #[serde(flatten)]
        ending: Ending,
    },
    Told {
        number: u64,
    },
}

/// What could be read of a file.
#[derive(Debug, Default)]
struct Found {
    ledger: Option<String>,
    entries: BTreeMap<u64, Entry>,
    last: u64,
    /// Bytes of whole records.
    good: usize,
    /// Where and how it does not fit, unless it merely ends in a record that was not finished.
    broken: Option<String>,
}

impl Found {
    fn of(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let record = match record::read(line) {
                Line::Torn => break,
                Line::Broken(problem) => Err(problem),
                Line::Whole(json) => {
                    serde_json::from_slice(json).map_err(|_| "was written by a newer release")
                }
            };
            match record {
                Ok(record) => found.take(record),
                // What follows is looked at all the same: each line stands for itself.
                Err(problem) => {
                    let at = found.good;
                    found
                        .broken
                        .get_or_insert_with(|| format!("the record at byte {at} {problem}"));
                }
            }
            found.good += line.len();
        }
        found
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Journal { ledger } => self.ledger = Some(ledger),
            Record::Intent { number, removal } => {
                self.last = self.last.max(number);
                let entry = Entry {
                    number,
                    removal,
                    ending: None,
                };
                self.entries.insert(number, entry);
            }
            Record::Ended { number, ending } => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.ending = Some(ending);
                }
            }
            Record::Told { number } => {
                self.entries.remove(&number);
            }
        }
    }
}

/// The file and what it holds. Every method blocks.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    ledger: String,
    /// Held for as long as the journal is open.
    _lock: File,
    /// `None` after a failed write, until a new file took its place.
    file: Option<File>,
    last: u64,
    /// Records written since told ones were last dropped, and how many entries there were then.
    added: usize,
    kept: usize,
}

impl Store {
    fn append(&mut self, waiting: &Waiting, record: &Record) -> io::Result<()> {
        if self.file.is_none() || self.added > self.kept * 4 + COMPACT_AFTER {
            let known = lock(waiting).clone();
            self.rewrite(&known)?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("there is no file to write to"));
        };
        let written = file
            .write_all(&line(record))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What is on the disk is not known any more, and asking the same descriptor again would not tell.
            self.file = None;
            return Err(error);
        }
        self.added += 1;
        Ok(())
    }

    /// Writes what is known to a new file, which takes the place of the old one.
    fn rewrite(&mut self, waiting: &BTreeMap<u64, Entry>) -> io::Result<()> {
        self.file = None;
        let fresh = beside(&self.path, ".new");
        let mut text = line(&Record::Journal {
            ledger: self.ledger.clone(),
        });
        for Entry {
            number,
            removal,
            ending,
        } in waiting.values()
        {
            let (number, removal) = (*number, removal.clone());
            text.extend(line(&Record::Intent { number, removal }));
            if let Some(ending) = ending.clone() {
                text.extend(line(&Record::Ended { number, ending }));
            }
        }
        let mut file = truncated(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(directory(&self.path))?.sync_all()?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.added = 0;
        self.kept = waiting.len();
        Ok(())
    }
}

fn line(record: &Record) -> Vec<u8> {
    record::framed(&serde_json::to_string(record).expect("plain data has a JSON form"))
}

/// What the ledger does not know yet. Apart from the file, so that nobody who asks for it is held up by a disk.
type Waiting = Mutex<BTreeMap<u64, Entry>>;

/// Handle of the journal.
#[derive(Debug, Clone)]
pub struct FileJournal {
    store: Arc<Mutex<Store>>,
    waiting: Arc<Waiting>,
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Changed in single steps, so a panic elsewhere cannot leave it half written.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileJournal {
    /// Opens the journal of a ledger in a directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`OpenError`] when it is in use, holds what belongs to another ledger, or the disk refuses.
    pub fn open(place: &Path, ledger: &str) -> std::result::Result<Self, OpenError> {
        let failed = |source: io::Error| {
            let place = place.to_owned();
            if source.kind() == io::ErrorKind::WouldBlock {
                OpenError::Locked { place }
            } else {
                OpenError::Disk { place, source }
            }
        };
        let (store, entries) = Self::load(place, ledger).map_err(failed)?;
        let Some(store) = store else {
            return Err(OpenError::Foreign {
                place: place.to_owned(),
            });
        };
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            waiting: Arc::new(Mutex::new(entries)),
        })
    }

    fn load(place: &Path, ledger: &str) -> io::Result<(Option<Store>, BTreeMap<u64, Entry>)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(place)?;
        let path = place.join(NAME);
        let held = private(&beside(&path, ".lock"))?;
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let found = Found::of(&bytes);
        if found.ledger.as_deref().is_some_and(|known| known != ledger) && !found.entries.is_empty()
        {
            return Ok((None, BTreeMap::new()));
        }
        if let Some(problem) = &found.broken {
            let aside = (1..)
                .map(|number: u32| beside(&path, &format!(".damaged-{number}")))
                .find(|path| !path.exists())
                .expect("some number is free");
            std::fs::copy(&path, &aside)?;
            tracing::error!(
                kept = %aside.display(), problem, entries = found.entries.len(),
                "Journal is damaged: removals in what cannot be read are missing in the audit; what they removed is looked at all the same"
            );
        } else if found.good < bytes.len() {
            tracing::warn!(
                path = %path.display(), bytes = bytes.len() - found.good,
                "Journal ends in a record that was never finished; it was cut off"
            );
        }
        let mut store = Store {
            path,
            ledger: ledger.to_owned(),
            _lock: held,
            file: None,
            last: found.last,
            added: 0,
            kept: 0,
        };
        store.rewrite(&found.entries)?;
        Ok((Some(store), found.entries))
    }

    /// Writes on a thread where nobody else waits.
    async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        write: impl FnOnce(&mut Store, &Waiting) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self { store, waiting } = self.clone();
        let done = tokio::task::spawn_blocking(move || write(&mut lock(&store), &waiting));
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| JournalError { action, source };
        match done.await {
            Ok(written) => written.map_err(|error| failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn intend(&self, removal: Removal) -> Result<u64> {
        self.write("noting a removal", move |store, waiting| {
            // Raised first: a number whose writing failed may be in the file all the same.
            store.last += 1;
            let number = store.last;
            let entry = Entry {
                number,
                removal: removal.clone(),
                ending: None,
            };
            store.append(waiting, &Record::Intent { number, removal })?;
            // Before anybody else writes: a new file is made of what waits.
            lock(waiting).insert(number, entry);
            Ok(number)
        })
        .await
    }

    async fn ended(&self, number: u64, ending: Ending) -> Result<()> {
        // Known at once: what is not on the disk of it is told from memory.
        if let Some(entry) = lock(&self.waiting).get_mut(&number) {
            entry.ending = Some(ending.clone());
        }
        self.write("noting how a removal ended", move |store, waiting| {
            store.append(waiting, &Record::Ended { number, ending })
        })
        .await
    }

    async fn told(&self, number: u64) -> Result<()> {
        lock(&self.waiting).remove(&number);
        self.write("forgetting a removal", move |store, waiting| {
            store.append(waiting, &Record::Told { number })
        })
        .await
    }

    fn waiting(&self) -> Vec<Entry> {
        lock(&self.waiting).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
