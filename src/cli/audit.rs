//! `latchkey audit`: keys, exports and their verification.
//!
//! Owns how they are asked for and shown. Verifying touches nothing but the export and the keys that are given.

mod evidence;

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use secrecy::ExposeSecret;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::streams::{Format, Paint, Streams};
use super::{configuration, text, time};
use crate::app;
use crate::audit::verify::{Head, VerifyError};
use crate::audit::{PublicKey, Report, SigningKey, Verifier};

/// Arguments of `audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What can be done with the audit.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Make a key that seals the audit; print it and its public key
    Keygen,
    /// Print the sealed audit as lines of JSON, also while the connector runs
    Export(ExportArgs),
    /// Write the evidence of a period into a folder: sealed audit, requests, receipts, drift, punctuality
    Evidence(EvidenceArgs),
    /// Check an export or the folder of an evidence: nothing changed, missing, added, moved or sealed again
    Verify(VerifyArgs),
    /// Print the newest block as NUMBER:HASH, to be kept where nobody who can change the ledger reaches it
    Head(HeadArgs),
}

/// Arguments of `audit export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Configuration file, which names the ledger
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// First block to print
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub from: u64,
}

/// Arguments of `audit evidence`.
#[derive(Debug, Clone, Args)]
pub struct EvidenceArgs {
    /// Configuration file, which names the ledger
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Beginning of the period: a day, a time, or how long ago, such as `2026-11-01` or `30d`
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// End of the period, itself left out; without it, now
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Folder to write, made if it is not there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub pack: PathBuf,
}

/// Arguments of `audit head`.
#[derive(Debug, Clone, Args)]
pub struct HeadArgs {
    /// Configuration file, which names the ledger
    #[arg(short, long, env = "LATCHKEY_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Arguments of `audit verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The export, or the folder of an evidence; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    /// Public key to trust, as `audit keygen` printed it; repeat it for keys that were replaced
    #[arg(long, value_name = "KEY", required = true)]
    pub key: Vec<String>,
    /// The head that was kept elsewhere; without it, an end that was cut off at a block is not noticed
    #[arg(long, value_name = "NUMBER:HASH")]
    pub head: Option<String>,
    /// Accept an evidence whose manifest nobody signed; then only its audit proves anything
    #[arg(long)]
    pub allow_unsigned: bool,
}

/// Carries out `latchkey audit`.
pub(super) async fn audit(
    args: &AuditArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    match &args.command {
        AuditCommand::Keygen => keygen(format, streams),
        AuditCommand::Export(args) => export(args, streams).await,
        AuditCommand::Evidence(args) => evidence::write(args, format, streams).await,
        AuditCommand::Verify(args) => verify(args, format, streams),
        AuditCommand::Head(args) => head(args, streams).await,
    }
}

#[derive(Debug, Serialize)]
struct Made<'k> {
    signing_key: &'k str,
    public_key: String,
    key_id: &'k str,
}

fn keygen(format: Format, streams: &mut Streams) -> Result<Exit, Failure> {
    let (key, secret) = SigningKey::generate().map_err(|error| {
        Failure::new(Exit::Failed, error.to_string(), "try it on another machine")
    })?;
    let made = Made {
        signing_key: secret.expose_secret(),
        public_key: key.public().to_string(),
        key_id: key.id(),
    };
    if format != Format::Table {
        streams.document(format, &made)?;
        return Ok(Exit::Done);
    }
    streams.line(made.signing_key)?;
    streams.note(&format!(
        "the line above is the signing key: put it into the place that `audit.signing_key` names, and nowhere else\n\
         public key {} (id {}): give it to whoever verifies",
        made.public_key, made.key_id
    ))?;
    Ok(Exit::Done)
}

async fn export(args: &ExportArgs, streams: &mut Streams) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    let out = &mut streams.out;
    let done = app::export_audit(&config, args.from, |line| writeln!(out, "{line}"))
        .await
        .map_err(|error| failed(&error))?;
    match done.head {
        Some(head) => streams.note(&format!(
            "{} in {}; head {head}",
            text::count(done.records, "record", "records"),
            text::count(done.blocks, "block", "blocks"),
        ))?,
        None => streams.note(
            "nothing is sealed from there on: set `audit.signing_key`, or wait for the next run of the sweep `audit_seal`",
        )?,
    }
    Ok(Exit::Done)
}

