//! The decoders, each with what must hold for any input.
//!
//! Owns the properties. A target never panics for bytes that it refuses; an assertion that fails is the finding.

use std::collections::BTreeSet;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use latchkey::audit::verify::VerifyError;
use latchkey::audit::{Header, Verifier, export};
use latchkey::config::Config;
use latchkey::domain::asked::Asked;
use latchkey::domain::assignment::Assignment;
use latchkey::domain::ids::{
    ApplicationRole, DeploymentId, Email, GrantId, InvitationToken, OrganizationId, ProjectId,
    RequestId, UserId,
};
use latchkey::domain::law::Verdict as Said;
use latchkey::identity::{Issuer, IssuerOptions, Leaf};
use latchkey::law::cases::{Action, Cases};
use latchkey::law::{CedarLaw, Source};
use latchkey::policy::Rules;
use latchkey::ports::audit::AuditRecord;
use latchkey::ports::{Law as _, Seals as _};
use latchkey::runtime::clock::SystemClock;
use latchkey::secrets::parse::parse_key;
use latchkey::witness::record::{self, Record};
use latchkey::{api, elastic, identity};
use serde_json::Value;
use url::Url;

use super::engine::kind_of;
use super::seeds::{self, LINES, NOW};

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

fn requests(input: &[u8]) -> Verdict {
    let Some((at, bytes)) = choice(input, &api::fuzz::REQUESTS) else {
        return verdict(false, "");
    };
    let kind = api::fuzz::REQUESTS[at];
    match api::fuzz::request(kind, bytes) {
        None => verdict(false, kind),
        Some(Ok(read)) => verdict(true, &format!("{kind} {}", read.len() / 64)),
        Some(Err(told)) => {
            assert!(told.len() < 4096, "a refusal as long as its request");
            assert!(
                told.chars().all(|c| !c.is_control()),
                "a refusal that disturbs a terminal: {told:?}"
            );
            verdict(false, &format!("{kind} {told}"))
        }
    }
}

fn members(input: &[u8]) -> Verdict {
    let Some((kept, held)) = elastic::fuzz::members(input, 1 << 16) else {
        return verdict(false, "");
    };
    let held: BTreeSet<Assignment> = held.into_iter().collect();
    let all: Vec<Assignment> = held.iter().cloned().collect();
    let again: BTreeSet<Assignment> = elastic::fuzz::again(&all).into_iter().collect();
    assert_eq!(held, again, "what we would send is not what was shown");
    for one in &held {
        let text = one.to_string();
        assert_eq!(
            Assignment::parse(&text).as_ref(),
            Ok(one),
            "{text:?} is read as something else"
        );
    }
    verdict(true, &format!("{} {}", held.len(), kept.len() / 200))
}

fn answers(input: &[u8]) -> Verdict {
    let Some((at, body)) = choice(input, &elastic::fuzz::KINDS) else {
        return verdict(false, "");
    };
    let kind = elastic::fuzz::KINDS[at];
    match elastic::fuzz::body(kind, body) {
        None => verdict(false, kind),
        Some(read) => verdict(true, &format!("{kind} {}", read.len() / 50)),
    }
}

