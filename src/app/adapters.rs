//! From configuration sections to adapters and their settings.
//!
//! Owns the translation. Never chooses a default: those stand in the configuration, with their reasons.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::TimeDelta;
use tokio::task::JoinHandle;

use super::bench::Baseline;
use super::replicas::Replicas;
use super::sweeps::Schedules;
use crate::api;
use crate::config::{
    Config, Engine, Integration, Ledger as LedgerSection, LedgerKind, OnExceeded, Period, Policy,
    Reapply, Reminders, Rotation, Secret, SecretSource, ServiceLevel, Sweeps,
};
use crate::domain::ids::IntegrationName;
use crate::domain::rotation::Schedule;
use crate::domain::ttl::Ttl;
use crate::elastic::{self, Elastic};
use crate::policy::Rules;
use crate::ports::ownership::Standing;
use crate::ports::{Clock, Ledger, SecretStore};
use crate::reconcile::plan::Bounds;
use crate::reconcile::{self, Settings as ReconcileSettings};
use crate::runtime::{Shutdown, Tasks, limits};
use crate::scheduler::{Limits, Suspicion};
use crate::secrets::{EnvSecret, FileSecret};
use crate::service::rotation::RotationSettings;
use crate::service::{Details, LatenessPolicy, OnLate, Settings as ServiceSettings};
use crate::store;

pub(super) fn delta(period: Period) -> TimeDelta {
    TimeDelta::from_std(period.get()).unwrap_or(TimeDelta::MAX)
}

/// How the database of the ledger is reached.
pub(super) fn postgres_options(section: &LedgerSection) -> store::PostgresOptions {
    let mut options = store::PostgresOptions::new(section.url.clone());
    options.password_file.clone_from(&section.password_file);
    options.ca_file.clone_from(&section.ca_file);
    options.max_connections = section.max_connections;
    options.migrate = section.migrate;
    options
}

/// Opens the ledger; its writer becomes a task that outlives all others. The second answer is the ledger as a file
/// that can be checked, where it is one. Nothing is made or brought up to date before `permission` is given.
pub(super) async fn open_ledger(
    section: &LedgerSection,
    baseline: &Baseline,
    permission: impl Future<Output = bool> + Send + 'static,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> anyhow::Result<(Arc<dyn Ledger>, Option<Arc<store::SqliteLedger>>, Replicas)> {
    match section.kind {
        LedgerKind::Postgres => {
            // Replicas of another release may be at work on it: it is not even asked.
            anyhow::ensure!(permission.await, "this start may not open the ledger");
            let options = postgres_options(section);
            let (ledger, work) = store::PostgresLedger::open(options)
                .await
                .context("opening the ledger")?;
            let (closing, handle) = (shutdown.clone(), ledger.clone());
            tasks.attend("ledger", async move {
                tokio::pin!(work);
                tokio::select! {
                    () = &mut work => return Err("the ledger's writer ended".into()),
                    () = closing.closing() => {}
                }
                let ((), ()) = tokio::join!(handle.close(), work);
                Ok(())
            });
            let shared = Arc::new(ledger.clone());
            Ok((shared, None, Replicas::Several(Box::new(ledger))))
        }
        LedgerKind::Memory => {
            tracing::warn!(
                "The ledger is kept in memory: a restart forgets what has to be revoked"
            );
            Ok((Arc::new(store::MemoryLedger::new()), None, Replicas::One))
        }
        LedgerKind::Sqlite => {
            let mut options = store::SqliteOptions::default();
            if baseline.commit_alone {
                options.batch = 1;
            }
            let opening = store::SqliteLedger::open_when(&section.path, options, permission);
            let (ledger, writer) = Box::pin(opening).await.context("opening the ledger")?;
            let ledger = Arc::new(ledger);
            let (closing, handle) = (shutdown.clone(), Arc::clone(&ledger));
            tasks.attend("ledger", async move {
                tokio::pin!(writer);
                tokio::select! {
                    () = &mut writer => return Err("the ledger's writer ended".into()),
                    () = closing.closing() => {}
                }
                let ((), ()) = tokio::join!(handle.close(), writer);
                Ok(())
            });
            Ok((
                Arc::clone(&ledger) as Arc<dyn Ledger>,
                Some(ledger),
                Replicas::One,
            ))
        }
    }
}

