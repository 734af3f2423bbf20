//! Public keys of approvers and of emergency tokens, as PEM files.
//!
//! Owns reading and naming them. Never takes a key whose algorithm is not one of the two that are accepted.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Most bytes of a file with one key.
const LARGEST: u64 = 16 * 1024;
const ED25519: &str = "1.3.101.112";
const EC: &str = "1.2.840.10045.2.1";

/// Why a file with a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{}: cannot be read ({})", path.display(), source.kind())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds no key that can be used.
    #[error("{}: {problem}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// Two names have one key.
    #[error("{one} and {other} have the same key: give each its own")]
    Shared {
        /// One name.
        one: String,
        /// The other.
        other: String,
    },
}

/// A key that verifies.
#[derive(Clone)]
pub struct PublicKey {
    decoding: DecodingKey,
    algorithm: Algorithm,
    fingerprint: String,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("algorithm", &self.algorithm)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.algorithm == other.algorithm
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
            .map_err(|source| KeyFileError::Read {
                path: path.to_owned(),
                source,
            })?;
        Self::parse(&bytes).map_err(|problem| KeyFileError::Content {
            path: path.to_owned(),
            problem,
        })
    }

    /// Reads PEM of SubjectPublicKeyInfo: Ed25519, or a point on P-256.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "is no public key in PEM (BEGIN PUBLIC KEY) of Ed25519 or P-256";
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| WRONG)?;
        if block.label == "PRIVATE KEY" {
            return Err("holds a private key: the connector needs the public one alone");
        }
        if block.label != "PUBLIC KEY" {
            return Err(WRONG);
        }
        let (rest, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| WRONG)?;
        if !rest.is_empty() {
            return Err(WRONG);
        }
        let raw = info.subject_public_key.data.as_ref();
        let (decoding, algorithm) = match info.algorithm.algorithm.to_id_string().as_str() {
            ED25519 if raw.len() == 32 => (DecodingKey::from_ed_der(raw), Algorithm::EdDSA),
            // Only points on P-256 have this length, uncompressed.
            EC if raw.len() == 65 && raw.first() == Some(&4) => {
                (DecodingKey::from_ec_der(raw), Algorithm::ES256)
            }
            _ => return Err(WRONG),
        };
        Ok(Self {
            decoding,
            algorithm,
            // Over the key alone, whatever is written around it.
            fingerprint: hex::encode(Sha256::digest(raw)),
        })
    }

    /// SHA-256 of the key, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its algorithm, as headers name it.
    pub(super) fn algorithm_name(&self) -> &'static str {
        if self.algorithm == Algorithm::EdDSA {
            "EdDSA"
        } else {
            "ES256"
        }
    }
}
