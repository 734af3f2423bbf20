//! Where the bench's ledgers lie: in files, or in databases of a server.
//!
//! Owns making, filling, copying and discarding them. Never touches a file or a database that it did not make.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};

use super::{Fill, fill};
use crate::domain::Timestamp;
use crate::domain::grant::GrantState;
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{Due, MemberKey, Subject};
use crate::ports::ledger::MemberCommit;
use crate::ports::{Clock as _, Ledger};
use crate::runtime::SystemClock;
use crate::store::postgres::BenchServer;
use crate::store::{self, PostgresLedger, PostgresOptions, SqliteLedger, SqliteOptions};

/// Where a ledger of the bench lies.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In a database of the bench.
    Database {
        /// Which one.
        number: u32,
        /// How a connector reaches it.
        url: String,
    },
}

/// What ledgers are made of.
#[derive(Debug)]
pub struct Ground {
    directory: PathBuf,
    server: Option<BenchServer>,
    made: AtomicU32,
}

impl Ground {
    /// Files in a directory of the bench or, where there is an address, databases beside the one that it names.
    #[must_use]
    pub fn new(directory: &Path, url: Option<&str>) -> Self {
        let [a, b, c, d, e, f, ..] = SystemClock.entropy();
        Self {
            directory: directory.to_owned(),
            server: url.map(|url| BenchServer::new(PostgresOptions::new(url), [a, b, c, d, e, f])),
            made: AtomicU32::new(0),
        }
    }

    fn file(&self) -> anyhow::Result<PathBuf> {
        let at = tempfile::Builder::new()
            .prefix("ledger-")
            .tempdir_in(&self.directory)
            .context("making a directory")?
            .keep();
        Ok(at.join("ledger.db"))
    }

    async fn database(&self, server: &BenchServer, copy_of: Option<u32>) -> anyhow::Result<Place> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        server.make(number, copy_of).await.context(
            "the role of --postgres must be let in without a password and be allowed to make databases (CREATEDB)",
        )?;
        let url = server.options(number).url;
        Ok(Place::Database { number, url })
    }

    /// A place for one more ledger.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn empty(&self) -> anyhow::Result<Place> {
        match &self.server {
            None => Ok(Place::File(self.file()?)),
            Some(server) => self.database(server, None).await,
        }
    }

    /// A new ledger of active grants. Answers how many, and its size in bytes.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub async fn filled(&self, what: &Fill) -> anyhow::Result<(Place, u64, u64)> {
        let file = self.file()?;
        let grants = fill(&file, what).await?;
        let Some(server) = &self.server else {
            let size = std::fs::metadata(&file).map_or(0, |file| file.len());
            return Ok((Place::File(file), grants, size));
        };
        let place = self.database(server, None).await?;
        let Place::Database { number, .. } = &place else {
            anyhow::bail!("a server makes databases");
        };
        server.open_to_many(*number).await?;
        let options = Box::new(server.options(*number));
        store::copy(
            &store::Place::File(file.clone()),
            &store::Place::Server(options),
        )
        .await
        .context("filling a database")?;
        let size = server.settle(*number).await?;
        self.remove(&file)?;
        Ok((place, grants, u64::try_from(size).unwrap_or(0)))
    }

    /// A copy of a ledger that nobody has open, so that every start finds the same work to do.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn copy(&self, place: &Place) -> anyhow::Result<Place> {
        match place {
            Place::File(path) => {
                let copy = self.file()?;
                std::fs::copy(path, &copy).context("copying a ledger")?;
                Ok(Place::File(copy))
            }
            Place::Database { number, .. } => {
                let server = self.server.as_ref().context("a database has a server")?;
                self.database(server, Some(*number)).await
            }
        }
    }

    /// Removes a ledger, with everything that lies beside it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn discard(&self, place: Place) -> anyhow::Result<()> {
        match place {
            Place::File(path) => self.remove(&path),
            Place::Database { number, .. } => {
                let server = self.server.as_ref().context("a database has a server")?;
                Ok(server.drop(number).await?)
            }
        }
    }

    fn remove(&self, file: &Path) -> anyhow::Result<()> {
        let place = file.parent().context("a ledger lies in a directory")?;
        ensure!(
            place.starts_with(&self.directory) && place != self.directory,
            "{} is not a place of the bench",
            place.display()
        );
        std::fs::remove_dir_all(place).context("removing a ledger")
    }

    /// Drops every database that it made. Files go with their directory.
    ///
    /// # Errors
    /// When one cannot be dropped.
    pub async fn clear(&self) -> anyhow::Result<()> {
        if let Some(server) = &self.server {
            for number in 0..self.made.load(Ordering::Relaxed) {
                server.drop(number).await?;
            }
        }
        Ok(())
    }

    /// After grants of a ledger were made to end by hand.
    async fn settle(&self, place: &Place) -> anyhow::Result<()> {
        if let (Some(server), Place::Database { number, .. }) = (&self.server, place) {
            server.settle(*number).await?;
        }
        Ok(())
    }
}

/// Makes the grants of some members of a ledger that nobody has open end at an instant that has passed.
///
/// # Errors
/// When the ledger cannot be opened or written.
pub async fn make_overdue(
    ground: &Ground,
    place: &Place,
    integration: &IntegrationName,
    users: &[UserId],
    ended_at: Timestamp,
) -> anyhow::Result<()> {
    match place {
        Place::File(path) => {
            let (ledger, writer) = SqliteLedger::open(path, SqliteOptions::default())
                .await
                .context("opening the ledger")?;
            let change = change(&ledger, integration, users, ended_at);
            tokio::join!(change, writer).0?;
        }
        Place::Database { url, .. } => {
            let (ledger, writer) = PostgresLedger::open(PostgresOptions::new(url.as_str()))
                .await
                .context("opening the ledger")?;
            let change = change(&ledger, integration, users, ended_at);
            tokio::join!(change, writer).0?;
        }
    }
    ground.settle(place).await
}

/// Changes the ends, and closes the ledger.
async fn change(
    ledger: &dyn Ledger,
    integration: &IntegrationName,
    users: &[UserId],
    ended_at: Timestamp,
) -> anyhow::Result<()> {
    let mut changed = Ok(());
    for user in users {
        changed = end_at(ledger, integration, user, ended_at).await;
        if changed.is_err() {
            break;
        }
    }
    ledger.close().await;
    changed
}

async fn end_at(
    ledger: &dyn Ledger,
    integration: &IntegrationName,
    user: &UserId,
    ended_at: Timestamp,
) -> anyhow::Result<()> {
    let key = MemberKey {
        integration: integration.clone(),
        subject: Subject::Member(user.clone()),
    };
    let mut record = ledger.member(&key).await?;
    for grant in &mut record.grants {
        if let GrantState::Active { expires_at, .. } = &mut grant.state {
            *expires_at = ended_at;
            grant.version += 1;
        }
    }
    for owned in &mut record.owned {
        owned.must_end_by = Some(ended_at);
    }
    record.due = record.due.map(|due| Due {
        at: ended_at,
        ..due
    });
    let commit = MemberCommit {
        record,
        audit: Vec::new(),
        request: None,
    };
    ledger.commit(commit).await?;
    Ok(())
}
