//! Rows: what the domain looks like in columns and JSON, and back.
//!
//! Owns every conversion between the two, for both adapters where they share one. Never does I/O. A row that does
//! not convert is an error with its reason, never a default.

mod request;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::request::{RequestRow, request};
pub(crate) use self::write::{AcceptRows, CommitRows};
use super::checksum;
use crate::domain::Timestamp;
use crate::domain::event::AuditEvent;
use crate::domain::grant::{Grant, GrantState};
use crate::domain::member::{Due, DueKind, MemberKey, MemberRecord};
use crate::domain::overdue;
use crate::domain::receipt::Receipt;
use crate::domain::sight::{Settled, Sight};
use crate::ports::ledger::{MemberCommit, Page};

/// Layout of the JSON bodies that this release writes, and the newest it reads.
pub(crate) const FORMAT: i64 = 1;

/// Newest events among which the latest instant is looked for.
pub(crate) const NEWEST: usize = 64;

/// Why a generation is refused.
pub(crate) fn not_higher(generation: u64) -> IllegalWrite {
    IllegalWrite(format!(
        "generation {generation} is not higher than the last"
    ))
}

/// Ranks below this one are removals.
pub(crate) const REMOVALS_END: i64 = 1 << 32;

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(
        "{what} has layout {format}, written by a newer release; this one reads up to {FORMAT}: run the newer release"
    )]
    Newer { what: String, format: i64 },
    #[error("{what} is not what any release wrote")]
    Body {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} was damaged")]
    Damaged {
        what: String,
        #[source]
        source: checksum::Mismatch,
    },
    #[error("{what} holds {value:?}")]
    Value { what: &'static str, value: String },
}

/// A write that no release may make; a defect of the caller, refused before it does harm.
#[derive(Debug, thiserror::Error)]
#[error("illegal write: {0}")]
pub(crate) struct IllegalWrite(pub(crate) String);

/// Microseconds since 1970, rounded down.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.timestamp_micros()
}

/// The instant of a column.
pub(crate) fn instant(micros: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_timestamp_micros(micros).ok_or_else(|| Unreadable::Value {
        what: "an instant",
        value: micros.to_string(),
    })
}

/// A number for a column; no counter comes near the bound.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from a column whose constraint keeps it from being negative.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A limit for a query.
pub(crate) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Cuts the one item too many that proves that there is a next page.
pub(crate) fn page<T, C>(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> Page<T, C> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}

/// Order of urgency as one number: removals first, then by power.
pub(crate) fn rank(due: &Due) -> i64 {
    let kind: i64 = match due.kind {
        DueKind::Remove => 0,
        DueKind::Verify => 1,
        DueKind::Grant => 2,
        DueKind::Look => 3,
    };
    (kind << 32) + i64::from(u32::MAX - due.weight)
}

/// The first [`rank`] of what is less urgent than any removal.
pub(crate) const LESS_THAN_REMOVAL: i64 = 1 << 32;

/// The due that [`micros`] and [`rank`] describe.
pub(crate) fn due(at: i64, rank: i64) -> Result<Due, Unreadable> {
    let kind = match rank >> 32 {
        0 => DueKind::Remove,
        1 => DueKind::Verify,
        2 => DueKind::Grant,
        3 => DueKind::Look,
        _ => {
            return Err(Unreadable::Value {
                what: "the rank of a due",
                value: rank.to_string(),
            });
        }
    };
    let weight = u32::MAX - u32::try_from(rank & 0xffff_ffff).unwrap_or(u32::MAX);
    Ok(Due {
        at: instant(at)?,
        kind,
        weight,
    })
}

/// The earlier of two dues; of two at one instant the more urgent.
pub(crate) fn earlier(stored: Option<Due>, new: Due) -> Due {
    match stored {
        Some(stored) if (micros(stored.at), rank(&stored)) <= (micros(new.at), rank(&new)) => {
            stored
        }
        _ => new,
    }
}

/// How a beneficiary is compared: addresses without case, everything else as written.
pub(crate) fn comparable(beneficiary: &str) -> String {
    if beneficiary.contains('@') {
        beneficiary.to_ascii_lowercase()
    } else {
        beneficiary.to_owned()
    }
}

/// Why a grant may not go from one state to another; `None` when it may.
pub(crate) fn refused_transition(from: &GrantState, to: &GrantState) -> Option<IllegalWrite> {
    let stuck = match from {
        GrantState::Ended { .. } => !to.is_ended(),
        GrantState::Revoking { .. } => {
            !matches!(to, GrantState::Revoking { .. } | GrantState::Ended { .. })
        }
        GrantState::Scheduled { .. }
        | GrantState::AwaitingMember { .. }
        | GrantState::Activating { .. }
        | GrantState::Active { .. } => false,
    };
    stuck.then(|| {
        IllegalWrite(format!(
            "a grant cannot go from {} to {}",
            from.name(),
            to.name()
        ))
    })
}

