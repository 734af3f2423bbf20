//! How fast a sealed audit is verified, against hashing the same bytes and nothing else.
//!
//! Owns an export of many events, made for the measurement. Never reads a ledger: what is verified is a file, as an
//! auditor has it.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Plan;
use super::load::number;
use super::report::{Goal, Line, Unit, median, ratios};
use crate::audit::block::Block;
use crate::audit::export;
use crate::audit::key::{PublicKey, SigningKey};
use crate::audit::tree::Hash;
use crate::audit::verify::Verifier;
use crate::domain::Timestamp;
use crate::ports::audit::AuditRecord;

/// Records of one block, as the connector seals a backlog.
const BLOCK: usize = 4096;
/// What is read of the file at once, on both sides.
const BUFFER: usize = 1 << 16;

pub(super) async fn measure(
    plan: &Plan,
    directory: &Path,
    now: Timestamp,
) -> anyhow::Result<Vec<Line>> {
    let (path, events, rounds) = (
        directory.join("audit.jsonl"),
        plan.grants,
        plan.rounds.min(5),
    );
    let measured = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let (key, bytes) = write(&path, events, now)?;
        // The first reading brings the file into the system's cache, for both sides.
        bare(&path)?;
        let (mut ours, mut hashing) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(verified(&path, &key, events)?);
            hashing.push(bare(&path)?);
        }
        std::fs::remove_file(&path).context("removing the export")?;
        Ok((ours, hashing, bytes))
    });
    let (ours, hashing, bytes) = measured.await.context("measuring")??;
    Ok(vec![Line {
        what: "speed of audit verify / bare SHA-256 of the same file",
        unit: Unit::Times,
        pairs: ratios(&hashing, &ours),
        goal: Goal::AtLeast(0.5),
        sides: format!(
            "{events} events, {:.0} MiB: {:.0} ms against {:.0} ms",
            number(bytes >> 20),
            median(&ours),
            median(&hashing)
        ),
    }])
}

/// An event as large as most are: a call upstream with its evidence.
fn record(sequence: u64) -> AuditRecord {
    AuditRecord {
        sequence,
        body: format!(
            "{{\"at\":\"2026-11-22T10:00:00.{:06}Z\",\"integration\":\"production\",\"subject\":\"user:{:010}\",\
             \"grant_id\":\"0190a6d8-1b2c-7def-8123-{:012x}\",\"caller\":\"control-plane\",\"event\":\"call_done\",\
             \"call\":{{\"call\":\"remove_role_assignments\",\"attempts\":1,\"elapsed_ms\":{},\"status\":200,\
             \"request_id\":\"{:032x}\",\"code\":null}},\"assignments\":[\"deployment-viewer on deployment/{:032x}\"]}}",
            sequence % 1_000_000,
            sequence % 50_000,
            sequence,
            sequence % 900,
            u128::from(sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            u128::from(sequence % 500).wrapping_mul(0xbf58_476d_1ce4_e5b9),
        ),
    }
}

/// Writes an export. Answers the key that verifies it, and its length in bytes.
fn write(path: &Path, events: usize, now: Timestamp) -> anyhow::Result<(PublicKey, usize)> {
    let (key, _) = SigningKey::generate().context("making a key")?;
    let mut out = BufWriter::new(File::create(path).context("making the export")?);
    let (mut sequence, mut block, mut previous) = (0, 0, Hash::NONE);
    let events = events as u64;
    while sequence < events {
        let last = events.min(sequence + BLOCK as u64);
        let records: Vec<_> = (sequence + 1..=last).map(record).collect();
        block += 1;
        let sealed = Block::seal("bench", block, previous, &records, now, &key);
        for record in &records {
            writeln!(out, "{}", export::record(record)).context("writing the export")?;
        }
        writeln!(out, "{}", export::block(&sealed.stored())).context("writing the export")?;
        (sequence, previous) = (last, sealed.hash());
    }
    out.flush().context("writing the export")?;
    let length = out.get_ref().metadata().context("writing the export")?;
    Ok((key.public(), usize::try_from(length.len())?))
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).context("reading the export")?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

/// Milliseconds that verifying takes.
fn verified(path: &Path, key: &PublicKey, events: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let report = Verifier::new(vec![key.clone()], None).run(open(path)?)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    ensure!(
        report.records == events as u64,
        "{} records of {events} were verified",
        report.records
    );
    Ok(took)
}

/// Milliseconds that reading and hashing takes.
fn bare(path: &Path) -> anyhow::Result<f64> {
    let mut from = open(path)?;
    let started = Instant::now();
    let mut hash = Sha256::new();
    loop {
        let piece = from.fill_buf().context("reading the export")?;
        if piece.is_empty() {
            break;
        }
        let read = piece.len();
        hash.update(piece);
        from.consume(read);
    }
    let digest = hash.finalize();
    let took = started.elapsed().as_secs_f64() * 1e3;
    ensure!(digest.iter().any(|byte| *byte != 0), "a digest of nothing");
    Ok(took)
}