/// `STATUS`, lines of `NAME: VALUE`, an empty line, the body.
fn meanings(input: &[u8]) -> Verdict {
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.trim().parse().ok());
    let mut found = Vec::new();
    for line in lines {
        let at = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let Ok(name) = std::str::from_utf8(name) else {
            return verdict(false, "name");
        };
        found.push((name, value.strip_prefix(b": ").unwrap_or(value)));
    }
    let patience = Duration::from_secs(60);
    match elastic::fuzz::meaning(
        status.unwrap_or(200),
        &found,
        body,
        seeds::at(NOW),
        patience,
    ) {
        None => verdict(false, "no answer"),
        Some(words) => {
            for word in &words {
                assert!(
                    (1..=4 * 65).contains(&word.len())
                        && word.bytes().all(|b| b.is_ascii_graphic()),
                    "a text of upstream leaves the client: {word:?}"
                );
            }
            verdict(true, &words.join(" "))
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn configuration(input: &[u8]) -> Verdict {
    match Config::parse("latchkey.yaml", input) {
        Ok(config) => {
            let value = serde_json::to_value(&config).expect("a configuration has a JSON form");
            let text = without_nulls(value).to_string();
            let again = Config::parse("latchkey.yaml", text.as_bytes());
            assert_eq!(
                again.as_ref(),
                Ok(&config),
                "a configuration that is written down is another one"
            );
            verdict(
                true,
                &format!("{} {}", config.integrations.len(), config.callers.len()),
            )
        }
        Err(errors) => {
            let text = errors.to_string();
            assert!(!errors.problems.is_empty(), "refused without a reason");
            assert!(
                text.chars().all(|c| c == '\n' || !c.is_control()),
                "{text:?}"
            );
            verdict(false, &text)
        }
    }
}

static LAW: LazyLock<CedarLaw> = LazyLock::new(|| {
    CedarLaw::open(Source::Shipped, "Europe/Amsterdam", Rules::default()).expect("the shipped law")
});

fn policy_cases(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let cases: Cases = match serde_yaml::from_str(text) {
        Ok(cases) => cases,
        Err(error) => return verdict(false, &error.to_string()),
    };
    let mut words = String::new();
    for case in cases.cases.iter().take(20) {
        let question = match case.question() {
            Ok(question) => question,
            Err(error) => {
                words.push_str(&error.problem);
                continue;
            }
        };
        drop(LAW.facts(&question));
        match LAW.decide(&question) {
            Said::Allowed { policies } => {
                assert!(!policies.is_empty(), "allowed by nobody");
                let is_wide = case
                    .access
                    .iter()
                    .any(|one| one.contains("/all") || one.starts_with("organization-"));
                let is_new = matches!(case.action, Action::Create | Action::Extend);
                assert!(
                    !(is_wide && is_new),
                    "the shipped law allowed {:?}",
                    case.access
                );
                words.push_str(&policies.join(" "));
            }
            Said::Refused(refusal) => {
                assert!(!refusal.policies.is_empty(), "refused by nobody");
                words.push_str(&refusal.policies.join(" "));
            }
        }
    }
    verdict(!words.is_empty(), &words)
}

fn policy_texts(input: &[u8]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.cedar");
    std::fs::write(&file, input).expect("written");
    match latchkey::law::check(&Source::Files(vec![file])) {
        Ok(checked) => verdict(true, &format!("{:?}", checked.policies)),
        Err(error) => verdict(
            false,
            &error
                .problems
                .join("\n")
                .chars()
                .skip(80)
                .take(120)
                .collect::<String>(),
        ),
    }
}

fn request_files(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let asked: Asked = match serde_yaml::from_str(text) {
        Ok(asked) => asked,
        Err(error) => return verdict(false, &error.to_string()),
    };
    match asked.normalised() {
        Err(problem) => verdict(false, &problem.to_string()),
        Ok(asked) => {
            let canonical = asked.canonical();
            let again: Asked = serde_json::from_str(&canonical).expect("canonical JSON is JSON");
            let again = again.normalised().expect("what was normal stays so");
            assert_eq!(
                again.canonical(),
                canonical,
                "one request has two canonical forms"
            );
            assert_eq!(again.digest(), asked.digest());
            verdict(true, &canonical)
        }
    }
}

/// Tokens as whole texts: whatever is taken was signed, and is used up as the one that was signed.
fn sealed(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let ring = &seeds::RING.ring;
    let now = seeds::at(NOW);
    let approval = ring.approval(text, now);
    if let Ok(taken) = &approval {
        assert!(
            seeds::RING.tokens.contains(&taken.token),
            "nobody signed this: {text:?}"
        );
    }
    let emergency = ring.emergency(text, now);
    if let Ok(taken) = &emergency {
        assert!(
            seeds::RING.tokens.contains(&taken.token),
            "nobody sealed this: {text:?}"
        );
    }
    assert!(approval.is_err() || emergency.is_err(), "one text is both");
    drop(latchkey::identity::seal::claims_of(text));
    let words = format!(
        "{:?} {:?}",
        approval.as_ref().err(),
        emergency.as_ref().err()
    );
    verdict(approval.is_ok() || emergency.is_ok(), &words)
}

/// Claims of any kind, properly signed by the key that is configured: what an approver could do on purpose.
fn sealed_claims(input: &[u8]) -> Verdict {
    let Ok(claims) = serde_json::from_slice::<Value>(input) else {
        return verdict(false, "no claims");
    };
    let now = seeds::at(NOW);
    let approval = seeds::signed("latchkey-approval+jwt", &claims);
    let emergency = seeds::signed("latchkey-break-glass+jwt", &claims);
    let ring = &seeds::RING.ring;
    let (approval, emergency) = (
        ring.approval(&approval, now),
        ring.emergency(&emergency, now),
    );
    if let Ok(taken) = &approval {
        assert!(taken.until > now && taken.request.len() == 64);
    }
    if let Ok(taken) = &emergency {
        assert!(taken.until > now && taken.max_duration_s > 0);
        assert!(
            (1..=100).contains(&taken.beneficiaries.len())
                && (1..=100).contains(&taken.targets.len())
        );
    }
    let words = format!(
        "{:?} {:?}",
        approval.as_ref().err(),
        emergency.as_ref().err()
    );
    verdict(approval.is_ok() || emergency.is_ok(), &words)
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let options = IssuerOptions {
        issuer: "https://issuer.example".to_owned(),
        audience: "latchkey".to_owned(),
        jwks_url: None,
        clock_skew: Duration::from_secs(30),
        ca_file: None,
    };
    Issuer::new(options, std::sync::Arc::new(SystemClock)).expect("an issuer")
});

fn bearer_claims(input: &[u8]) -> Verdict {
    match identity::fuzz::claims(input, &ISSUER, seeds::at(NOW)) {
        Ok(subject) => verdict(true, &format!("{}", subject.len())),
        Err(code) => verdict(false, code),
    }
}

fn issuer_keys(input: &[u8]) -> Verdict {
    let found = identity::fuzz::keys(input);
    verdict(
        found.as_deref().is_some_and(|found| found.contains("true")),
        &found.unwrap_or_default(),
    )
}

fn page_tokens(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let given = api::fuzz::token("ListGrants", "filter", &text);
    if given.len() <= 2048 {
        let back = api::fuzz::cursor("ListGrants", "filter", &given);
        assert_eq!(back.as_deref(), Some(&*text), "a token loses its cursor");
    }
    assert_eq!(
        api::fuzz::cursor("ListGrants", "other", &given),
        None,
        "a token fits another filter"
    );
    let Some(cursor) = api::fuzz::cursor("ListGrants", "filter", &text) else {
        return verdict(false, "");
    };
    assert_eq!(
        api::fuzz::token("ListGrants", "filter", &cursor),
        text,
        "one cursor has two tokens"
    );
    verdict(true, &cursor)
}

fn certificates(input: &[u8]) -> Verdict {
    match Leaf::parse(input) {
        Some(leaf) => verdict(
            true,
            &format!(
                "{:?} {} {:?}",
                leaf.spiffe_id.is_some(),
                leaf.dns.len(),
                leaf.common_name.is_some()
            ),
        ),
        None => verdict(false, ""),
    }
}

/// Lines of an export: what is read is written alike, and only what was sealed verifies.
fn exports(input: &[u8]) -> Verdict {
    for line in input.split(|byte| *byte == b'\n') {
        match export::read(line) {
            Ok(export::Line::Record(sequence, body)) => {
                if let Ok(body) = String::from_utf8(body.to_vec()) {
                    let again = export::record(&AuditRecord { sequence, body });
                    assert_eq!(again.as_bytes(), line, "a record has two lines");
                }
            }
            Ok(export::Line::Block(block)) => {
                let again = export::block(&block.stored());
                let read = export::read(again.as_bytes()).expect("what we wrote");
                assert_eq!(read, export::Line::Block(block), "a block has two meanings");
            }
            Err(_) => {}
        }
    }
    match Verifier::new(vec![seeds::SIGNER.public()], None).run(io::BufReader::new(input)) {
        Ok(report) => {
            assert!(
                seeds::HEADS.contains(&report.head),
                "this was never sealed: {report:?}"
            );
            let proven = input
                .split(|byte| *byte == b'\n')
                .filter(|line| line.starts_with(b"{\"sequence\":"));
            assert!(
                proven
                    .into_iter()
                    .all(|line| LINES.contains(&line.to_vec())),
                "a record that nobody sealed"
            );
            verdict(true, "verified")
        }
        Err(VerifyError::Finding(finding)) => verdict(false, &finding.to_string()),
        Err(VerifyError::Read(_)) => verdict(false, "unread"),
    }
}

/// Headers of a block, signed by the key that is trusted: whatever such a block says, verifying it ends.
fn headers(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let header = match Header::parse(text) {
        Ok(header) => header,
        Err(malformed) => return verdict(false, &malformed.to_string()),
    };
    assert_eq!(header.text(), text, "a header has two texts");
    let mut lines = format!("{}\n", export::record(&seeds::record(1)));
    lines.push_str(&export::block(&seeds::block_of(&header)));
    lines.push('\n');
    lines.push_str(&export::block(&seeds::block_of(&header)));
    let found =
        Verifier::new(vec![seeds::SIGNER.public()], None).run(io::BufReader::new(lines.as_bytes()));
    verdict(
        true,
        &found
            .err()
            .map_or_else(String::new, |error| error.to_string()),
    )
}

/// `NAME`, a line feed, and what stands in that file instead.
fn packs(input: &[u8]) -> Verdict {
    let at = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let (name, content) = input.split_at(at);
    let content = content.strip_prefix(b"\n").unwrap_or(content);
    let Some((name, was)) = seeds::PACK
        .iter()
        .find(|(known, _)| known.as_bytes() == name)
    else {
        return verdict(false, "no file of a pack");
    };
    let folder = tempfile::tempdir().expect("a folder");
    for (name, was) in seeds::PACK.iter() {
        std::fs::write(folder.path().join(name), was).expect("written");
    }
    std::fs::write(folder.path().join(name), content).expect("written");
    let keys = [seeds::SIGNER.public()];
    let strict = latchkey::audit::pack::verify(folder.path(), &keys, None, false);
    let is_same = content == was.as_slice();
    let is_same_signature = *name == "manifest.sig" && content.trim_ascii() == was.trim_ascii();
    assert_eq!(
        strict.is_ok(),
        is_same || is_same_signature,
        "{name} was changed and taken"
    );
    let lax = latchkey::audit::pack::verify(folder.path(), &keys, None, true);
    let words = lax
        .as_ref()
        .err()
        .map_or_else(String::new, ToString::to_string);
    verdict(strict.is_ok(), &format!("{name} {words}"))
}

/// The first line is a base, the rest an id.
fn addresses(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (base, id) = text
        .split_once('\n')
        .unwrap_or(("https://api.example.com/proxy/", &text));
    let Ok(base) = Url::parse(base) else {
        return verdict(false, "no base");
    };
    if base.cannot_be_a_base()
        || !matches!(base.scheme(), "http" | "https")
        || base.query().is_some()
        || base.fragment().is_some()
    {
        return verdict(false, "no base");
    }
    let before = base.path().trim_end_matches('/').split('/').skip(1).count();
    let mut words = String::new();
    for (built, last) in elastic::fuzz::addresses(&base, id)
        .iter()
        .zip(["role_assignments", "roles"])
    {
        let Some(url) = built else {
            words.push_str("refused ");
            continue;
        };
        assert_eq!(url.origin(), base.origin(), "{id:?} left the host");
        assert!(
            url.query().is_none() && url.fragment().is_none(),
            "{id:?} became a query"
        );
        assert_eq!(
            (url.username(), url.password()),
            (base.username(), base.password())
        );
        let segments: Vec<&str> = url.path_segments().expect("a base").collect();
        let fixed = if last == "roles" { 7 } else { 5 };
        assert_eq!(
            segments.len(),
            before + fixed,
            "{id:?} left its segment: {url}"
        );
        assert_eq!(segments.last(), Some(&last));
        let segment = segments[segments.len() - 2];
        let read = percent_encoding::percent_decode_str(segment)
            .decode_utf8()
            .expect("UTF-8");
        assert_eq!(read, id, "another id is asked for");
        // Whoever reads it again, such as a proxy, reads the same.
        assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(url));
        words.push_str("built ");
    }
    verdict(words.contains("built"), &words)
}