/// What a rekey does to both records: open grants of `from` that the caller has not moved yet are moved.
pub(crate) fn rekeyed(
    from: &MemberRecord,
    into: &mut MemberCommit,
) -> Result<MemberRecord, IllegalWrite> {
    let key = into.record.key.clone();
    if from.key == key || from.key.integration != key.integration {
        return Err(IllegalWrite(format!("{} cannot become {key}", from.key)));
    }
    if let Some(lost) = from
        .owned
        .iter()
        .find(|owned| into.record.owned(&owned.assignment).is_none())
    {
        return Err(IllegalWrite(format!(
            "{} of {} would be forgotten by {key}",
            lost.assignment, from.key
        )));
    }
    for grant in &from.grants {
        if into.record.grants.iter().all(|moved| moved.id != grant.id) {
            into.record.grants.push(grant.clone());
        }
    }
    // What an invitee's record remembers is of grants that go along.
    into.record
        .evidence
        .grants
        .extend(from.evidence.grants.iter().cloned());
    let mut quiet = MemberRecord::new(from.key.clone());
    quiet.version = from.version;
    // What of the invitation is still to be watched stays with the address.
    quiet.invitation = from.invitation.clone();
    quiet.due = quiet.invitation.as_ref().and(from.due);
    Ok(quiet)
}

/// Binds every grant of a record to the record's subject.
pub(crate) fn bind_grants(record: &mut MemberRecord) {
    for grant in &mut record.grants {
        grant.integration = record.key.integration.clone();
        grant.subject = record.key.subject.clone();
    }
}

pub(super) fn body<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("domain values are plain data with string keys");
    checksum::sealed(text)
}

/// Whether bytes of a body changed after they were written.
pub(crate) fn is_damaged(text: &str) -> bool {
    checksum::opened(text).is_err()
}

/// Reads a body, refusing layouts of newer releases.
pub(crate) fn read_body<T: DeserializeOwned>(
    what: impl FnOnce() -> String,
    format: i64,
    text: &str,
) -> Result<T, Unreadable> {
    if format > FORMAT {
        return Err(Unreadable::Newer {
            what: what(),
            format,
        });
    }
    match checksum::opened(text) {
        Ok(text) => serde_json::from_str(&text).map_err(|source| Unreadable::Body {
            what: what(),
            source,
        }),
        Err(source) => Err(Unreadable::Damaged {
            what: what(),
            source,
        }),
    }
}

/// A grant as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct GrantRow {
    pub(crate) id: String,
    pub(crate) integration: String,
    pub(crate) subject: String,
    pub(crate) caller: String,
    pub(crate) request_id: String,
    pub(crate) state: &'static str,
    pub(crate) beneficiary: String,
    pub(crate) targets: String,
    pub(crate) created_at: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) ends_by: Option<i64>,
    pub(crate) cause: Option<&'static str>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) version: i64,
    pub(crate) body: String,
}

impl GrantRow {
    pub(crate) fn new(grant: &Grant) -> Self {
        let (expires_at, cause, ended_at) = match &grant.state {
            GrantState::Scheduled { .. }
            | GrantState::AwaitingMember { .. }
            | GrantState::Activating { .. } => (None, None, None),
            GrantState::Active { expires_at, .. } => (Some(micros(*expires_at)), None, None),
            GrantState::Revoking { cause, .. } => (None, Some(cause.code()), None),
            GrantState::Ended { at, cause } => (None, Some(cause.code()), Some(micros(*at))),
        };
        // The column is the truth about the version; in the body it would make every row look changed.
        let unversioned = Grant {
            version: 0,
            ..grant.clone()
        };
        Self {
            id: grant.id.to_string(),
            integration: grant.integration.to_string(),
            subject: grant.subject.to_string(),
            caller: grant.caller.to_string(),
            request_id: grant.request_id.to_string(),
            state: grant.state.name(),
            beneficiary: comparable(&grant.beneficiary),
            targets: targets(grant),
            created_at: micros(grant.created_at),
            expires_at,
            ends_by: grant.removal_due().map(micros),
            cause,
            ended_at,
            version: int(grant.version),
            body: body(&unversioned),
        }
    }
}

fn targets(grant: &Grant) -> String {
    let mut text = String::from(" ");
    for held in &grant.assignments {
        text.push_str(&held.assignment.target.to_string());
        text.push(' ');
    }
    text
}

/// Reads a grant back.
pub(crate) fn grant(version: i64, format: i64, text: &str) -> Result<Grant, Unreadable> {
    let mut grant: Grant = read_body(|| "a grant".to_owned(), format, text)?;
    grant.version = uint(version);
    Ok(grant)
}

