//! Verifying an export: nothing but its lines, the public keys, and where known the head that was kept elsewhere.
//!
//! Owns naming the first thing that is wrong. Lines are taken one by one and forgotten; only hashes of the block
//! under way are held. Never parses an event.

use std::io::{self, BufRead};

use super::block::Block;
use super::export::{self, Line};
use super::key::PublicKey;
use super::tree::{self, Hash};

/// The head of a chain, kept where whoever could change the ledger cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the block.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    /// Reads `NUMBER:HASH`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, hash) = text.trim().split_once(':')?;
        Some(Self {
            number: number.parse().ok()?,
            hash: Hash::parse(hash)?,
        })
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A line that no export has.
    #[error("line {line}: {what}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A record whose bytes are not those that were sealed.
    #[error("record {sequence} (line {line}) was changed after it was sealed")]
    Changed {
        /// Its sequence.
        sequence: u64,
        /// Its line.
        line: u64,
    },
    /// A record that was sealed and is not there.
    #[error("record {sequence} is missing (before line {line})")]
    Missing {
        /// Its sequence.
        sequence: u64,
        /// The line before which it belongs.
        line: u64,
    },
    /// A record that stands elsewhere than it was sealed.
    #[error("record {sequence} (line {line}) stands where record {expected} belongs")]
    OutOfOrder {
        /// Its sequence.
        sequence: u64,
        /// What belongs there.
        expected: u64,
        /// Its line.
        line: u64,
    },
    /// A record that no block seals.
    #[error("record {sequence} (line {line}) is not part of the sealed audit")]
    Inserted {
        /// Its sequence.
        sequence: u64,
        /// Its line.
        line: u64,
    },
    /// A block that is not whole, not signed by a known key, or does not follow the one before.
    #[error("block {number} (line {line}): {what}")]
    Block {
        /// Its number.
        number: u64,
        /// Its line.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The export ends before the head that was kept elsewhere.
    #[error(
        "the export ends at block {found}, and block {expected} is known to exist: its end was cut off"
    )]
    Truncated {
        /// The last block that is there.
        found: u64,
        /// The block of the head.
        expected: u64,
    },
    /// The chain has another history than the head that was kept elsewhere.
    #[error("block {number} is not the one that was kept as head: history was replaced")]
    OtherHistory {
        /// Number of the block.
        number: u64,
    },
    /// Nothing was sealed.
    #[error("the export has no block, so nothing is proven")]
    Empty,
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which ledger.
    pub ledger: String,
    /// First block that is there. Beyond 1, nothing is said about what came before.
    pub first_block: u64,
    /// The last one, to be kept elsewhere.
    pub head: Head,
    /// When it was sealed.
    pub sealed_at: crate::domain::Timestamp,
    /// Records verified.
    pub records: u64,
    /// First and last sequence.
    pub sequences: (u64, u64),
    /// Stored bytes that were hashed.
    pub bytes: u64,
}

/// Why verifying ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The export is wrong.
    #[error(transparent)]
    Finding(#[from] Finding),
    /// It could not be read.
    #[error("the export could not be read")]
    Read(#[from] io::Error),
}

/// Longest line that is read: a block of the largest size, with room.
const MAX_LINE: u64 = 16 << 20;

#[derive(Debug)]
struct Pending {
    sequence: u64,
    hash: Hash,
    line: u64,
}

/// Verifies line by line.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<PublicKey>,
    head: Option<Head>,
    line: u64,
    pending: Vec<Pending>,
    last: Option<Block>,
    first_block: u64,
    first_sequence: u64,
    records: u64,
    bytes: u64,
}

