//! Claims on organizations, in the database that all replicas share.
//!
//! Owns taking, renewing and spreading them. Deadlines are compared by the server's clock alone; this process counts
//! from before it asked, so it stops before the server lets anybody else begin. Never takes what still runs here, and
//! never renews what nobody here works under.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::connect::{Connector, OpenError, Options};
use super::engine::{self, Reader, query, query_scalar};
use super::picture::{Claimed, Picture, Stamp, Watched, millis};
use crate::domain::Timestamp;
use crate::domain::ids::IntegrationName;
use crate::ports::Clock;
use crate::ports::ownership::{Ownership, Reach, Standing, Tenure};
use crate::store::rows;

/// A claim is renewed this many times in its life.
const TICKS: u32 = 10;

/// A server that does not answer must not keep the claim from running out here.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '2s'; \
     SET LOCAL idle_in_transaction_session_timeout = '2s'";

const SEEN: &str = "INSERT INTO replicas (name, deadline) VALUES ($1, clock_timestamp() + $2 * INTERVAL '1 millisecond') \
     ON CONFLICT (name) DO UPDATE SET deadline = excluded.deadline";

const KNOWN: &str = "INSERT INTO ownership (integration, holder, epoch, deadline) \
     VALUES ($1, '', 0, clock_timestamp()) ON CONFLICT (integration) DO NOTHING";

/// Only the very claims that are held here: one of which the answer was lost, or that ran out here before the server's
/// last word came, has to run out there as well. Renewed under this name, nobody would ever work under it.
///
/// A deadline never goes back, whatever the clock of the server does: what others may not move before it has been told
/// to whoever holds the claim. Where the clock was set back by more than a claim it is not renewed at all, and passes
/// on as one that stands still; else nobody but the owner could move ends for as long as the clock was set back.
const RENEW: &str = "UPDATE ownership SET deadline = \
     GREATEST(deadline + INTERVAL '1 microsecond', clock_timestamp() + $2 * INTERVAL '1 millisecond') \
     WHERE holder = $1 AND deadline > clock_timestamp() \
     AND deadline <= clock_timestamp() + 2 * $2 * INTERVAL '1 millisecond' \
     AND (integration, epoch) IN (SELECT * FROM UNNEST($3::text[], $4::bigint[])) \
     RETURNING integration, epoch, (EXTRACT(EPOCH FROM deadline) * 1000)::bigint";

/// Every row: whose it is or was, whether the claim has run out, for how long, its epoch and its deadline.
const ALL: &str = "SELECT integration, holder, deadline <= clock_timestamp(), \
     (EXTRACT(EPOCH FROM clock_timestamp() - deadline) * 1000)::bigint, epoch, \
     (EXTRACT(EPOCH FROM deadline) * 1000000)::bigint FROM ownership ORDER BY integration";

const RUNNING: &str = "SELECT name FROM replicas WHERE deadline > clock_timestamp()";

/// Only what was let go, or is as it was when it was seen to have stood still for long enough.
const TAKE: &str = "UPDATE ownership SET holder = $1, epoch = epoch + 1, \
     deadline = clock_timestamp() + $2 * INTERVAL '1 millisecond' \
     WHERE integration = $3 AND (holder = '' \
     OR (epoch = $4 AND (EXTRACT(EPOCH FROM deadline) * 1000000)::bigint = $5)) \
     RETURNING epoch, (EXTRACT(EPOCH FROM deadline) * 1000)::bigint";

const LET_GO: &str = "UPDATE ownership SET holder = '', deadline = clock_timestamp() \
     WHERE integration = $1 AND holder = $2 AND epoch = $3";

const GONE: &str =
    "DELETE FROM replicas WHERE name = $1 OR deadline < clock_timestamp() - INTERVAL '1 day'";

/// How claims are made.
#[derive(Debug, Clone)]
pub struct Claiming {
    /// Name of this replica, unlike any other's.
    pub replica: String,
    /// How long a claim stands without being renewed.
    pub claim: Duration,
    /// The organizations of this replica's configuration.
    pub integrations: Vec<IntegrationName>,
}

/// Claims of this replica.
#[derive(Clone)]
pub struct PostgresOwnership {
    claiming: Arc<Claiming>,
    clock: Arc<dyn Clock>,
    pool: PgPool,
    connector: Arc<Connector>,
    standings: Arc<BTreeMap<IntegrationName, Arc<Standing>>>,
}

impl fmt::Debug for PostgresOwnership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOwnership")
            .field("replica", &self.claiming.replica)
            .field("standings", &self.standings)
            .finish_non_exhaustive()
    }
}

