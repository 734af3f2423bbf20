//! Rebuilding a lost ledger, and exporting what it is rebuilt from.
//!
//! Owns reading the evidence and writing into an empty ledger. Works without a running connector and never talks to
//! Elastic Cloud; never changes a ledger that holds anything.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::beside::Beside;
use crate::config::{Config, LedgerKind};
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::{Evidence, HoldReason, HoldRecord, MemberCommit, StoredEvent};
use crate::ports::witness::{Binding, Condition, Found, Intent};
use crate::ports::{Clock, Ledger, Witness};
use crate::reconcile::hold::{Rebuilt, RebuiltAssignment, rebuild};
use crate::store::{SqliteLedger, SqliteOptions};
use crate::witness::{FileWitness, inspect};

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    sequence: u64,
    event: AuditEvent,
}

/// What to rebuild from, and whether to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Audit exports and the witness, in any order.
    pub from: Vec<PathBuf>,
    /// Whether the ledger is written; otherwise it is only shown what would be.
    pub write: bool,
}

/// One assignment of the rebuilt ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdoptedAssignment {
    /// Which integration.
    pub integration: String,
    /// Whose.
    pub member: String,
    /// Which.
    pub assignment: String,
    /// Until when it stays at the latest.
    pub must_end_by: Option<Timestamp>,
    /// When it is removed.
    pub due: Timestamp,
    /// What it is known from.
    pub source: &'static str,
}

/// What was rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adopted {
    /// Events that were read.
    pub events: usize,
    /// Members with grants or assignments.
    pub members: usize,
    /// Grants that had not ended.
    pub grants: usize,
    /// Assignments that are ours.
    pub assignments: Vec<AdoptedAssignment>,
    /// What was known and is not rebuilt, in words.
    pub left_out: Vec<String>,
    /// Whether the connector will start in hold.
    pub in_hold: bool,
    /// Whether the ledger was written.
    pub is_written: bool,
}

/// What an export found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// So many events were written; none where the export was complete before.
    Events(u64),
    /// The ledger ends before where the export was to begin: it is not the one that was exported before.
    Beyond {
        /// The newest event that there is; 0 when there is none.
        newest: u64,
    },
}

