//! Where the Elastic Cloud key comes from.
//!
//! Owns the contract of fetching. Never stores, logs or caches a secret.

use std::fmt::Debug;

use async_trait::async_trait;
use secrecy::SecretString;

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
