//! The key in use.
//!
//! Owns fetching it, telling one key from the next, and what is known of it. This is the only place outside of the
//! secret stores that opens the secret, and all that leaves it is a header marked sensitive.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::Head;
use crate::domain::Timestamp;
use crate::domain::ids::UserId;
use crate::ports::provider::{KeyPin, KeyStatus};
use crate::ports::secrets::SecretError;
use crate::ports::{Clock, SecretStore};

/// Longest text that can be a key.
const MAX_KEY: usize = 4096;

/// One key, ready for the wire.
pub(super) struct Key {
    pub(super) pin: KeyPin,
    pub(super) header: HeaderValue,
    /// Its id, where the text tells.
    pub(super) id: Option<String>,
    hash: [u8; 32],
}

impl Key {
    /// SHA-256 of its text in hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        hex::encode(self.hash)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Flight {
    last_after_401: Option<Instant>,
    last: Option<Result<bool, SecretError>>,
}

/// Holds the key and fetches it again.
pub(super) struct Keyring {
    store: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    every: Duration,
    current: ArcSwapOption<Key>,
    status: Mutex<KeyStatus>,
    started: AtomicU64,
    flight: tokio::sync::Mutex<Flight>,
}

// The store's own text is left out: whatever it holds, this one cannot show it.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("place", &self.store.describe())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Keyring {
    pub(super) fn new(
        store: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        timeout: Duration,
        every: Duration,
    ) -> Self {
        Self {
            store,
            clock,
            timeout,
            every,
            current: ArcSwapOption::empty(),
            status: Mutex::default(),
            started: AtomicU64::new(0),
            flight: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn current(&self) -> Option<Arc<Key>> {
        self.current.load_full()
    }

    pub(super) fn pin(&self) -> KeyPin {
        self.current
            .load()
            .as_ref()
            .map_or(KeyPin(0), |key| key.pin)
    }

    pub(super) fn status(&self) -> KeyStatus {
        self.lock().clone()
    }

    /// Fetches the secret now. Callers that come while a fetch is on its way share the one after it, because that
    /// one may have begun before the secret was written. Answers whether the key is another one now.
    pub(super) async fn reload(&self) -> Result<bool, SecretError> {
        let asked = self.started.load(Ordering::Acquire);
        let mut flight = self.flight.lock().await;
        if self.started.load(Ordering::Acquire) > asked
            && let Some(shared) = &flight.last
        {
            return shared.clone();
        }
        self.fetch(&mut flight).await
    }

    /// Fetches the secret because the key of `pin` was not accepted, unless it was replaced already or the last
    /// such fetch is too recent.
    pub(super) async fn reload_after_401(&self, pin: KeyPin) {
        let mut flight = self.flight.lock().await;
        let too_soon = flight
            .last_after_401
            .is_some_and(|at| at.elapsed() < self.every);
        if too_soon || self.pin() != pin {
            return;
        }
        flight.last_after_401 = Some(Instant::now());
        match self.fetch(&mut flight).await {
            Ok(true) => {
                tracing::info!("Key of Elastic Cloud was not accepted; another one is loaded")
            }
            Ok(false) => {
                tracing::warn!("Key of Elastic Cloud is not accepted, and the store has no other")
            }
            Err(error) => {
                tracing::error!(
                    error = error.code(),
                    "Key of Elastic Cloud is not accepted, and fetching it failed"
                );
            }
        }
    }

    async fn fetch(&self, flight: &mut Flight) -> Result<bool, SecretError> {
        self.started.fetch_add(1, Ordering::AcqRel);
        let fetched = tokio::time::timeout(self.timeout, self.store.fetch()).await;
        let result = fetched
            .unwrap_or_else(|_| {
                Err(SecretError::Unavailable {
                    place: self.store.describe(),
                    code: "timeout".to_owned(),
                    remedy: "check that the secret store answers from this host".to_owned(),
                })
            })
            .and_then(|secret| self.install(&secret));
        if let Err(error) = &result {
            self.failed(error.code());
        }
        flight.last = Some(result.clone());
        result
    }

    fn install(&self, secret: &SecretString) -> Result<bool, SecretError> {
        let text = secret.expose_secret();
        let malformed = |problem: &str| SecretError::Malformed {
            place: self.store.describe(),
            problem: problem.to_owned(),
            remedy: "store the Elastic Cloud API key as it was shown when it was created"
                .to_owned(),
        };
        if text.is_empty() || text.len() > MAX_KEY {
            return Err(malformed("a key has between 1 and 4096 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(malformed(
                "it contains spaces, line breaks or characters beyond ASCII",
            ));
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if self
            .current
            .load()
            .as_ref()
            .is_some_and(|key| key.hash == hash)
        {
            return Ok(false);
        }
        let value = Zeroizing::new(format!("ApiKey {text}"));
        let mut header = HeaderValue::from_str(&value)
            .map_err(|_| malformed("it cannot stand in an HTTP header"))?;
        header.set_sensitive(true);
        let pin = KeyPin(self.pin().0 + 1);
        let key = Key {
            pin,
            header,
            id: key_id(text),
            hash,
        };
        let mut status = self.lock();
        *status = KeyStatus {
            loaded: true,
            fingerprint: Some(hex::encode(&hash[..4])),
            skew_ms: status.skew_ms,
            ..KeyStatus::default()
        };
        self.current.store(Some(Arc::new(key)));
        Ok(true)
    }

    /// Takes what the head of an answer tells of the key and of the clocks.
    pub(super) fn saw(&self, pin: KeyPin, head: &Head) {
        let now = self.clock.now();
        let mut status = self.lock();
        if let Some(date) = head.date {
            status.skew_ms = Some((date - now).num_milliseconds());
        }
        if pin == self.pin() && head.key_expires_at.is_some() {
            status.expires_at = head.key_expires_at;
        }
    }

    pub(super) fn succeeded(&self) {
        let now = self.clock.now();
        let mut status = self.lock();
        status.last_success_at = Some(now);
        status.last_failure = None;
    }

    pub(super) fn failed(&self, code: &str) {
        let now = self.clock.now();
        self.lock().last_failure = Some((code.to_owned(), now));
    }

    pub(super) fn sees_owners(&self, pin: KeyPin, sees: bool) {
        let mut status = self.lock();
        if pin == self.pin() {
            status.sees_owners = Some(sees);
        }
    }

    pub(super) fn own_record(
        &self,
        pin: KeyPin,
        user: Option<UserId>,
        expires_at: Option<Timestamp>,
        roles: Option<Vec<String>>,
    ) {
        let mut status = self.lock();
        if pin == self.pin() {
            status.own_user_id = user;
            status.roles = roles;
            status.expires_at = status.expires_at.or(expires_at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeyStatus> {
        self.status
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

/// The id inside of a key's text, as far as keys seen so far tell: `essu_`, perhaps a tag, then base64 of an inner
/// base64 of `id:secret` with an 8-byte checksum behind it; older ones are base64 of `user:id:secret`.
fn key_id(text: &str) -> Option<String> {
    let engine = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let decode = |text: &[u8]| engine.decode(text).ok().map(Zeroizing::new);
    let id = match text.strip_prefix("essu_") {
        Some(rest) => {
            let body = rest.rsplit_once('_').map_or(rest, |(_, body)| body);
            let outer = decode(body.as_bytes())?;
            let inner = decode(outer.get(..outer.len().checked_sub(8)?)?)?;
            let end = inner.iter().position(|b| *b == b':')?;
            std::str::from_utf8(&inner[..end]).ok()?.to_owned()
        }
        None => {
            let plain = decode(text.as_bytes())?;
            let mut parts = std::str::from_utf8(&plain).ok()?.split(':').skip(1);
            let id = parts.next()?.to_owned();
            parts.next()?;
            id
        }
    };
    let fits = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    fits.then_some(id)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn the_id_of_a_key_is_read_from_its_text() {
        let inner = STANDARD.encode("72kse5wBzbyj5dh9Iz13:0123456789012345678901");
        let outer = STANDARD.encode([inner.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8]].concat());
        for text in [
            format!("essu_{outer}"),
            format!("essu_dev_{outer}"),
            STANDARD.encode("user:72kse5wBzbyj5dh9Iz13:0123456789012345678901"),
        ] {
            assert_eq!(key_id(&text).as_deref(), Some("72kse5wBzbyj5dh9Iz13"));
        }
    }

    #[test]
    fn a_key_that_hides_its_id_or_abuses_it_has_none() {
        let hostile = STANDARD.encode("user:../../x:secret");
        for text in ["plain", "essu_", "essu_AAAA", "essu_é", hostile.as_str()] {
            assert_eq!(key_id(text), None, "{text}");
        }
    }
}
