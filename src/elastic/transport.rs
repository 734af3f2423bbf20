//! One request over HTTP.
//!
//! Owns the client's set-up, the line between "no byte left" and "who knows", and the caps on what comes back. Never
//! follows a redirect, never repeats anything, and never sends the key anywhere but to the configured address.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Method, Proxy, Response};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::key::Key;
use super::members::{self, Piece, Pieces};
use super::options::{Error, Options};
use super::path::Path;
use crate::domain::host::is_loopback;
use crate::domain::ids::OrganizationId;
use crate::domain::observation::Interest;

/// Pieces of a streamed body on their way to the parser; more would only be memory.
const PIECES: usize = 8;

/// A call, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Name for metrics.
    pub(super) operation: &'static str,
    /// Method and path template, for evidence.
    pub(super) template: &'static str,
    pub(super) method: Method,
    pub(super) path: Path,
    pub(super) body: Option<Vec<u8>>,
}

/// Why no head of an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// Certainly no byte of the request left.
    NotSent(&'static str),
    /// Some of it may have left.
    Broken(&'static str),
}

#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    base: Url,
    idle: Duration,
    max_members_body: u64,
    max_member: u64,
}

impl Transport {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let builder = Client::builder()
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .https_only(!is_loopback(options.base_url.host_str()))
            .connect_timeout(options.connect)
            .pool_idle_timeout(options.pool_idle)
            .gzip(true);
        let builder = match &options.proxy {
            Some(proxy) => {
                builder.proxy(Proxy::all(proxy.clone()).map_err(|source| Error::Proxy { source })?)
            }
            None => builder,
        };
        Ok(Self {
            client: builder.build().map_err(|source| Error::Client { source })?,
            base: options.base_url.clone(),
            idle: options.idle,
            max_members_body: options.max_members_body,
            max_member: options.max_member,
        })
    }

    /// Sends and waits for the head of the answer.
    pub(super) async fn open(
        &self,
        call: &Call,
        key: &Key,
        until: Instant,
    ) -> Result<Response, SendError> {
        let Some(url) = call.path.below(&self.base) else {
            return Err(SendError::NotSent("path"));
        };
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .header(AUTHORIZATION, key.header.clone())
            .header(ACCEPT, "application/json");
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        match timeout_at(until, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(SendError::Broken("timeout")),
        }
    }

    /// Reads a body that fits in `max` bytes after decompression.
    pub(super) async fn buffer(
        &self,
        mut response: Response,
        max: usize,
        until: Instant,
    ) -> Result<Vec<u8>, &'static str> {
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk(&mut response, until).await? {
            if bytes.len() > max - body.len() {
                return Err("too_large");
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// Reads a list of members while it arrives. The parser blocks, so it runs beside the runtime and ends with
    /// this call, whether the call is answered or dropped.
    pub(super) async fn members(
        &self,
        mut response: Response,
        organization: OrganizationId,
        interest: Interest,
        until: Instant,
    ) -> Result<members::Shown, &'static str> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let max_member = self.max_member;
        let parser = tokio::task::spawn_blocking(move || {
            members::parse(Pieces::new(receiver), &organization, &interest, max_member)
        });
        let fed = self.feed(&mut response, sender, until).await;
        let parsed = parser.await;
        fed?;
        match parsed {
            Ok(Ok(shown)) => Ok(shown),
            Ok(Err(_)) => Err("malformed"),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err("broken"),
        }
    }

    async fn feed(
        &self,
        response: &mut Response,
        sender: mpsc::Sender<Piece>,
        until: Instant,
    ) -> Result<(), &'static str> {
        let mut left = self.max_members_body;
        loop {
            let Some(bytes) = self.chunk(response, until).await? else {
                // A parser that has given up tells why itself.
                drop(sender.send(Piece::End).await);
                return Ok(());
            };
            left = left.checked_sub(bytes.len() as u64).ok_or("too_large")?;
            if sender.send(Piece::Bytes(bytes)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn chunk(
        &self,
        response: &mut Response,
        until: Instant,
    ) -> Result<Option<bytes::Bytes>, &'static str> {
        let until = until.min(Instant::now() + self.idle);
        match timeout_at(until, response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err("broken"),
            Err(_) => Err("timeout"),
        }
    }
}

fn classify(error: &reqwest::Error) -> SendError {
    if error.is_builder() {
        return SendError::NotSent("request");
    }
    // Name resolution, TCP, TLS and the tunnel of a proxy: all of it comes before the first byte of a request.
    if !error.is_connect() {
        return SendError::Broken(if error.is_timeout() {
            "timeout"
        } else {
            "broken"
        });
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let is_tls = cause.is::<rustls::Error>()
            || cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .is_some_and(|inner| inner.is::<rustls::Error>());
        if is_tls {
            return SendError::NotSent("tls");
        }
        if cause.to_string().starts_with("dns error") {
            return SendError::NotSent("dns");
        }
        source = cause.source();
    }
    SendError::NotSent("connect")
}
