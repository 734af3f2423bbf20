//! Checking a pack: nothing but its files and the public keys.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::level::{ServiceLevel, Tally};
use super::{
    AUDIT, DRIFT, FORMAT, LEVEL, MANIFEST, Manifest, RECEIPTS, REQUESTS, SIGNATURE, place,
};
use crate::audit::export::{self, Line};
use crate::audit::key::PublicKey;
use crate::audit::verify::{Finding, Head, Report, Verifier, VerifyError};
use crate::domain::receipt::Receipt;

/// The largest manifest that is read.
const MAX_MANIFEST: u64 = 1 << 20;

/// The first thing that is wrong with a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackFinding {
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// Which.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("manifest.json: {0}")]
    Manifest(String),
    /// Nobody signed the manifest.
    #[error("manifest.json is not signed, so only audit.jsonl and what stands in it too is proven")]
    NotSigned,
    /// The manifest was changed, or signed by somebody else.
    #[error("manifest.json: its signature is not of a key that was given")]
    Signature,
    /// A file of the manifest is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// A file is there that the manifest does not name.
    #[error("{0} is not part of the evidence")]
    Extra(String),
    /// A file is not what it was.
    #[error("{0} was changed after the evidence was made")]
    Changed(String),
    /// The sealed audit in it is not whole.
    #[error("audit.jsonl: {0}")]
    Audit(#[from] Finding),
    /// A file does not follow from the others.
    #[error("{file}: {what}")]
    Derived {
        /// Which.
        file: &'static str,
        /// What does not fit.
        what: String,
    },
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackReport {
    /// What the pack says about itself.
    pub manifest: Manifest,
    /// The audit in it.
    pub audit: Report,
    /// Whether the manifest is signed by one of the keys.
    pub is_signed: bool,
    /// Whether the head that was kept elsewhere lies within the pack, and was compared.
    pub is_head_compared: bool,
    /// How punctual revocations were.
    pub level: ServiceLevel,
}

/// Checks the pack in `folder` with these keys, and with a head that was kept elsewhere where there is one. One that is
/// not signed is refused unless that is allowed.
///
/// # Errors
/// [`PackFinding`] with the first thing that is wrong.
pub fn verify(
    folder: &Path,
    keys: &[PublicKey],
    head: Option<Head>,
    allow_unsigned: bool,
) -> Result<PackReport, PackFinding> {
    let (text, manifest) = manifest(folder)?;
    let is_signed = signed(folder, &text, &manifest, keys)?;
    if !is_signed && !allow_unsigned {
        return Err(PackFinding::NotSigned);
    }
    whole(folder, &manifest)?;
    // A head beyond the last block of the period says nothing about it.
    let last = Head::parse(&manifest.head)
        .ok_or_else(|| PackFinding::Manifest("its head is not NUMBER:HASH".to_owned()))?;
    let compared = head.filter(|head| (manifest.first_block..=last.number).contains(&head.number));
    let verifier = Verifier::new(keys.to_vec(), compared);
    let audit = verifier
        .run(reader(folder, AUDIT)?)
        .map_err(|error| match error {
            VerifyError::Finding(finding) => PackFinding::Audit(finding),
            VerifyError::Read(source) => read_failed(AUDIT, source),
        })?;
    let said = (
        &manifest.ledger,
        manifest.first_block,
        last,
        manifest.sealed_at,
    );
    if said
        != (
            &audit.ledger,
            audit.first_block,
            audit.head,
            audit.sealed_at,
        )
    {
        return Err(PackFinding::Manifest(
            "what it says about audit.jsonl is not what stands there".to_owned(),
        ));
    }
    copied(folder, &manifest)?;
    let level = counted(folder, &manifest)?;
    Ok(PackReport {
        manifest,
        audit,
        is_signed,
        is_head_compared: compared.is_some(),
        level,
    })
}

fn read_failed(file: &str, source: io::Error) -> PackFinding {
    PackFinding::Read {
        file: file.to_owned(),
        source,
    }
}

fn open(folder: &Path, name: &str) -> Result<File, PackFinding> {
    match File::open(folder.join(name)) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(PackFinding::Missing(name.to_owned()))
        }
        Err(error) => Err(read_failed(name, error)),
    }
}

fn reader(folder: &Path, name: &str) -> Result<BufReader<File>, PackFinding> {
    Ok(BufReader::with_capacity(1 << 18, open(folder, name)?))
}

fn manifest(folder: &Path) -> Result<(Vec<u8>, Manifest), PackFinding> {
    let mut text = Vec::new();
    open(folder, MANIFEST)?
        .take(MAX_MANIFEST)
        .read_to_end(&mut text)
        .map_err(|error| read_failed(MANIFEST, error))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
        PackFinding::Manifest(format!("it is not one that was written: {error}"))
    })?;
    if manifest.format != FORMAT {
        return Err(PackFinding::Manifest(
            "its format is not known here".to_owned(),
        ));
    }
    let mut names: Vec<&str> = manifest
        .files
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    names.sort_unstable();
    if names != [AUDIT, DRIFT, RECEIPTS, REQUESTS, LEVEL] {
        return Err(PackFinding::Manifest(
            "it does not name the files of a pack".to_owned(),
        ));
    }
    Ok((text, manifest))
}

