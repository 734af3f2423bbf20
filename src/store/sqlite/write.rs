//! The statements of each write, on the writer's connection, inside its transaction.
//!
//! Owns the SQL that changes the ledger. A refusal leaves nothing behind: what decides is written first, and what
//! needs two decisions runs in a savepoint. Never begins or commits a transaction.

use sqlx::{Connection, Row};

use super::audit;
use super::engine::{self, Conn, Query, query};
use super::errors::{corrupt, unavailable};
use super::read::{self, CLAIMS};
use super::recovery::{self, HoldRow};
use super::reviews;
use super::rotations::{self, RotationRow};
use super::together::{self, EVENTS, GRANTS, TOGETHER};
use crate::domain::authority::Closing;
use crate::domain::ids::{GrantId, IntegrationName, OrganizationId};
use crate::ports::audit::AuditBlock;
use crate::ports::ledger::{Accepted, LedgerError, RequestRecord, Result};
use crate::store::once::{ReviewRow, TokenRow};
use crate::store::rows::{
    self, AcceptRows, CommitRows, EventRow, FORMAT, GrantRow, IllegalWrite, MemberRow, RequestRow,
};

/// A write, ready to be run as often as a batch needs.
#[derive(Debug)]
pub(super) enum Work {
    Accept(Box<AcceptRows>),
    Tombstone(RequestRow, Vec<EventRow>),
    Commit(Box<CommitRows>),
    Rekey(Box<MemberRow>, Box<CommitRows>),
    Append(Vec<EventRow>),
    Claim(IntegrationName, OrganizationId),
    Prune {
        requests_before: i64,
        ended_before: i64,
        limit: i64,
    },
    Agree {
        generation: u64,
        witnessed: bool,
    },
    PutHold(HoldRow, Vec<EventRow>),
    EndHold(IntegrationName, Vec<EventRow>),
    PutRotation(RotationRow, Vec<EventRow>),
    Seal(Box<AuditBlock>),
    CloseReview(GrantId, Box<Closing>, Vec<EventRow>),
    RestoreReview(Box<(TokenRow, ReviewRow)>),
    /// Moves the cursor of a sink from one sequence to another.
    MoveCursor {
        sink: String,
        from: u64,
        to: u64,
    },
    Check,
}

impl Work {
    /// What is being done, for errors.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accepting a grant",
            Self::Tombstone(..) => "closing a request id",
            Self::Commit(_) => "committing a member",
            Self::Rekey(..) => "moving an invitee to a member",
            Self::Append(_) => "appending audit events",
            Self::Claim(..) => "claiming an organization",
            Self::Prune { .. } => "pruning",
            Self::Agree { .. } => "raising the generation",
            Self::PutHold(..) => "putting an integration in hold",
            Self::EndHold(..) => "ending a hold",
            Self::PutRotation(..) => "storing a rotation",
            Self::Seal(_) => "sealing the audit",
            Self::CloseReview(..) => "closing a review",
            Self::RestoreReview(_) => "restoring a review",
            Self::MoveCursor { .. } => "moving the cursor of a sink",
            Self::Check => "checking that the ledger can be written",
        }
    }
}

impl Work {
    /// Whether a call upstream waits for it.
    pub(super) fn is_intent(&self) -> bool {
        matches!(self, Self::Commit(rows) if rows.events.iter().any(|event| event.kind == "call_intended"))
    }

    /// About how many rows it writes.
    pub(super) fn rows(&self) -> usize {
        let of = |rows: &CommitRows| 1 + rows.grants.len() + rows.events.len();
        match self {
            Self::Accept(rows) => 3 + rows.events.len() + rows.tokens.len(),
            Self::Tombstone(_, events) => 1 + events.len(),
            Self::Commit(rows) => of(rows),
            Self::Rekey(_, rows) => 1 + of(rows),
            Self::Append(events) => events.len(),
            Self::PutHold(_, events)
            | Self::EndHold(_, events)
            | Self::PutRotation(_, events)
            | Self::CloseReview(_, _, events) => 1 + events.len(),
            Self::Claim(..)
            | Self::Agree { .. }
            | Self::Seal(_)
            | Self::MoveCursor { .. }
            | Self::RestoreReview(_)
            | Self::Check => 1,
            // As many as the limit allows: nothing else should wait for it.
            Self::Prune { .. } => usize::MAX >> 1,
        }
    }
}

