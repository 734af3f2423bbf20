//! Learning of what other replicas committed.
//!
//! Owns the connection that listens, and the poll under it. What is heard is only that there is something: it is read
//! from the tables. Never the only way to learn anything.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::{self, Connector};
use super::engine::{self, CHANNEL, Reader};
use super::read;

/// The poll is never slower than this.
const FLOOR: Duration = Duration::from_secs(1);
/// A notification over a healthy connection takes milliseconds; a machine that is short of time gets a second.
const PROBE: Duration = Duration::from_secs(1);
/// How long making the connections of the self-test may take. Logging in is slow where the processors are busy, and a
/// slow login is no pooler.
const LOGIN: Duration = Duration::from_secs(10);

/// The self-test at start: whether what one connection tells reaches another that listens. Through a pooler in
/// transaction mode it does not.
pub(super) async fn hears(connector: &Connector, readers: &PgPool) -> bool {
    const PROBE_CHANNEL: &str = "latchkey_probe";
    let tell = async {
        let listener = connector.listen(PROBE_CHANNEL).await?;
        let mut other = Reader::begin(connect::acquired(readers).await?, false).await?;
        engine::run(&mut other, "NOTIFY latchkey_probe").await?;
        engine::done(other).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let Ok(Ok(mut listener)) = timeout(LOGIN, tell).await else {
        return false;
    };
    matches!(timeout(PROBE, listener.recv()).await, Ok(Ok(_)))
}

/// Raises the newest sequence as other replicas commit, until the pool is closed.
pub(super) async fn follow(
    connector: Arc<Connector>,
    readers: PgPool,
    is_pooled: bool,
    newest: watch::Sender<u64>,
) {
    let mut listener = None;
    // Whether the poll found what should have been heard.
    let mut is_owed = false;
    while !readers.is_closed() {
        if listener.is_none() && !is_pooled {
            listener = listen(&connector).await;
            is_owed = false;
        }
        let heard = next(listener.as_mut(), &readers).await;
        match heard {
            Heard::News => is_owed = false,
            // A connection that leads nowhere any more is as quiet as one without news.
            Heard::Nothing if is_owed => {
                tracing::debug!("Listening for other replicas anew: it was deaf");
                listener = None;
            }
            Heard::Nothing => {}
            Heard::Failed => listener = None,
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
            let is_news = newest.send_if_modified(|known| {
                let is_news = *known < last || went_back;
                *known = if went_back { last } else { last.max(*known) };
                is_news
            });
            is_owed |= is_news && listener.is_some() && matches!(heard, Heard::Nothing);
        }
    }
}

/// What came of listening for as long as the poll may wait.
enum Heard {
    News,
    Nothing,
    Failed,
}

async fn next(listener: Option<&mut PgListener>, readers: &PgPool) -> Heard {
    let listen = async {
        match listener {
            None => std::future::pending().await,
            Some(listener) => listener.try_recv().await,
        }
    };
    tokio::select! {
        // Ends at once when the pool does.
        () = readers.close_event() => Heard::Nothing,
        heard = timeout(FLOOR, listen) => match heard {
            Ok(Ok(Some(_))) => Heard::News,
            Ok(Ok(None)) => Heard::Failed,
            Ok(Err(error)) => {
                tracing::debug!(%error, "Listening for other replicas failed");
                Heard::Failed
            }
            Err(_) => Heard::Nothing,
        },
    }
}

async fn listen(connector: &Connector) -> Option<PgListener> {
    timeout(FLOOR, connector.listen(CHANNEL)).await.ok()?.ok()
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