/// A member as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct MemberRow {
    pub(crate) key: MemberKey,
    pub(crate) integration: String,
    pub(crate) subject: String,
    /// The version that was loaded.
    pub(crate) version: i64,
    pub(crate) owned: i64,
    pub(crate) blocked: i64,
    pub(crate) watched: i64,
    pub(crate) due_at: Option<i64>,
    pub(crate) due_rank: Option<i64>,
    pub(crate) removal_due_at: Option<i64>,
    pub(crate) removal_weight: i64,
    pub(crate) forgotten: i64,
    pub(crate) sight: Option<Vec<u8>>,
    pub(crate) sight_until: Option<i64>,
    pub(crate) body: String,
}

impl MemberRow {
    /// Splits a record into its row and its grants.
    pub(crate) fn split(mut record: MemberRecord) -> (Self, Vec<Grant>) {
        let removal = overdue::first_removal(&record);
        let settled = Settled::of(&record);
        let grants = std::mem::take(&mut record.grants);
        let due = record.due.take();
        let version = std::mem::replace(&mut record.version, 0);
        let row = Self {
            integration: record.key.integration.to_string(),
            subject: record.key.subject.to_string(),
            version: int(version),
            owned: count(record.owned.len()),
            blocked: count(blocked(&record)),
            watched: count(record.watched.len() + record.drifts.len()),
            due_at: due.map(|due| micros(due.at)),
            due_rank: due.as_ref().map(rank),
            removal_due_at: removal.map(|(at, _)| micros(at)),
            removal_weight: removal.map_or(0, |(_, weight)| i64::from(weight)),
            forgotten: count(record.evidence.forgotten.len()),
            sight: settled.map(|settled| settled.sight.bytes().to_vec()),
            sight_until: settled.map(|settled| micros(settled.until)),
            body: body(&record),
            key: record.key,
        };
        (row, grants)
    }
}

/// Reads back how a member should look.
pub(crate) fn settled(sight: &[u8], until: i64) -> Result<Settled, Unreadable> {
    let sight = Sight::from_bytes(sight).ok_or_else(|| Unreadable::Value {
        what: "a sight",
        value: format!("{} bytes", sight.len()),
    })?;
    Ok(Settled {
        sight,
        until: instant(until)?,
    })
}

/// Removals of a record that are blocked.
pub(crate) fn blocked(record: &MemberRecord) -> usize {
    record
        .owned
        .iter()
        .filter(|owned| owned.blocked.is_some())
        .count()
}

/// Reads a member back, without its grants.
pub(crate) fn member(
    key: &MemberKey,
    version: i64,
    format: i64,
    text: &str,
    due_columns: Option<(i64, i64)>,
) -> Result<MemberRecord, Unreadable> {
    let mut record: MemberRecord = read_body(|| format!("member {key}"), format, text)?;
    if record.key != *key {
        return Err(Unreadable::Value {
            what: "the body of a member",
            value: record.key.to_string(),
        });
    }
    record.version = uint(version);
    record.due = due_columns.map(|(at, rank)| due(at, rank)).transpose()?;
    Ok(record)
}

/// A receipt as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct ReceiptRow {
    pub(crate) grant_id: String,
    pub(crate) integration: String,
    pub(crate) subject: String,
    pub(crate) beneficiary: String,
    pub(crate) caller: String,
    pub(crate) ended_at: i64,
    pub(crate) is_open: i64,
    pub(crate) body: String,
}

impl ReceiptRow {
    pub(crate) fn new(receipt: &Receipt) -> Self {
        Self {
            grant_id: receipt.grant_id.to_string(),
            integration: receipt.integration.to_string(),
            subject: receipt.subject.to_string(),
            beneficiary: comparable(&receipt.beneficiary),
            caller: receipt.caller.to_string(),
            ended_at: micros(receipt.ended_at),
            is_open: i64::from(receipt.is_open()),
            body: body(receipt),
        }
    }
}

/// Reads a receipt back.
pub(crate) fn receipt(format: i64, text: &str) -> Result<Receipt, Unreadable> {
    read_body(|| "a receipt".to_owned(), format, text)
}

/// An audit event as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) at: i64,
    pub(crate) integration: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) grant_id: Option<String>,
    pub(crate) caller: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl EventRow {
    pub(crate) fn new(event: &AuditEvent) -> Self {
        Self {
            at: micros(event.at),
            integration: event.integration.as_ref().map(ToString::to_string),
            subject: event.subject.clone(),
            grant_id: event.grant_id.as_ref().map(ToString::to_string),
            caller: event.caller.as_ref().map(ToString::to_string),
            kind: event.kind.name(),
            body: body(event),
        }
    }

    pub(crate) fn all(events: &[AuditEvent]) -> Vec<Self> {
        events.iter().map(Self::new).collect()
    }
}

#[cfg(test)]
mod tests;
