//! Who a caller is: certificates, tokens, and the names that the configuration gives them.
//!
//! Owns the TLS below the gRPC surface with its hot reload, the keys of token issuers, and the mapping to a configured
//! caller. Never decides what a caller may do, and never takes a name from anything that was not proven.

mod certificate;
#[doc(hidden)]
pub mod fuzz;
mod issuer;
mod registry;
pub mod seal;
mod stream;
mod tls;
mod token;

use std::sync::Arc;

pub use certificate::Leaf;
pub use issuer::{Issuer, IssuerError, IssuerOptions};
pub use registry::{CertificateRule, Clash, Registry, Rule, TokenRule};
pub use stream::{PeerCell, Secured};
pub use tls::{Peer, Reload, Tls, TlsError, TlsPaths};
pub use token::Verified;

use crate::domain::caller::Caller;
use crate::ports::Clock;

/// Why nobody could be made out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither a client certificate nor a token came.
    #[error("no credentials: connect with a client certificate or send a bearer token")]
    Missing,
    /// The certificate has expired since the connection was made.
    #[error("the client certificate has expired")]
    CertificateExpired,
    /// The certificate is no longer accepted: its authority is gone, or it was revoked.
    #[error("the client certificate is no longer trusted")]
    CertificateUntrusted,
    /// Not one well-formed bearer token.
    #[error("the authorization header holds no well-formed bearer token")]
    TokenMalformed,
    /// Signed in a way that is not taken: without a signature, or with a shared secret.
    #[error("the token is signed by an algorithm that is not accepted")]
    TokenAlgorithm,
    /// From an issuer that is not configured.
    #[error("the issuer of the token is not known here")]
    TokenIssuer,
    /// Signed by a key that the issuer does not publish.
    #[error("the issuer does not publish the key that the token names")]
    TokenKey,
    /// The signature is not that of the issuer.
    #[error("the signature of the token is wrong")]
    TokenSignature,
    /// Meant for somebody else.
    #[error("the token is meant for another audience")]
    TokenAudience,
    /// Too old.
    #[error("the token has expired")]
    TokenExpired,
    /// Not valid yet.
    #[error("the token is not valid yet")]
    TokenEarly,
    /// Lacks a claim that it must have.
    #[error("the token lacks a claim that is needed: exp, iss, aud and sub")]
    TokenClaims,
    /// The keys of the issuer could not be read, so that nothing can be said about the token.
    #[error("the keys of the token's issuer cannot be read now")]
    IssuerUnavailable,
    /// Proven, but nobody that the configuration names.
    #[error("the credentials are valid, but no caller is configured for them")]
    Unmapped,
    /// More than one configured caller.
    #[error("the credentials fit more than one configured caller")]
    Ambiguous,
}

impl Refused {
    /// Every reason, for the metric.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::CertificateExpired,
        Self::CertificateUntrusted,
        Self::TokenMalformed,
        Self::TokenAlgorithm,
        Self::TokenIssuer,
        Self::TokenKey,
        Self::TokenSignature,
        Self::TokenAudience,
        Self::TokenExpired,
        Self::TokenEarly,
        Self::TokenClaims,
        Self::IssuerUnavailable,
        Self::Unmapped,
        Self::Ambiguous,
    ];

    /// Stable code in lower case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "credentials_missing",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::TokenMalformed => "token_malformed",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenIssuer => "token_issuer",
            Self::TokenKey => "token_key",
            Self::TokenSignature => "token_signature",
            Self::TokenAudience => "token_audience",
            Self::TokenExpired => "token_expired",
            Self::TokenEarly => "token_early",
            Self::TokenClaims => "token_claims",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::Unmapped => "caller_unmapped",
            Self::Ambiguous => "caller_ambiguous",
        }
    }
}

/// What a call brought along in its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// Nothing.
    Absent,
    /// One token.
    Token(&'a str),
    /// Something else: another scheme, several headers, no text.
    Malformed,
}

/// Makes out callers.
#[derive(Debug)]
pub struct Identity {
    tls: Option<Arc<Tls>>,
    issuers: Vec<Issuer>,
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl Identity {
    /// Over the TLS of the listener, where there is any, the issuers, and the configured callers.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        tls: Option<Arc<Tls>>,
        issuers: Vec<Issuer>,
        registry: Registry,
    ) -> Self {
        for why in Refused::ALL {
            metrics::counter!(REFUSED, "why" => why.code()).increment(0);
        }
        Self {
            tls,
            issuers,
            registry,
            clock,
        }
    }

    /// The TLS below the surface.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The one configured caller that the credentials of a call prove.
    ///
    /// # Errors
    /// [`Refused`]: nobody, several, or nothing proven.
    pub async fn identify(
        &self,
        peer: Option<&Peer>,
        bearer: Bearer<'_>,
    ) -> Result<Caller, Refused> {
        let identified = self.try_identify(peer, bearer).await;
        if let Err(why) = &identified {
            metrics::counter!(REFUSED, "why" => why.code()).increment(1);
        }
        identified
    }

    async fn try_identify(
        &self,
        peer: Option<&Peer>,
        bearer: Bearer<'_>,
    ) -> Result<Caller, Refused> {
        let by_certificate = match (peer, &self.tls) {
            (Some(peer), Some(tls)) => {
                tls.check(peer)?;
                Some(self.registry.by_certificate(&peer.leaf))
            }
            (_, _) => None,
        };
        let by_token = match bearer {
            Bearer::Absent => None,
            Bearer::Malformed => return Err(Refused::TokenMalformed),
            // A token that nobody asked for proves nothing and is not looked at.
            Bearer::Token(_) if self.issuers.is_empty() => None,
            Bearer::Token(text) => {
                let verified = token::verify(text, &self.issuers, self.clock.now()).await?;
                Some(self.registry.by_token(&verified))
            }
        };
        match (by_certificate, by_token) {
            (None, None) => Err(Refused::Missing),
            (Some(one), None) | (None, Some(one)) => one,
            // A mesh has certificates of its own, whose holders are nobody here: then the token says who it is.
            (Some(Err(Refused::Unmapped)), Some(other))
            | (Some(other), Some(Err(Refused::Unmapped))) => other,
            (Some(one), Some(other)) => {
                let (one, other) = (one?, other?);
                if one.name == other.name {
                    // The token is the finer of the two: it names a person where the certificate names a service.
                    Ok(other)
                } else {
                    Err(Refused::Ambiguous)
                }
            }
        }
    }
}

const REFUSED: &str = "latchkey_callers_refused_total";

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_counter!(
        REFUSED,
        "Calls whose caller could not be made out, by what was wrong"
    );
    tls::describe_metrics();
    issuer::describe_metrics();
}
