//! Hashes of records and the tree over them, as in RFC 6962 (Certificate Transparency), section 2.1.
//!
//! Owns the arithmetic. A record's hash covers its sequence and its stored bytes, so neither can change, nor can two
//! records change places.

use std::fmt;

use sha2::{Digest, Sha256};

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What stands where nothing came before.
    pub const NONE: Self = Self([0; 32]);

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells leaves from inner nodes, so that no record can pose as a part of the tree.
const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// The hash of one record.
#[must_use]
pub fn leaf(sequence: u64, body: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(LEAF);
    hash.update(sequence.to_be_bytes());
    hash.update(body);
    Hash(hash.finalize().into())
}

/// The hash of any text, such as a block's header.
#[must_use]
pub fn of(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0; 65];
    bytes[..1].copy_from_slice(&NODE);
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Hash(Sha256::digest(bytes).into())
}

/// The root over leaves; of no leaves it is the hash of nothing. A leaf without a sibling rises as it is, which is
/// the tree of RFC 6962.
#[must_use]
pub fn root(mut level: Vec<Hash>) -> Hash {
    if level.is_empty() {
        return of(&[]);
    }
    while level.len() > 1 {
        let mut kept = 0;
        for at in (0..level.len()).step_by(2) {
            level[kept] = match level.get(at + 1) {
                Some(right) => node(&level[at], right),
                None => level[at],
            };
            kept += 1;
        }
        level.truncate(kept);
    }
    level[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962: split at the largest power of two below the size.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => of(&[]),
            [one] => *one,
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                node(&defined(&leaves[..half]), &defined(&leaves[half..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_recursive_definition() {
        let leaves: Vec<Hash> = (0..70).map(|at| leaf(at, b"body")).collect();
        for size in 0..=leaves.len() {
            assert_eq!(
                root(leaves[..size].to_vec()),
                defined(&leaves[..size]),
                "{size}"
            );
        }
    }

    #[test]
    fn a_leaf_covers_its_sequence_and_every_byte() {
        let hashes = [
            leaf(1, b"ab"),
            leaf(2, b"ab"),
            leaf(1, b"aB"),
            leaf(1, b"ab "),
        ];
        for (at, one) in hashes.iter().enumerate() {
            assert!(hashes[at + 1..].iter().all(|other| other != one));
        }
        // Known: the empty tree is the SHA-256 of nothing.
        assert_eq!(
            root(Vec::new()).to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
