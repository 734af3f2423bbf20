//! Several writes in one text: a round trip to the connection's thread costs more than the rows.
//!
//! Owns the texts, made from those of single writes, and the several accepts that go all together or not at all.

use std::sync::LazyLock;

use sqlx::query;
use sqlx::sqlite::SqliteConnection;

pub(super) use super::accept::accept;
use super::accept::{self, ACCEPT_WITH_EVENT};
use super::write::{self, EVENT, GRANT, REQUEST, Work};
use crate::store::rows::{AcceptRows, EventRow};

/// Writes of one kind that share a text where so many come together.
pub(super) const TOGETHER: usize = 8;

/// Several accepts, all of them or none.
static ACCEPTS: LazyLock<String> = LazyLock::new(|| {
    let text = repeated(ACCEPT_WITH_EVENT);
    format!("SAVEPOINT accepts; {text}; RELEASE accepts")
});
/// Several grants of a commit.
pub(super) static GRANTS: LazyLock<String> = LazyLock::new(|| repeated(GRANT));
/// Several request ids.
pub(super) static REQUESTS: LazyLock<String> = LazyLock::new(|| repeated(REQUEST));
/// Several events.
pub(super) static EVENTS: LazyLock<String> = LazyLock::new(|| repeated(EVENT));

/// A text [`TOGETHER`] times over, its values numbered on from copy to copy.
fn repeated(text: &str) -> String {
    let values = highest(text);
    let copies: Vec<String> = (0..TOGETHER)
        .map(|copy| {
            let mut parts = text.split('$');
            let mut numbered = parts.next().unwrap_or_default().to_owned();
            for (number, rest) in parts.map(numbered_part) {
                numbered.push_str(&format!("${}{rest}", number + copy * values));
            }
            numbered
        })
        .collect();
    copies.join("; ")
}

/// The highest number of a value in a text.
fn highest(text: &str) -> usize {
    let parts = text.split('$').skip(1);
    parts
        .map(|part| numbered_part(part).0)
        .max()
        .unwrap_or_default()
}

/// The number at the beginning of what follows a `$`, and the rest.
fn numbered_part(part: &str) -> (usize, &str) {
    let digits = part.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = part.split_at(digits);
    let number = number
        .parse()
        .expect("the values of our own texts are numbered");
    (number, rest)
}

/// The accept of a write that fits into the text for several.
pub(super) fn plain_accept(work: &Work) -> Option<(&AcceptRows, &EventRow)> {
    match work {
        Work::Accept(rows) => match rows.events.as_slice() {
            [event] if rows.tokens.is_empty() => Some((rows, event)),
            _ => None,
        },
        Work::Tombstone(..)
        | Work::Commit(_)
        | Work::Rekey(..)
        | Work::Append(_)
        | Work::Claim(..)
        | Work::Prune { .. }
        | Work::Agree { .. }
        | Work::PutHold(..)
        | Work::EndHold(..)
        | Work::PutRotation(..)
        | Work::Seal(_)
        | Work::CloseReview(..)
        | Work::RestoreReview(_)
        | Work::MoveCursor { .. }
        | Work::Check => None,
    }
}

/// Runs [`TOGETHER`] accepts in one text. Answers whether it did; if not, a request id is taken, nothing was
/// written, and each of them has to be asked for alone.
pub(super) async fn accepts(
    conn: &mut SqliteConnection,
    all: &[(&AcceptRows, &EventRow)],
) -> Result<bool, sqlx::Error> {
    let mut statement = query(ACCEPTS.as_str());
    for (rows, event) in all {
        statement = write::bind_event(accept::bind_accepted(statement, rows), event)
            .bind(event.body.clone());
    }
    match statement.execute(&mut *conn).await {
        Ok(_) => Ok(true),
        Err(error) if accept::is_taken_request(&error) => {
            query("ROLLBACK TO accepts; RELEASE accepts")
                .execute(conn)
                .await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_copies_of_a_text_share_a_value() {
        for (one, many) in [
            (ACCEPT_WITH_EVENT, &ACCEPTS),
            (GRANT, &GRANTS),
            (REQUEST, &REQUESTS),
            (EVENT, &EVENTS),
        ] {
            assert_eq!(highest(many), highest(one) * TOGETHER, "{one}");
        }
        assert_eq!(repeated("a $1, $2").split("; ").nth(1), Some("a $3, $4"));
    }
}
