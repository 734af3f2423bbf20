//! One accept in one text.
//!
//! Owns the text: request id, grant, member and first event together. Never answers what a taken request id stands for.

use super::engine::{Conn, Query, query};
use super::write::{self, insert_event, insert_member};
use crate::store::rows::{AcceptRows, FORMAT, GrantRow, RequestRow};

macro_rules! accept {
    () => {
        "INSERT INTO requests (caller, request_id, kind, fingerprint, grant_id, remember_until) \
         VALUES ($1, $2, 'grant', $3, $4, $5); \
         INSERT INTO grants (id, integration, subject, caller, request_id, state, beneficiary, targets, created_at, \
         expires_at, cause, ended_at, version, format, body, ends_by) \
         VALUES ($4, $6, $7, $1, $2, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
    };
}

macro_rules! accept_member {
    () => {
        insert_member!("$6, $7, 1, 0, 0, $19, $20, $16, $21")
    };
}

// Several statements in one text are one round trip to the connection's thread, which is most of what a write costs.
// The request id comes first and is unique: when it is taken the text stops there, before anything was written.
const ACCEPT: &str = concat!(accept!(), "; ", accept_member!());
pub(super) const ACCEPT_WITH_EVENT: &str = concat!(
    accept!(),
    "; ",
    accept_member!(),
    "; ",
    insert_event!("$22, $23, $24, $25, $26, $27, $16, $28")
);
/// The rows of an accept without its member: the floor that the bench compares with.
pub(super) const BARE_ACCEPT: &str = concat!(
    accept!(),
    "; ",
    insert_event!("$19, $20, $21, $22, $23, $24, $16, $25")
);

/// Binds the request and the grant of an accept: `$1` to `$18`.
pub(super) fn bind_accept<'q>(
    query: Query<'q>,
    request: &RequestRow,
    grant: &GrantRow,
) -> Query<'q> {
    query
        .bind(grant.caller.clone())
        .bind(grant.request_id.clone())
        .bind(request.fingerprint.clone())
        .bind(grant.id.clone())
        .bind(request.remember_until)
        .bind(grant.integration.clone())
        .bind(grant.subject.clone())
        .bind(grant.state)
        .bind(grant.beneficiary.clone())
        .bind(grant.targets.clone())
        .bind(grant.created_at)
        .bind(grant.expires_at)
        .bind(grant.cause)
        .bind(grant.ended_at)
        .bind(grant.version)
        .bind(FORMAT)
        .bind(grant.body.clone())
        .bind(grant.ends_by)
}

/// Binds the request, the grant and the member of an accept: `$1` to `$21`.
pub(super) fn bind_accepted<'q>(query: Query<'q>, rows: &AcceptRows) -> Query<'q> {
    bind_accept(query, &rows.request, &rows.grant)
        .bind(rows.member.due_at)
        .bind(rows.member.due_rank)
        .bind(rows.member.body.clone())
}

/// Accepts one grant. Answers whether it did; if not, the request id is taken and nothing was written.
pub(super) async fn accept(conn: &mut Conn, rows: &AcceptRows) -> Result<bool, sqlx::Error> {
    let (text, first, rest) = match rows.events.split_first() {
        Some((first, rest)) => (ACCEPT_WITH_EVENT, Some(first), rest),
        None => (ACCEPT, None, &[][..]),
    };
    let mut statement = bind_accepted(query(text), rows);
    if let Some(event) = first {
        statement = write::bind_event(statement, event).bind(event.body.clone());
    }
    match statement.execute(&mut *conn).await {
        Ok(_) => {
            write::events(conn, rest).await?;
            Ok(true)
        }
        Err(error) if is_taken_request(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn is_taken_request(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation() && error.message().contains("requests.request_id")
    })
}
