//! The queries of the ledger: each a snapshot, each bounded by an index or by a limit.
//!
//! Owns the SQL that reads. Outer errors are the database's; inner ones are rows that cannot be read. Never writes.

use std::collections::BTreeSet;

use sqlx::{QueryBuilder, Row};

use super::engine::{Conn, Db, DbRow, PLUS, built, built_scalar, query, query_scalar, watched};
use crate::domain::Timestamp;
use crate::domain::assignment::Target;
use crate::domain::grant::Grant;
use crate::domain::ids::{GrantId, IntegrationName, OrganizationId, UserId};
use crate::domain::member::{MemberKey, MemberRecord, Subject};
use crate::ports::ledger::{
    DueMember, EventFilter, GrantFilter, Page, RequestRecord, Result, StoredEvent,
};
use crate::store::failure::readable;
use crate::store::rows::{self, Unreadable, page};

/// A query's answer, or rows that cannot be read, or a database that cannot.
pub(super) type Read<T> = std::result::Result<Result<T>, sqlx::Error>;

/// Distinct ranks of an integration by seeking from one to the next: there are a few dozen, however many members.
macro_rules! buckets {
    () => {
        "WITH RECURSIVE bucket(due_rank) AS (\
         SELECT MIN(due_rank) FROM members WHERE integration = $1 AND due_at IS NOT NULL \
         UNION ALL SELECT (SELECT MIN(m.due_rank) FROM members m WHERE m.integration = $1 \
         AND m.due_at IS NOT NULL AND m.due_rank > bucket.due_rank) \
         FROM bucket WHERE bucket.due_rank IS NOT NULL) "
    };
}

/// The ranks that hold anybody who is due by `$2`: nothing, in one question, on most turns of the floor poll.
pub(super) const BUCKETS: &str = concat!(
    buckets!(),
    "SELECT due_rank FROM bucket WHERE due_rank IS NOT NULL \
     AND (SELECT MIN(m.due_at) FROM members m WHERE m.integration = $1 \
     AND m.due_rank = bucket.due_rank AND m.due_at IS NOT NULL) <= $2"
);

pub(super) const DUE: &str = "SELECT subject, due_at FROM members WHERE integration = $1 AND due_rank = $2 \
     AND due_at IS NOT NULL AND due_at <= $3 ORDER BY due_at, subject LIMIT $4";

pub(super) const NEXT_DUE: &str = concat!(
    buckets!(),
    "SELECT MIN((SELECT MIN(m.due_at) FROM members m WHERE m.integration = $1 \
     AND m.due_rank = bucket.due_rank AND m.due_at IS NOT NULL AND m.due_at > $2)) \
     FROM bucket WHERE bucket.due_rank IS NOT NULL"
);

pub(super) const MEMBER: &str = "SELECT CAST(0 AS BIGINT) AS kind, '' AS id, version, format, body, due_at, due_rank FROM members \
     WHERE integration = $1 AND subject = $2 \
     UNION ALL SELECT 1, id, version, format, body, NULL, NULL FROM grants \
     WHERE integration = $1 AND subject = $2 AND state <> 'ended' ORDER BY kind, id";

pub(super) const MEMBERS: &str = concat!(
    "SELECT subject FROM grants WHERE integration = $1 AND state <> 'ended' \
     AND subject > $2 AND subject < 'user;' \
     UNION SELECT subject FROM members WHERE integration = $1 AND owned > 0 \
     AND subject > $2 AND subject < 'user;' \
     UNION SELECT subject FROM members",
    watched!(),
    " WHERE integration = $1 AND watched > 0 \
     AND subject > $2 AND subject < 'user;' ORDER BY subject LIMIT $3"
);

pub(super) async fn request(
    conn: &mut Conn,
    caller: &str,
    request_id: &str,
    action: &'static str,
) -> Read<Option<RequestRecord>> {
    let row = query(
        "SELECT kind, fingerprint, grant_id FROM requests WHERE caller = $1 AND request_id = $2",
    )
    .bind(caller.to_owned())
    .bind(request_id.to_owned())
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else {
        return Ok(Ok(None));
    };
    let (kind, fingerprint, grant_id): (String, Option<String>, Option<String>) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let record = rows::request(&kind, fingerprint.as_deref(), grant_id.as_deref());
    Ok(Ok(Some(readable!(action, record))))
}

fn grant_at(
    row: &DbRow,
    first: usize,
) -> std::result::Result<std::result::Result<Grant, Unreadable>, sqlx::Error> {
    let (version, format): (i64, i64) = (row.try_get(first)?, row.try_get(first + 1)?);
    let text: &str = row.try_get(first + 2)?;
    Ok(rows::grant(version, format, text))
}

