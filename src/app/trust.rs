//! Who may call and under which law: setting both up, and reading their files again.
//!
//! Owns the one task that looks at those files. Never goes on with files that cannot be used, and never stops over
//! them once the connector runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{CallerSection, Config, LawSection, Oidc, Policy, Role};
use crate::domain::caller::CallerRole;
use crate::domain::event::{AuditEvent, EventKind};
use crate::identity::seal::Keyring;
use crate::identity::{
    CertificateRule, Identity, Issuer, IssuerOptions, Registry, Reload, Rule, Tls, TlsPaths,
    TokenRule,
};
use crate::law::{self, CedarLaw, Source};
use crate::policy::Rules;
use crate::ports::{Clock, Ledger};
use crate::runtime::{Pace, Shutdown, TaskError};

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

/// The rules that a section `policy` means.
///
/// # Errors
/// When a duration is out of range, which a checked configuration rules out.
pub fn rules(section: &Policy) -> anyhow::Result<Rules> {
    super::adapters::rules(section)
}

/// Where the law of a section is.
#[must_use]
pub fn source(section: &LawSection) -> Source {
    match (&section.directory, section.files.as_slice()) {
        (Some(folder), _) => Source::Directory(folder.clone()),
        (None, []) => Source::Shipped,
        (None, files) => Source::Files(files.to_vec()),
    }
}

/// The law, being read on a thread of its own: compiling policies takes about as long as opening the ledger.
#[derive(Debug)]
pub(super) struct LawBeside {
    reading: JoinHandle<anyhow::Result<Option<Arc<CedarLaw>>>>,
    is_good: oneshot::Receiver<bool>,
}

/// Begins to read the law.
pub(super) fn law_beside(config: &Arc<Config>) -> LawBeside {
    let (told, is_good) = oneshot::channel();
    let config = Arc::clone(config);
    let reading = tokio::task::spawn_blocking(move || {
        let law = law(&config);
        // Nobody may have to know before the end.
        told.send(law.is_ok()).ok();
        law
    });
    LawBeside { reading, is_good }
}

impl LawBeside {
    /// Whether a start with this law may go on, and the law itself.
    pub(super) fn split(
        self,
    ) -> (
        impl Future<Output = bool> + Send + use<>,
        impl Future<Output = anyhow::Result<Option<Arc<CedarLaw>>>> + Send + use<>,
    ) {
        let Self { reading, is_good } = self;
        let permission = async { is_good.await.unwrap_or(false) };
        (permission, async {
            reading.await.context("reading the law")?
        })
    }
}

/// The law in force; `None` in a build without Cedar, where the settings alone decide.
fn law(config: &Config) -> anyhow::Result<Option<Arc<CedarLaw>>> {
    let source = source(&config.law);
    if cfg!(not(feature = "cedar")) && source == Source::Shipped {
        tracing::warn!("This build has no Cedar: section `policy` alone decides");
        return Ok(None);
    }
    let law = CedarLaw::open(source, &config.law.zone, rules(&config.policy)?)
        .context("reading the law")?;
    tracing::info!(digest = law.digest(), "The law is in force");
    Ok(Some(Arc::new(law)))
}

async fn note(kind: EventKind, ledger: &dyn Ledger, clock: &dyn Clock) {
    let event = AuditEvent::connector(clock.now(), kind);
    if let Err(error) = ledger.append(vec![event]).await {
        tracing::warn!(
            code = error.code(),
            "A change of the law left no audit event"
        );
    }
}

/// What is read again when its files change; `None` where there are no files.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) law: Option<Arc<CedarLaw>>,
    pub(super) keyring: Option<Arc<Keyring>>,
    /// Where a change of the law is written down.
    pub(super) ledger: Option<(Arc<dyn Ledger>, Arc<dyn Clock>)>,
}

/// Reads files again that changed, until the connector closes. A hang-up (SIGHUP) makes it look at once.
pub(super) async fn watch(
    trusted: Trusted,
    epoch: Option<Instant>,
    shutdown: Shutdown,
) -> Result<(), TaskError> {
    let trusted = Arc::new(trusted);
    let mut every = Pace::new(epoch, LOOK_EVERY);
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            () = shutdown.closing() => return Ok(()),
            () = every.tick(), if trusted.has_files() => {}
            Some(()) = hang_up.recv() => {}
        }
        let looking = Arc::clone(&trusted);
        let changed = tokio::task::spawn_blocking(move || looking.look()).await?;
        if let (Some(action), Some((ledger, clock))) = (changed, &trusted.ledger) {
            note(action, ledger.as_ref(), clock.as_ref()).await;
        }
    }
}

impl Trusted {
    fn has_files(&self) -> bool {
        self.tls.is_some() || self.law.is_some() || self.keyring.is_some()
    }

    /// Looks at all files. Answers what is to be written down.
    fn look(&self) -> Option<EventKind> {
        self.look_at_tls();
        if let Some(keyring) = &self.keyring {
            super::seals::look(keyring);
        }
        self.look_at_law()
    }

    fn look_at_law(&self) -> Option<EventKind> {
        let law = self.law.as_ref()?;
        match law.reload() {
            law::Reload::Unchanged | law::Reload::Kept(None) => None,
            law::Reload::Changed { digest } => {
                tracing::warn!(digest, "A changed law is in force");
                Some(EventKind::LawChanged {
                    action: "changed".to_owned(),
                    digest: law.digest(),
                })
            }
            law::Reload::Kept(Some(error)) => {
                tracing::error!(
                    %error,
                    "The changed law cannot be used; the one from before stays in force. Put it right: `latchkey \
                     policy check`"
                );
                Some(EventKind::LawChanged {
                    action: "kept".to_owned(),
                    digest: law.digest(),
                })
            }
        }
    }

    fn look_at_tls(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Reload::Unchanged | Reload::Kept(None) => {}
            Reload::Changed => {
                tracing::info!("Changed TLS files are in force, for connections that stand as well")
            }
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
