//! `latchkey approval` and `latchkey break-glass`: keys and signatures made away from any connector.
//!
//! Owns reading what is to be signed and showing it to whoever signs. Never sends anything anywhere, and never prints
//! a signing key: it is written into a file that only its owner can read.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use clap::{Args, Subcommand, ValueHint};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::streams::{Format, Streams};
use super::{text, time};
use crate::app::seals::{ApprovalDraft, SealKey, TokenDraft, claims_of};
use crate::domain::asked::{Asked, CreateAsked};
use crate::domain::ttl::Ttl;

/// Most bytes of a file that is read here.
const LARGEST: u64 = 256 * 1024;

/// Arguments of `approval`.
#[derive(Debug, Clone, Args)]
pub struct ApprovalArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ApprovalCommand,
}

/// What can be done about approvals.
#[derive(Debug, Clone, Subcommand)]
pub enum ApprovalCommand {
    /// Make a key to approve with; print its public key
    Keygen(KeygenArgs),
    /// Print the canonical text of a request, and the digest that an approval carries
    Digest(DigestArgs),
    /// Approve a request: print the signed approval
    Sign(SignArgs),
}

/// Arguments of `keygen`.
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// File to write the signing key to; it must not be there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
}

/// Arguments of `approval digest`.
#[derive(Debug, Clone, Args)]
pub struct DigestArgs {
    /// The request, in YAML or JSON; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
}

/// Arguments of `approval sign`.
#[derive(Debug, Clone, Args)]
pub struct SignArgs {
    /// Signing key, as `approval keygen` wrote it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// Name of the approver in the configuration of the connector
    #[arg(long, value_name = "NAME")]
    pub approver: String,
    /// The request, in YAML or JSON; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
    /// How long the approval can be used
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = time::parse_ttl)]
    pub lasts: Ttl,
}

/// What a request brings along; arguments of `grant`.
#[derive(Debug, Clone, Args)]
pub struct VoucherArgs {
    /// File with an approval of this very request, so its --request-id too; may be repeated
    #[arg(long = "approval", value_name = "FILE", value_hint = ValueHint::FilePath, requires = "request_id")]
    pub approvals: Vec<PathBuf>,
    /// File with an emergency token
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub break_glass_token: Option<PathBuf>,
}

/// Arguments of `break-glass`.
#[derive(Debug, Clone, Args)]
pub struct BreakGlassArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BreakGlassCommand,
}

/// What can be done about emergency tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum BreakGlassCommand {
    /// Make a key to seal tokens with; print its public key
    Keygen(KeygenArgs),
    /// Seal a token: print it
    Issue(Box<IssueArgs>),
    /// Show what a token says, without checking its seal
    Inspect(InspectArgs),
}

