//! One block of the sealed audit: what is signed, and its form as text.
//!
//! Owns the header. It is lines of text, so that an auditor can check a block with `sha256sum` and `openssl` alone.

use std::fmt::Write as _;

use super::key::{PublicKey, SigningKey};
use super::tree::{self, Hash};
use crate::domain::Timestamp;
use crate::ports::audit::{AuditBlock, AuditRecord};

/// First line of every header; another layout gets another name.
const VERSION: &str = "latchkey-audit-block-v1";

/// What a block says, all of it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which ledger the events are of.
    pub ledger: String,
    /// 1 for the first block.
    pub number: u64,
    /// Sequences of its records as runs, first and last of each.
    pub runs: Vec<(u64, u64)>,
    /// Root of the tree over its records.
    pub root: Hash,
    /// Hash of the header before; [`Hash::NONE`] in the first.
    pub previous: Hash,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// Name of the key that signed it.
    pub key: String,
}

/// A text is not a header, or does not fit what it is said to describe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Header {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut runs = String::new();
        for (first, last) in &self.runs {
            if !runs.is_empty() {
                runs.push(',');
            }
            write!(runs, "{first}-{last}").expect("text takes everything");
        }
        format!(
            "{VERSION}\nledger:{}\nnumber:{}\nsequences:{runs}\nroot:{}\nprevious:{}\nsealed_at:{}\nkey:{}\n",
            self.ledger,
            self.number,
            self.root,
            self.previous,
            self.sealed_at
                .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            self.key
        )
    }

    /// Reads the text that is signed.
    ///
    /// # Errors
    /// [`Malformed`] naming the line.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = |what: &str| Malformed(format!("its header has no valid {what}"));
        let mut lines = text.lines();
        if lines.next() != Some(VERSION) {
            return Err(bad("version"));
        }
        let mut field = |name: &str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .ok_or_else(|| bad(name))
        };
        let header = Self {
            ledger: field("ledger")?.to_owned(),
            number: field("number")?.parse().map_err(|_| bad("number"))?,
            runs: parse_runs(field("sequences")?).ok_or_else(|| bad("sequences"))?,
            root: Hash::parse(field("root")?).ok_or_else(|| bad("root"))?,
            previous: Hash::parse(field("previous")?).ok_or_else(|| bad("previous"))?,
            sealed_at: field("sealed_at")?.parse().map_err(|_| bad("sealed_at"))?,
            key: field("key")?.to_owned(),
        };
        // One meaning, one text: what is signed has no second spelling.
        if header.text() == text {
            Ok(header)
        } else {
            Err(bad("form"))
        }
    }

    /// Sequences of its records, in order.
    pub fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// How many records.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// The highest sequence.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.runs.last().map_or(0, |(_, last)| *last)
    }
}

/// Runs that rise, at least one.
fn parse_runs(text: &str) -> Option<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for run in text.split(',') {
        let (first, last) = run.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let after = runs.last().map_or(0, |(_, last)| *last);
        if first <= after || last < first {
            return None;
        }
        runs.push((first, last));
    }
    Some(runs)
}

/// A block with its header read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it says.
    pub header: Header,
    /// The hashes of its records.
    pub leaves: Vec<Hash>,
    /// Signature over the header's text.
    pub signature: Vec<u8>,
}

impl Block {
    /// Seals records, which must rise in sequence; at least one.
    #[must_use]
    pub fn seal(
        ledger: &str,
        number: u64,
        previous: Hash,
        records: &[AuditRecord],
        at: Timestamp,
        key: &SigningKey,
    ) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for record in records {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == record.sequence => *last = record.sequence,
                _ => runs.push((record.sequence, record.sequence)),
            }
        }
        let leaves: Vec<Hash> = records
            .iter()
            .map(|record| tree::leaf(record.sequence, record.body.as_bytes()))
            .collect();
        let header = Header {
            ledger: ledger.to_owned(),
            number,
            runs,
            root: tree::root(leaves.clone()),
            previous,
            sealed_at: at,
            key: key.id().to_owned(),
        };
        let signature = key.sign(header.text().as_bytes());
        Self {
            header,
            leaves,
            signature,
        }
    }

    /// The hash that the next block repeats, and that is kept elsewhere as the head.
    #[must_use]
    pub fn hash(&self) -> Hash {
        tree::of(self.header.text().as_bytes())
    }

    /// Whether it is whole: its leaves make its root, and one of the keys signed it.
    ///
    /// # Errors
    /// [`Malformed`] with what is wrong.
    pub fn check(&self, keys: &[PublicKey]) -> Result<(), Malformed> {
        if self.header.count() != self.leaves.len() as u64 {
            return Err(Malformed(format!(
                "it lists {} hashes for {} records",
                self.leaves.len(),
                self.header.count()
            )));
        }
        if tree::root(self.leaves.clone()) != self.header.root {
            return Err(Malformed("its hashes do not make its root".to_owned()));
        }
        let Some(key) = keys.iter().find(|key| key.id() == self.header.key) else {
            return Err(Malformed(format!(
                "it is signed with key {}, which is not among those given",
                self.header.key
            )));
        };
        if key.verifies(self.header.text().as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(Malformed(format!(
                "its signature is not of key {}",
                key.id()
            )))
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn stored(&self) -> AuditBlock {
        AuditBlock {
            number: self.header.number,
            last: self.header.last(),
            header: self.header.text(),
            leaves: self.leaves.iter().flat_map(|leaf| leaf.0).collect(),
            signature: self.signature.clone(),
        }
    }

    /// From what is stored.
    ///
    /// # Errors
    /// [`Malformed`] when that is not a block.
    pub fn read(header: &str, leaves: &[u8], signature: Vec<u8>) -> Result<Self, Malformed> {
        let (hashes, rest) = leaves.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Malformed("its list of hashes is cut off".to_owned()));
        }
        Ok(Self {
            header: Header::parse(header)?,
            leaves: hashes.iter().copied().map(Hash).collect(),
            signature,
        })
    }
}