async fn head(args: &HeadArgs, streams: &mut Streams) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    let head = app::audit_head(&config)
        .await
        .map_err(|error| failed(&error))?;
    match head {
        Some(head) => {
            streams.line(&head.to_string())?;
            Ok(Exit::Done)
        }
        None => Err(Failure::new(
            Exit::Failed,
            "nothing is sealed yet",
            "set `audit.signing_key` in the configuration",
        )),
    }
}

#[derive(Debug, Serialize)]
struct Verified {
    ledger: String,
    records: u64,
    bytes: u64,
    first_sequence: u64,
    last_sequence: u64,
    first_block: u64,
    head: String,
    sealed_at: String,
    head_was_compared: bool,
}

fn verify(args: &VerifyArgs, format: Format, streams: &mut Streams) -> Result<Exit, Failure> {
    let keys = args
        .key
        .iter()
        .map(|text| PublicKey::parse(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            Failure::usage(
                format!("--key: {error}"),
                "give the public key, not the signing key",
            )
        })?;
    let head = match &args.head {
        None => None,
        Some(text) => Some(Head::parse(text).ok_or_else(|| {
            Failure::usage(
                "--head is not NUMBER:HASH",
                "give it as `latchkey audit head` and the log print it",
            )
        })?),
    };
    if args.file.is_dir() {
        return evidence::check(
            &args.file,
            &keys,
            head,
            args.allow_unsigned,
            format,
            streams,
        );
    }
    let verifier = Verifier::new(keys, head);
    let outcome = if args.file == Path::new("-") {
        verifier.run(std::io::stdin().lock())
    } else {
        let file = File::open(&args.file).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("{}: {error}", args.file.display()),
                "name the file that `latchkey audit export` wrote",
            )
        })?;
        verifier.run(BufReader::with_capacity(1 << 20, file))
    };
    match outcome {
        Ok(report) => show(&report, head.is_some(), format, streams),
        Err(VerifyError::Finding(finding)) => Err(Failure::new(
            Exit::Failed,
            finding.to_string(),
            "keep this file, export again, and compare both with what your log or sink received",
        )),
        Err(VerifyError::Read(error)) => Err(Failure::new(
            Exit::Failed,
            format!("{}: {error}", args.file.display()),
            "look at the file",
        )),
    }
}

fn show(
    report: &Report,
    compared: bool,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    if format != Format::Table {
        let verified = Verified {
            ledger: report.ledger.clone(),
            records: report.records,
            bytes: report.bytes,
            first_sequence: report.sequences.0,
            last_sequence: report.sequences.1,
            first_block: report.first_block,
            head: report.head.to_string(),
            sealed_at: report.sealed_at.to_rfc3339(),
            head_was_compared: compared,
        };
        streams.document(format, &verified)?;
        return Ok(Exit::Done);
    }
    let (now, zone) = (streams.now(), streams.zone);
    let line = format!(
        "whole: {} of ledger {}, sequences {} to {}, sealed until {}",
        text::count(report.records, "record", "records"),
        report.ledger,
        report.sequences.0,
        report.sequences.1,
        time::clock_time(report.sealed_at, now, zone),
    );
    let line = streams.paint(Paint::Bold, &line);
    streams.line(&line)?;
    if report.first_block > 1 {
        streams.warning(&format!(
            "it begins at block {}: nothing is said about what came before",
            report.first_block
        ))?;
    }
    if compared {
        streams.note(&format!("its head is {}", report.head))?;
    } else {
        streams.note(&format!(
            "its head is {}; without --head an end that was cut off there is not noticed",
            report.head
        ))?;
    }
    Ok(Exit::Done)
}

fn failed(error: &anyhow::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{error:#}"),
        "`latchkey doctor` looks at the ledger",
    )
}
