//! One small HTTP call to a secret store that has a REST API.
//!
//! Owns the connection's rules (TLS with the configured authority, no proxy, short time limits, a capped answer) and
//! the meaning of transport failures. Never interprets an answer, and never keeps one: bodies are wiped when dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url};
use zeroize::Zeroizing;

use crate::ports::secrets::SecretError;

use super::file::read_limited;
use super::parse::MAX_SECRET_BYTES;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of an answer: the largest secret, in base64, with room for what stands around it.
const MAX_ANSWER_BYTES: usize = 4 * MAX_SECRET_BYTES;

/// What a store answered.
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
}

/// How a store is reached.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    /// In words safe to log, for errors.
    pub place: String,
    /// An authority to trust besides those of the machine.
    pub authority: Option<PathBuf>,
    /// Whether one redirect is followed: stand-by servers of Vault answer with the address of the active one.
    pub redirect: bool,
}

impl Rest {
    /// A client for one fetch. Made anew each time, so that a replaced authority needs no restart; a fetch is rare.
    ///
    /// # Errors
    /// [`SecretError::Unavailable`] when the authority cannot be read or is not one.
    pub(super) async fn client(&self) -> Result<Client, SecretError> {
        let mut builder = Client::builder()
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .redirect(if self.redirect {
                one_redirect()
            } else {
                Policy::none()
            })
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        if let Some(path) = &self.authority {
            let bad = |code: &str| self.unusable_authority(path, code);
            let pem = read_limited(path, MAX_SECRET_BYTES)
                .await
                .map_err(|error| bad(&error.kind().to_string().replace(' ', "_")))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|_| bad("not_certificates"))?;
            if certificates.is_empty() {
                return Err(bad("not_certificates"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        builder.build().map_err(|_| SecretError::Unavailable {
            place: self.place.clone(),
            code: "client".to_owned(),
            remedy:
                "look at the certificate authorities of this machine: no HTTPS client could be made"
                    .to_owned(),
        })
    }

    fn unusable_authority(&self, path: &Path, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.place.clone(),
            code: format!("ca_file:{code}"),
            remedy: format!(
                "put the PEM certificate of the store's authority at {}",
                path.display()
            ),
        }
    }

    /// Sends and reads the whole answer.
    ///
    /// # Errors
    /// [`SecretError::Unavailable`] for every failure before the answer is complete, and for one that is too large.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, SecretError> {
        let mut response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        // Room for the whole of it at once: a buffer that grows leaves copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.odd("answer_too_large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    fn unreachable(&self, error: &reqwest::Error) -> SecretError {
        let code = if error.is_timeout() {
            "timeout"
        } else if error.is_redirect() {
            "redirect"
        } else if error.is_connect() {
            "connect"
        } else {
            "broken"
        };
        SecretError::Unavailable {
            place: self.place.clone(),
            code: code.to_owned(),
            remedy: "check the address, DNS, the network policy and the certificate authority (`ca_file`); Latchkey \
                     asks again by itself"
                .to_owned(),
        }
    }

    /// An answer that this store does not give.
    pub(super) fn odd(&self, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.place.clone(),
            code: code.to_owned(),
            remedy: "check that the address is that of the secret store: it answered like something else"
                .to_owned(),
        }
    }
}

/// Follows one redirect, and none that leaves encryption.
fn one_redirect() -> Policy {
    Policy::custom(|attempt: Attempt<'_>| {
        let encrypted = |url: &Url| url.scheme() == "https";
        let [first] = attempt.previous() else {
            return attempt.error("more than one redirect");
        };
        if encrypted(first) && !encrypted(attempt.url()) {
            return attempt.error("a redirect out of encryption");
        }
        attempt.follow()
    })
}

/// `base` with path segments added; what they contain cannot become part of another segment.
///
/// # Errors
/// None for the URLs that configuration allows; `base` itself where it can carry no path.
pub(super) fn below<'s>(base: &Url, segments: impl IntoIterator<Item = &'s str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