/// Ids and assignments as text: what is taken is written as it was.
fn names(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let mut taken = String::new();
    macro_rules! same {
        ($($kind:ident),*) => {$(
            if let Ok(id) = $kind::parse(text) {
                assert_eq!(id.to_string(), text, "an id is written as another");
                assert!(text.is_ascii() && !text.contains(|c: char| c.is_ascii_control() || "/?#%\\ ".contains(c)), "{text:?} is no word of a path");
                taken.push_str(stringify!($kind));
            }
        )*};
    }
    same!(DeploymentId, ProjectId, UserId, OrganizationId);
    if let Ok(id) = RequestId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(
            text.bytes().all(|b| b.is_ascii_graphic()),
            "{text:?} disturbs a log"
        );
        taken.push_str("RequestId");
    }
    if let Ok(token) = InvitationToken::parse(text) {
        assert_eq!(token.as_str(), text);
        taken.push_str("InvitationToken");
    }
    if let Ok(role) = ApplicationRole::parse(text) {
        assert_eq!(role.as_str(), text);
        taken.push_str("ApplicationRole");
    }
    if let Ok(email) = Email::parse(text) {
        assert_eq!(
            Email::parse(email.as_str()).as_ref(),
            Ok(&email),
            "an address changes twice"
        );
        taken.push_str("Email");
    }
    if let Ok(id) = GrantId::parse(text) {
        assert_eq!(GrantId::parse(&id.to_string()), Ok(id));
        taken.push_str("GrantId");
    }
    if let Ok(assignment) = Assignment::parse(text) {
        let written = assignment.to_string();
        assert_eq!(
            Assignment::parse(&written).as_ref(),
            Ok(&assignment),
            "{written:?} is read as something else"
        );
        taken.push_str("Assignment");
    }
    verdict(!taken.is_empty(), &taken)
}

