//! Where Latchkey listens, and how callers prove who they are.
//!
//! Owns the rule that whoever can be reached from other machines knows who calls. Never opens a socket or a file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::problem::Problems;
use super::text::{self, Address, Period};

use crate::domain::host::is_loopback;

/// Where Latchkey listens. Other machines can reach the gRPC surface only where callers are authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The gRPC surface. Loopback, unless `tls` and callers say who else may ask for access.
    pub grpc: Address,
    /// Health and metrics over HTTP: /healthz, /readyz, /metrics. Anybody may ask, so loopback or a closed network.
    pub http: Address,
    /// Offer gRPC reflection, for trying things out with grpcurl. Off, because a service needs none of it.
    pub reflection: bool,
    /// TLS of the gRPC surface. Left out, it speaks plain text to this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenTls>,
    /// Issuers of bearer tokens, instead of client certificates or beside them.
    #[schemars(length(max = 16))]
    pub oidc: Vec<Oidc>,
}

/// TLS of the gRPC surface. The files are PEM and read again as soon as they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenTls {
    /// The connector's certificate and its chain.
    #[schemars(schema_with = "text::schemas::path")]
    pub certificate: PathBuf,
    /// Its private key.
    #[schemars(schema_with = "text::schemas::path")]
    pub key: PathBuf,
    /// Authorities whose client certificates are taken. Left out, none is asked for and callers need tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::schemas::path")]
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those authorities. With it a certificate is refused that no list speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::schemas::path")]
    pub revocation_list: Option<PathBuf>,
}

/// An issuer of bearer tokens (OpenID Connect).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its name, as `iss` in its tokens has it to the letter.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// What `aud` of a token must name: this connector, and nothing else that the issuer serves.
    #[schemars(length(min = 1, max = 512))]
    pub audience: String,
    /// Where its keys are. Left out, its discovery document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub jwks_url: Option<String>,
    /// By how much its clock and this one may differ.
    #[serde(default = "clock_skew")]
    pub clock_skew: Period,
    /// Authorities of its TLS certificate in PEM. Left out, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::schemas::path")]
    pub ca_file: Option<PathBuf>,
}

fn clock_skew() -> Period {
    Period::seconds(30)
}

/// Whether keys may be read from there: HTTPS, or this machine.
fn is_safe(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let is_near = url.scheme() == "http" && is_loopback(url.host_str());
    let is_plain = url.username().is_empty() && url.password().is_none();
    is_plain && (url.scheme() == "https" || is_near)
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| Address::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        Self {
            grpc: loopback(7443),
            http: loopback(7480),
            reflection: false,
            tls: None,
            oidc: Vec::new(),
        }
    }
}

impl Listen {
    /// Whether callers have to prove who they are.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.tls.is_some() || !self.oidc.is_empty()
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let port = |address: Address| address.get().port();
        let is_remote = !self.grpc.get().ip().is_loopback();
        match &self.tls {
            None if is_remote => problems.add(
                "listen.grpc",
                "can be reached from other machines without TLS, so nobody could tell who calls",
                format!(
                    "write 127.0.0.1:{}, or `listen.tls` with `certificate`, `key` and `client_ca`",
                    port(self.grpc)
                ),
            ),
            Some(tls) if tls.client_ca.is_none() && self.oidc.is_empty() => problems.add(
                "listen.tls",
                "encrypts, but nothing says who calls",
                "write `client_ca` below it, or an issuer below `listen.oidc`",
            ),
            _ => {}
        }
        if let Some(tls) = &self.tls
            && tls.revocation_list.is_some()
            && tls.client_ca.is_none()
        {
            problems.add(
                "listen.tls.revocation_list",
                "revokes nothing without authorities",
                "write `client_ca` beside it, or leave it out",
            );
        }
        for (index, issuer) in self.oidc.iter().enumerate() {
            let at = format!("listen.oidc[{index}]");
            problems.within(
                &format!("{at}.clock_skew"),
                issuer.clock_skew,
                Duration::ZERO,
                Duration::from_secs(300),
            );
            if self.oidc[..index]
                .iter()
                .any(|other| other.issuer == issuer.issuer)
            {
                problems.add(
                    format!("{at}.issuer"),
                    "is listed twice",
                    "write each issuer once",
                );
            }
            if !is_safe(&issuer.issuer) {
                problems.add(
                    format!("{at}.issuer"),
                    "is not an https URL, nor http to this machine",
                    "write the URL that stands in `iss` of its tokens",
                );
            }
            if issuer.jwks_url.as_ref().is_some_and(|url| !is_safe(url)) {
                problems.add(
                    format!("{at}.jwks_url"),
                    "is not an https URL, nor http to this machine, so others could put in their keys",
                    "write the https URL of the issuer's keys, or leave it out",
                );
            }
        }
        if self.grpc == self.http && self.grpc.get().port() != 0 {
            problems.add(
                "listen.http",
                "is the same address as listen.grpc",
                "write another port",
            );
        }
    }
}