impl PostgresOwnership {
    /// Claims for the organizations of this replica; nothing is taken before [`Self::run`].
    ///
    /// # Errors
    /// [`OpenError`] when the connection cannot be set up.
    pub fn new(
        options: &Options,
        claiming: Claiming,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let connector = Arc::new(Connector::new(options));
        let standings = claiming
            .integrations
            .iter()
            .map(|name| (name.clone(), Arc::new(Standing::none())))
            .collect();
        Ok(Self {
            pool: connector.pool(3)?,
            claiming: Arc::new(claiming),
            clock,
            connector,
            standings: Arc::new(standings),
        })
    }

    /// Takes and renews until `stop`; what is held then stays held until it is released or runs out.
    pub async fn run(self, stop: CancellationToken) {
        let period = self.claiming.claim / TICKS;
        let mut every = tokio::time::interval(period);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        let mut watched = Watched::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = every.tick() => {}
            }
            self.drop_what_ran_out();
            match tokio::time::timeout(self.claiming.claim / 2, self.turn(&mut watched)).await {
                Ok(Ok(())) => {
                    if failing {
                        tracing::info!("Claims are renewed again");
                    }
                    failing = false;
                }
                Ok(Err(error)) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "Claims cannot be renewed; nothing is sent once they have run out");
                }
                Err(_) if !failing => {
                    failing = true;
                    tracing::warn!(
                        "The database does not answer; nothing is sent once claims have run out"
                    );
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.drop_what_ran_out();
        }
    }

    /// Other replicas that run, or ended without a word within the last claim.
    ///
    /// # Errors
    /// [`OpenError::Database`] when the list cannot be read.
    pub async fn others(&self) -> Result<Vec<String>, OpenError> {
        let listed = async {
            let mut conn = self.begin().await?;
            let names: Vec<String> = query_scalar(RUNNING).fetch_all(&mut *conn).await?;
            end(conn).await?;
            Ok(names)
        };
        let mut names = engine::patient(listed)
            .await
            .map_err(|source| OpenError::Database {
                action: "reading the list of replicas",
                source,
            })?;
        names.retain(|name| *name != self.claiming.replica);
        Ok(names)
    }

    /// Says good-bye to the others; whatever is held must have been released.
    pub async fn leave(&self) {
        let bye = async {
            let mut conn = self.begin().await?;
            query(GONE)
                .bind(self.claiming.replica.clone())
                .execute(&mut *conn)
                .await?;
            end(conn).await
        };
        if let Err(error) = engine::patient(bye).await {
            tracing::debug!(%error, "Leaving the list of replicas failed; it forgets by itself");
        }
        self.pool.close().await;
    }

    fn drop_what_ran_out(&self) {
        let now = self.clock.since_boot();
        for (name, standing) in self.standings.iter() {
            if *standing.tenure().borrow() != Tenure::Not && !standing.covers(now, Duration::ZERO) {
                tracing::warn!(integration = %name, epoch = standing.epoch(), "Claim ran out");
                standing.lose();
            }
        }
    }

    /// The claims that are held, and their epochs.
    fn held(&self) -> (Vec<String>, Vec<i64>) {
        self.standings
            .iter()
            .filter(|(_, standing)| *standing.tenure().borrow() != Tenure::Not)
            .map(|(name, standing)| (name.to_string(), rows::int(standing.epoch())))
            .unzip()
    }

    async fn begin(&self) -> Result<Reader, sqlx::Error> {
        let mut conn = self.connector.reader(&self.pool, false).await?;
        conn.framed();
        engine::run(&mut conn, BEGIN).await?;
        Ok(conn)
    }

    /// Renews what is held, then takes or gives up.
    async fn turn(&self, watched: &mut Watched) -> Result<(), sqlx::Error> {
        let Claiming { replica, claim, .. } = &*self.claiming;
        let millis = millis(*claim);
        // Counted from before the server was asked: here a claim ends earlier than there.
        let asked_at = self.clock.since_boot();
        let until = asked_at + *claim;
        let mut conn = self.begin().await?;
        query(SEEN)
            .bind(replica.clone())
            .bind(millis)
            .execute(&mut *conn)
            .await?;
        let (names, epochs) = self.held();
        let renewed: BTreeMap<String, Reach> = query(RENEW)
            .bind(replica.clone())
            .bind(millis)
            .bind(names)
            .bind(epochs)
            .fetch_all(&mut *conn)
            .await?
            .iter()
            .map(|row| {
                let reach = reach(row.try_get(1)?, row.try_get(2)?, until);
                Ok((row.try_get(0)?, reach))
            })
            .collect::<Result<_, sqlx::Error>>()?;
        let mut picture = self.look(&mut conn).await?;
        let looked = self.clock.since_boot();
        watched.look(&mut picture, *claim, (asked_at, looked));
        let wanted = |name: &str| {
            let standing = self
                .standings
                .iter()
                .find(|(known, _)| known.as_str() == name);
            standing.is_some_and(|(_, standing)| {
                standing.is_wanted() && *standing.tenure().borrow() == Tenure::Not
            })
        };
        let mut taken = BTreeMap::new();
        for row in picture.to_take(replica, *claim, wanted) {
            let answer = query(TAKE)
                .bind(replica.clone())
                .bind(millis)
                .bind(row.integration.clone())
                .bind(rows::int(row.stamp.epoch))
                .bind(row.stamp.deadline_us)
                .fetch_optional(&mut *conn)
                .await?;
            if let Some(answer) = answer {
                if row.is_stuck {
                    tracing::warn!(
                        integration = row.integration,
                        "Took a claim that nobody renews and that does not run out: the clock of the database was set back"
                    );
                }
                let reach = reach(answer.try_get(0)?, answer.try_get(1)?, until);
                taken.insert(row.integration, reach);
            }
        }
        end(conn).await?;
        for (name, standing) in self.standings.iter() {
            let held = *standing.tenure().borrow() != Tenure::Not;
            match (renewed.get(name.as_str()), taken.get(name.as_str())) {
                (_, Some(reach)) => {
                    tracing::info!(integration = %name, epoch = reach.epoch, replica, "Owns the integration");
                    standing.follows(looked.saturating_sub(picture.free_for(name.as_str())));
                    standing.hold_to(*reach);
                }
                (Some(reach), None) if held => standing.renew_to(*reach),
                (_, None) if held => {
                    tracing::warn!(integration = %name, epoch = standing.epoch(), "Claim was taken over");
                    standing.lose();
                }
                (_, None) => {}
            }
        }
        if let Some(surplus) = picture.to_yield(replica)
            && let Some((name, standing)) = self
                .standings
                .iter()
                .find(|(known, _)| known.as_str() == surplus)
        {
            tracing::info!(integration = %name, "Gives the integration to a replica with less to do");
            standing.ask_back();
        }
        Ok(())
    }

    async fn look(&self, conn: &mut PgConnection) -> Result<Picture, sqlx::Error> {
        let known = query(ALL).fetch_all(&mut *conn).await?;
        let mut rows: Vec<Claimed> = Vec::with_capacity(known.len());
        for row in known {
            rows.push(Claimed {
                integration: row.try_get(0)?,
                holder: row.try_get(1)?,
                has_expired: row.try_get(2)?,
                free_ms: row.try_get(3)?,
                stamp: Stamp {
                    epoch: rows::uint(row.try_get(4)?),
                    deadline_us: row.try_get(5)?,
                },
                is_stuck: false,
            });
        }
        for name in &self.claiming.integrations {
            if rows.iter().any(|row| row.integration == name.as_str()) {
                continue;
            }
            query(KNOWN)
                .bind(name.to_string())
                .execute(&mut *conn)
                .await?;
            rows.push(Claimed {
                integration: name.to_string(),
                holder: String::new(),
                free_ms: 0,
                has_expired: true,
                stamp: Stamp {
                    epoch: 0,
                    deadline_us: 0,
                },
                is_stuck: false,
            });
        }
        let running = query_scalar(RUNNING).fetch_all(conn).await?;
        Ok(Picture { rows, running })
    }
}

