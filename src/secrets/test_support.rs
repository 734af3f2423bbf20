//! What the tests of several stores need.

use secrecy::ExposeSecret as _;

use crate::ports::SecretStore;
use crate::ports::secrets::SecretError;

/// The key that a store answers, in the open.
pub(super) async fn fetched(store: &impl SecretStore) -> Result<String, SecretError> {
    let key = store.fetch().await?;
    Ok(key.expose_secret().to_owned())
}

/// What the played services keep to themselves is marked with HUSH: nothing of it is in an error.
pub(super) fn assert_hushed(error: &SecretError) {
    let all = format!("{error} {error:?} {}", error.remedy());
    assert!(!all.contains("HUSH"), "{all}");
}
