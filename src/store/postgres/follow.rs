//! Learning of what other replicas committed.
//!
//! Owns the connection that listens, and the poll under it. What is heard is only that there is something: it is read
//! from the tables. Never the only way to learn anything.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use sqlx::raw_sql;
use tokio::sync::watch;
use tokio::time::timeout;

use super::engine::{self, CHANNEL, Reader};
use super::{connect, hush, read};

/// The poll is never slower than this.
const FLOOR: Duration = Duration::from_secs(1);
/// A notification over a healthy connection takes milliseconds; a machine that is short of time gets a second.
const PROBE: Duration = Duration::from_secs(1);
/// How long making the connections of the self-test may take. Logging in is slow where the processors are busy, and a
/// slow login is no pooler.
const LOGIN: Duration = Duration::from_secs(10);

/// The self-test at start: whether what one connection tells reaches another that listens. Through a pooler in
/// transaction mode it does not.
pub(super) async fn hears(readers: &PgPool) -> bool {
    const PROBE_CHANNEL: &str = "latchkey_probe";
    let tell = async {
        let mut listener = PgListener::connect_with(readers).await?;
        listener.listen(PROBE_CHANNEL).await?;
        let mut other = readers.acquire().await?;
        raw_sql("NOTIFY latchkey_probe")
            .execute(&mut *other)
            .await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let Ok(Ok(mut listener)) = timeout(LOGIN, tell).await else {
        return false;
    };
    matches!(timeout(PROBE, listener.recv()).await, Ok(Ok(_)))
}

/// Raises the newest sequence as other replicas commit, until the pool is closed.
pub(super) async fn follow(readers: PgPool, is_pooled: bool, newest: watch::Sender<u64>) {
    let mut listener = None;
    while !readers.is_closed() {
        if listener.is_none() && !is_pooled {
            listener = listen(&readers).await;
        }
        match &mut listener {
            None => {
                // Ends at once when the pool does.
                timeout(FLOOR, readers.close_event()).await.ok();
            }
            Some(heard) => {
                if let Ok(Err(error)) = timeout(FLOOR, heard.recv()).await {
                    // It may have logged in again.
                    let error = hush::hushed(error, &readers.connect_options());
                    tracing::debug!(%error, "Listening for other replicas failed");
                    listener = None;
                }
            }
        }
        if readers.is_closed() {
            return;
        }
        // What was known before the question was committed before it as well.
        let known = *newest.borrow();
        if let Ok(last) = last(&readers, is_pooled).await {
            let went_back = last < known;
            if went_back {
                tracing::error!(
                    code = "ledger_went_back",
                    known,
                    found = last,
                    "The database knows less than it did: it was restored, or a stand-by took over that had not heard everything. Access given meanwhile is not in it; docs/replicas.md has the steps"
                );
            }
            newest.send_if_modified(|known| {
                let is_news = *known < last || went_back;
                *known = if went_back { last } else { last.max(*known) };
                is_news
            });
        }
    }
}

async fn listen(readers: &PgPool) -> Option<PgListener> {
    let begin = async {
        let mut listener = PgListener::connect_with(readers).await?;
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    timeout(FLOOR, begin).await.ok()?.ok()
}

async fn last(readers: &PgPool, is_pooled: bool) -> Result<u64, sqlx::Error> {
    let conn = engine::patient(connect::acquired(readers)).await?;
    let mut reader = Reader::begin(conn, is_pooled).await?;
    match engine::patient(read::last_sequence(&mut reader)).await {
        Ok(last) => {
            engine::done(reader).await?;
            Ok(last)
        }
        Err(error) => {
            engine::spoiled(reader);
            Err(error)
        }
    }
}