/// What a write answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// The grant that was given is durable.
    Created,
    /// The request id stood for something already.
    Accepted(Box<Accepted>),
    Request(Option<RequestRecord>),
    Number(u64),
    Done,
}

/// Outer: the database failed and the transaction must go. Inner: a refusal, which left nothing behind.
pub(super) type Applied = std::result::Result<Result<Reply>, sqlx::Error>;

macro_rules! insert_event {
    ($($n:literal),*) => {
        concat!(
            "INSERT INTO events (at, integration, subject, grant_id, caller, kind, format, body) VALUES (",
            $($n),*,
            ")"
        )
    };
}

macro_rules! insert_member {
    ($($n:literal),*) => {
        concat!(
            "INSERT INTO members (integration, subject, version, owned, blocked, due_at, due_rank, format, body) VALUES (",
            $($n),*,
            ") ON CONFLICT (integration, subject) DO UPDATE SET version = members.version + 1, \
             sight = NULL, sight_until = NULL, \
             due_at = CASE WHEN members.due_at IS NULL \
             OR (excluded.due_at, excluded.due_rank) < (members.due_at, members.due_rank) \
             THEN excluded.due_at ELSE members.due_at END, \
             due_rank = CASE WHEN members.due_at IS NULL \
             OR (excluded.due_at, excluded.due_rank) < (members.due_at, members.due_rank) \
             THEN excluded.due_rank ELSE members.due_rank END"
        )
    };
}

pub(super) use {insert_event, insert_member};

pub(super) const EVENT: &str = insert_event!("$1, $2, $3, $4, $5, $6, $7, $8");

pub(super) const REQUEST: &str = "INSERT INTO requests (caller, request_id, kind, fingerprint, grant_id, remember_until) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, request_id) DO NOTHING";

const MEMBER_NEW: &str = "INSERT INTO members (integration, subject, version, owned, blocked, due_at, due_rank, format, body, \
     removal_due_at, removal_weight, forgotten, watched, sight, sight_until) \
     VALUES ($1, $2, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (integration, subject) DO NOTHING";

const MEMBER_SWAP: &str = "UPDATE members SET version = version + 1, owned = $4, blocked = $5, due_at = $6, due_rank = $7, \
     format = $8, body = $9, removal_due_at = $10, removal_weight = $11, forgotten = $12, watched = $13, \
     sight = $14, sight_until = $15 \
     WHERE integration = $1 AND subject = $2 AND version = $3";

const RECEIPT: &str = "INSERT INTO receipts (grant_id, integration, subject, beneficiary, caller, ended_at, is_open, format, body) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
     ON CONFLICT (grant_id) DO UPDATE SET is_open = excluded.is_open, format = excluded.format, body = excluded.body";

/// Ended grants that nothing refers to any more, oldest first.
macro_rules! prunable {
    () => {
        "SELECT id FROM grants WHERE state = 'ended' AND ended_at < $1 \
         AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.caller = grants.caller \
         AND requests.request_id = grants.request_id) \
         AND NOT EXISTS (SELECT 1 FROM requests WHERE kind = 'done' AND requests.grant_id = grants.id) \
         ORDER BY ended_at, id LIMIT $2"
    };
}

const PRUNE_RECEIPTS: &str = concat!("DELETE FROM receipts WHERE grant_id IN (", prunable!(), ")");
const PRUNE_GRANTS: &str = concat!("DELETE FROM grants WHERE id IN (", prunable!(), ")");

pub(super) const GRANT: &str = "INSERT INTO grants (id, integration, subject, caller, request_id, state, beneficiary, targets, created_at, \
     expires_at, cause, ended_at, version, format, body, ends_by) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
     ON CONFLICT (id) DO UPDATE SET subject = excluded.subject, state = excluded.state, \
     targets = excluded.targets, expires_at = excluded.expires_at, cause = excluded.cause, \
     ended_at = excluded.ended_at, ends_by = excluded.ends_by, \
     version = CASE WHEN excluded.version > grants.version THEN excluded.version ELSE grants.version + 1 END, \
     format = excluded.format, body = excluded.body \
     WHERE grants.body <> excluded.body OR excluded.version > grants.version";

