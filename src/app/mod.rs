//! The composition root: configuration in, a running connector out.
//!
//! Owns which adapter stands behind which port, the order of starting and stopping, and the names of the tasks. It
//! is the only place that names a port and its adapter together, and never decides anything about access.

mod adapters;
mod adopt;
mod alone;
mod audit;
pub mod bench;
mod beside;
mod census;
mod evidence;
mod integration;
mod integrity;
mod last_resort;
mod objective;
mod outage;
mod probe;
mod recovery;
mod replicas;
pub mod seals;
mod sinks;
mod sweeps;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::Config;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::IntegrationName;
use crate::domain::member::MemberRecord;
use crate::ports::audit::AuditStore;
use crate::ports::ledger::Census;
use crate::ports::{AccessProvider, Clock, Law, Ledger, Seals, SecretStore, Wake};
use crate::reconcile::{Observer, Reconciler, Settings as ReconcileSettings};
use crate::runtime::{
    Pace, Readiness, Shutdown, SteadyClock, SystemClock, TaskError, Tasks, limits, shutdown,
};
use crate::scheduler::{Driver, HeadStart, JumpWatch, Limits, Waker, watchdog};
use crate::service::rotation::{self, Rotator};
use crate::service::{IntegrationParts, Service, Share};
use crate::telemetry::{Health, Metrics};
use crate::{elastic, identity, law, reconcile, scheduler, service};

use integration::Integration;

pub use adopt::{Adopted, AdoptedAssignment, Adoption, Exported, adopt, export_events};
pub use audit::{AuditExport, audit_head, export_audit};
pub use evidence::{Evidence, evidence};
pub use last_resort::{PlannedRemoval, SweepAsk, SweepError, SweepReport, sweep};
pub use probe::{held, owed_reviews, probe_database, probe_sinks, probe_witness, probes};
pub use replicas::{copy_ledger, migrate};
pub use trust::{rules, source};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Parts that a test or another command brings along instead of the configured ones.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Secret stores by integration.
    pub secrets: BTreeMap<IntegrationName, Arc<dyn SecretStore>>,
    /// Ways of working that the bench compares with; none of them outside of it.
    pub baseline: bench::Baseline,
}

/// A connector whose sockets are bound and whose ledger is open; nothing runs yet.
#[derive(Debug)]
pub struct App {
    grpc: SocketAddr,
    http: SocketAddr,
    tasks: Tasks,
    shutdown: Shutdown,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    /// Everything in the ledger, where the baseline of the bench keeps it in memory; else empty.
    loaded: Vec<MemberRecord>,
    signals: Option<Caught>,
    /// Ends the wait of what comes after the line that says where the process listens.
    begun: CancellationToken,
}

/// Signals that are listened for already.
struct Caught(BoxStream<'static, &'static str>);

impl std::fmt::Debug for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caught")
    }
}

impl App {
    /// Opens the ledger, binds the sockets and wires everything, so that what cannot start fails here. The law and the
    /// clients are made on threads of their own beside the ledger.
    ///
    /// # Errors
    /// What could not be opened or bound, with its cause.
    pub async fn build(config: Config, overrides: Overrides) -> anyhow::Result<Self> {
        let steady = Arc::new(SteadyClock::new(
            Arc::new(SystemClock),
            config.engine.jump_hold.get(),
        ));
        let clock: Arc<dyn Clock> = Arc::clone(&steady) as Arc<dyn Clock>;
        // What turns periodically turns together, so that an idle process wakes once a second.
        let epoch = Some(Instant::now());
        let shutdown = Shutdown::new(config.engine.drain.get());
        let readiness = Readiness::new(shutdown.clone());
        let mut tasks = Tasks::new(shutdown.clone());
        let metrics = Metrics::install(DESCRIBE).context("setting up metrics")?;

        objective::announce(&config.service_level);

        let config = Arc::new(config);
        let (may_change, reading_law) = trust::law_beside(&config).split();
        let clients = adapters::clients_beside(&config, &overrides.secrets, &clock);
        let connections = adapters::connections(&config)?;
        // Before anything listens: a listener that cannot tell who calls does not open.
        let identity = trust::identity(&config, &clock)?;
        let keyring = seals::keyring(&config)?;
        let grpc = bind(config.listen.grpc.get()).await?;
        let http = bind(config.listen.http.get()).await?;
        let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);