pub(super) async fn grant(
    conn: &mut Conn,
    id: GrantId,
    action: &'static str,
) -> Read<Option<Grant>> {
    let row = query("SELECT version, format, body FROM grants WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(match row {
        None => Ok(None),
        Some(row) => Ok(Some(readable!(action, grant_at(&row, 0)?))),
    })
}

pub(super) async fn list_grants(
    conn: &mut Conn,
    filter: &GrantFilter,
    before: Option<GrantId>,
    limit: usize,
    action: &'static str,
) -> Read<Page<Grant, GrantId>> {
    // A state at a time: each has an index in the order of the list, while of several only a part would be needed of
    // all that would have to be sorted.
    let states: Vec<Option<&str>> = if filter.states.is_empty() || filter.subject.is_some() {
        vec![None]
    } else {
        let distinct: BTreeSet<&str> = filter.states.iter().map(String::as_str).collect();
        distinct.into_iter().map(Some).collect()
    };
    let mut items = Vec::new();
    for state in states {
        let mut text = listing(filter, state, before, limit);
        for row in built(&mut text).fetch_all(&mut *conn).await? {
            items.push(readable!(action, grant_at(&row, 0)?));
        }
    }
    items.sort_by_key(|grant| std::cmp::Reverse(grant.id));
    items.truncate(limit.saturating_add(1));
    Ok(Ok(page(items, limit, |grant| grant.id)))
}

/// The newest grants that fit a filter, of one state where one is given.
pub(super) fn listing(
    filter: &GrantFilter,
    state: Option<&str>,
    before: Option<GrantId>,
    limit: usize,
) -> QueryBuilder<Db> {
    let GrantFilter {
        caller,
        integration,
        states,
        subject,
        target,
    } = filter;
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT version, format, body FROM grants WHERE true");
    if let Some(before) = before {
        text.push(" AND id < ").push_bind(before.to_string());
    }
    if let Some(caller) = caller {
        text.push(" AND caller = ").push_bind(caller.to_string());
    }
    if let Some(integration) = integration {
        // The plus keeps an index of all grants of an integration from being sorted for the sake of one page.
        text.push(" AND ")
            .push(PLUS)
            .push("integration = ")
            .push_bind(integration.to_string());
    }
    if let Some(state) = state {
        text.push(" AND state = ").push_bind(state.to_owned());
    } else if !states.is_empty() {
        // A subject has few grants, a state may have all of them.
        text.push(" AND ").push(PLUS).push("state IN (");
        let mut list = text.separated(", ");
        for state in states {
            list.push_bind(state.clone());
        }
        text.push(")");
    }
    if let Some(subject) = subject {
        let subject = rows::comparable(subject);
        text.push(" AND (subject = ").push_bind(subject.clone());
        text.push(" OR beneficiary = ").push_bind(subject).push(")");
    }
    if let Some(target) = target {
        text.push(" AND targets LIKE ")
            .push_bind(format!("% {target} %"));
    }
    text.push(" ORDER BY id DESC LIMIT ")
        .push_bind(rows::count(limit.saturating_add(1)));
    text
}

pub(super) async fn member(
    conn: &mut Conn,
    key: &MemberKey,
    action: &'static str,
) -> Read<MemberRecord> {
    let found = query(MEMBER)
        .bind(key.integration.to_string())
        .bind(key.subject.to_string())
        .fetch_all(conn)
        .await?;
    let mut record = MemberRecord::new(key.clone());
    for row in &found {
        if row.try_get::<i64, _>("kind")? == 1 {
            record.grants.push(readable!(action, grant_at(row, 2)?));
            continue;
        }
        let (version, format): (i64, i64) = (row.try_get("version")?, row.try_get("format")?);
        let text: &str = row.try_get("body")?;
        let due: (Option<i64>, Option<i64>) = (row.try_get("due_at")?, row.try_get("due_rank")?);
        record = readable!(
            action,
            rows::member(key, version, format, text, due.0.zip(due.1))
        );
    }
    Ok(Ok(record))
}

pub(super) async fn version(conn: &mut Conn, key: &MemberKey) -> Read<u64> {
    let version: Option<i64> =
        query_scalar("SELECT version FROM members WHERE integration = $1 AND subject = $2")
            .bind(key.integration.to_string())
            .bind(key.subject.to_string())
            .fetch_optional(conn)
            .await?;
    Ok(Ok(version.map_or(0, rows::uint)))
}