/// Runs one write.
pub(super) async fn apply(conn: &mut Conn, work: &Work) -> Applied {
    match work {
        Work::Accept(rows) => accept(conn, rows, work.action()).await,
        Work::Tombstone(request, events) => tombstone(conn, request, events, work.action()).await,
        Work::Commit(rows) if rows.request.is_none() => commit(conn, rows).await,
        Work::Commit(rows) => savepoint(conn, async |conn| commit(conn, rows).await).await,
        Work::Rekey(from, into) => {
            savepoint(conn, async |conn| {
                rekey(conn, from, into, work.action()).await
            })
            .await
        }
        Work::Append(rows) => {
            events(conn, rows).await?;
            Ok(Ok(Reply::Done))
        }
        Work::Claim(integration, organization) => {
            claim(conn, integration, organization, work.action()).await
        }
        Work::Prune {
            requests_before,
            ended_before,
            limit,
        } => prune(conn, *requests_before, *ended_before, *limit).await,
        Work::Agree {
            generation,
            witnessed,
        } => recovery::agree(conn, *generation, *witnessed, work.action()).await,
        Work::PutHold(row, events) => recovery::put_hold(conn, row, events).await,
        Work::EndHold(integration, events) => {
            recovery::end_hold(conn, integration.as_str(), events).await
        }
        Work::PutRotation(row, events) => rotations::put(conn, row, events).await,
        Work::CloseReview(id, closing, events) => {
            reviews::close(conn, *id, closing, events, work.action()).await
        }
        Work::RestoreReview(rows) => reviews::restore(conn, &rows.0, &rows.1).await,
        Work::Seal(block) => audit::add(conn, block, work.action()).await,
        Work::MoveCursor { sink, from, to } => audit::move_cursor(conn, sink, *from, *to).await,
        Work::Check => {
            query(
                "INSERT INTO meta (name, value) VALUES ('checks', 1) \
                 ON CONFLICT (name) DO UPDATE SET value = meta.value + 1",
            )
            .execute(conn)
            .await?;
            Ok(Ok(Reply::Done))
        }
    }
}

/// Runs a step that may refuse after its first write, and takes everything back when it does.
async fn savepoint(conn: &mut Conn, step: impl AsyncFnOnce(&mut Conn) -> Applied) -> Applied {
    engine::run(conn, "SAVEPOINT step").await?;
    let applied = step(&mut *conn).await?;
    let done = if applied.is_ok() {
        "RELEASE step"
    } else {
        "ROLLBACK TO step; RELEASE step"
    };
    engine::run(conn, done).await?;
    Ok(applied)
}

/// Binds an event but its format, in the order of its columns.
pub(super) fn bind_event<'q>(query: Query<'q>, event: &EventRow) -> Query<'q> {
    query
        .bind(event.at)
        .bind(event.integration.clone())
        .bind(event.subject.clone())
        .bind(event.grant_id.clone())
        .bind(event.caller.clone())
        .bind(event.kind)
}

async fn accept(conn: &mut Conn, rows: &AcceptRows, action: &'static str) -> Applied {
    if !rows.tokens.is_empty() {
        return accept_once(conn, rows, action).await;
    }
    if together::accept(conn, rows).await? {
        Ok(Ok(Reply::Created))
    } else {
        replay(conn, rows, action).await
    }
}

/// Accepts a grant that uses something up. Both questions come before the first write; whoever asks them holds the
/// turn, so that nobody else can answer them otherwise meanwhile.
async fn accept_once(conn: &mut Conn, rows: &AcceptRows, action: &'static str) -> Applied {
    match read::request(conn, &rows.request.caller, &rows.request.request_id, action).await? {
        Ok(None) => {}
        Ok(Some(_)) => return replay(conn, rows, action).await,
        Err(refused) => return Ok(Err(refused)),
    }
    if let Some(token) = reviews::used(conn, &rows.tokens).await? {
        let used = Accepted::TokenUsed(token);
        return Ok(Ok(Reply::Accepted(Box::new(used))));
    }
    if !together::accept(conn, rows).await? {
        return replay(conn, rows, action).await;
    }
    reviews::insert(conn, &rows.tokens, rows.review.as_ref()).await?;
    Ok(Ok(Reply::Created))
}