/// Writes every event after `after` as lines of JSON, also while a connector runs.
///
/// # Errors
/// When the ledger cannot be read or the line cannot be written.
pub async fn export_events(
    config: &Config,
    after: u64,
    mut put: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Exported> {
    let mut ledger = Beside::open(config).await?;
    let (mut last, mut count) = (after, 0);
    loop {
        let events = ledger.events(last).await.context("reading the ledger")?;
        if events.is_empty() {
            // Asked after the events: what is appended in between makes it newer, never older.
            let newest = ledger.last_sequence().await;
            ledger.close().await;
            let newest = newest.context("reading the ledger")?;
            return Ok(if newest < last {
                Exported::Beyond { newest }
            } else {
                Exported::Events(count)
            });
        }
        for StoredEvent { sequence, event } in events {
            last = sequence;
            count += 1;
            let line = serde_json::to_string(&Line { sequence, event })
                .context("writing an event as JSON")?;
            put(&line)?;
        }
    }
}

/// Rebuilds the configured ledger, which must be empty or not there.
///
/// # Errors
/// When the evidence cannot be read, or the ledger is in use, not empty or cannot be written.
pub async fn adopt(
    config: &Config,
    adoption: &Adoption,
    clock: &dyn Clock,
) -> anyhow::Result<Adopted> {
    ensure!(
        config.ledger.kind == LedgerKind::Sqlite,
        "the ledger is not a file: rebuild one, then copy it with `latchkey ledger copy`"
    );
    ensure!(
        !adoption.from.is_empty(),
        "give at least one file to rebuild from"
    );
    let mut events = Vec::new();
    let mut witness: Option<(PathBuf, Found, Vec<Intent>)> = None;
    for path in &adoption.from {
        if is_audit(path)? {
            events.extend(read_audit(path)?);
        } else {
            let (found, intents) =
                inspect(path).with_context(|| format!("reading the witness {}", path.display()))?;
            if let Condition::Damaged { detail } = &found.condition {
                bail!(
                    "the witness {} cannot be trusted: {detail}; rebuild from an audit export alone",
                    path.display()
                );
            }
            ensure!(witness.is_none(), "give one witness, not several");
            witness = Some((path.clone(), found, intents));
        }
    }
    events.sort_by_key(|stored: &StoredEvent| stored.sequence);
    let differ = |pair: &&[StoredEvent]| {
        pair[0].sequence == pair[1].sequence && pair[0].event != pair[1].event
    };
    if let Some(pair) = events.windows(2).find(differ) {
        bail!(
            "event {} is told twice and differently: these are exports of two ledgers; give those of one, and after a \
             restore or a rebuild begin a new file with `--after 0`",
            pair[0].sequence
        );
    }
    events.dedup_by_key(|stored| stored.sequence);
    let now = clock.now();
    let last = events.last().map_or(0, |stored| stored.sequence);
    let intents = witness.as_ref().map(|(.., intents)| intents.as_slice());
    let mut rebuilt = rebuild(events, intents, now, || clock.entropy());
    let names: Vec<IntegrationName> = config
        .integrations
        .iter()
        .map(|section| section.name.clone())
        .collect();
    leave_out_unknown(&mut rebuilt, &names);
    // An older export knows nothing of what was given and ended since, and would have it given again.
    let is_current = witness
        .as_ref()
        .is_none_or(|(_, found, _)| found.mark <= last);
    if last > 0 && !is_current {
        rebuilt.left_out.push(
            "the witness knows of later events than the export: what happened since is not known"
                .to_owned(),
        );
    }
    // The witness must be the one that the connector will start with; otherwise they would not agree.
    let same_witness = witness.as_ref().is_some_and(|(path, ..)| {
        config
            .witness
            .as_ref()
            .is_some_and(|section| section.path == *path)
    });
    let proven = rebuilt.is_proven && same_witness && is_current;
    let adopted = summary(&rebuilt, proven, adoption.write);
    if adoption.write {
        let evidence = if witness.is_some() {
            Evidence::Witness
        } else {
            Evidence::Nothing
        };
        write(config, rebuilt, &names, evidence, proven, clock).await?;
    }
    Ok(adopted)
}

/// An audit export begins with a brace, a witness with a checksum.
fn is_audit(path: &Path) -> anyhow::Result<bool> {
    let mut first = [0; 1];
    let read = File::open(path)
        .and_then(|mut file| file.read(&mut first))
        .with_context(|| format!("reading {}", path.display()))?;
    ensure!(read == 1, "{} is empty", path.display());
    Ok(first[0] == b'{')
}

fn read_audit(path: &Path) -> anyhow::Result<Vec<StoredEvent>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut events = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let Line { sequence, event } = serde_json::from_str(&line).with_context(|| {
            format!(
                "line {} of {} is no event of this or an earlier release",
                index + 1,
                path.display()
            )
        })?;
        events.push(StoredEvent { sequence, event });
    }
    Ok(events)
}

fn leave_out_unknown(rebuilt: &mut Rebuilt, names: &[IntegrationName]) {
    let left_out = &mut rebuilt.left_out;
    rebuilt.members.retain(|record| {
        let known = names.contains(&record.key.integration);
        if !known {
            left_out.push(format!("{}: no such integration is configured", record.key));
        }
        known
    });
    rebuilt
        .assignments
        .retain(|one| names.contains(&one.key.integration));
    rebuilt.is_proven &= left_out.is_empty();
}

fn summary(rebuilt: &Rebuilt, proven: bool, is_written: bool) -> Adopted {
    let assignments = rebuilt.assignments.iter().map(|one| {
        let RebuiltAssignment {
            key,
            assignment,
            must_end_by,
            due,
            source,
        } = one;
        AdoptedAssignment {
            integration: key.integration.to_string(),
            member: key.subject.to_string(),
            assignment: assignment.to_string(),
            must_end_by: *must_end_by,
            due: *due,
            source,
        }
    });
    Adopted {
        events: rebuilt.events,
        members: rebuilt.members.len(),
        grants: rebuilt
            .members
            .iter()
            .map(|record| record.grants.len())
            .sum(),
        assignments: assignments.collect(),
        left_out: rebuilt.left_out.clone(),
        in_hold: !proven,
        is_written,
    }
}