fn witness(input: &[u8]) -> Verdict {
    match record::read(input) {
        record::Line::Whole(json) => {
            let Ok(read) = serde_json::from_slice::<Record>(json) else {
                return verdict(true, "no record");
            };
            let line = read.line();
            assert_eq!(
                record::read(&line),
                record::Line::Whole(&line[18..line.len() - 1]),
                "what we write is not whole"
            );
            let again: Record =
                serde_json::from_slice(&line[18..line.len() - 1]).expect("what we wrote");
            assert_eq!(again, read, "a record changed on its way");
            verdict(
                true,
                &format!("{read:?}").chars().take(12).collect::<String>(),
            )
        }
        record::Line::Torn => verdict(false, "torn"),
        record::Line::Broken(what) => verdict(false, what),
    }
}

/// Bytes of a connection: how they are cut into reads changes nothing.
fn frames(input: &[u8]) -> Verdict {
    let whole = api::fuzz::is_busy(input, &[]);
    let ones = vec![1; input.len()];
    let odd: Vec<usize> = input.iter().map(|byte| usize::from(byte % 23)).collect();
    assert_eq!(
        api::fuzz::is_busy(input, &ones),
        whole,
        "one by one it is another connection"
    );
    assert_eq!(
        api::fuzz::is_busy(input, &odd),
        whole,
        "in pieces it is another connection"
    );
    verdict(whole, &format!("{whole} {}", input.len() / 32))
}

/// Whatever a secret store hands over: its text is never part of what is said about it.
fn secrets(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    match parse_key("a place", &text, "api_key") {
        Ok(_) => verdict(true, "a key"),
        Err(error) => {
            let said = format!("{error} {error:?}");
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            for word in words.filter(|word| word.len() >= 16) {
                assert!(!said.contains(word), "{said:?} repeats the secret");
            }
            verdict(false, &error.to_string())
        }
    }
}
