//! The decoders, each with what must hold for any input.
//!
//! Owns the properties. A target never panics for bytes that it refuses; an assertion that fails is the finding.

mod calls;
mod evidence;
mod files;
mod proofs;

use self::calls::{addresses, answers, frames, meanings, members, names, page_tokens, requests};
use self::evidence::{exports, headers, packs, witness};
use self::files::{configuration, policy_cases, policy_texts, request_files, secrets};
use self::proofs::{bearer_claims, certificates, issuer_keys, sealed, sealed_claims};
use super::engine::kind_of;

/// What became of an input.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether it was taken for what it should be.
    pub(crate) is_accepted: bool,
    /// Inputs of one kind came to the same place.
    pub(crate) kind: u64,
}

/// One decoder.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its folder in the corpus.
    pub(crate) name: &'static str,
    /// Takes an input.
    pub(crate) run: fn(&[u8]) -> Verdict,
    /// Words of its format.
    pub(crate) words: &'static [&'static str],
    /// Mutations of a plain run.
    pub(crate) executions: u64,
    /// Bytes that may be held at once whatever the input: buffers, schemas.
    pub(crate) floor: usize,
    /// Bytes that may be held at once for each byte of input.
    pub(crate) factor: usize,
}

const KIB: usize = 1024;

const fn target(
    name: &'static str,
    run: fn(&[u8]) -> Verdict,
    words: &'static [&'static str],
) -> Target {
    Target {
        name,
        run,
        words,
        executions: 2500,
        floor: 256 * KIB,
        factor: 200,
    }
}

