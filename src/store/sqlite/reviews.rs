//! Signed texts that were used up, and the looks back that emergency grants owe.
//!
//! Owns their statements. Never forgets a text before it has expired by itself, nor a review that is open.

use sqlx::{QueryBuilder, Row};

use super::engine::{Conn, Db, built, query};
use super::read::Read;
use super::write::{Applied, Reply};
use crate::domain::authority::{Closing, Review};
use crate::domain::ids::GrantId;
use crate::ports::ledger::Page;
use crate::store::failure::readable;
use crate::store::once::{self, ReviewRow, TokenRow};
use crate::store::rows::{self, EventRow, FORMAT};

/// The first of these that was used before, by its kind.
pub(super) async fn used(
    conn: &mut Conn,
    tokens: &[TokenRow],
) -> Result<Option<String>, sqlx::Error> {
    for row in tokens {
        let found = query("SELECT token FROM used_tokens WHERE token = $1")
            .bind(row.token.clone())
            .fetch_optional(&mut *conn)
            .await?;
        if found.is_some() {
            return Ok(Some(row.token.clone()));
        }
    }
    Ok(None)
}

/// Uses them up, and opens the review that goes with them.
pub(super) async fn insert(
    conn: &mut Conn,
    tokens: &[TokenRow],
    review: Option<&ReviewRow>,
) -> Result<(), sqlx::Error> {
    for row in tokens {
        query(
            "INSERT INTO used_tokens (token, kind, grant_id, used_at, forget_after) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(row.token.clone())
        .bind(row.kind)
        .bind(row.grant_id.clone())
        .bind(row.used_at)
        .bind(row.forget_after)
        .execute(&mut *conn)
        .await?;
    }
    if let Some(row) = review {
        query(
            "INSERT INTO reviews (grant_id, integration, is_open, format, body) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(row.grant_id.clone())
        .bind(row.integration.clone())
        .bind(row.is_open)
        .bind(FORMAT)
        .bind(row.body.clone())
        .execute(conn)
        .await?;
    }
    Ok(())
}

pub(super) async fn review(
    conn: &mut Conn,
    id: GrantId,
    action: &'static str,
) -> Read<Option<Review>> {
    let row = query("SELECT format, body FROM reviews WHERE grant_id = $1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else {
        return Ok(Ok(None));
    };
    let text: &str = row.try_get(1)?;
    let review = once::review(row.try_get(0)?, text);
    Ok(Ok(Some(readable!(action, review))))
}

pub(super) async fn list(
    conn: &mut Conn,
    open_only: bool,
    before: Option<GrantId>,
    limit: usize,
    action: &'static str,
) -> Read<Page<Review, GrantId>> {
    let mut text: QueryBuilder<Db> =
        QueryBuilder::new("SELECT format, body FROM reviews WHERE true");
    if open_only {
        text.push(" AND is_open = 1");
    }
    if let Some(before) = before {
        text.push(" AND grant_id < ").push_bind(before.to_string());
    }
    text.push(" ORDER BY grant_id DESC LIMIT ")
        .push_bind(rows::count(limit.saturating_add(1)));
    let mut items = Vec::new();
    for row in built(&mut text).fetch_all(conn).await? {
        let body: &str = row.try_get(1)?;
        let review = once::review(row.try_get(0)?, body);
        items.push(readable!(action, review));
    }
    Ok(Ok(rows::page(items, limit, |review: &Review| {
        review.grant_id
    })))
}

/// Closes a review. Answers 1, or 0 when there is no open one: then nothing is written.
pub(super) async fn close(
    conn: &mut Conn,
    id: GrantId,
    closing: &Closing,
    events: &[EventRow],
    action: &'static str,
) -> Applied {
    let found = match review(conn, id, action).await? {
        Ok(found) => found,
        Err(refused) => return Ok(Err(refused)),
    };
    let Some(found) = found.filter(|review| review.closed.is_none()) else {
        return Ok(Ok(Reply::Number(0)));
    };
    let row = ReviewRow::new(&Review {
        closed: Some(closing.clone()),
        ..found
    });
    query("UPDATE reviews SET is_open = $2, format = $3, body = $4 WHERE grant_id = $1")
        .bind(row.grant_id)
        .bind(row.is_open)
        .bind(FORMAT)
        .bind(row.body)
        .execute(&mut *conn)
        .await?;
    super::write::events(conn, events).await?;
    Ok(Ok(Reply::Number(1)))
}

/// Forgets what has expired, and closed reviews of grants that are forgotten.
pub(super) async fn prune(conn: &mut Conn, before: i64, limit: i64) -> Result<(), sqlx::Error> {
    query(
        "DELETE FROM used_tokens WHERE token IN (\
         SELECT token FROM used_tokens WHERE forget_after < $1 ORDER BY forget_after, token LIMIT $2)",
    )
    .bind(before)
    .bind(limit)
    .execute(&mut *conn)
    .await?;
    query(
        "DELETE FROM reviews WHERE is_open = 0 \
         AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.id = reviews.grant_id)",
    )
    .execute(conn)
    .await?;
    Ok(())
}
