//! `latchkey audit evidence`, and the check of what it wrote.

use std::path::Path;

use serde::Serialize;

use super::{EvidenceArgs, failed};
use crate::app::{self, Evidence};
use crate::audit::PublicKey;
use crate::audit::pack::{self, Manifest, ServiceLevel};
use crate::audit::verify::Head;
use crate::cli::exit::{Exit, Failure};
use crate::cli::streams::{Format, Paint, Streams};
use crate::cli::time::Zone;
use crate::cli::{configuration, text, time};
use crate::domain::Timestamp;

#[derive(Debug, Serialize)]
struct Shown<'e> {
    manifest: &'e Manifest,
    service_level: &'e ServiceLevel,
    signed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_was_compared: Option<bool>,
}

pub(super) async fn write(
    args: &EvidenceArgs,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let config = configuration::load(&args.config, streams)?;
    let (now, zone) = (streams.now(), streams.zone);
    let instant = |option: &str, written: &str| {
        past(written, now, zone).map_err(|problem| {
            Failure::usage(
                format!("{option}: {problem}"),
                "give a day or a time, such as 2026-11-01 or 2026-11-01T09:00, or how long ago, such as 30d",
            )
        })
    };
    let from = instant("--from", &args.from)?;
    let to = args
        .to
        .as_deref()
        .map_or(Ok(now), |to| instant("--to", to))?;
    if from >= to {
        return Err(Failure::usage(
            "--from is not before --to",
            "give the beginning of the period, then its end",
        ));
    }
    let Evidence {
        manifest,
        level,
        unsigned,
        is_incomplete,
    } = app::evidence(&config, (from, to), now, &args.pack)
        .await
        .map_err(|error| failed(&error))?;
    if is_incomplete {
        streams.warning(
            "the newest events of the period are not sealed yet and are missing: make it again after the next run of the sweep `audit_seal`",
        )?;
    }
    match (&unsigned, &manifest.key) {
        (Some(why), _) => streams.warning(&format!("the manifest is not signed: {why}"))?,
        (None, None) => {
            streams.warning("the manifest is not signed: `audit.signing_key` is not configured")?;
        }
        (None, Some(_)) => {}
    }
    let shown = Shown {
        signed: manifest.key.is_some(),
        manifest: &manifest,
        service_level: &level,
        head_was_compared: None,
    };
    show(&args.pack, "written", &shown, format, streams)
}

/// A day means its beginning, a length of time that long ago; else as everywhere.
fn past(written: &str, now: Timestamp, zone: Zone) -> Result<Timestamp, String> {
    let text = written.trim();
    if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
        return time::parse_past(&format!("{text} 00:00"), now, zone);
    }
    match time::parse_duration(text) {
        Ok(length) => chrono::TimeDelta::from_std(length)
            .ok()
            .and_then(|length| now.checked_sub_signed(length))
            .ok_or_else(|| "that is too long ago".to_owned()),
        Err(_) => time::parse_past(text, now, zone),
    }
}

pub(super) fn check(
    folder: &Path,
    keys: &[PublicKey],
    head: Option<Head>,
    allow_unsigned: bool,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    let report = pack::verify(folder, keys, head, allow_unsigned).map_err(|finding| {
        let advice = if matches!(finding, pack::PackFinding::NotSigned) {
            "ask for evidence that is signed, or look at its audit alone with --allow-unsigned"
        } else {
            "keep this folder as it is, and ask for the evidence again"
        };
        Failure::new(Exit::Failed, finding.to_string(), advice)
    })?;
    if !report.is_signed {
        streams.warning(
            "the manifest is not signed: receipts and service level are not proven, the sealed audit and what was taken from it are",
        )?;
    }
    if head.is_some() && !report.is_head_compared {
        streams.note(
            "the head that was given lies outside of the evidence and proves nothing about it",
        )?;
    }
    let shown = Shown {
        manifest: &report.manifest,
        service_level: &report.level,
        signed: report.is_signed,
        head_was_compared: Some(report.is_head_compared),
    };
    show(folder, "whole", &shown, format, streams)
}

fn show(
    folder: &Path,
    word: &str,
    shown: &Shown<'_>,
    format: Format,
    streams: &mut Streams,
) -> Result<Exit, Failure> {
    if format != Format::Table {
        streams.document(format, shown)?;
        return Ok(Exit::Done);
    }
    let Shown {
        manifest,
        service_level: level,
        ..
    } = shown;
    let (now, zone) = (streams.now(), streams.zone);
    let clock = |at| time::clock_time(at, now, zone);
    let line = format!(
        "{word}: evidence of ledger {} from {} to {}, sealed until {}, in {}",
        manifest.ledger,
        clock(manifest.from),
        clock(manifest.to),
        clock(manifest.sealed_at),
        folder.display(),
    );
    let line = streams.paint(Paint::Bold, &line);
    streams.line(&line)?;
    let grants = |count: u64| text::count(count, "grant", "grants");
    streams.line(&format!(
        "{} ended; of {} revocations {} were on time and {} late, half within {}, the longest took {}",
        grants(level.ended),
        level.measured,
        level.on_time,
        level.late,
        milliseconds(level.p50_ms),
        milliseconds(level.max_ms),
    ))?;
    streams.note(&format!("its head is {}", manifest.head))?;
    Ok(Exit::Done)
}

fn milliseconds(count: Option<u64>) -> String {
    count.map_or_else(
        || "-".to_owned(),
        |count| format!("{}.{:03} s", count / 1000, count % 1000),
    )
}