async fn end(conn: Reader) -> Result<(), sqlx::Error> {
    engine::done(conn).await
}

/// How far a claim reaches that the server says ends in this millisecond: before it, so that rounding gives nothing away.
fn reach(epoch: i64, deadline_ms: i64, until: Duration) -> Reach {
    Reach {
        epoch: rows::uint(epoch),
        until,
        deadline: Timestamp::from_timestamp_millis(deadline_ms - 1).unwrap_or_default(),
    }
}

#[async_trait]
impl Ownership for PostgresOwnership {
    fn standing(&self, integration: &IntegrationName) -> Arc<Standing> {
        match self.standings.get(integration) {
            Some(standing) => Arc::clone(standing),
            None => Arc::new(Standing::none()),
        }
    }

    async fn release(&self, integration: &IntegrationName) {
        let standing = self.standing(integration);
        let epoch = rows::int(standing.epoch());
        standing.lose();
        let release = async {
            let mut conn = self.begin().await?;
            query(LET_GO)
                .bind(integration.to_string())
                .bind(self.claiming.replica.clone())
                .bind(epoch)
                .execute(&mut *conn)
                .await?;
            end(conn).await
        };
        match engine::patient(release).await {
            Ok(()) => tracing::info!(integration = %integration, "Let go of the integration"),
            Err(error) => {
                tracing::warn!(%error, integration = %integration, "Claim was not released; it runs out by itself");
            }
        }
    }
}
