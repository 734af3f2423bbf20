//! Who may call and under which law: setting both up, and reading their files again.
//!
//! Owns the one task that looks at those files. Never goes on with files that cannot be used, and never stops over
//! them once the connector runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{CallerSection, Config, Oidc, Role};
use crate::domain::caller::CallerRole;
use crate::identity::{
    CertificateRule, Identity, Issuer, IssuerOptions, Registry, Reload, Rule, Tls, TlsPaths,
    TokenRule,
};
use crate::ports::Clock;
use crate::runtime::{Shutdown, TaskError};

/// How often the files are looked at. A revoked certificate is of use for as long; reading a few kilobytes is cheap.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who calls, as configured; `None` where whoever is on this machine need not prove anything.
pub(super) fn identity(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Arc<Identity>>> {
    let listen = &config.listen;
    if !listen.is_authenticated() {
        tracing::warn!(
            listen = %listen.grpc,
            "Callers are not authenticated: whoever is on this machine is `local` and may do everything"
        );
        return Ok(None);
    }
    let tls = listen
        .tls
        .as_ref()
        .map(|section| {
            let paths = TlsPaths {
                certificate: section.certificate.clone(),
                key: section.key.clone(),
                client_ca: section.client_ca.clone(),
                revocation_list: section.revocation_list.clone(),
                is_client_certificate_required: listen.oidc.is_empty(),
            };
            Tls::open(paths, Arc::clone(clock)).context("setting up listen.tls")
        })
        .transpose()?
        .map(Arc::new);
    let issuers = listen
        .oidc
        .iter()
        .map(|section| {
            Issuer::new(options(section)?, Arc::clone(clock))
                .with_context(|| format!("setting up the issuer {} of listen.oidc", section.issuer))
        })
        .collect::<anyhow::Result<_>>()?;
    let rules = config.callers.iter().map(rule).collect();
    let registry = Registry::new(rules).context("reading callers")?;
    tracing::info!(callers = config.callers.len(), "Callers are authenticated");
    Ok(Some(Arc::new(Identity::new(
        Arc::clone(clock),
        tls,
        issuers,
        registry,
    ))))
}

fn options(section: &Oidc) -> anyhow::Result<IssuerOptions> {
    let jwks_url = section.jwks_url.as_deref().map(str::parse).transpose();
    Ok(IssuerOptions {
        issuer: section.issuer.clone(),
        audience: section.audience.clone(),
        jwks_url: jwks_url.context("listen.oidc.jwks_url")?,
        clock_skew: section.clock_skew.get(),
        ca_file: section.ca_file.clone(),
    })
}

fn rule(section: &CallerSection) -> Rule {
    let certificate = section.certificate.as_ref().and_then(|proof| {
        let spiffe = proof.spiffe_id.clone().map(CertificateRule::Spiffe);
        let dns = proof.dns.clone().map(CertificateRule::Dns);
        let name = proof.common_name.clone().map(CertificateRule::CommonName);
        spiffe.or(dns).or(name)
    });
    let token = section.token.as_ref().map(|proof| {
        let (claim, value) = proof.claim();
        TokenRule {
            issuer: proof.issuer.clone(),
            claim: claim.to_owned(),
            value: value.to_owned(),
        }
    });
    Rule {
        name: section.name.clone(),
        role: match section.role {
            Role::ControlPlane => CallerRole::ControlPlane,
            Role::Operator => CallerRole::Operator,
            Role::Auditor => CallerRole::Auditor,
            Role::BreakGlass => CallerRole::BreakGlass,
        },
        certificate,
        token,
    }
}

/// What is read again when its files change.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    pub(super) tls: Option<Arc<Tls>>,
}

/// Reads files again that changed, until the connector closes. A hang-up (SIGHUP) makes it look at once.
pub(super) async fn watch(trusted: Trusted, shutdown: Shutdown) -> Result<(), TaskError> {
    let trusted = Arc::new(trusted);
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            () = shutdown.closing() => return Ok(()),
            _ = every.tick() => {}
            Some(()) = hang_up.recv() => {}
        }
        let looking = Arc::clone(&trusted);
        tokio::task::spawn_blocking(move || looking.look()).await?;
    }
}

impl Trusted {
    fn look(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Reload::Unchanged | Reload::Kept(None) => {}
            Reload::Changed => tracing::info!(
                "Changed TLS files are in force, for connections that stand as well"
            ),
            Reload::Kept(Some(error)) => {
                let error: anyhow::Error = error.into();
                tracing::error!(
                    error = format!("{error:#}"),
                    "Changed TLS files cannot be used; those from before stay in force. Put them right"
                );
            }
        }
    }
}
