//! Numbers for metrics and health, at a price that does not grow with the ledger.
//!
//! Owns the SQL that counts. What there is, the table `census` tells, which triggers keep; only what is late or on its
//! way out is counted, and there each query follows an index.

use sqlx::Row;

use super::engine::{Conn, REVOKING, query};
use super::operations;
use super::read::Read;
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::ledger::Census;
use crate::store::failure::readable;
use crate::store::rows::{self, REMOVALS_END};
use crate::store::tally::Tally;

/// Grants by state, assignments owned and removals blocked, by integration.
pub(super) const COUNTS: &str = "SELECT integration, what, number FROM census WHERE number > 0";

/// Members whose removal (ranks below `$2`) is due by `$1` and not sent, and the first of them, by integration. Seeks
/// from rank to rank.
pub(super) const OVERDUE: &str = "WITH RECURSIVE known(name) AS (SELECT MIN(integration) FROM members \
     UNION ALL SELECT (SELECT MIN(m.integration) FROM members m WHERE m.integration > known.name) \
     FROM known WHERE known.name IS NOT NULL), \
     bucket(integration, due_rank) AS (\
     SELECT name, (SELECT MIN(m.due_rank) FROM members m WHERE m.integration = name AND m.due_at IS NOT NULL) \
     FROM known WHERE name IS NOT NULL \
     UNION ALL SELECT integration, (SELECT MIN(m.due_rank) FROM members m WHERE m.integration = bucket.integration \
     AND m.due_at IS NOT NULL AND m.due_rank > bucket.due_rank) \
     FROM bucket WHERE bucket.due_rank < $2) \
     SELECT bucket.integration, COUNT(*), MIN(m.due_at) FROM bucket CROSS JOIN members m \
     WHERE bucket.due_rank < $2 AND m.integration = bucket.integration AND m.due_rank = bucket.due_rank \
     AND m.due_at IS NOT NULL AND m.due_at <= $1 GROUP BY bucket.integration";

pub(super) async fn census(conn: &mut Conn, now: Timestamp, action: &'static str) -> Read<Census> {
    let mut census = Census::default();
    let mut tally = Tally::default();
    let mut known = std::collections::BTreeSet::new();
    for row in query(COUNTS).fetch_all(&mut *conn).await? {
        let (name, what, number): (String, String, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let integration = readable!(action, IntegrationName::parse(name.clone()));
        let number = rows::uint(number);
        match what.as_str() {
            "owned" => tally.owns(&integration, number, 0),
            "blocked" => tally.owns(&integration, 0, number),
            _ => census.grants.push((integration, what, number)),
        }
        known.insert(name);
    }
    census.grants.sort();
    // Nothing can be late where nothing is open or owned.
    for name in known {
        match operations::late_removals(conn, &name, now, action).await? {
            Ok(late) => census.late.extend(late),
            Err(unreadable) => return Ok(Err(unreadable)),
        }
    }
    let overdue = query(OVERDUE)
        .bind(rows::micros(now))
        .bind(REMOVALS_END)
        .fetch_all(&mut *conn)
        .await?;
    for row in overdue {
        let (name, members, first): (String, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let integration = readable!(action, IntegrationName::parse(name));
        let first = readable!(action, rows::instant(first));
        tally.overdue(&integration, rows::uint(members), first);
    }
    for row in query(REVOKING).fetch_all(conn).await? {
        let integration = readable!(action, IntegrationName::parse(row.try_get::<String, _>(0)?));
        let since: Option<String> = row.try_get(1)?;
        if let Some(since) = since.and_then(|text| text.parse::<Timestamp>().ok()) {
            tally.revoking(&integration, since);
        }
    }
    tally.into_census(&mut census);
    Ok(Ok(census))
}
