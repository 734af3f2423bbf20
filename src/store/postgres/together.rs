//! Several rows in one statement: a round trip to the server costs more than the rows.
//!
//! Owns the texts, made from those of single rows, and the accepts that go all together or not at all.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::engine::{self, Conn, Query, query};
use super::write::{self, GRANT, REQUEST, Work, insert_event, insert_member};
use crate::store::rows::{AcceptRows, EventRow, FORMAT};

/// Rows of one kind that share a statement where so many come together.
pub(super) const TOGETHER: usize = 32;

/// A grant that is new: one that is there already is refused.
static NEW_GRANT: LazyLock<String> = LazyLock::new(|| {
    let (insert, _) = GRANT
        .split_once(" ON CONFLICT")
        .expect("the text of a grant says what happens to one that is there");
    insert.to_owned()
});
const EVENT: &str = insert_event!("$1, $2, $3, $4, $5, $6, $7, $8");
const TOUCHED: &str = insert_member!("$1, $2, 1, 0, 0, $3, $4, $5, $6");

/// Several grants of a commit.
pub(super) static GRANTS: LazyLock<String> = LazyLock::new(|| repeated(GRANT));
/// Several request ids.
pub(super) static REQUESTS: LazyLock<String> = LazyLock::new(|| repeated(REQUEST));
/// Several events.
pub(super) static EVENTS: LazyLock<String> = LazyLock::new(|| repeated(EVENT));
static NEW_GRANTS: LazyLock<String> = LazyLock::new(|| repeated(&NEW_GRANT));
static ALL_TOUCHED: LazyLock<String> = LazyLock::new(|| repeated(TOUCHED));

/// An insert of one row as an insert of [`TOGETHER`] rows, its values numbered on from row to row.
fn repeated(text: &str) -> String {
    const VALUES: &str = "VALUES ";
    let (before, rest) = text
        .split_once(VALUES)
        .expect("our own texts insert values");
    let (row, after) = rest.split_once(')').expect("a row ends");
    let values = row.matches('$').count();
    let rows: Vec<String> = (0..TOGETHER)
        .map(|copy| {
            let mut parts = row.split('$');
            let mut numbered = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let digits = part.bytes().take_while(u8::is_ascii_digit).count();
                let (number, rest) = part.split_at(digits);
                let number: usize = number.parse().expect("values are numbered");
                numbered.push_str(&format!("${}{rest}", number + copy * values));
            }
            numbered + ")"
        })
        .collect();
    format!("{before}{VALUES}{}{after}", rows.join(", "))
}

/// The accept of a write that fits into a statement for several.
pub(super) fn plain_accept(work: &Work) -> Option<(&AcceptRows, &EventRow)> {
    let Work::Accept(rows) = work else {
        return None;
    };
    match rows.events.as_slice() {
        [event] if rows.grant.version >= 1 && rows.tokens.is_empty() => Some((rows, event)),
        _ => None,
    }
}

fn bind_touched<'q>(query: Query<'q>, rows: &AcceptRows) -> Query<'q> {
    query
        .bind(rows.member.integration.clone())
        .bind(rows.member.subject.clone())
        .bind(rows.member.due_at)
        .bind(rows.member.due_rank)
        .bind(FORMAT)
        .bind(rows.member.body.clone())
}

/// Accepts one grant. Answers whether it did; if not, the request id is taken and nothing was written.
pub(super) async fn accept(conn: &mut Conn, rows: &AcceptRows) -> Result<bool, sqlx::Error> {
    if rows.grant.version < 1 {
        return Err(sqlx::Error::InvalidArgument(
            "a grant begins with version 1".to_owned(),
        ));
    }
    if !write::insert_request(conn, &rows.request).await? {
        return Ok(false);
    }
    write::bind_grant(query(NEW_GRANT.as_str()), &rows.grant)
        .execute(&mut *conn)
        .await?;
    bind_touched(query(TOUCHED), rows)
        .execute(&mut *conn)
        .await?;
    write::events(conn, &rows.events).await?;
    Ok(true)
}

/// Runs [`TOGETHER`] accepts in four statements. Answers whether it did; if not, nothing was written, and each of them
/// has to be asked for alone: a request id is taken, or one member is named twice.
pub(super) async fn accepts(
    conn: &mut Conn,
    all: &[(&AcceptRows, &EventRow)],
) -> Result<bool, sqlx::Error> {
    let members: BTreeSet<_> = all.iter().map(|(rows, _)| &rows.member.key).collect();
    if members.len() < all.len() {
        return Ok(false);
    }
    engine::run(conn, "SAVEPOINT accepts").await?;
    let requests = all
        .iter()
        .fold(query(REQUESTS.as_str()), |query, (rows, _)| {
            write::bind_request(query, &rows.request)
        });
    let fresh = requests.execute(&mut *conn).await?.rows_affected();
    if fresh < all.len() as u64 {
        engine::run(conn, "ROLLBACK TO accepts; RELEASE accepts").await?;
        return Ok(false);
    }
    let grants = all
        .iter()
        .fold(query(NEW_GRANTS.as_str()), |query, (rows, _)| {
            write::bind_grant(query, &rows.grant)
        });
    grants.execute(&mut *conn).await?;
    let touched = all
        .iter()
        .fold(query(ALL_TOUCHED.as_str()), |query, (rows, _)| {
            bind_touched(query, rows)
        });
    touched.execute(&mut *conn).await?;
    let events = all
        .iter()
        .fold(query(EVENTS.as_str()), |query, (_, event)| {
            write::bind_event(query, event)
                .bind(FORMAT)
                .bind(event.body.clone())
        });
    events.execute(&mut *conn).await?;
    engine::run(conn, "RELEASE accepts").await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_statement_share_no_value_and_keep_what_stands_around_them() {
        for (one, many) in [
            (GRANT, &GRANTS),
            (REQUEST, &REQUESTS),
            (EVENT, &EVENTS),
            (TOUCHED, &ALL_TOUCHED),
        ] {
            let values = one.matches('$').count();
            assert_eq!(many.matches('$').count(), values * TOGETHER);
            let last = format!("${}", values * TOGETHER);
            assert_eq!(many.matches(&last).count(), 1, "{last}");
            let tail = one.split_once(')').map(|(_, rest)| rest.rsplit(')').next());
            assert!(many.ends_with(tail.flatten().unwrap_or_default()));
        }
        let three = repeated("INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        assert!(three.starts_with("INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4), "));
        assert!(three.ends_with(") ON CONFLICT DO NOTHING"));
    }
}