        let opening = adapters::open_ledger(
            &config.ledger,
            &overrides.baseline,
            may_change,
            &shutdown,
            &mut tasks,
        );
        let (opened, law) = tokio::join!(Box::pin(opening), reading_law);
        // Of a start that its law refuses, the ledger has seen nothing.
        let law = law?;
        let (ledger, check, replicas) = opened?;
        let stored = match &check {
            Some(file) => Some(Arc::clone(file) as Arc<dyn AuditStore>),
            None => replicas.audit(),
        };
        let sealer = audit::sealer(&config, ledger.as_ref(), stored.clone()).await?;
        if let Some(check) = check {
            let (ready, stop) = (readiness.component("ledger file"), shutdown.clone());
            ready.set_ready();
            tasks.attend("ledger check", integrity::watch(check, ready, stop));
        }
        let ledger_ready = readiness.component("ledger");
        let writable = async { ledger.check().await.context("writing to the ledger") };
        let looking = recovery::look(ledger.as_ref(), clock.now());
        let (writable, found) = tokio::join!(writable, looking);
        writable?;
        ledger_ready.set_ready();
        let found = found?;
        nothing_left_out(&config, &found.census)?;
        recovery::raise(&steady, &found);
        let holding = recovery::Parts {
            config: &config,
            ledger: &ledger,
            clock: &clock,
            readiness: &readiness,
            epoch,
        };
        let holds = recovery::open(holding, &shutdown, &mut tasks).await?;
        let claims = replicas.claim(&config, &clock, &shutdown, &mut tasks)?;
        let journaling = outage::open(&config, &claims, ledger.as_ref()).await?;
        let begun = CancellationToken::new();
        let delivered = sinks::Parts {
            config: &config,
            ledger: &ledger,
            store: stored,
            claims: &claims,
            clock: &clock,
            begin: begun.clone(),
        };
        sinks::start(delivered, &shutdown, &mut tasks).await?;
        let loaded = bench::load_where_wanted(&overrides.baseline, &config, &ledger).await?;

        let mut waker = Waker::default();
        let mut wakes = BTreeMap::new();
        for integration in &config.integrations {
            wakes.insert(
                integration.name.clone(),
                waker.open(integration.name.clone()),
            );
        }
        let waker: Arc<dyn Wake> = Arc::new(waker);

        let head = HeadStart::new();
        let mut clients = clients.await.context("making the clients")??;
        let mut integrations = Vec::new();
        let mut rotators = BTreeMap::new();
        let mut parts = BTreeMap::new();
        let mut shares = BTreeMap::new();
        let mut pulses = Vec::new();
        let mut census_of = Vec::new();
        for section in &config.integrations {
            let client = clients.remove(&section.name);
            let client = client.context("every integration has its client")?;
            let secret = Arc::clone(&client.secret);
            let (standing, bound) = claims.of(&section.name, &ledger);
            let elastic = client.wired(&section.name, Arc::clone(&ledger), Arc::clone(&standing));
            reconcile::metrics::begin(&section.name);
            let provider: Arc<dyn AccessProvider> = Arc::clone(&elastic) as Arc<dyn AccessProvider>;
            let observer = Observer::new(
                section.name.clone(),
                Arc::clone(&provider),
                Arc::clone(&ledger),
                Arc::clone(&clock),
            );
            let observer = Arc::new(observer.under(Arc::clone(&standing)));
            let mut reconciler = Reconciler::new(
                section.name.clone(),
                Arc::clone(&provider),
                Arc::clone(&observer),
                Arc::clone(&bound),
                Arc::clone(&clock),
                Arc::clone(&waker),
                ReconcileSettings {
                    one_pair_per_call: overrides.baseline.per_grant,
                    ..adapters::reconcile_settings(
                        &config.engine,
                        section.reapply,
                        &config.service_level,
                        provider.request_lifetime(),
                    )
                },
            )
            .under(Arc::clone(&standing));
            if let Some(hold) = holds.get(&section.name) {
                reconciler = reconciler.with_hold(Arc::clone(hold));
            }
            let outage = journaling.of(&ledger, &standing);
            if let Some(outage) = &outage {
                reconciler = reconciler.with_outage(Arc::clone(outage));
            }
            if claims.is_shared() {
                let share = Share {
                    standing: Arc::clone(&standing),
                    ledger: Arc::clone(&bound),
                    outage,
                };
                shares.insert(section.name.clone(), share);
            }
            let reconciler = Arc::new(reconciler);
            let wakes = wakes
                .remove(&section.name)
                .context("integration names are unique")?;
            let driver = Driver::new(
                Arc::clone(&reconciler),
                Arc::clone(&ledger),
                Arc::clone(&clock),
                Limits {
                    epoch,
                    ..adapters::driver_limits(&config.engine)
                },
                wakes,
            )
            .ahead_in(&head);
            let driver = if claims.is_shared() {
                driver.hearing(ledger.changes())
            } else {
                driver
            };
            census_of.push((section.name.clone(), Arc::clone(&provider)));
            pulses.push((section.name.clone(), driver.pulse()));
            let details = adapters::details(section);
            parts.insert(
                section.name.clone(),
                IntegrationParts {
                    provider,
                    observer: Arc::clone(&observer),
                    details,
                },
            );
            let integration = Integration {
                name: section.name.clone(),
                pinned: section.organization_id.clone(),
                elastic,
                reconciler,
                ledger: Arc::clone(&ledger),
                clock: Arc::clone(&clock),
                standing,
                ownership: Arc::clone(&claims.ownership),
            };
            rotators.insert(
                section.name.clone(),
                Arc::new(
                    Rotator::new(
                        section.name.clone(),
                        Arc::new(integration.clone()),
                        secret,
                        bound,
                        Arc::clone(&clock),
                        adapters::rotation(&section.rotation, config.engine.unknown_look_after),
                    )
                    .asked_through(Arc::clone(&ledger)),
                ),
            );
            let ready = readiness.component(format!("integration {}", section.name));
            let stop = shutdown.soft_token();
            tasks.spawn(
                format!("integration {}", section.name),
                integration.clone().run(driver, ready, stop),
            );
            integrations.push(integration);
        }

