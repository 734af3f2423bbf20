//! One request over HTTP to a place that takes events.
//!
//! Owns the client's set-up (TLS with the configured authority, no proxy but the configured one, no redirect, capped
//! answers), the meaning of an answer's status, and how long a secret is used. Never logs a body or a secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, Proxy, RequestBuilder, StatusCode};
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::domain::host::is_loopback;
use crate::ports::SecretStore;
use crate::ports::audit::Undelivered;
use crate::ports::secrets::SecretError;

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept; shorter than usual load balancers do.
const IDLE: Duration = Duration::from_secs(15);
/// How long a secret is used before it is fetched again.
const SECRET_FOR: Duration = Duration::from_secs(300);
/// The largest file of certificates.
const MAX_AUTHORITY: u64 = 1 << 20;

/// How a place is reached.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where it is. Plain HTTP only on this machine.
    pub url: Url,
    /// How long one request may take.
    pub timeout: Duration,
    /// An authority to trust besides those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Proxy for every request.
    pub proxy: Option<Url>,
}

/// A connection and the secret that goes with it.
#[derive(Debug)]
pub(super) struct Http {
    options: HttpOptions,
    secret: Arc<dyn SecretStore>,
    /// Made anew after a failure, so that a replaced authority needs no restart.
    client: Mutex<Option<Client>>,
    held: Mutex<Option<(SecretString, Instant)>>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    pub(super) retry_after: Option<Duration>,
}

impl Http {
    pub(super) fn new(options: HttpOptions, secret: Arc<dyn SecretStore>) -> Self {
        Self {
            options,
            secret,
            client: Mutex::new(None),
            held: Mutex::new(None),
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.options.url
    }

    /// The secret, and whether it was fetched just now.
    pub(super) async fn secret(&self) -> Result<(SecretString, bool), Undelivered> {
        let mut held = self.held.lock().await;
        if let Some((secret, since)) = held.as_ref()
            && since.elapsed() < SECRET_FOR
        {
            return Ok((secret.clone(), false));
        }
        let secret = self
            .secret
            .fetch()
            .await
            .map_err(|error| no_secret(&error))?;
        *held = Some((secret.clone(), Instant::now()));
        Ok((secret, true))
    }

    /// Lets go of a secret that was refused.
    pub(super) async fn forget_secret(&self) {
        *self.held.lock().await = None;
    }

    /// Sends, and reads at most `max` bytes of the answer; what is beyond is dropped.
    pub(super) async fn send(
        &self,
        request: impl FnOnce(&Client) -> RequestBuilder,
        max: usize,
    ) -> Result<Answer, Undelivered> {
        let client = self.client().await?;
        let outcome = answer(request(&client), max).await;
        if outcome.is_err() {
            *self.client.lock().await = None;
        }
        outcome
    }

    async fn client(&self) -> Result<Client, Undelivered> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref() {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .https_only(!is_loopback(self.options.url.host_str()))
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .timeout(self.options.timeout)
            .gzip(true);
        if let Some(proxy) = &self.options.proxy {
            let proxy = Proxy::all(proxy.clone());
            builder =
                builder.proxy(proxy.map_err(|_| unavailable("proxy", "the proxy is not usable"))?);
        }
        if let Some(path) = &self.options.ca_file {
            let unusable = || {
                unavailable(
                    "ca_file",
                    "`ca_file` holds no certificates that can be read",
                )
            };
            let found = tokio::fs::metadata(path).await.map_err(|_| unusable())?;
            if found.len() > MAX_AUTHORITY {
                return Err(unusable());
            }
            let pem = tokio::fs::read(path).await.map_err(|_| unusable())?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| unusable())?;
            if certificates.is_empty() {
                return Err(unusable());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder
            .build()
            .map_err(|_| unavailable("client", "no HTTPS client could be made"))?;
        *held = Some(client.clone());
        Ok(client)
    }
}

async fn answer(request: RequestBuilder, max: usize) -> Result<Answer, Undelivered> {
    let mut response = request.send().await.map_err(|error| broken(&error))?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        let room = max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == max {
            break;
        }
    }
    Ok(Answer {
        status,
        body,
        retry_after,
    })
}

/// What an answer that is not a success means.
pub(super) fn refusal(answer: &Answer, detail: Option<&str>) -> Undelivered {
    let status = answer.status.as_u16();
    let passes = matches!(status, 408 | 425 | 429) || answer.status.is_server_error();
    let detail = detail.map_or(String::new(), |detail| format!(" ({detail})"));
    Undelivered {
        acknowledged: 0,
        code: format!("http_{status}"),
        problem: format!("it answered {status}{detail}"),
        is_refused: !passes,
        retry_after: answer.retry_after.filter(|_| passes),
    }
}

pub(super) fn unavailable(code: &str, problem: &str) -> Undelivered {
    Undelivered {
        acknowledged: 0,
        code: code.to_owned(),
        problem: problem.to_owned(),
        is_refused: false,
        retry_after: None,
    }
}

fn no_secret(error: &SecretError) -> Undelivered {
    unavailable(error.code(), &format!("{error}; {}", error.remedy()))
}

fn broken(error: &reqwest::Error) -> Undelivered {
    if error.is_timeout() {
        unavailable("timeout", "it did not answer in time")
    } else if error.is_connect() {
        unavailable("connect", "it cannot be reached")
    } else {
        unavailable("broken", "the connection broke")
    }
}
