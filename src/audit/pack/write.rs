//! Writing a pack.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::level::{ServiceLevel, Tally};
use super::{
    AUDIT, DRIFT, Entry, FORMAT, LEVEL, MANIFEST, Manifest, RECEIPTS, REQUESTS, SIGNATURE, place,
};
use crate::audit::block::{Block, Malformed};
use crate::audit::export;
use crate::audit::key::SigningKey;
use crate::audit::verify::Head;
use crate::domain::Timestamp;
use crate::domain::receipt::Receipt;
use crate::ports::audit::{AuditBlock, AuditRecord};

/// Why a pack was not written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder is there and holds something.
    #[error("{} is not empty: evidence goes into a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// It cannot be written.
    #[error("writing {}", .path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A block of the ledger is not one.
    #[error("a block of the audit is damaged")]
    Block(#[from] Malformed),
    /// Nothing is sealed, so nothing can be proven.
    #[error("nothing of this period is sealed")]
    NotSealed,
}

/// What a pack is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which ledger.
    pub ledger: String,
    /// The first instant of the period.
    pub from: Timestamp,
    /// The first instant after it.
    pub to: Timestamp,
    /// Now.
    pub made_at: Timestamp,
    /// Version of this build.
    pub version: String,
    /// Milliseconds from due to seen gone that are promised.
    pub within_ms: u64,
}

/// A file under way.
#[derive(Debug)]
struct Out {
    name: &'static str,
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Out {
    fn create(folder: &Path, name: &'static str) -> Result<Self, PackError> {
        let path = folder.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|source| PackError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            name,
            path,
            file: BufWriter::new(file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    fn put(&mut self, text: &str) -> Result<(), PackError> {
        self.hash.update(text);
        self.bytes += text.len() as u64;
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| PackError::Write {
                path: self.path.clone(),
                source,
            })
    }

    fn line(&mut self, text: &str) -> Result<(), PackError> {
        self.put(text)?;
        self.put("\n")
    }

    fn end(self) -> Result<Entry, PackError> {
        let Self {
            name,
            path,
            file,
            hash,
            bytes,
        } = self;
        let synced = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all());
        synced.map_err(|source| PackError::Write { path, source })?;
        Ok(Entry {
            name: name.to_owned(),
            bytes,
            sha256: hex::encode(hash.finalize()),
        })
    }
}

/// A pack under way.
#[derive(Debug)]
pub struct PackWriter {
    folder: PathBuf,
    facts: Facts,
    audit: Out,
    requests: Out,
    drift: Out,
    receipts: Out,
    tally: Tally,
    first_block: Option<u64>,
    last: Option<(Head, Timestamp)>,
}

impl PackWriter {
    /// Begins a pack in a folder that is made, or is there and empty.
    ///
    /// # Errors
    /// [`PackError::NotEmpty`], or that it cannot be written.
    pub fn create(folder: &Path, facts: Facts) -> Result<Self, PackError> {
        let failed = |source| PackError::Write {
            path: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        if folder.read_dir().map_err(failed)?.next().is_some() {
            return Err(PackError::NotEmpty(folder.to_owned()));
        }
        Ok(Self {
            folder: folder.to_owned(),
            audit: Out::create(folder, AUDIT)?,
            requests: Out::create(folder, REQUESTS)?,
            drift: Out::create(folder, DRIFT)?,
            receipts: Out::create(folder, RECEIPTS)?,
            tally: Tally::new(facts.within_ms),
            first_block: None,
            last: None,
            facts,
        })
    }

    /// Adds a record of the next block. Answers whether it is of the period.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &AuditRecord) -> Result<bool, PackError> {
        let line = record.line();
        self.audit.line(&line)?;
        let Some((at, file)) = place(record.body.as_bytes()) else {
            return Ok(false);
        };
        if at < self.facts.from || at >= self.facts.to {
            return Ok(false);
        }
        match file {
            Some(REQUESTS) => self.requests.line(&line)?,
            Some(DRIFT) => self.drift.line(&line)?,
            _ => {}
        }
        Ok(true)
    }

    /// Adds the block that seals the records before it.
    ///
    /// # Errors
    /// When it is not a block, or cannot be written.
    pub fn block(&mut self, stored: &AuditBlock) -> Result<(), PackError> {
        self.audit.line(&export::block(stored))?;
        let block = Block::read(&stored.header, &stored.leaves, stored.signature.clone())?;
        self.first_block.get_or_insert(stored.number);
        let head = Head {
            number: stored.number,
            hash: block.hash(),
        };
        self.last = Some((head, block.header.sealed_at));
        Ok(())
    }

    /// Adds the receipt of a grant that ended in the period.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn receipt(&mut self, receipt: &Receipt) -> Result<(), PackError> {
        self.tally.take(receipt);
        let line = serde_json::to_string(receipt).expect("a receipt has a JSON form");
        self.receipts.line(&line)
    }

    /// Writes what follows from the rest and the manifest, signed where there is a key.
    ///
    /// # Errors
    /// [`PackError::NotSealed`] without any block, or that it cannot be written.
    pub fn end(self, key: Option<&SigningKey>) -> Result<(Manifest, ServiceLevel), PackError> {
        let (Some(first_block), Some((head, sealed_at))) = (self.first_block, self.last) else {
            return Err(PackError::NotSealed);
        };
        let level = self.tally.end();
        let mut out = Out::create(&self.folder, LEVEL)?;
        out.line(&pretty(&level))?;
        let files = vec![
            self.audit.end()?,
            self.requests.end()?,
            self.receipts.end()?,
            self.drift.end()?,
            out.end()?,
        ];
        let Facts {
            ledger,
            from,
            to,
            made_at,
            version,
            within_ms: _,
        } = self.facts;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            ledger,
            from,
            to,
            made_at,
            version,
            first_block,
            head: head.to_string(),
            sealed_at,
            key: key.map(|key| key.id().to_owned()),
            files,
        };
        let text = pretty(&manifest) + "\n";
        if let Some(key) = key {
            let mut out = Out::create(&self.folder, SIGNATURE)?;
            out.line(&STANDARD.encode(key.sign(text.as_bytes())))?;
            out.end()?;
        }
        // Last: a pack that was cut short has none.
        let mut out = Out::create(&self.folder, MANIFEST)?;
        out.put(&text)?;
        out.end()?;
        Ok((manifest, level))
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain values have a JSON form")
}