        let service = Service::new(
            Arc::clone(&ledger),
            Arc::clone(&clock),
            Arc::clone(&waker),
            parts,
            adapters::rules(&config.policy)?,
            adapters::service_settings(&config),
        );
        let mut service = service
            .with_holds(&holds)
            .with_shares(shares)
            .with_rotators(&rotators)
            .with_seals(Arc::clone(&keyring) as Arc<dyn Seals>);
        if let Some(law) = &law {
            service = service.with_law(Arc::clone(law) as Arc<dyn Law>);
        }
        let service = Arc::new(service);
        if journaling.is_on() {
            let reconcilers = integrations
                .iter()
                .map(|integration| Arc::clone(&integration.reconciler))
                .collect();
            tasks.spawn("journal", outage::tell(reconcilers, shutdown.soft_token()));
        }
        let jumps = JumpWatch::new(
            steady,
            Arc::clone(&ledger),
            integrations
                .iter()
                .map(|integration: &Integration| Arc::clone(&integration.reconciler))
                .collect(),
            adapters::suspicion(&config.engine),
        )
        .in_step(epoch);
        let stop = shutdown.soft_token();
        tasks.spawn("clock", async move {
            jumps.run(stop).await;
            Ok(())
        });
        let sweep_parts = sweeps::Parts {
            integrations,
            ledger: Arc::clone(&ledger),
            clock: Arc::clone(&clock),
            wake: waker,
            service: Arc::clone(&service),
            remind_before: adapters::reminders(&config.reminders),
            reminded_at: Arc::new(Mutex::new(None)),
            keep_ended: adapters::delta(config.ledger.retention.ended_grants),
            rotators,
            sealer,
        };
        let all_sweeps = sweeps::all(&sweep_parts, adapters::schedules(&config.sweeps));
        let (stop, first) = (shutdown.soft_token(), head.clone());
        tasks.spawn("sweeps", async move {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = first.over() => {}
            }
            scheduler::sweeps::run(all_sweeps, Arc::new(SystemClock), stop)
                .await
                .map_err(TaskError::from)
        });

        let counting = census::Census {
            providers: census_of,
            ledger: Arc::clone(&ledger),
            clock: Arc::clone(&clock),
            ready: ledger_ready,
            head,
        };
        tasks.attend("census", counting.run(epoch, shutdown.clone()));

        let ready = follow(&readiness, &mut tasks, &shutdown);
        let stop = shutdown.soft_token();
        let mut options = adapters::grpc_options(&config)?;
        options.max_connections = connections;
        let trusted = trust::Trusted {
            tls: identity
                .as_ref()
                .and_then(|identity| identity.tls().cloned()),
            law: law
                .clone()
                .filter(|_| trust::source(&config.law) != law::Source::Shipped),
            keyring: seals::has_keys(&config).then_some(keyring),
            ledger: Some((Arc::clone(&ledger), Arc::clone(&clock))),
        };
        options.identity = identity;
        tasks.spawn("grpc", async move {
            api::serve(service, options, grpc, ready, stop)
                .await
                .map_err(TaskError::from)
        });
        tasks.attend("trust", trust::watch(trusted, epoch, shutdown.clone()));
        let health = Health {
            readiness,
            metrics: metrics.clone(),
        };
        tasks.attend("health", health.serve(http, shutdown.clone()));
        tasks.attend("metrics upkeep", metrics.upkeep(epoch, shutdown.clone()));
        let heart = Arc::new(watchdog::Heart::default());
        heart.beat(clock.as_ref());
        let patience = watchdog::Patience::of(
            config.engine.stall_limit.get(),
            config.engine.floor_poll.get(),
        );
        let every = Pace::new(epoch, patience.beat());
        tasks.attend(
            "heartbeat",
            beat(
                Arc::clone(&heart),
                Arc::clone(&clock),
                every,
                shutdown.clone(),
            ),
        );
        watchdog::watch(pulses, heart, Arc::clone(&clock), patience, hopeless)
            .context("starting the watchdog")?;

        Ok(Self {
            grpc: grpc_address,
            http: http_address,
            tasks,
            shutdown,
            ledger,
            clock,
            loaded,
            signals: None,
            begun,
        })
    }

    /// Listens for signals from now on, before anybody is told that the connector is ready; [`Self::run`] obeys them.
    /// Core dumps are switched off as well.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn catch_signals(&mut self) -> anyhow::Result<()> {
        limits::forbid_core_dumps();
        self.signals = Some(Caught(
            shutdown::signals().context("listening for signals")?,
        ));
        let hang_ups = shutdown::hang_ups(self.shutdown.clone()).context("listening for SIGHUP")?;
        self.tasks.attend("hang-ups", hang_ups);
        Ok(())
    }

    /// Where the gRPC surface and the health pages listen.
    #[must_use]
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.grpc, self.http)
    }

    /// Stops the connector from elsewhere.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Runs until stopped: by `signals` (SIGTERM, SIGINT) where wanted, by [`Self::shutdown`], or by a failure.
    ///
    /// # Errors
    /// The first task that failed.
    pub async fn run(self, signals: bool) -> anyhow::Result<()> {
        let Self {
            tasks,
            ledger,
            clock,
            loaded,
            signals: caught,
            begun,
            ..
        } = self;
        begun.cancel();
        let _loaded = loaded;
        note(&ledger, clock.as_ref(), "started").await;
        if let Some(Caught(caught)) = caught {
            tasks.supervise(caught).await?;
        } else if signals {
            let signals = shutdown::signals().context("listening for signals")?;
            tasks.supervise(signals).await?;
        } else {
            tasks.supervise(futures::stream::pending()).await?;
        }
        Ok(())
    }
}