/// How many callers may be connected, given the files that this process may open.
pub(super) fn connections(config: &Config) -> anyhow::Result<usize> {
    let wanted = config.limits.connections as usize;
    let upstream = config
        .integrations
        .iter()
        .map(|section| {
            (section.upstream.urgent_concurrency + section.upstream.routine_concurrency) as usize
        })
        .sum();
    let connections = limits::connections(wanted, upstream, limits::open_files())?;
    if connections < wanted {
        tracing::warn!(
            wanted,
            connections,
            "Fewer callers may connect than configured: this process may open too few files (ulimit -n)"
        );
    }
    Ok(connections)
}

pub(super) fn secret(section: &Secret) -> anyhow::Result<Arc<dyn SecretStore>> {
    match section
        .source()
        .context("configuration names exactly one secret source")?
    {
        SecretSource::File(file) => Ok(Arc::new(FileSecret::new(
            file.path.clone(),
            file.field.clone(),
        ))),
        SecretSource::Env(env) => Ok(Arc::new(EnvSecret::new(
            env.name.clone(),
            env.field.clone(),
        ))),
        #[cfg(feature = "aws")]
        SecretSource::Aws(aws) => Ok(Arc::new(crate::secrets::AwsSecret::new(
            crate::secrets::AwsOptions {
                secret_id: aws.secret_id.clone(),
                region: aws.region.clone(),
                endpoint_url: aws.endpoint_url.as_ref().map(|url| url.get().to_string()),
                version_stage: aws.version_stage.clone(),
                field: aws.field.clone(),
            },
        ))),
        #[cfg(feature = "google")]
        SecretSource::Google(google) => Ok(Arc::new(crate::secrets::GoogleSecret::new(
            crate::secrets::GoogleOptions {
                project: google.project.clone(),
                secret: google.secret.clone(),
                version: google.version.clone(),
                location: google.location.clone(),
                endpoint_url: google
                    .endpoint_url
                    .as_ref()
                    .map(|url| url.get().to_string()),
                field: google.field.clone(),
            },
        ))),
        #[cfg(feature = "azure")]
        SecretSource::Azure(azure) => Ok(Arc::new(crate::secrets::AzureSecret::new(
            crate::secrets::AzureOptions {
                vault_url: azure.vault_url.get().clone(),
                secret: azure.secret.clone(),
                version: azure.version.clone(),
                field: azure.field.clone(),
            },
        ))),
        #[cfg(feature = "vault")]
        SecretSource::Vault(vault) => Ok(Arc::new(vault_secret(vault)?)),
        #[cfg(feature = "kubernetes")]
        SecretSource::Kubernetes(object) => Ok(Arc::new(crate::secrets::KubernetesSecret::new(
            crate::secrets::KubernetesOptions {
                api_server: object.api_server.as_ref().map(|url| url.get().clone()),
                service_account: object.service_account.clone(),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
                key: object.key.clone(),
                field: object.field.clone(),
            },
        ))),
        #[cfg(not(all(
            feature = "aws",
            feature = "azure",
            feature = "google",
            feature = "kubernetes",
            feature = "vault"
        )))]
        other => anyhow::bail!("this build cannot read its key from {other:?}: see its features"),
    }
}

#[cfg(feature = "vault")]
fn vault_secret(
    section: &crate::config::VaultSource,
) -> anyhow::Result<crate::secrets::VaultSecret> {
    use crate::config::VaultWay;
    use crate::secrets::{VaultAuth, VaultOptions, VaultSecret};

    let auth = match section
        .auth
        .way()
        .context("configuration names exactly one login")?
    {
        VaultWay::Token(token) => VaultAuth::Token {
            file: token.file.clone(),
        },
        VaultWay::AppRole(role) => VaultAuth::AppRole {
            mount: role.mount.clone(),
            role_id: role.role_id.clone(),
            secret_id_file: role.secret_id_file.clone(),
        },
        VaultWay::Kubernetes(account) => VaultAuth::Kubernetes {
            mount: account.mount.clone(),
            role: account.role.clone(),
            token_file: account.token_file.clone(),
        },
    };
    Ok(VaultSecret::new(VaultOptions {
        address: section.address.get().clone(),
        namespace: section.namespace.clone(),
        mount: section.mount.clone(),
        path: section.path.clone(),
        field: section.field.clone(),
        ca_file: section.ca_file.clone(),
        auth,
    }))
}

/// What reaches an organization, wired to nothing yet.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) secret: Arc<dyn SecretStore>,
    elastic: Elastic,
}