/// All of them.
pub(crate) const ALL: &[Target] = &[
    target(
        "requests",
        requests,
        &[
            "deployment-viewer",
            "a@example.com",
            "0190a6d8-1b2c-7def-8123-456789abcdef",
            "\u{0a}\u{ff}\u{ff}\u{ff}\u{ff}\u{0f}",
        ],
    ),
    target(
        "members",
        members,
        &[
            "members",
            "next_page",
            "total",
            "role_assignments",
            "organization",
            "deployment",
            "project",
            "security",
            "all",
            "deployment_ids",
            "project_ids",
            "application_roles",
            "organization-admin",
            "198583657190",
            "1014289666",
        ],
    ),
    target(
        "answers",
        answers,
        &[
            "organizations",
            "invitations",
            "keys",
            "deployments",
            "items",
            "roles",
            "errors",
            "code",
            "metadata",
            "tags",
            "hidden",
            "token",
            "expires_at",
            "expired",
        ],
    ),
    target(
        "meanings",
        meanings,
        &[
            "retry-after",
            "x-ratelimit-limit",
            "x-ratelimit-interval",
            "date",
            "x-cloud-error-codes",
            "x-elastic-api-key-expiration",
            "content-type",
            "text/html",
            "errors",
            "code",
            "\n\n",
        ],
    ),
    Target {
        executions: 500,
        floor: 4096 * KIB,
        factor: 2000,
        ..target(
            "configuration",
            configuration,
            &[
                "integrations",
                "secret",
                "file",
                "path",
                "env",
                "name",
                "ledger",
                "postgres",
                "url",
                "engine",
                "policy",
                "roles",
                "sweeps",
                "audit",
                "sinks",
                "callers",
                "oidc",
                "12h",
                "0 0 3 * * *",
                ": ",
                "- ",
                "&a",
                "*a",
                "<<",
                "!!binary",
            ],
        )
    },
    Target {
        executions: 150,
        floor: 4096 * KIB,
        factor: 1000,
        ..target(
            "policy_cases",
            policy_cases,
            &[
                "cases",
                "action",
                "create",
                "extend",
                "break_glass",
                "revoke",
                "read",
                "access",
                "deployment-viewer on deployment/a",
                "tags",
                "duration",
                "zone",
                "Europe/Amsterdam",
                "approvers",
                "current",
                "at",
            ],
        )
    },
    Target {
        executions: 150,
        floor: 8192 * KIB,
        factor: 4000,
        ..target(
            "policy_texts",
            policy_texts,
            &[
                "permit",
                "forbid",
                "@id(\"a\")",
                "when {",
                "context.",
                "principal",
                "in",
                "has",
                "like",
                "==",
                "&&",
                "(",
                ")",
                "Latchkey::Action::\"create\"",
                "9223372036854775807",
            ],
        )
    },
    // YAML is read into values before it is told which kind of request it is.
    Target {
        factor: 600,
        ..target(
            "request_files",
            request_files,
            &[
                "kind",
                "create",
                "extend",
                "targets",
                "deployment/a",
                "application_roles",
                "starts_at",
                "duration_s",
            ],
        )
    },
    target(
        "sealed",
        sealed,
        &[".", "eyJhbGciOiJub25lIn0", "==", "-", "_"],
    ),
    // The text is signed here as well, which takes as much again.
    Target {
        factor: 600,
        ..target(
            "sealed_claims",
            sealed_claims,
            &[
                "iss",
                "jti",
                "iat",
                "nbf",
                "exp",
                "req",
                "decision",
                "approve",
                "beneficiaries",
                "targets",
                "application_roles",
                "max_duration_s",
            ],
        )
    },
    target(
        "bearer_claims",
        bearer_claims,
        &[
            "iss",
            "aud",
            "sub",
            "exp",
            "nbf",
            "iat",
            "https://issuer.example",
            "latchkey",
        ],
    ),
    target(
        "issuer_keys",
        issuer_keys,
        &[
            "keys", "kty", "RSA", "EC", "OKP", "oct", "crv", "P-256", "Ed25519", "use", "sig",
            "enc", "alg", "kid", "n", "e", "x", "y",
        ],
    ),
    target("page_tokens", page_tokens, &["=", "-", "_"]),
    target("certificates", certificates, &[]),
    target(
        "exports",
        exports,
        &[
            "{\"sequence\":",
            ",\"event\":",
            "{\"block\":",
            "\"leaves\":\"",
            "\"header\":\"",
            "\\n",
        ],
    ),
    target(
        "headers",
        headers,
        &[
            "ledger:",
            "number:",
            "sequences:",
            "root:",
            "previous:",
            "sealed_at:",
            "key:",
            "1-18446744073709551615",
            ",",
            "-",
        ],
    ),
    Target {
        executions: 60,
        floor: 1024 * KIB,
        ..target(
            "packs",
            packs,
            &[
                "manifest.json\n",
                "audit.jsonl\n",
                "requests.jsonl\n",
                "receipts.jsonl\n",
                "service_level.json\n",
                "manifest.sig\n",
                "drift.jsonl\n",
                "sha256",
                "bytes",
                "files",
            ],
        )
    },
    target(
        "addresses",
        addresses,
        &[
            "..",
            "%2e",
            "%2F",
            "//evil.example",
            "@",
            ";",
            "\\",
            "?",
            "#",
            "\t",
        ],
    ),
    target(
        "names",
        names,
        &[
            " on ",
            " as [",
            "]",
            "deployment/",
            "deployment/all",
            "elasticsearch/",
            "organization",
            "deployment-viewer",
            ", ",
        ],
    ),
    target(
        "witness",
        witness,
        &[
            "{\"k\":\"tick\",\"mark\":1}",
            "{\"k\":\"intent\"",
            " ",
            "\n",
            "00000000",
        ],
    ),
    target(
        "frames",
        frames,
        &[
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{0}\u{0}\u{0}\u{1}\u{5}\u{0}\u{0}\u{0}\u{1}",
        ],
    ),
    target(
        "secrets",
        secrets,
        &["api_key", "essu_", "ApiKey ", "\"", "{", "}", ":"],
    ),
];

fn verdict(is_accepted: bool, words: &str) -> Verdict {
    Verdict {
        is_accepted,
        kind: kind_of(words),
    }
}

/// The first byte chooses, the rest is what is decoded.
fn choice<'a, T>(input: &'a [u8], among: &[T]) -> Option<(usize, &'a [u8])> {
    let (first, rest) = input.split_first()?;
    Some((usize::from(*first) % among.len(), rest))
}
