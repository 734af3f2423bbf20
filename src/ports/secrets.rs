//! Where the Elastic Cloud key comes from.
//!
//! Owns the contract of fetching a key, and of putting another in its place. Never logs or caches a secret.

use std::fmt::Debug;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A place that holds the Elastic Cloud API key of one integration.
#[async_trait]
pub trait SecretStore: Debug + Send + Sync {
    /// Fetches the key now. The text is either the bare key or `{"api_key": "…"}`; adapters return the bare key.
    ///
    /// # Errors
    /// [`SecretError`] with a remedy; never with the secret's text.
    async fn fetch(&self) -> Result<SecretString, SecretError>;

    /// Where the secret is read from, in words safe to log, for example `file /run/secrets/elastic-key`.
    fn describe(&self) -> String;

    /// Whether [`Self::replace`] can do anything here: not whether it is allowed to.
    fn can_replace(&self) -> bool {
        false
    }

    /// Puts another key in the place of the one that is there, and leaves whatever else the secret holds. When it
    /// answers, the next fetch gives the new key. A write that was overtaken by another one never lands, as far as the
    /// store can compare and swap.
    ///
    /// # Errors
    /// [`ReplaceError`]. After [`ReplaceError::Failed`] the write may have happened, or may yet.
    async fn replace(&self, _replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        Err(ReplaceError::Unwritable {
            place: self.describe(),
        })
    }
}

/// A key that is to take the place of another.
#[derive(Debug)]
pub struct Replacement<'a> {
    /// [`digest`] of the key that must be there. A store that holds `key` already is left as it is, unless that is
    /// what was expected: then it is written once more, and whatever was on its way against the same version fails.
    pub expected: &'a str,
    /// The key.
    pub key: &'a SecretString,
    /// The same for every attempt of one change: 32 or more letters, digits and hyphens.
    pub token: &'a str,
}

/// SHA-256 of a key's text in hexadecimal digits, which tells keys apart.
#[must_use]
pub fn digest(key: &SecretString) -> String {
    hex::encode(Sha256::digest(key.expose_secret().as_bytes()))
}

/// Why a key was not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// This kind of store is only ever read.
    #[error("the secret at {place} cannot be written by Latchkey")]
    Unwritable {
        /// Where it is.
        place: String,
    },
    /// Another key is there than was expected, or somebody wrote at the same time.
    #[error("the secret at {place} was changed by somebody else")]
    Changed {
        /// Where it is.
        place: String,
    },
    /// The store refused or did not answer.
    #[error(transparent)]
    Failed(#[from] SecretError),
}

impl ReplaceError {
    /// What the operator should do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        match self {
            Self::Unwritable { .. } => {
                "use a secret store that can be written, or replace the key by hand"
            }
            Self::Changed { .. } => "let nobody else write this secret while its key is rotated",
            Self::Failed(error) => error.remedy(),
        }
    }

    /// Stable code for metrics and audit.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unwritable { .. } => "secret_unwritable",
            Self::Changed { .. } => "secret_changed",
            Self::Failed(error) => error.code(),
        }
    }
}

/// Why no key could be had. Texts hold no part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The store says that there is no such secret, version or file.
    #[error("no secret found at {place}")]
    NotFound {
        /// Where it was looked for.
        place: String,
        /// What to do.
        remedy: String,
    },
    /// The store refuses to hand it to us.
    #[error("access to the secret at {place} was denied ({code})")]
    Denied {
        /// Where it was looked for.
        place: String,
        /// The store's error code.
        code: String,
        /// What to do.
        remedy: String,
    },
    /// The store did not answer.
    #[error("the secret store at {place} is unavailable ({code})")]
    Unavailable {
        /// Where it was looked for.
        place: String,
        /// A short cause.
        code: String,
        /// What to do.
        remedy: String,
    },
    /// Something was there, but it is not a key.
    #[error("the secret at {place} is not usable: {problem}")]
    Malformed {
        /// Where it was found.
        place: String,
        /// What is wrong with it, without its text.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

impl SecretError {
    /// What the operator should do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        match self {
            Self::NotFound { remedy, .. }
            | Self::Denied { remedy, .. }
            | Self::Unavailable { remedy, .. }
            | Self::Malformed { remedy, .. } => remedy,
        }
    }

    /// Stable code for metrics and audit.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "secret_not_found",
            Self::Denied { .. } => "secret_denied",
            Self::Unavailable { .. } => "secret_unavailable",
            Self::Malformed { .. } => "secret_malformed",
        }
    }
}
