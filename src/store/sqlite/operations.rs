//! The queries behind receipts and behind what operators ask: what is late, what was given up.
//!
//! Owns the SQL that reads them; each follows an index. Never writes.

use sqlx::{QueryBuilder, Row};

use super::engine::{Conn, Db, built, query, query_scalar};
use super::read::{self, Read};
use crate::domain::Timestamp;
use crate::domain::ids::{GrantId, IntegrationName};
use crate::domain::member::{MemberKey, MemberRecord, Subject};
use crate::domain::overdue::GRACE;
use crate::domain::receipt::Receipt;
use crate::ports::ledger::{LateCursor, LateRemovals, Page, ReceiptCursor, ReceiptFilter};
use crate::store::failure::readable;
use crate::store::rows::{self, page};

pub(super) async fn receipt(
    conn: &mut Conn,
    id: GrantId,
    action: &'static str,
) -> Read<Option<Receipt>> {
    let row = query("SELECT format, body FROM receipts WHERE grant_id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else {
        return Ok(Ok(None));
    };
    let text: &str = row.try_get(1)?;
    let receipt = rows::receipt(row.try_get(0)?, text);
    Ok(Ok(Some(readable!(action, receipt))))
}

pub(super) async fn list_receipts(
    conn: &mut Conn,
    filter: &ReceiptFilter,
    before: Option<ReceiptCursor>,
    limit: usize,
    action: &'static str,
) -> Read<Page<Receipt, ReceiptCursor>> {
    let ReceiptFilter {
        caller,
        integration,
        subject,
        since,
        until,
        open_only,
    } = filter;
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT format, body FROM receipts WHERE true");
    if let Some(ReceiptCursor { ended_at, id }) = before {
        text.push(" AND (ended_at, grant_id) < (")
            .push_bind(rows::micros(ended_at))
            .push(", ")
            .push_bind(id.to_string())
            .push(")");
    }
    if let Some(caller) = caller {
        text.push(" AND caller = ").push_bind(caller.to_string());
    }
    if let Some(integration) = integration {
        text.push(" AND integration = ")
            .push_bind(integration.to_string());
    }
    if let Some(subject) = subject {
        let subject = rows::comparable(subject);
        text.push(" AND (subject = ").push_bind(subject.clone());
        text.push(" OR beneficiary = ").push_bind(subject).push(")");
    }
    if let Some(since) = since {
        text.push(" AND ended_at >= ")
            .push_bind(rows::micros(*since));
    }
    if let Some(until) = until {
        text.push(" AND ended_at < ")
            .push_bind(rows::micros(*until));
    }
    if *open_only {
        text.push(" AND is_open = 1");
    }
    text.push(" ORDER BY ended_at DESC, grant_id DESC LIMIT ")
        .push_bind(rows::count(limit.saturating_add(1)));
    let mut items = Vec::new();
    for row in built(&mut text).fetch_all(conn).await? {
        let text: &str = row.try_get(1)?;
        items.push(readable!(action, rows::receipt(row.try_get(0)?, text)));
    }
    Ok(Ok(page(items, limit, |receipt: &Receipt| ReceiptCursor {
        ended_at: receipt.ended_at,
        id: receipt.grant_id,
    })))
}

pub(super) async fn hidden_removals(
    conn: &mut Conn,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
    action: &'static str,
) -> Read<Page<LateCursor, LateCursor>> {
    removals_due(conn, integration, until, after, limit, true, action).await
}

/// Where removals were due at or before `until`; only the hidden ones, or all.
async fn removals_due(
    conn: &mut Conn,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
    only_hidden: bool,
    action: &'static str,
) -> Read<Page<LateCursor, LateCursor>> {
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT subject, removal_due_at FROM members WHERE integration = ");
    text.push_bind(integration.to_string());
    text.push(" AND removal_due_at IS NOT NULL AND removal_due_at <= ")
        .push_bind(rows::micros(until));
    if only_hidden {
        text.push(" AND due_at <= ")
            .push_bind(rows::micros(until))
            .push(" AND due_rank >= ")
            .push_bind(rows::LESS_THAN_REMOVAL);
    }
    if let Some(LateCursor { due_at, subject }) = after {
        text.push(" AND (removal_due_at, subject) > (")
            .push_bind(rows::micros(*due_at))
            .push(", ")
            .push_bind(subject.to_string())
            .push(")");
    }
    text.push(" ORDER BY removal_due_at, subject LIMIT ")
        .push_bind(rows::count(limit.saturating_add(1)));
    let mut found = Vec::new();
    for row in built(&mut text).fetch_all(conn).await? {
        let subject: &str = row.try_get(0)?;
        found.push(LateCursor {
            due_at: readable!(action, rows::instant(row.try_get(1)?)),
            subject: readable!(action, Subject::parse(subject)),
        });
    }
    Ok(Ok(page(found, limit, LateCursor::clone)))
}

pub(super) async fn late(
    conn: &mut Conn,
    integration: &IntegrationName,
    until: Timestamp,
    after: Option<&LateCursor>,
    limit: usize,
    action: &'static str,
) -> Read<Page<MemberRecord, LateCursor>> {
    let found = removals_due(conn, integration, until, after, limit, false, action).await?;
    let Page { items, next } = match found {
        Ok(found) => found,
        Err(unreadable) => return Ok(Err(unreadable)),
    };
    let mut records = Vec::with_capacity(items.len());
    for LateCursor { subject, .. } in items {
        let key = MemberKey {
            integration: integration.clone(),
            subject,
        };
        match read::member(conn, &key, action).await? {
            Ok(record) => records.push(record),
            Err(unreadable) => return Ok(Err(unreadable)),
        }
    }
    Ok(Ok(Page {
        items: records,
        next,
    }))
}

pub(super) async fn forgotten(
    conn: &mut Conn,
    integration: &IntegrationName,
    action: &'static str,
) -> Read<Vec<MemberKey>> {
    let subjects: Vec<String> = query_scalar(
        "SELECT subject FROM members WHERE integration = $1 AND forgotten > 0 ORDER BY subject",
    )
    .bind(integration.to_string())
    .fetch_all(conn)
    .await?;
    let mut keys = Vec::with_capacity(subjects.len());
    for subject in subjects {
        keys.push(MemberKey {
            integration: integration.clone(),
            subject: readable!(action, Subject::parse(&subject)),
        });
    }
    Ok(Ok(keys))
}

/// Members with access that should have been gone for longer than the grace, by integration and power.
pub(super) async fn late_removals(
    conn: &mut Conn,
    integration: &str,
    now: Timestamp,
    action: &'static str,
) -> Read<Vec<LateRemovals>> {
    let rows = query(
        "SELECT removal_weight, COUNT(*), MIN(removal_due_at) FROM members WHERE integration = $1 \
         AND removal_due_at IS NOT NULL AND removal_due_at <= $2 GROUP BY removal_weight ORDER BY removal_weight",
    )
    .bind(integration.to_owned())
    .bind(rows::micros(now - GRACE))
    .fetch_all(conn)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (weight, members, oldest): (i64, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        found.push(LateRemovals {
            integration: readable!(action, IntegrationName::parse(integration)),
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            members: rows::uint(members),
            oldest: readable!(action, rows::instant(oldest)),
        });
    }
    Ok(Ok(found))
}
