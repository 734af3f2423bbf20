//! The queries of a search for drift: who is there, and how each should look.
//!
//! Owns reading that from indexes alone, so that a million grants cost fifty thousand steps and no body. Never writes.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use sqlx::Row;

use super::engine::{Conn, query, query_scalar, watched};
use super::read::Read;
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::Subject;
use crate::ports::ledger::{Page, Sighted};
use crate::store::failure::readable;
use crate::store::rows::{self, page};

/// Members about whom nothing is left to find out.
pub(super) const SETTLED: &str = "SELECT subject, sight, sight_until FROM members \
     WHERE integration = $1 AND sight IS NOT NULL AND subject > $2 AND subject < 'user;' \
     ORDER BY subject LIMIT $3";

/// Members with grants that have not ended, by seeking from one to the next.
pub(super) const GRANTED: &str = "WITH RECURSIVE next(subject) AS (\
     SELECT MIN(subject) FROM grants WHERE integration = $1 AND state <> 'ended' \
     AND subject > $2 AND subject < 'user;' \
     UNION ALL SELECT (SELECT MIN(g.subject) FROM grants g WHERE g.integration = $1 AND g.state <> 'ended' \
     AND g.subject > next.subject AND g.subject < 'user;') \
     FROM next WHERE next.subject IS NOT NULL) \
     SELECT subject FROM next WHERE subject IS NOT NULL LIMIT $3";

/// Members who own something.
pub(super) const OWNING: &str = "SELECT subject FROM members WHERE integration = $1 AND owned > 0 \
     AND subject > $2 AND subject < 'user;' ORDER BY subject LIMIT $3";

/// Members of whom something is watched.
pub(super) const WATCHED: &str = concat!(
    "SELECT subject FROM members",
    watched!(),
    " WHERE integration = $1 AND watched > 0 \
     AND subject > $2 AND subject < 'user;' ORDER BY subject LIMIT $3"
);

pub(super) async fn sights(
    conn: &mut Conn,
    integration: &IntegrationName,
    after: Option<&UserId>,
    limit: usize,
    action: &'static str,
) -> Read<Page<Sighted, UserId>> {
    let after = after.map_or_else(|| "user:".to_owned(), |id| format!("user:{id}"));
    let most = rows::count(limit.saturating_add(1));
    // Each list is in order and long enough by itself, so the first of all together are the first of the page.
    let mut found = BTreeMap::new();
    for text in [GRANTED, OWNING, WATCHED] {
        let subjects: Vec<String> = query_scalar(text)
            .bind(integration.to_string())
            .bind(after.clone())
            .bind(most)
            .fetch_all(&mut *conn)
            .await?;
        found.extend(subjects.into_iter().map(|subject| (subject, None)));
    }
    let mut settled = query(SETTLED)
        .bind(integration.to_string())
        .bind(after)
        .bind(most)
        .fetch(conn);
    // One by one: a thousand rows at a time would stay with the thread that made them.
    while let Some(row) = settled.try_next().await? {
        let (subject, sight, until): (&str, &[u8], i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let settled = readable!(action, rows::settled(sight, until));
        // One whose grants ended between the questions is no longer asked for.
        if let Some(slot) = found.get_mut(subject) {
            *slot = Some(settled);
        }
    }
    let mut items = Vec::with_capacity(found.len().min(limit.saturating_add(1)));
    for (subject, settled) in found.into_iter().take(limit.saturating_add(1)) {
        let subject = readable!(action, Subject::parse(&subject));
        if let Subject::Member(user) = subject {
            items.push(Sighted { user, settled });
        }
    }
    Ok(Ok(page(items, limit, |one| one.user.clone())))
}
