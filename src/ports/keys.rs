//! The keys of one organization: making one, proving it, taking it into use, deleting one.
//!
//! Owns what the rotation of a key needs from upstream. Never stores a key.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::TimeDelta;
use secrecy::SecretString;

use super::provider::{ObservedKey, Outcome, ReadResult};
use super::secrets::SecretError;
use crate::domain::Timestamp;

/// The key that calls are made with now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInUse {
    /// Its id, where its text tells.
    pub id: Option<String>,
    /// [`super::secrets::digest`] of its text.
    pub digest: String,
}

/// A key as it was made; its text is never shown again.
#[derive(Debug)]
pub struct MadeKey {
    /// Its id.
    pub id: String,
    /// The key.
    pub key: SecretString,
    /// When it ends, where upstream says.
    pub expires_at: Option<Timestamp>,
}

/// Where the keys of one organization are made and deleted.
#[async_trait]
pub trait KeyDesk: Debug + Send + Sync {
    /// The key in use; `None` when none is loaded.
    fn in_use(&self) -> Option<KeyInUse>;

    /// Makes a key with the rights of an organization owner and nothing else. Sent at most once unless no byte left or
    /// the answer was 429.
    async fn make_key(&self, description: &str, lives: TimeDelta) -> Outcome<MadeKey>;

    /// The keys that upstream lists.
    async fn list_keys(&self) -> ReadResult<Vec<ObservedKey>>;

    /// Deletes one key. One that does not exist is `Refused` with `NotFound`.
    async fn delete_key(&self, id: &str) -> Outcome<()>;

    /// Reads with a key that is not in use: whether upstream takes it, for this organization, as an owner's.
    async fn prove(&self, key: &SecretString) -> ReadResult<bool>;

    /// Reads with the key in use, likewise.
    async fn prove_in_use(&self) -> ReadResult<bool>;

    /// Fetches the key from its store; answers whether it is another one now.
    ///
    /// # Errors
    /// [`SecretError`] when the store has no usable key; the one in use stays.
    async fn reload(&self) -> Result<bool, SecretError>;
}
