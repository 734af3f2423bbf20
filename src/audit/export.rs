//! The form in which the audit leaves: lines of JSON, records first, then the block that seals them.
//!
//! Owns writing and reading lines. A record's line carries its stored bytes unchanged between two fixed texts, so
//! that whoever verifies hashes them without parsing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::block::{Block, Malformed};
use crate::ports::audit::{AuditBlock, AuditRecord};

const SEQUENCE: &[u8] = b"{\"sequence\":";
const EVENT: &[u8] = b",\"event\":";
const BLOCK: &[u8] = b"{\"block\":";

/// A block's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLine {
    block: u64,
    header: String,
    leaves: String,
    signature: String,
}

/// One line, not yet believed.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// A record: its sequence and its stored bytes.
    Record(u64, &'l [u8]),
    /// A block.
    Block(Box<Block>),
}

/// Writes a record's line, without its end.
#[must_use]
pub fn record(record: &AuditRecord) -> String {
    record.line()
}

/// Writes a block's line, without its end.
#[must_use]
pub fn block(block: &AuditBlock) -> String {
    serde_json::to_string(&BlockLine {
        block: block.number,
        header: block.header.clone(),
        leaves: STANDARD.encode(&block.leaves),
        signature: STANDARD.encode(&block.signature),
    })
    .expect("plain text has a JSON form")
}

/// Reads a line without its end.
///
/// # Errors
/// [`Malformed`] when it is neither.
pub fn read(line: &[u8]) -> Result<Line<'_>, Malformed> {
    if let Some(rest) = line.strip_prefix(SEQUENCE) {
        return read_record(rest)
            .map(|(sequence, body)| Line::Record(sequence, body))
            .ok_or_else(|| Malformed("it is not a record as it was exported".to_owned()));
    }
    if line.starts_with(BLOCK) {
        return read_block(line).map(|block| Line::Block(Box::new(block)));
    }
    Err(Malformed("it is neither a record nor a block".to_owned()))
}

fn read_record(rest: &[u8]) -> Option<(u64, &[u8])> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(digits);
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    let sequence = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let body = rest.strip_prefix(EVENT)?.strip_suffix(b"}")?;
    Some((sequence, body))
}

fn read_block(line: &[u8]) -> Result<Block, Malformed> {
    let bad = |what: &str| Malformed(format!("it is not a block as it was exported: {what}"));
    let read: BlockLine = serde_json::from_slice(line).map_err(|error| bad(&error.to_string()))?;
    let leaves = STANDARD
        .decode(&read.leaves)
        .map_err(|_| bad("its hashes are not base64"))?;
    let signature = STANDARD
        .decode(&read.signature)
        .map_err(|_| bad("its signature is not base64"))?;
    let block = Block::read(&read.header, &leaves, signature)?;
    if block.header.number == read.block {
        Ok(block)
    } else {
        Err(bad("its number is not that of its header"))
    }
}