async fn replay(conn: &mut Conn, rows: &AcceptRows, action: &'static str) -> Applied {
    let found = read::request(conn, &rows.request.caller, &rows.request.request_id, action).await?;
    let record = match found {
        Ok(Some(record)) => record,
        Ok(None) => {
            let gone = IllegalWrite("a request id is taken and not there".to_owned());
            return Ok(Err(corrupt(action, gone)));
        }
        Err(refused) => return Ok(Err(refused)),
    };
    let accepted = match record {
        RequestRecord::Tombstone => Accepted::Tombstoned,
        RequestRecord::Grant { id, fingerprint } if fingerprint == rows.fingerprint => {
            match read::grant(conn, id, action).await? {
                Ok(Some(grant)) => Accepted::Replayed(grant),
                Ok(None) => {
                    let gone = IllegalWrite(format!("the grant {id} of a request id is missing"));
                    return Ok(Err(corrupt(action, gone)));
                }
                Err(refused) => return Ok(Err(refused)),
            }
        }
        RequestRecord::Grant { .. } | RequestRecord::Done { .. } => Accepted::Mismatch,
    };
    Ok(Ok(Reply::Accepted(Box::new(accepted))))
}

pub(super) fn bind_request<'q>(query: Query<'q>, row: &RequestRow) -> Query<'q> {
    query
        .bind(row.caller.clone())
        .bind(row.request_id.clone())
        .bind(row.kind)
        .bind(row.fingerprint.clone())
        .bind(row.grant_id.clone())
        .bind(row.remember_until)
}