/// Arguments of `break-glass issue`.
#[derive(Debug, Clone, Args)]
pub struct IssueArgs {
    /// Signing key, as `break-glass keygen` wrote it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// Name of the key in the configuration of the connector
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Integration that it is for
    #[arg(long, value_name = "NAME")]
    pub integration: String,
    /// Whom it may give access: e-mail address or user id, as the request will name them; may be repeated
    #[arg(long = "member", value_name = "MEMBER", required = true)]
    pub members: Vec<String>,
    /// Role: canonical, or short where --on makes it clear
    #[arg(long, value_name = "ROLE")]
    pub role: String,
    /// Target: deployment/ID, security/ID, deployment/all, organization; may be repeated
    #[arg(long = "on", value_name = "TARGET", required = true)]
    pub targets: Vec<String>,
    /// Stack roles instead of those that Elastic chooses, separated by commas
    #[arg(long = "as", value_name = "ROLES", value_delimiter = ',')]
    pub application_roles: Option<Vec<String>>,
    /// Longest duration of the grant
    #[arg(long, value_name = "DURATION", value_parser = time::parse_ttl)]
    pub max_duration: Ttl,
    /// From when it can be used [default: now]
    #[arg(long = "not-before", value_name = "TIME")]
    pub not_before: Option<String>,
    /// Until when it can be used, such as 2027-01-01 or +90d
    #[arg(long = "not-after", value_name = "TIME")]
    pub not_after: String,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Arguments of `break-glass inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// File with the token; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token: PathBuf,
}

/// Carries out `latchkey approval`.
pub(super) fn approval(
    args: &ApprovalArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<(), Failure> {
    match &args.command {
        ApprovalCommand::Keygen(args) => keygen(args, "approvals.approvers", streams),
        ApprovalCommand::Digest(args) => {
            let asked = asked(&args.request)?;
            if format == Format::Table {
                streams.line(&text::safe(&asked.canonical()))?;
                return streams.line(&asked.digest());
            }
            let document = json!({ "canonical": asked.canonical(), "digest": asked.digest() });
            streams.document(format, &document)
        }
        ApprovalCommand::Sign(args) => {
            let key = key(&args.key)?;
            let asked = asked(&args.request)?;
            // Whoever signs sees what is signed, not what a file was called.
            streams.note(&format!("approving {}", text::safe(&asked.canonical())))?;
            let draft = ApprovalDraft {
                approver: args.approver.clone(),
                id: streams.new_request_id(),
                now: streams.now(),
                lasts: TimeDelta::seconds(args.lasts.seconds()),
                asked,
            };
            let signed = key.approve(&draft).map_err(|error| refused(&error))?;
            streams.line(&signed)
        }
    }
}

/// Carries out `latchkey break-glass`.
pub(super) fn break_glass(
    args: &BreakGlassArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<(), Failure> {
    match &args.command {
        BreakGlassCommand::Keygen(args) => keygen(args, "break_glass.keys", streams),
        BreakGlassCommand::Issue(args) => issue(args, streams),
        BreakGlassCommand::Inspect(args) => {
            let written = read(&args.token)?;
            let (header, claims) = claims_of(&written).ok_or_else(|| {
                Failure::usage(
                    "that is no signed text",
                    "give the token as `latchkey break-glass issue` printed it",
                )
            })?;
            let format = if format == Format::Table {
                Format::Json
            } else {
                format
            };
            streams.document(format, &json!({ "header": header, "claims": claims }))?;
            streams.note("the seal was not checked: only the connector does that")
        }
    }
}

fn issue(args: &IssueArgs, streams: &mut Streams) -> Result<(), Failure> {
    let key = key(&args.key)?;
    let (now, zone) = (streams.now(), streams.zone);
    let instant = |option: &str, written: &str| {
        time::parse_instant(written, now, zone)
            .map_err(|problem| Failure::usage(format!("{option}: {problem}"), ""))
    };
    let not_before = match &args.not_before {
        Some(written) => instant("--not-before", written)?,
        None => now,
    };
    let not_after = instant("--not-after", &args.not_after)?;
    let mut beneficiaries = std::collections::BTreeSet::new();
    let mut scope = None;
    for member in &args.members {
        // The same grammar as that of a request, so that a token names everything as requests will.
        let asked = Asked::Create(CreateAsked {
            request_id: "token".to_owned(),
            integration: args.integration.clone(),
            beneficiary: member.clone(),
            requester: String::new(),
            justification: String::new(),
            role: args.role.clone(),
            targets: args.targets.iter().cloned().collect(),
            application_roles: args
                .application_roles
                .as_ref()
                .map(|names| names.iter().cloned().collect()),
            duration_s: args.max_duration.seconds(),
            starts_at: None,
            not_after: None,
            invite: false,
        });
        let Asked::Create(asked) = asked.normalised().map_err(|problem| {
            Failure::usage(problem, "see `latchkey break-glass issue --help`")
        })?
        else {
            continue;
        };
        beneficiaries.insert(asked.beneficiary.clone());
        scope = Some(asked);
    }
    let scope = scope.ok_or_else(|| Failure::usage("whose access?", "give --member"))?;
    let draft = TokenDraft {
        key: args.name.clone(),
        id: streams.new_request_id(),
        now,
        not_before,
        not_after,
        integration: scope.integration,
        beneficiaries,
        role: scope.role,
        targets: scope.targets,
        application_roles: scope.application_roles,
        max_duration_s: scope.duration_s,
        reason: args.reason.clone(),
    };
    let id = draft.id.clone();
    let token = key.seal(draft).map_err(|error| refused(&error))?;
    streams.line(&token)?;
    streams.note(&format!(
        "token {id}: keep it sealed and offline; whoever holds it opens this access once, from {} until {}",
        not_before.format("%Y-%m-%dT%H:%M:%SZ"),
        not_after.format("%Y-%m-%dT%H:%M:%SZ")
    ))
}

fn keygen(args: &KeygenArgs, section: &str, streams: &mut Streams) -> Result<(), Failure> {
    let (key, secret) = SealKey::generate().map_err(|error| refused(&error))?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.key)
        .and_then(|mut file| {
            file.write_all(secret.expose_secret().as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("{}: {}", args.key.display(), error.kind()),
            "name a new file in a folder that you may write to",
        )
    })?;
    streams.line(key.public_pem().trim_end())?;
    streams.note(&format!(
        "the signing key is in {}; the text above is the public key, for the `key_file` of an entry of {section}",
        args.key.display()
    ))
}

fn asked(path: &Path) -> Result<Asked, Failure> {
    let written = read(path)?;
    // JSON is YAML.
    let asked: Asked = serde_yaml::from_str(&written).map_err(|error| {
        Failure::usage(
            format!(
                "{}: {}",
                path.display(),
                text::without_values(&error.to_string())
            ),
            "write `kind: create` or `kind: extend` and the fields that docs/approvals.md lists",
        )
    })?;
    asked
        .normalised()
        .map_err(|problem| Failure::usage(format!("{}: {problem}", path.display()), ""))
}

fn key(path: &Path) -> Result<SealKey, Failure> {
    let text = SecretString::from(read(path)?);
    SealKey::parse(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display()), ""))
}

/// A signed text from a file, for a request.
pub(super) fn signed(path: &Path) -> Result<String, Failure> {
    read(path).map(|text| text.trim().to_owned())
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut written = String::new();
    let done = if path == Path::new("-") {
        std::io::stdin().take(LARGEST).read_to_string(&mut written)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut written))
    };
    done.map_err(|error| {
        Failure::usage(
            format!("{}: cannot be read ({})", path.display(), error.kind()),
            "check the path",
        )
    })?;
    Ok(written)
}

fn refused(error: &crate::app::seals::MakeError) -> Failure {
    Failure::new(Exit::Failed, error.to_string(), "")
}