pub(super) async fn members(
    conn: &mut Conn,
    integration: &IntegrationName,
    after: Option<&UserId>,
    limit: usize,
    action: &'static str,
) -> Read<Page<MemberRecord, UserId>> {
    let after = after.map_or_else(|| "user:".to_owned(), |id| format!("user:{id}"));
    let subjects: Vec<String> = query_scalar(MEMBERS)
        .bind(integration.to_string())
        .bind(after)
        .bind(rows::count(limit.saturating_add(1)))
        .fetch_all(&mut *conn)
        .await?;
    let mut items = Vec::new();
    for subject in subjects {
        let subject = readable!(action, Subject::parse(&subject));
        let Subject::Member(id) = &subject else {
            continue;
        };
        let id = id.clone();
        let key = MemberKey {
            integration: integration.clone(),
            subject,
        };
        match member(conn, &key, action).await? {
            Ok(record) => items.push((id, record)),
            Err(unreadable) => return Ok(Err(unreadable)),
        }
    }
    let Page { items, next } = page(items, limit, |(id, _)| id.clone());
    Ok(Ok(Page {
        items: items.into_iter().map(|(_, record)| record).collect(),
        next,
    }))
}

pub(super) async fn subjects(
    conn: &mut Conn,
    integration: &IntegrationName,
    target: Option<&Target>,
    action: &'static str,
) -> Read<Vec<MemberKey>> {
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT DISTINCT subject FROM grants WHERE integration = ");
    text.push_bind(integration.to_string());
    text.push(" AND state <> 'ended'");
    if let Some(target) = target {
        text.push(" AND targets LIKE ")
            .push_bind(format!("% {target} %"));
    }
    text.push(" ORDER BY subject");
    let found: Vec<String> = built_scalar(&mut text).fetch_all(conn).await?;
    let mut keys = Vec::with_capacity(found.len());
    for subject in found {
        keys.push(MemberKey {
            integration: integration.clone(),
            subject: readable!(action, Subject::parse(&subject)),
        });
    }
    Ok(Ok(keys))
}

pub(super) async fn due(
    conn: &mut Conn,
    integration: &IntegrationName,
    until: Timestamp,
    limit: usize,
    action: &'static str,
) -> Read<Vec<DueMember>> {
    let ranks: Vec<i64> = query_scalar(BUCKETS)
        .bind(integration.to_string())
        .bind(rows::micros(until))
        .fetch_all(&mut *conn)
        .await?;
    let mut found = Vec::new();
    for rank in ranks {
        if found.len() >= limit {
            break;
        }
        let rows = query(DUE)
            .bind(integration.to_string())
            .bind(rank)
            .bind(rows::micros(until))
            .bind(rows::count(limit - found.len()))
            .fetch_all(&mut *conn)
            .await?;
        for row in rows {
            let (subject, at): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
            found.push(DueMember {
                key: MemberKey {
                    integration: integration.clone(),
                    subject: readable!(action, Subject::parse(subject)),
                },
                due: readable!(action, rows::due(at, rank)),
            });
        }
    }
    Ok(Ok(found))
}

pub(super) async fn next_due(
    conn: &mut Conn,
    integration: &IntegrationName,
    after: Timestamp,
    action: &'static str,
) -> Read<Option<Timestamp>> {
    let at: Option<i64> = query_scalar(NEXT_DUE)
        .bind(integration.to_string())
        .bind(rows::micros(after))
        .fetch_one(conn)
        .await?;
    Ok(Ok(match at {
        None => None,
        Some(at) => Some(readable!(action, rows::instant(at))),
    }))
}

/// Members by the second in which a removal of theirs falls due.
pub(super) async fn endings(
    conn: &mut Conn,
    integration: &IntegrationName,
    from: Timestamp,
    until: Timestamp,
    action: &'static str,
) -> Read<Vec<(Timestamp, u64)>> {
    let rows = query(
        "SELECT COALESCE(ends_by, expires_at) / 1000000 AS second, COUNT(DISTINCT subject) FROM grants \
         WHERE integration = $1 AND state <> 'ended' AND COALESCE(ends_by, expires_at) >= $2 \
         AND COALESCE(ends_by, expires_at) < $3 GROUP BY second ORDER BY second",
    )
    .bind(integration.to_string())
    .bind(rows::micros(from))
    .bind(rows::micros(until))
    .fetch_all(conn)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (second, count): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let at = readable!(action, rows::instant(second.saturating_mul(1_000_000)));
        found.push((at, rows::uint(count)));
    }
    Ok(Ok(found))
}