/// Makes the client of every organization on a thread of its own: reading the roots that TLS trusts takes longer than
/// opening the ledger. `known` are stores that stand already.
pub(super) fn clients_beside(
    config: &Arc<Config>,
    known: &BTreeMap<IntegrationName, Arc<dyn SecretStore>>,
    clock: &Arc<dyn Clock>,
) -> JoinHandle<anyhow::Result<BTreeMap<IntegrationName, Client>>> {
    let (config, known, clock) = (Arc::clone(config), known.clone(), Arc::clone(clock));
    tokio::task::spawn_blocking(move || {
        let mut clients = BTreeMap::new();
        for section in &config.integrations {
            let store = match known.get(&section.name) {
                Some(store) => Arc::clone(store),
                None => secret(&section.secret)?,
            };
            let elastic = unwired(section, Arc::clone(&store), Arc::clone(&clock))?;
            let client = Client {
                secret: store,
                elastic,
            };
            clients.insert(section.name.clone(), client);
        }
        Ok(clients)
    })
}

impl Client {
    /// The client at work: it notes its own calls, and changes something only while a claim stands.
    pub(super) fn wired(
        self,
        name: &IntegrationName,
        ledger: Arc<dyn Ledger>,
        standing: Arc<Standing>,
    ) -> Arc<Elastic> {
        let elastic = self.elastic.under(standing);
        Arc::new(elastic.with_notes(name.clone(), ledger))
    }
}

pub(super) fn elastic(
    section: &Integration,
    secret: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    ledger: Option<Arc<dyn Ledger>>,
) -> anyhow::Result<Arc<Elastic>> {
    elastic_under(section, secret, clock, ledger, None)
}

/// The same, which changes something only while a claim stands.
pub(super) fn elastic_under(
    section: &Integration,
    secret: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    ledger: Option<Arc<dyn Ledger>>,
    standing: Option<Arc<Standing>>,
) -> anyhow::Result<Arc<Elastic>> {
    let elastic = unwired(section, secret, clock)?;
    let elastic = match standing {
        Some(standing) => elastic.under(standing),
        None => elastic,
    };
    Ok(Arc::new(match ledger {
        Some(ledger) => elastic.with_notes(section.name.clone(), ledger),
        None => elastic,
    }))
}

