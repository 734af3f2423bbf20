//! Issuers of tokens and the keys that they publish.
//!
//! Owns fetching, caching and rotation of keys. Never fetches because somebody asks often: one fetch at a time, one in
//! a few seconds. Never follows a redirect, and talks plain HTTP to loopback only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::domain::host::is_loopback;
use crate::ports::Clock;

use super::Refused;

/// Age from which keys are read again when they are used: how long a key lives on that the issuer has withdrawn.
const FRESH: Duration = Duration::from_secs(300);
/// Age beyond which keys that cannot be read again are no longer believed.
const LAST: Duration = Duration::from_secs(24 * 3600);
/// Least time between two fetches. A token can be made up that names any key, and must not make us a burden.
const PAUSE: Duration = Duration::from_secs(5);
/// Time of one fetch.
const LIMIT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const LARGEST: usize = 256 * 1024;

/// One issuer, as configured.
#[derive(Debug, Clone)]
pub struct IssuerOptions {
    /// Its name: the `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Who we are: the `aud` that a token must be meant for.
    pub audience: String,
    /// Where its keys are; found by discovery when absent.
    pub jwks_url: Option<Url>,
    /// By how much its clock and ours may differ.
    pub clock_skew: Duration,
    /// Authorities of its own TLS certificate in PEM; those of the system when absent.
    pub ca_file: Option<PathBuf>,
}