pub(super) async fn events(
    conn: &mut Conn,
    filter: &EventFilter,
    after: u64,
    limit: usize,
    action: &'static str,
) -> Read<Vec<StoredEvent>> {
    let EventFilter {
        caller,
        integration,
        grant_id,
        kinds,
    } = filter;
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT sequence, format, body FROM events WHERE sequence > ");
    text.push_bind(rows::int(after));
    if let Some(caller) = caller {
        text.push(" AND caller = ").push_bind(caller.to_string());
    }
    if let Some(integration) = integration {
        text.push(" AND integration = ")
            .push_bind(integration.to_string());
    }
    if let Some(grant_id) = grant_id {
        text.push(" AND grant_id = ")
            .push_bind(grant_id.to_string());
    }
    if !kinds.is_empty() {
        text.push(" AND kind IN (");
        let mut list = text.separated(", ");
        for kind in kinds {
            list.push_bind(kind.clone());
        }
        text.push(")");
    }
    text.push(" ORDER BY sequence LIMIT ")
        .push_bind(rows::count(limit));
    let mut found = Vec::new();
    for row in built(&mut text).fetch_all(conn).await? {
        let (sequence, format): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let text: &str = row.try_get(2)?;
        let what = || format!("audit event {sequence}");
        found.push(StoredEvent {
            sequence: rows::uint(sequence),
            event: readable!(action, rows::read_body(what, format, text)),
        });
    }
    Ok(Ok(found))
}

/// Everything that stands against binding an organization to an integration, and the binding itself.
pub(super) const CLAIMS: &str = "SELECT organization_id, integration FROM organizations \
     WHERE organization_id = $1 OR integration = $2 ORDER BY organization_id = $1 DESC";

/// Whether exactly this organization and this integration are bound to each other.
pub(super) async fn is_claimed(
    conn: &mut Conn,
    integration: &IntegrationName,
    organization: &OrganizationId,
) -> std::result::Result<bool, sqlx::Error> {
    let found = query(CLAIMS)
        .bind(organization.to_string())
        .bind(integration.to_string())
        .fetch_all(conn)
        .await?;
    for row in &found {
        let (held, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if held != organization.as_str() || owner != integration.as_str() {
            return Ok(false);
        }
    }
    Ok(!found.is_empty())
}

/// The newest event's place; 0 when there is none.
pub(super) async fn last_sequence(conn: &mut Conn) -> std::result::Result<u64, sqlx::Error> {
    let last: Option<i64> = query_scalar("SELECT MAX(sequence) FROM events")
        .fetch_one(conn)
        .await?;
    Ok(last.map_or(0, rows::uint))
}

/// The first row whose body does not fit its checksum, in words. Reads page by page, so that the log can be written
/// back meanwhile.
pub(super) async fn damaged_body(
    conn: &mut Conn,
) -> std::result::Result<Option<String>, sqlx::Error> {
    const PAGE: i64 = 100;
    // Bodies of members may be large, and this must not be felt.
    const MEMBERS_PAGE: i64 = 10;
    let mut after = String::new();
    loop {
        let page = query("SELECT id, body FROM grants WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.clone())
            .bind(PAGE)
            .fetch_all(&mut *conn)
            .await?;
        let Some(last) = page.last() else { break };
        after = last.try_get(0)?;
        for row in &page {
            if rows::is_damaged(row.try_get(1)?) {
                let id: &str = row.try_get(0)?;
                return Ok(Some(format!("grant {id} does not fit its checksum")));
            }
        }
    }
    let mut after = (String::new(), String::new());
    loop {
        let page = query(
            "SELECT integration, subject, body FROM members WHERE (integration, subject) > ($1, $2) \
             ORDER BY integration, subject LIMIT $3",
        )
        .bind(after.0.clone())
        .bind(after.1.clone())
        .bind(MEMBERS_PAGE)
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = page.last() else { break };
        after = (last.try_get(0)?, last.try_get(1)?);
        for row in &page {
            if rows::is_damaged(row.try_get(2)?) {
                let (integration, subject): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                return Ok(Some(format!(
                    "member {subject} of {integration} does not fit its checksum"
                )));
            }
        }
    }
    let mut after = 0;
    loop {
        let page = query(
            "SELECT sequence, body FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        )
        .bind(after)
        .bind(PAGE)
        .fetch_all(&mut *conn)
        .await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        after = last.try_get::<i64, _>(0)?;
        for row in &page {
            if rows::is_damaged(row.try_get(1)?) {
                let sequence: i64 = row.try_get(0)?;
                return Ok(Some(format!(
                    "audit event {sequence} does not fit its checksum"
                )));
            }
        }
    }
}