pub(super) async fn insert_request(
    conn: &mut Conn,
    row: &RequestRow,
) -> std::result::Result<bool, sqlx::Error> {
    let done = bind_request(query(REQUEST), row).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

async fn tombstone(
    conn: &mut Conn,
    request: &RequestRow,
    audit: &[EventRow],
    action: &'static str,
) -> Applied {
    if insert_request(conn, request).await? {
        events(conn, audit).await?;
        return Ok(Ok(Reply::Request(None)));
    }
    let found = read::request(conn, &request.caller, &request.request_id, action).await?;
    Ok(found.map(Reply::Request))
}

pub(super) async fn events(
    conn: &mut Conn,
    rows: &[EventRow],
) -> std::result::Result<(), sqlx::Error> {
    let bind = |statement, row: &EventRow| {
        bind_event(statement, row)
            .bind(FORMAT)
            .bind(row.body.clone())
    };
    let (many, rest) = rows.as_chunks::<TOGETHER>();
    for rows in many {
        let statement = rows.iter().fold(query(EVENTS.as_str()), bind);
        statement.execute(&mut *conn).await?;
    }
    for row in rest {
        bind(query(EVENT), row).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Swaps the member's row if its version is still the loaded one.
async fn swap(conn: &mut Conn, row: &MemberRow) -> std::result::Result<bool, sqlx::Error> {
    let text = if row.version == 0 {
        MEMBER_NEW
    } else {
        MEMBER_SWAP
    };
    let done = query(text)
        .bind(row.integration.clone())
        .bind(row.subject.clone())
        .bind(row.version)
        .bind(row.owned)
        .bind(row.blocked)
        .bind(row.due_at)
        .bind(row.due_rank)
        .bind(FORMAT)
        .bind(row.body.clone())
        .bind(row.removal_due_at)
        .bind(row.removal_weight)
        .bind(row.forgotten)
        .bind(row.watched)
        .bind(row.sight.clone())
        .bind(row.sight_until)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn conflict(row: &MemberRow) -> LedgerError {
    LedgerError::Conflict {
        key: row.key.clone(),
    }
}

/// Refuses before its first write, except where a request id comes along: then it belongs in a savepoint.
async fn commit(conn: &mut Conn, rows: &CommitRows) -> Applied {
    if !swap(conn, &rows.member).await? {
        return Ok(Err(conflict(&rows.member)));
    }
    if let Some(request) = &rows.request
        && !insert_request(conn, request).await?
    {
        // The same call got there first: whoever loads again finds its request id.
        return Ok(Err(conflict(&rows.member)));
    }
    let (many, rest) = rows.grants.as_chunks::<TOGETHER>();
    for grants in many {
        let statement = grants.iter().fold(query(GRANTS.as_str()), bind_grant);
        statement.execute(&mut *conn).await?;
    }
    for grant in rest {
        bind_grant(query(GRANT), grant).execute(&mut *conn).await?;
    }
    for receipt in &rows.receipts {
        query(RECEIPT)
            .bind(receipt.grant_id.clone())
            .bind(receipt.integration.clone())
            .bind(receipt.subject.clone())
            .bind(receipt.beneficiary.clone())
            .bind(receipt.caller.clone())
            .bind(receipt.ended_at)
            .bind(receipt.is_open)
            .bind(FORMAT)
            .bind(receipt.body.clone())
            .execute(&mut *conn)
            .await?;
    }
    events(conn, &rows.events).await?;
    Ok(Ok(Reply::Number(rows::uint(rows.member.version) + 1)))
}

pub(super) fn bind_grant<'q>(query: Query<'q>, grant: &GrantRow) -> Query<'q> {
    query
        .bind(grant.id.clone())
        .bind(grant.integration.clone())
        .bind(grant.subject.clone())
        .bind(grant.caller.clone())
        .bind(grant.request_id.clone())
        .bind(grant.state)
        .bind(grant.beneficiary.clone())
        .bind(grant.targets.clone())
        .bind(grant.created_at)
        .bind(grant.expires_at)
        .bind(grant.cause)
        .bind(grant.ended_at)
        .bind(grant.version.max(1))
        .bind(FORMAT)
        .bind(grant.body.clone())
        .bind(grant.ends_by)
}

async fn rekey(
    conn: &mut Conn,
    from: &MemberRow,
    into: &CommitRows,
    action: &'static str,
) -> Applied {
    let is_as_loaded = if from.version > 0 {
        swap(conn, from).await?
    } else {
        query("SELECT 1 FROM members WHERE integration = $1 AND subject = $2")
            .bind(from.integration.clone())
            .bind(from.subject.clone())
            .fetch_optional(&mut *conn)
            .await?
            .is_none()
    };
    if !is_as_loaded {
        return Ok(Err(conflict(from)));
    }
    let applied = commit(conn, into).await?;
    let version = match applied {
        Ok(version) => version,
        Err(refused) => return Ok(Err(refused)),
    };
    let left = query(
        "SELECT COUNT(*) FROM grants WHERE integration = $1 AND subject = $2 AND state <> 'ended'",
    )
    .bind(from.integration.clone())
    .bind(from.subject.clone())
    .fetch_one(conn)
    .await?
    .try_get::<i64, _>(0)?;
    if left > 0 {
        let left = IllegalWrite(format!(
            "{left} grants of {} would be left behind",
            from.key
        ));
        return Ok(Err(unavailable(action, left)));
    }
    Ok(Ok(version))
}

async fn claim(
    conn: &mut Conn,
    integration: &IntegrationName,
    organization: &OrganizationId,
    action: &'static str,
) -> Applied {
    query("INSERT INTO organizations (organization_id, integration) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(organization.to_string())
        .bind(integration.to_string())
        .execute(&mut *conn)
        .await?;
    let rows = query(CLAIMS)
        .bind(organization.to_string())
        .bind(integration.to_string())
        .fetch_all(conn)
        .await?;
    for row in rows {
        let (held, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if held == organization.as_str() && owner == integration.as_str() {
            continue;
        }
        return Ok(Err(
            match (OrganizationId::parse(held), IntegrationName::parse(owner)) {
                (Ok(organization), Ok(owner)) => LedgerError::OrganizationTaken {
                    organization,
                    owner,
                },
                (Err(error), _) | (_, Err(error)) => corrupt(action, error),
            },
        ));
    }
    Ok(Ok(Reply::Done))
}

async fn prune(conn: &mut Conn, requests_before: i64, ended_before: i64, limit: i64) -> Applied {
    let requests = query(
        "DELETE FROM requests WHERE (caller, request_id) IN (\
         SELECT caller, request_id FROM requests WHERE remember_until < $1 \
         AND NOT EXISTS (SELECT 1 FROM grants WHERE id = requests.grant_id AND state <> 'ended') \
         ORDER BY remember_until, caller, request_id LIMIT $2)",
    )
    .bind(requests_before)
    .bind(limit)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    let left = limit.saturating_sub(rows::int(requests));
    // A receipt stays as long as its grant.
    query(PRUNE_RECEIPTS)
        .bind(ended_before)
        .bind(left)
        .execute(&mut *conn)
        .await?;
    let grants = query(PRUNE_GRANTS)
        .bind(ended_before)
        .bind(left)
        .execute(&mut *conn)
        .await?
        .rows_affected();
    reviews::prune(conn, requests_before, limit).await?;
    Ok(Ok(Reply::Number(requests + grants)))
}

/// Closes a connection and tells when the file is let go.
pub(super) async fn close(conn: Conn) {
    if let Err(error) = engine::patient(conn.close()).await {
        tracing::warn!(%error, "Closing the connection of the ledger's writer failed");
    }
}