/// Why an issuer cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The authorities cannot be read.
    #[error("reading the authorities in {}", path.display())]
    Authorities {
        /// Where they should be.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client cannot be made.
    #[error("setting up the client for the keys of {issuer}")]
    Client {
        /// Which issuer.
        issuer: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// The address is neither HTTPS nor on this machine.
    #[error("{address} is neither https nor on this machine")]
    Address {
        /// Which.
        address: String,
    },
}

/// Why keys were not read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("asking")]
    Http(#[from] reqwest::Error),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is not what it should be: {0}")]
    Content(&'static str),
}

#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) jwk: Jwk,
    key: DecodingKey,
}

#[derive(Debug)]
struct Keys {
    read_at: Duration,
    all: Vec<Key>,
}

/// One issuer and its keys.
#[derive(Debug)]
pub struct Issuer {
    options: IssuerOptions,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    keys: ArcSwapOption<Keys>,
    /// When a fetch was last begun; held while one is under way.
    asked_at: Mutex<Option<Duration>>,
}

impl Issuer {
    /// Sets an issuer up; asks it nothing yet, since it may start later than we.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn new(options: IssuerOptions, clock: Arc<dyn Clock>) -> Result<Self, IssuerError> {
        let first = match &options.jwks_url {
            Some(url) => url.clone(),
            None => discovery(&options.issuer).ok_or_else(|| IssuerError::Address {
                address: options.issuer.clone(),
            })?,
        };
        if !is_safe(&first) {
            return Err(IssuerError::Address {
                address: first.to_string(),
            });
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .timeout(LIMIT);
        if let Some(path) = &options.ca_file {
            let wrong = |source| IssuerError::Authorities {
                path: path.clone(),
                source,
            };
            let text = std::fs::read(path).map_err(|error| wrong(error.into()))?;
            let all = reqwest::Certificate::from_pem_bundle(&text)
                .map_err(|error| wrong(error.into()))?;
            if all.is_empty() {
                return Err(wrong("it holds no certificate".into()));
            }
            builder = builder.tls_certs_only(all);
        }
        let client = builder.build().map_err(|source| IssuerError::Client {
            issuer: options.issuer.clone(),
            source,
        })?;
        for outcome in ["done", "failed"] {
            count(outcome, 0);
        }
        Ok(Self {
            options,
            client,
            clock,
            keys: ArcSwapOption::empty(),
            asked_at: Mutex::new(None),
        })
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.issuer
    }

    /// The `aud` that its tokens must have.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.options.audience
    }

    /// By how much its clock and ours may differ.
    #[must_use]
    pub fn skew(&self) -> Duration {
        self.options.clock_skew
    }

    /// The key of that name that fits the algorithm. One that is not known is asked for.
    pub(super) async fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, Refused> {
        let now = self.clock.since_boot();
        let known = self.keys.load_full();
        if let Some(keys) = &known
            && let Some(key) = keys.find(kid, algorithm)
        {
            let age = now.saturating_sub(keys.read_at);
            if age < FRESH {
                return Ok(key);
            }
            // Somebody is asking already: what is known does until the answer is there.
            if age < LAST && self.asked_at.try_lock().is_err() {
                return Ok(key);
            }
        }
        let was_read = self.read_again(now).await;
        let keys = self.keys.load_full();
        match keys {
            Some(keys) if self.clock.since_boot().saturating_sub(keys.read_at) < LAST => {
                match keys.find(kid, algorithm) {
                    Some(key) => Ok(key),
                    None if was_read => Err(Refused::TokenKey),
                    None => Err(Refused::IssuerUnavailable),
                }
            }
            _ => Err(Refused::IssuerUnavailable),
        }
    }

    /// The only key that fits the algorithm, as far as the issuer may be asked again now.
    pub(super) async fn newest_key(&self, algorithm: Algorithm) -> Result<DecodingKey, Refused> {
        self.read_again(self.clock.since_boot()).await;
        let keys = self.keys.load_full().ok_or(Refused::IssuerUnavailable)?;
        keys.find(None, algorithm).ok_or(Refused::TokenKey)
    }

    /// Reads the keys, unless that was done since `asked` or tried a moment ago. Answers whether what is known is what
    /// the issuer said last.
    async fn read_again(&self, asked: Duration) -> bool {
        let mut asked_at = self.asked_at.lock().await;
        let read_at = self.keys.load().as_ref().map(|keys| keys.read_at);
        if read_at.is_some_and(|at| at >= asked) {
            return true;
        }
        let now = self.clock.since_boot();
        if let Some(before) = *asked_at
            && now.saturating_sub(before) < PAUSE
        {
            return read_at.is_some_and(|at| at >= before);
        }
        *asked_at = Some(now);
        match self.fetch().await {
            Ok(all) => {
                count("done", 1);
                tracing::debug!(
                    issuer = self.name(),
                    keys = all.len(),
                    "Keys of an issuer read"
                );
                self.keys.store(Some(Arc::new(Keys { read_at: now, all })));
                true
            }
            Err(error) => {
                count("failed", 1);
                tracing::warn!(
                    issuer = self.name(),
                    error = chain(&error),
                    "Keys of an issuer could not be read; those that are known are used on"
                );
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        let url = match &self.options.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let set = self.get(url).await?;
        let listed = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(FetchError::Content("a set of keys has an array `keys`"))?;
        // One key that is of no use here does not spoil the others.
        Ok(listed.iter().filter_map(read_key).collect())
    }

    async fn discover(&self) -> Result<Url, FetchError> {
        const WRONG: FetchError = FetchError::Content("no usable address of keys");
        let document = self.get(discovery(self.name()).ok_or(WRONG)?).await?;
        if document.get("issuer").and_then(Value::as_str) != Some(self.name()) {
            return Err(FetchError::Content("it speaks for another issuer"));
        }
        let url = document.get("jwks_uri").and_then(Value::as_str);
        url.and_then(|url| Url::parse(url).ok())
            .filter(is_safe)
            .ok_or(WRONG)
    }

    async fn get(&self, url: Url) -> Result<Value, FetchError> {
        let mut answer = self
            .client
            .get(url)
            .header(reqwest::header::ACCEPT, "application/json")
            .send()
            .await?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > LARGEST {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| FetchError::Content("it is not JSON"))
    }
}

impl Keys {
    /// The key of that name; without a name the only one that fits.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self
            .all
            .iter()
            .filter(|key| kid.is_none() || key.kid.as_deref() == kid)
            .filter(|key| fits(&key.jwk, algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only.key.clone()),
            _ => None,
        }
    }
}

/// A key for signatures that only its owner can make; everything else is left out.
pub(super) fn read_key(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let is_public = matches!(
        jwk.algorithm,
        AlgorithmParameters::RSA(_)
            | AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
    );
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    if !is_public || !signs {
        return None;
    }
    Some(Key {
        kid: jwk.common.key_id.clone(),
        key: DecodingKey::from_jwk(&jwk).ok()?,
        jwk,
    })
}

/// Algorithms whose key is a point on a curve.
const OF_CURVES: [Algorithm; 3] = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Whether a key may be used with an algorithm, which is one of those that are taken.
pub(super) fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let named = jwk.common.key_algorithm.as_ref();
    if named.is_some_and(|named| named.to_string() != format!("{algorithm:?}")) {
        return false;
    }
    if let AlgorithmParameters::EllipticCurve(key) = &jwk.algorithm {
        let is_on = |curve| key.curve == curve;
        return algorithm == Algorithm::ES256 && is_on(EllipticCurve::P256)
            || algorithm == Algorithm::ES384 && is_on(EllipticCurve::P384);
    }
    if let AlgorithmParameters::OctetKeyPair(key) = &jwk.algorithm {
        return algorithm == Algorithm::EdDSA && key.curve == EllipticCurve::Ed25519;
    }
    // What is left of the algorithms that are taken needs a key of RSA.
    matches!(jwk.algorithm, AlgorithmParameters::RSA(_)) && !OF_CURVES.contains(&algorithm)
}

fn discovery(issuer: &str) -> Option<Url> {
    let base = issuer.trim_end_matches('/');
    Url::parse(&format!("{base}/.well-known/openid-configuration")).ok()
}

/// Whether keys may be read from there: nobody in between can put in their own.
fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url.host_str()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

const FETCHES: &str = "latchkey_issuer_key_fetches_total";

fn count(outcome: &'static str, by: u64) {
    metrics::counter!(FETCHES, "outcome" => outcome).increment(by);
}

/// Registers help texts.
pub(super) fn describe_metrics() {
    metrics::describe_counter!(
        FETCHES,
        "Times that the keys of a token issuer were read, by outcome"
    );
}