/// Whether it is signed by one of the keys.
fn signed(
    folder: &Path,
    text: &[u8],
    manifest: &Manifest,
    keys: &[PublicKey],
) -> Result<bool, PackFinding> {
    let Some(id) = &manifest.key else {
        return Ok(false);
    };
    let mut signature = String::new();
    open(folder, SIGNATURE)?
        .take(1024)
        .read_to_string(&mut signature)
        .map_err(|error| read_failed(SIGNATURE, error))?;
    let signature = STANDARD.decode(signature.trim()).unwrap_or_default();
    let key = keys.iter().find(|key| key.id() == id);
    if key.is_some_and(|key| key.verifies(text, &signature)) {
        Ok(true)
    } else {
        Err(PackFinding::Signature)
    }
}

/// Every file is there as it was, and no other.
fn whole(folder: &Path, manifest: &Manifest) -> Result<(), PackFinding> {
    let failed = |error| read_failed("the folder", error);
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        found.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    found.sort_unstable();
    let is_known = |name: &str| {
        name == MANIFEST
            || (name == SIGNATURE && manifest.key.is_some())
            || manifest.files.iter().any(|entry| entry.name == name)
    };
    for entry in &manifest.files {
        let mut file = reader(folder, &entry.name)?;
        let mut hash = Sha256::new();
        let mut bytes = 0;
        loop {
            let piece = file
                .fill_buf()
                .map_err(|error| read_failed(&entry.name, error))?;
            if piece.is_empty() {
                break;
            }
            hash.update(piece);
            let length = piece.len();
            bytes += length as u64;
            file.consume(length);
        }
        if bytes != entry.bytes || hex::encode(hash.finalize()) != entry.sha256 {
            return Err(PackFinding::Changed(entry.name.clone()));
        }
    }
    match found.into_iter().find(|name| !is_known(name)) {
        Some(extra) => Err(PackFinding::Extra(extra)),
        None => Ok(()),
    }
}

/// Requests and drift are exactly those of the sealed audit.
fn copied(folder: &Path, manifest: &Manifest) -> Result<(), PackFinding> {
    let mut requests = Copied::of(folder, REQUESTS)?;
    let mut drift = Copied::of(folder, DRIFT)?;
    for line in reader(folder, AUDIT)?.lines() {
        let line = line.map_err(|error| read_failed(AUDIT, error))?;
        let Ok(Line::Record(sequence, body)) = export::read(line.as_bytes()) else {
            continue;
        };
        match place(body) {
            Some((at, Some(file))) if at >= manifest.from && at < manifest.to => {
                let copied = if file == REQUESTS {
                    &mut requests
                } else {
                    &mut drift
                };
                copied.next_is(sequence, &line)?;
            }
            _ => {}
        }
    }
    requests.end()?;
    drift.end()
}

/// A file whose lines stand in the audit as well.
struct Copied {
    file: &'static str,
    lines: Lines<BufReader<File>>,
    line: u64,
}

impl Copied {
    fn of(folder: &Path, file: &'static str) -> Result<Self, PackFinding> {
        Ok(Self {
            file,
            lines: reader(folder, file)?.lines(),
            line: 0,
        })
    }

    fn next(&mut self) -> Result<Option<String>, PackFinding> {
        self.line += 1;
        let next = self.lines.next().transpose();
        next.map_err(|error| read_failed(self.file, error))
    }

    fn next_is(&mut self, sequence: u64, wanted: &str) -> Result<(), PackFinding> {
        let found = self.next()?;
        if found.as_deref() == Some(wanted) {
            return Ok(());
        }
        Err(PackFinding::Derived {
            file: self.file,
            what: format!(
                "line {} is not record {sequence} of the sealed audit",
                self.line
            ),
        })
    }

    fn end(mut self) -> Result<(), PackFinding> {
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(PackFinding::Derived {
                file: self.file,
                what: format!("line {} is no record of the sealed audit", self.line),
            }),
        }
    }
}

/// The service level is that of the receipts.
fn counted(folder: &Path, manifest: &Manifest) -> Result<ServiceLevel, PackFinding> {
    let said: ServiceLevel = serde_json::from_reader(reader(folder, LEVEL)?)
        .map_err(|error| derived(LEVEL, format!("it is not one that was written: {error}")))?;
    let mut tally = Tally::new(said.within_ms);
    for (at, line) in reader(folder, RECEIPTS)?.lines().enumerate() {
        let line = line.map_err(|error| read_failed(RECEIPTS, error))?;
        let receipt: Receipt = serde_json::from_str(&line).map_err(|error| {
            derived(RECEIPTS, format!("line {} is no receipt: {error}", at + 1))
        })?;
        if receipt.ended_at < manifest.from || receipt.ended_at >= manifest.to {
            return Err(derived(
                RECEIPTS,
                format!("line {} is not of the period", at + 1),
            ));
        }
        tally.take(&receipt);
    }
    if tally.end() == said {
        Ok(said)
    } else {
        Err(derived(
            LEVEL,
            "it does not follow from receipts.jsonl".to_owned(),
        ))
    }
}

fn derived(file: &'static str, what: String) -> PackFinding {
    PackFinding::Derived { file, what }
}
