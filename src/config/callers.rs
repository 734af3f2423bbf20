//! Who may call, and what proves it.
//!
//! Owns that every caller can be proven by something and that nothing proves two of them. Never checks a proof.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::caller::Caller;
use crate::domain::ids::CallerName;

use super::listen::Listen;
use super::problem::Problems;
use super::text;

/// What a caller is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Asks for access, extends and revokes it, sees its own grants.
    ControlPlane,
    /// Runs the connector: revokes everything, decides about holds and drift, sees every row.
    Operator,
    /// Reads everything and changes nothing.
    Auditor,
    /// Opens an emergency grant by a sealed token, reads its own.
    BreakGlass,
}

/// One caller of the gRPC surface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerSection {
    /// Its name: grants belong to it, so it stays while certificates and tokens come and go. Not `local`, which is
    /// whoever calls over loopback without proof.
    #[schemars(schema_with = "text::schemas::caller")]
    pub name: CallerName,
    /// What it may do. One role each: who has two jobs has two callers.
    pub role: Role,
    /// The client certificate that proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateProof>,
    /// The bearer token that proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenProof>,
}

/// What a client certificate must say; exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct CertificateProof {
    /// This SPIFFE id, as the only URI among its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^spiffe://[^\s/]+(/\S*)?$"))]
    pub spiffe_id: Option<String>,
    /// This DNS name among its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub dns: Option<String>,
    /// This common name. Only for authorities that cannot write the others: nobody vouches for its form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub common_name: Option<String>,
}

impl CertificateProof {
    fn words(&self) -> String {
        let Self {
            spiffe_id,
            dns,
            common_name,
        } = self;
        let dns = dns.as_ref().map(|name| name.to_ascii_lowercase());
        format!("{spiffe_id:?} {dns:?} {common_name:?}")
    }
}

/// What a bearer token must say: a subject, or a claim and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenProof {
    /// Whose token: an `issuer` of `listen.oidc`.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// This subject (`sub`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub subject: Option<String>,
    /// This claim, by name, or by JSON pointer such as /realm_access/roles. Several people may have it; they are one
    /// caller, and still two people where two are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// What the claim is, or what is one of its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub value: Option<String>,
}

impl TokenProof {
    /// Name and value of the claim that is asked for.
    #[must_use]
    pub fn claim(&self) -> (&str, &str) {
        match (&self.subject, &self.claim, &self.value) {
            (Some(subject), _, _) => ("sub", subject),
            (None, Some(claim), Some(value)) => (claim, value),
            (None, _, _) => ("sub", ""),
        }
    }
}

/// Checks the callers with the listener that they call.
pub(super) fn check(callers: &[CallerSection], listen: &Listen, problems: &mut Problems) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut proofs: BTreeMap<String, usize> = BTreeMap::new();
    for (index, caller) in callers.iter().enumerate() {
        let at = format!("callers[{index}]");
        let name = caller.name.as_str();
        if Caller::RESERVED.contains(&name) {
            problems.add(
                format!("{at}.name"),
                "is a name that the connector uses itself",
                "write another name",
            );
        }
        if let Some(other) = names.insert(name, index) {
            problems.add(
                format!("{at}.name"),
                format!("is the name of callers[{other}] as well"),
                "write another name, or both proofs at one caller",
            );
        }
        if caller.certificate.is_none() && caller.token.is_none() {
            problems.add(
                at.clone(),
                "nothing proves this caller",
                "write `certificate` or `token` below it",
            );
        }
        let mut claim = |path: String, proof: String| {
            if let Some(other) = proofs.insert(proof, index) {
                problems.add(
                    path,
                    format!("proves callers[{other}] as well, so nobody could tell who calls"),
                    "write what only this caller has",
                );
            }
        };
        if let Some(certificate) = &caller.certificate {
            claim(
                format!("{at}.certificate"),
                format!("certificate {}", certificate.words()),
            );
        }
        if let Some(token) = &caller.token {
            let (name, value) = token.claim();
            claim(
                format!("{at}.token"),
                format!("token {:?} {name:?} {value:?}", token.issuer),
            );
        }
        check_proofs(caller, &at, listen, problems);
    }
    if listen.is_authenticated() && callers.is_empty() {
        problems.add(
            "callers",
            "is empty, so nobody could call although callers are authenticated",
            "write at least one caller with `name`, `role` and `certificate` or `token`",
        );
    }
}

fn check_proofs(caller: &CallerSection, at: &str, listen: &Listen, problems: &mut Problems) {
    let takes_certificates = listen
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    if caller.certificate.is_some() && !takes_certificates {
        problems.add(
            format!("{at}.certificate"),
            "proves nothing, since the listener asks for no client certificate",
            "write `listen.tls.client_ca`, or prove this caller by `token`",
        );
    }
    let Some(token) = &caller.token else { return };
    match (&token.subject, &token.claim, &token.value) {
        (Some(_), None, None) | (None, Some(_), Some(_)) => {}
        (_, _, _) => problems.add(
            format!("{at}.token"),
            "names neither one subject nor one claim with its value",
            "write either `subject`, or both `claim` and `value`",
        ),
    }
    if listen.oidc.iter().all(|one| one.issuer != token.issuer) {
        problems.add(
            format!("{at}.token.issuer"),
            "is no issuer of listen.oidc",
            "write the `issuer` of an entry of listen.oidc, to the letter",
        );
    }
}
