//! Records of the witness as lines of text.
//!
//! Owns the layout: eight hexadecimal digits of the CRC-32 of what follows, eight of the length of the JSON, the JSON,
//! a line feed. Never takes a record whose checksum, length or end does not fit.

use serde::{Deserialize, Serialize};

use crate::domain::assignment::Assignment;
use crate::domain::ids::IntegrationName;
use crate::domain::member::Subject;
use crate::ports::witness::{Binding, Intent};

/// Bytes before the JSON: two numbers of eight digits, a space after each.
const HEAD: usize = 18;

/// Longest JSON that is taken for a record: far above any, so that a broken length is noticed as one.
pub(super) const LONGEST: usize = 1 << 20;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum Record {
    /// The witness belongs to this ledger from here on.
    Bound {
        /// How far the ledger was.
        mark: u64,
        /// Which ledger.
        #[serde(flatten)]
        binding: Binding,
    },
    /// An assignment is about to be added.
    Intent {
        /// How far the ledger was.
        mark: u64,
        /// The assignment.
        #[serde(flatten)]
        intent: Intent,
    },
    /// An assignment is no longer ours.
    Ended {
        /// How far the ledger was.
        mark: u64,
        /// Which organization.
        integration: IntegrationName,
        /// Whose access.
        subject: Subject,
        /// Which assignment.
        assignment: Assignment,
    },
    /// How far the ledger was.
    Tick {
        /// Sequence of its newest event.
        mark: u64,
    },
}

impl Record {
    /// How far the ledger was.
    #[must_use]
    pub fn mark(&self) -> u64 {
        match self {
            Self::Bound { mark, .. }
            | Self::Intent { mark, .. }
            | Self::Ended { mark, .. }
            | Self::Tick { mark } => *mark,
        }
    }

    /// The line of this record.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        framed(&serde_json::to_string(self).expect("plain data has a JSON form"))
    }
}

/// The line of a record of this JSON.
pub(super) fn framed(json: &str) -> Vec<u8> {
    let counted = format!("{:08x} {json}", json.len());
    format!("{:08x} {counted}\n", crc32fast::hash(counted.as_bytes())).into_bytes()
}

/// What one line of the file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole record: its JSON.
    Whole(&'a [u8]),
    /// The beginning of a record that was never finished; it can only be the last line.
    Torn,
    /// Something that was never written like this.
    Broken(&'static str),
}

/// Reads one line, its line feed included. Only the last line of a file can lack one.
#[must_use]
pub fn read(line: &[u8]) -> Line<'_> {
    let finished = line.last() == Some(&b'\n');
    // A power cut can leave zeros where a record was to be: nothing that is written holds one.
    if let Some(first) = line.iter().position(|byte| *byte == 0)
        && line[first..].iter().all(|byte| *byte == 0)
        && declared(line).is_none_or(|length| first < HEAD + length)
    {
        return Line::Torn;
    }
    if line.len() < HEAD {
        let fits = line.iter().enumerate().all(|(at, byte)| match at {
            8 | 17 => *byte == b' ',
            _ => is_digit(*byte),
        });
        return if fits {
            Line::Torn
        } else {
            Line::Broken("is no record")
        };
    }
    let Some(length) = declared(line) else {
        return Line::Broken("does not begin like a record");
    };
    if length > LONGEST {
        return Line::Broken("has a length that no record has");
    }
    let end = HEAD + length;
    if line.len() <= end {
        return if finished {
            Line::Broken("is shorter than it says")
        } else {
            Line::Torn
        };
    }
    if line[end] != b'\n' {
        return Line::Broken("does not end where it says");
    }
    if number(&line[..8]) != Some(crc32fast::hash(&line[9..end])) {
        return Line::Broken("does not fit its checksum");
    }
    Line::Whole(&line[HEAD..end])
}

/// The length that a head declares, where it is a head.
fn declared(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEAD || bytes[8] != b' ' || bytes[17] != b' ' {
        return None;
    }
    number(&bytes[..8])?;
    usize::try_from(number(&bytes[9..17])?).ok()
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn number(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(|digit| is_digit(*digit)) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let bound = Record::Bound {
            mark: 7,
            binding: Binding {
                ledger: "a1".to_owned(),
                generation: 3,
            },
        };
        vec![bound, Record::Tick { mark: 9 }]
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in records() {
            let text = record.line();
            let Line::Whole(json) = read(&text) else {
                panic!("{record:?}");
            };
            let again: Record = serde_json::from_slice(json).expect("a record");
            assert_eq!(again, record);
        }
    }

    #[test]
    fn every_shorter_beginning_is_torn_and_nothing_else_is() {
        for record in records() {
            let text = record.line();
            for cut in 1..text.len() {
                assert_eq!(read(&text[..cut]), Line::Torn, "cut at {cut}");
                let mut zeros = text[..cut].to_vec();
                zeros.resize(text.len() + 40, 0);
                let whole = cut + 1 == text.len();
                assert_eq!(read(&zeros) == Line::Torn, !whole, "zeros from {cut}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_finished_record_is_noticed() {
        for record in records() {
            let text = record.line();
            for at in 0..text.len() {
                for bit in 0..8 {
                    let mut flipped = text.clone();
                    flipped[at] ^= 1 << bit;
                    assert!(
                        matches!(read(&flipped), Line::Broken(_)),
                        "bit {bit} of byte {at}"
                    );
                }
            }
        }
    }
}