async fn write(
    config: &Config,
    rebuilt: Rebuilt,
    names: &[IntegrationName],
    evidence: Evidence,
    proven: bool,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let (ledger, writer) = SqliteLedger::open(&config.ledger.path, SqliteOptions::default())
        .await
        .context("opening the ledger")?;
    let mut tasks = JoinSet::new();
    tasks.spawn(writer);
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let done = fill(
        ledger.as_ref(),
        config,
        rebuilt,
        names,
        evidence,
        proven,
        clock,
    )
    .await;
    ledger.close().await;
    while tasks.join_next().await.is_some() {}
    done
}

async fn fill(
    ledger: &dyn Ledger,
    config: &Config,
    rebuilt: Rebuilt,
    names: &[IntegrationName],
    evidence: Evidence,
    proven: bool,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let census = ledger.census(clock.now()).await.context("counting")?;
    let last = ledger.last_sequence().await.context("reading the ledger")?;
    ensure!(
        last == 0 && census.grants.is_empty() && census.owned == 0,
        "the ledger {} is not empty: move it away first, with the files beside it",
        config.ledger.path.display()
    );
    let now = clock.now();
    // The hold comes first: a ledger that is half rebuilt must not be taken at its word.
    for name in names {
        let record = HoldRecord {
            integration: name.clone(),
            since: now,
            reasons: vec![HoldReason {
                code: "adopted".to_owned(),
                detail: "the ledger was rebuilt: look through what it says before it is taken at its word"
                    .to_owned(),
            }],
            evidence,
        };
        let event = EventKind::HoldBegan {
            reasons: vec!["adopted".to_owned()],
        };
        let audit = vec![AuditEvent::integration(now, name, event)];
        ledger
            .put_hold(record, audit)
            .await
            .context("writing the ledger")?;
    }
    let mut intents = Vec::new();
    for record in rebuilt.members {
        let mut audit = Vec::new();
        for row in &record.owned {
            let source = rebuilt
                .assignments
                .iter()
                .find(|one| one.key == record.key && one.assignment == row.assignment)
                .map_or("audit", |one| one.source);
            intents.push(Intent {
                integration: record.key.integration.clone(),
                subject: record.key.subject.clone(),
                assignment: row.assignment.clone(),
                must_end_by: row.must_end_by,
                at: row.since,
            });
            let event = EventKind::Recovered {
                assignment: row.assignment.to_string(),
                must_end_by: row.must_end_by,
                source: source.to_owned(),
            };
            audit.push(AuditEvent::member(now, &record.key, event));
        }
        let commit = MemberCommit {
            record,
            audit,
            request: None,
        };
        ledger.commit(commit).await.context("writing the ledger")?;
    }
    // What was used once stays used, and what is owed stays owed.
    for review in rebuilt.reviews {
        ledger
            .restore_review(review)
            .await
            .context("writing the ledger")?;
    }
    if let (true, Some(section)) = (proven, &config.witness) {
        let (witness, writer) = FileWitness::open(&section.path).context("opening the witness")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(writer);
        let identity = ledger.identity().await.context("reading the ledger")?;
        let generation = identity.generation + 1;
        let binding = Binding {
            ledger: identity.id,
            generation,
        };
        ledger
            .agree(generation, true)
            .await
            .context("writing the ledger")?;
        let last = ledger.last_sequence().await.context("reading the ledger")?;
        let begun = witness.begin(binding, last, intents).await;
        witness.close().await;
        while tasks.join_next().await.is_some() {}
        begun.context("writing the witness")?;
        for name in names {
            let event = EventKind::HoldReleased {
                by: "latchkey adopt".to_owned(),
                reason: "witness and audit agree on everything".to_owned(),
            };
            let audit = vec![AuditEvent::integration(now, name, event)];
            ledger
                .end_hold(name, audit)
                .await
                .context("writing the ledger")?;
        }
    }
    Ok(())
}