impl Verifier {
    /// Trusts these keys, and a head that was kept elsewhere, where there is one.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>, head: Option<Head>) -> Self {
        Self {
            keys,
            head,
            line: 0,
            pending: Vec::new(),
            last: None,
            first_block: 0,
            first_sequence: 0,
            records: 0,
            bytes: 0,
        }
    }

    /// Verifies a whole export.
    ///
    /// # Errors
    /// [`VerifyError`] with the first thing that is wrong.
    pub fn run(mut self, mut from: impl BufRead) -> Result<Report, VerifyError> {
        let mut line = Vec::with_capacity(1 << 16);
        loop {
            line.clear();
            let read = io::Read::take(&mut from, MAX_LINE).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(self.end()?);
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            self.take(text)?;
        }
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// [`Finding`], after which nothing more is to be taken.
    pub fn take(&mut self, text: &[u8]) -> Result<(), Finding> {
        self.line += 1;
        let line = self.line;
        match export::read(text) {
            Ok(Line::Record(sequence, body)) => {
                self.bytes += body.len() as u64;
                let hash = tree::leaf(sequence, body);
                self.pending.push(Pending {
                    sequence,
                    hash,
                    line,
                });
                Ok(())
            }
            Ok(Line::Block(block)) => self.close(*block),
            Err(what) => Err(Finding::Line {
                line,
                what: what.to_string(),
            }),
        }
    }

    fn close(&mut self, block: Block) -> Result<(), Finding> {
        self.follows(&block)?;
        self.compare(&block)?;
        if self.last.is_none() {
            self.first_block = block.header.number;
            self.first_sequence = block.header.runs.first().map_or(0, |(first, _)| *first);
        }
        self.records += block.header.count();
        self.pending.clear();
        if let Some(head) = self.head
            && head.number == block.header.number
            && head.hash != block.hash()
        {
            return Err(Finding::OtherHistory {
                number: head.number,
            });
        }
        self.last = Some(block);
        Ok(())
    }

    /// Whether the block is whole, and the one after the last.
    fn follows(&self, block: &Block) -> Result<(), Finding> {
        let number = block.header.number;
        let bad = |what: String| Finding::Block {
            number,
            line: self.line,
            what,
        };
        block
            .check(&self.keys)
            .map_err(|what| bad(what.to_string()))?;
        let Some(last) = &self.last else {
            if number == 1 && block.header.previous != Hash::NONE {
                return Err(bad("the first block follows another".to_owned()));
            }
            return Ok(());
        };
        if block.header.ledger != last.header.ledger {
            return Err(bad(format!(
                "it is of another ledger, {}",
                block.header.ledger
            )));
        }
        if number != last.header.number + 1 {
            return Err(bad(format!(
                "block {} belongs here",
                last.header.number + 1
            )));
        }
        if block.header.previous != last.hash() {
            return Err(bad("it does not follow the block before it".to_owned()));
        }
        if block.header.runs.first().map_or(0, |(first, _)| *first) <= last.header.last() {
            return Err(bad("it seals records again".to_owned()));
        }
        Ok(())
    }

    /// Whether the records before the block are those that it seals.
    fn compare(&self, block: &Block) -> Result<(), Finding> {
        let mut found = self.pending.iter();
        for (expected, hash) in block.header.sequences().zip(&block.leaves) {
            let Some(record) = found.next() else {
                return Err(Finding::Missing {
                    sequence: expected,
                    line: self.line,
                });
            };
            let &Pending { sequence, line, .. } = record;
            if sequence == expected {
                if record.hash == *hash {
                    continue;
                }
                return Err(Finding::Changed { sequence, line });
            }
            let is_later = found.any(|other| other.sequence == expected);
            let is_sealed = block.header.sequences().any(|sealed| sealed == sequence);
            return Err(match (is_later, is_sealed && sequence > expected) {
                (true, true) => Finding::OutOfOrder {
                    sequence,
                    expected,
                    line,
                },
                (false, true) => Finding::Missing {
                    sequence: expected,
                    line,
                },
                (_, false) => Finding::Inserted { sequence, line },
            });
        }
        match found.next() {
            Some(&Pending { sequence, line, .. }) => Err(Finding::Inserted { sequence, line }),
            None => Ok(()),
        }
    }

    /// Says what was verified, once every line was taken.
    ///
    /// # Errors
    /// [`Finding`] for records after the last block, and for an end that was cut off.
    pub fn end(self) -> Result<Report, Finding> {
        if let Some(&Pending { sequence, line, .. }) = self.pending.first() {
            return Err(match &self.head {
                Some(head)
                    if self
                        .last
                        .as_ref()
                        .is_none_or(|last| last.header.number < head.number) =>
                {
                    Finding::Truncated {
                        found: self.last.map_or(0, |last| last.header.number),
                        expected: head.number,
                    }
                }
                _ => Finding::Inserted { sequence, line },
            });
        }
        let Some(last) = self.last else {
            return Err(Finding::Empty);
        };
        if let Some(head) = self.head
            && last.header.number < head.number
        {
            return Err(Finding::Truncated {
                found: last.header.number,
                expected: head.number,
            });
        }
        Ok(Report {
            ledger: last.header.ledger.clone(),
            first_block: self.first_block,
            head: Head {
                number: last.header.number,
                hash: last.hash(),
            },
            sealed_at: last.header.sealed_at,
            records: self.records,
            sequences: (self.first_sequence, last.header.last()),
            bytes: self.bytes,
        })
    }
}