/// Everybody who has metrics to describe.
const DESCRIBE: &[fn()] = &[
    elastic::describe_metrics,
    reconcile::metrics::describe_metrics,
    reconcile::hold::describe_metrics,
    scheduler::jump::describe_metrics,
    scheduler::watchdog::describe_metrics,
    scheduler::sweeps::describe_metrics,
    census::describe_metrics,
    crate::audit::describe_metrics,
    crate::sinks::describe_metrics,
    objective::describe_metrics,
    api::describe_metrics,
    identity::describe_metrics,
    law::describe_metrics,
    rotation::describe_metrics,
    service::vouch::describe_metrics,
];

/// Refuses to start without an integration that still has grants: nobody would ever take that access away.
fn nothing_left_out(config: &Config, census: &Census) -> anyhow::Result<()> {
    let mut left_out: BTreeMap<&IntegrationName, u64> = BTreeMap::new();
    for (integration, _, count) in &census.grants {
        if config
            .integrations
            .iter()
            .all(|section| section.name != *integration)
        {
            *left_out.entry(integration).or_default() += count;
        }
    }
    if let Some((integration, grants)) = left_out.first_key_value() {
        anyhow::bail!(
            "the ledger holds {grants} grants of integration {integration} that have not ended, and the configuration has no such integration, so nobody would take that access away: put it back, let `latchkey drain` end them, then leave it out"
        );
    }
    Ok(())
}

/// Shows the watchdog that the runtime turns, whatever the integrations do.
async fn beat(
    heart: Arc<watchdog::Heart>,
    clock: Arc<dyn Clock>,
    mut every: Pace,
    shutdown: Shutdown,
) -> Result<(), TaskError> {
    loop {
        tokio::select! {
            () = shutdown.closing() => {
                heart.rest();
                return Ok(());
            }
            () = every.tick() => heart.beat(clock.as_ref()),
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; is another process there?"))
}

/// Passes readiness on to the gRPC health service.
fn follow(readiness: &Readiness, tasks: &mut Tasks, shutdown: &Shutdown) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let mut changes = readiness.watch();
    sender.send_replace(readiness.report().ready);
    let stop = shutdown.soft_token();
    tasks.attend("readiness", async move {
        loop {
            let report = changes.changed().await;
            sender.send_replace(report.ready);
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    });
    receiver
}

async fn note(ledger: &Arc<dyn Ledger>, clock: &dyn Clock, action: &str) {
    let kind = EventKind::Lifecycle {
        action: action.to_owned(),
        version: VERSION.to_owned(),
    };
    let event = AuditEvent::connector(clock.now(), kind);
    if let Err(error) = ledger.append(vec![event]).await {
        tracing::warn!(code = error.code(), action, "Lifecycle left no audit event");
    }
}

/// A runtime that has stood still for a minute will not come back: the supervisor of the process starts another,
/// which takes everything it needs from the ledger.
fn hopeless() {
    std::process::abort();
}

#[cfg(test)]
mod metrics_tests;