fn unwired(
    section: &Integration,
    secret: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Elastic> {
    let upstream = &section.upstream;
    let mut options = elastic::Options::new(section.base_url.get().clone());
    options.organization.clone_from(&section.organization_id);
    options.proxy = upstream.proxy.as_ref().map(|url| url.get().clone());
    options.connect = upstream.connect_timeout.get();
    options.mutation_budget = upstream.mutation_budget.get();
    options.mutation_wait = upstream.mutation_wait.get();
    options.read_attempt = upstream.read_attempt.get();
    options.read_budget = upstream.read_budget.get();
    options.members_budget = upstream.members_budget.get();
    options.idle = upstream.idle_timeout.get();
    options.limiter.initial = upstream.initial_rate;
    options.urgent_concurrency = upstream.urgent_concurrency as usize;
    options.routine_concurrency = upstream.routine_concurrency as usize;
    options.max_body = upstream.max_body_bytes as usize;
    options.max_list_body = upstream.max_list_bytes as usize;
    options.max_members_body = u64::from(upstream.max_members_bytes);
    Elastic::new(options, secret, clock)
        .with_context(|| format!("setting up integration {}", section.name))
}

pub(super) fn rotation(section: &Rotation, unknown_look_after: Period) -> RotationSettings {
    RotationSettings {
        schedule: section.every.map(|every| Schedule {
            every: delta(every),
            lives: delta(section.expires_in),
        }),
        lives: delta(section.expires_in),
        overlap: delta(section.keep_old),
        strays: delta(unknown_look_after),
        ..RotationSettings::default()
    }
}

pub(super) fn details(section: &Integration) -> Details {
    Details {
        kind: "elastic_cloud".to_owned(),
        base_url: section.base_url.get().to_string(),
        custom_access_details: section.custom_access_details.clone().unwrap_or_default(),
        owners: section.owners.iter().map(ToString::to_string).collect(),
        resource_owner: section
            .resource_owner
            .as_ref()
            .map(|owner| owner.tag.clone())
            .unwrap_or_default(),
    }
}

pub(super) fn reconcile_settings(
    engine: &Engine,
    reapply: Reapply,
    service_level: &ServiceLevel,
    request_lifetime: std::time::Duration,
) -> ReconcileSettings {
    let reapply = match reapply {
        Reapply::Never => reconcile::Reapply::Never,
        Reapply::Sso => reconcile::Reapply::Sso,
    };
    ReconcileSettings {
        bounds: Bounds {
            read_staleness: delta(engine.read_staleness),
            request_lifetime: TimeDelta::from_std(request_lifetime)
                .unwrap_or(TimeDelta::minutes(1)),
        },
        unknown_look_after: delta(engine.unknown_look_after),
        activation_timeout: delta(engine.activation_timeout),
        invitation_ttl: engine.invitation_ttl.get(),
        member_poll: delta(engine.member_poll),
        watch: delta(engine.watch_ended),
        reapply_limit: engine.reapply_limit,
        reapply_max_members: engine.reapply_max_members,
        reapply,
        revocation_within: delta(service_level.revocation_within),
        ..ReconcileSettings::default()
    }
}

pub(super) fn driver_limits(engine: &Engine) -> Limits {
    Limits {
        floor_poll: engine.floor_poll.get(),
        changing: engine.pass_concurrency as usize,
        ..Limits::default()
    }
}

pub(super) fn suspicion(engine: &Engine) -> Suspicion {
    Suspicion {
        members: engine.jump_members as usize,
        agreement: delta(engine.max_skew),
    }
}

pub(super) fn rules(policy: &Policy) -> anyhow::Result<Rules> {
    let seconds = i64::try_from(policy.max_duration.get().as_secs()).unwrap_or(i64::MAX);
    Ok(Rules {
        max_duration: Ttl::from_seconds(seconds).context("policy.max_duration")?,
        max_total: delta(policy.max_total),
        organization_roles: policy.allow_organization_roles,
        all_targets: policy.allow_all_targets,
        invitations: policy.allow_invitations,
        allowed_roles: (!policy.roles.is_empty()).then(|| {
            policy
                .roles
                .iter()
                .map(|role| role.as_str().to_owned())
                .collect()
        }),
        ..Rules::default()
    })
}

pub(super) fn service_settings(config: &Config) -> ServiceSettings {
    ServiceSettings {
        invitation_ttl: delta(config.engine.invitation_ttl),
        remember_requests: delta(config.ledger.retention.requests),
        max_skew: delta(config.engine.max_skew),
        lateness: LatenessPolicy {
            bound: delta(config.lateness.bound),
            on_exceeded: match config.lateness.on_exceeded {
                OnExceeded::Accept => OnLate::Accept,
                OnExceeded::Refuse => OnLate::Refuse,
            },
        },
        ..ServiceSettings::default()
    }
}

pub(super) fn reminders(section: &Reminders) -> Vec<TimeDelta> {
    section.before.iter().copied().map(delta).collect()
}

pub(super) fn schedules(section: &Sweeps) -> Schedules {
    let text = |cron: &crate::config::text::Cron| cron.as_str().to_owned();
    Schedules {
        directory: text(&section.directory),
        drift: text(&section.drift),
        overdue: text(&section.overdue),
        second_looks: text(&section.second_looks),
        key_expiry: text(&section.key_expiry),
        reminders: text(&section.reminders),
        retention: text(&section.retention),
        secret_refresh: text(&section.secret_refresh),
        audit_seal: text(&section.audit_seal),
        key_rotation: text(&section.key_rotation),
    }
}

pub(super) fn grpc_options(config: &Config) -> anyhow::Result<api::Options> {
    let limits = &config.limits;
    let per_second =
        NonZeroU32::new(limits.requests_per_second).context("limits.requests_per_second")?;
    let burst = NonZeroU32::new(limits.burst).context("limits.burst")?;
    Ok(api::Options {
        max_message_bytes: limits.message_bytes as usize,
        max_concurrent_streams: limits.concurrent_streams,
        max_deadline: limits.max_deadline.get(),
        calls: api::Rate { per_second, burst },
        max_connections: limits.connections as usize,
        handshake_timeout: limits.handshake_timeout.get(),
        idle_timeout: limits.idle_timeout.get(),
        keepalive_interval: limits.keep_alive_interval.get(),
        keepalive_timeout: limits.keep_alive_timeout.get(),
        reflection: config.listen.reflection,
        ..api::Options::default()
    })
}
