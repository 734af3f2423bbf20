//! TLS below the gRPC surface: who we are, whom we trust, and reading both anew.
//!
//! Owns the files, what is in force, and the second look at connections that are older than that. Never goes on with
//! half a change: files that do not fit together leave what was in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;

use crate::ports::Clock;

use super::Refused;
use super::certificate::Leaf;

/// Where certificates and keys are; each file is PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// Our certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of those authorities.
    pub revocation_list: Option<PathBuf>,
    /// Whether a client must have a certificate; where it may have a token instead, it need not.
    pub is_client_certificate_required: bool,
}

/// Why files cannot be used. Never holds what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no usable {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate and the key do not belong together, or cannot be used.
    #[error("using certificate and key")]
    Own(#[source] rustls::Error),
    /// The authorities or revocation lists cannot be used.
    #[error("using the authorities and revocation lists of clients")]
    Clients(#[source] rustls::server::VerifierBuilderError),
    /// The protocol versions do not fit the cryptography.
    #[error("setting up TLS")]
    Protocol(#[source] rustls::Error),
}

/// What became of reading the files anew.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// New ones are in force.
    Changed,
    /// They cannot be used; what was in force stays. The error is there when this is news.
    Kept(Option<TlsError>),
}

type Digest = [u8; 32];

#[derive(Debug)]
struct InForce {
    generation: u64,
    digest: Digest,
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// TLS of the listener.
#[derive(Debug)]
pub struct Tls {
    paths: TlsPaths,
    clock: Arc<dyn Clock>,
    in_force: ArcSwap<InForce>,
    failed: Mutex<Option<Digest>>,
}

/// Contents of the files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    revocation_list: Option<Vec<u8>>,
}

#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.as_ref()))
    }
}

fn unix_time(clock: &dyn Clock) -> UnixTime {
    let seconds = u64::try_from(clock.now().timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn open(paths: TlsPaths, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let files = Files::read(&paths)?;
        let in_force = build(&paths, &files, &clock, 1)?;
        for outcome in OUTCOMES {
            metrics::counter!(HANDSHAKES, "outcome" => outcome).increment(0);
        }
        for outcome in ["changed", "kept"] {
            count_reloads(outcome, 0);
        }
        set_stale(false);
        Ok(Self {
            paths,
            clock,
            in_force: ArcSwap::from_pointee(in_force),
            failed: Mutex::new(None),
        })
    }

    /// Reads the files again. Blocks for as long as that takes.
    pub fn reload(&self) -> Reload {
        let current = self.in_force.load();
        let files = match Files::read(&self.paths) {
            Ok(files) => files,
            Err(error) => return self.keep(Sha256::digest(error.to_string()).into(), error),
        };
        let digest = files.digest();
        if digest == current.digest {
            self.forget_failure();
            set_stale(false);
            return Reload::Unchanged;
        }
        match build(&self.paths, &files, &self.clock, current.generation + 1) {
            Ok(next) => {
                self.in_force.store(Arc::new(next));
                self.forget_failure();
                count_reloads("changed", 1);
                set_stale(false);
                Reload::Changed
            }
            Err(error) => self.keep(digest, error),
        }
    }

    fn keep(&self, digest: Digest, error: TlsError) -> Reload {
        set_stale(true);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.replace(digest) == Some(digest) {
            return Reload::Kept(None);
        }
        count_reloads("kept", 1);
        Reload::Kept(Some(error))
    }

    fn forget_failure(&self) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What a new connection is made with, and its number.
    pub(super) fn in_force(&self) -> (Arc<ServerConfig>, u64) {
        let current = self.in_force.load();
        (Arc::clone(&current.config), current.generation)
    }

    /// Whether the peer of a connection would still be let in: not expired, and, where trust changed since, not revoked
    /// and of an authority that is still one.
    ///
    /// # Errors
    /// [`Refused::CertificateExpired`] and [`Refused::CertificateUntrusted`].
    pub fn check(&self, peer: &Peer) -> Result<(), Refused> {
        if peer.leaf.not_after <= self.clock.now() {
            return Err(Refused::CertificateExpired);
        }
        let current = self.in_force.load();
        if peer.generation.load(Ordering::Acquire) == current.generation {
            return Ok(());
        }
        let (Some(clients), Some((leaf, rest))) = (&current.clients, peer.chain.split_first())
        else {
            return Err(Refused::CertificateUntrusted);
        };
        clients
            .verify_client_cert(leaf, rest, unix_time(self.clock.as_ref()))
            .map_err(|_| Refused::CertificateUntrusted)?;
        peer.generation.store(current.generation, Ordering::Release);
        Ok(())
    }

    /// Counts a handshake, and says at the debug level why it failed.
    pub(super) fn note(&self, error: Option<&io::Error>) {
        let outcome = error.map_or("done", outcome);
        metrics::counter!(HANDSHAKES, "outcome" => outcome).increment(1);
        if let Some(error) = error {
            tracing::debug!(outcome, %error, "A TLS handshake failed");
        }
    }
}

/// The other side of a connection, as it proved itself.
#[derive(Debug)]
pub struct Peer {
    /// The names in its certificate.
    pub leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    generation: AtomicU64,
}

impl Peer {
    /// Of a verified chain, its own certificate first; `None` when that cannot be read.
    pub(super) fn new(chain: &[CertificateDer<'_>], generation: u64) -> Option<Self> {
        let leaf = Leaf::parse(chain.first()?)?;
        Some(Self {
            leaf,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            generation: AtomicU64::new(generation),
        })
    }
}

impl Files {
    fn read(paths: &TlsPaths) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: read(&paths.certificate)?,
            key: read(&paths.key)?,
            client_ca: paths.client_ca.as_deref().map(read).transpose()?,
            revocation_list: paths.revocation_list.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let empty = Vec::new();
        for part in [
            &self.certificate,
            &self.key,
            self.client_ca.as_ref().unwrap_or(&empty),
            self.revocation_list.as_ref().unwrap_or(&empty),
        ] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

fn build(
    paths: &TlsPaths,
    files: &Files,
    clock: &Arc<dyn Clock>,
    generation: u64,
) -> Result<InForce, TlsError> {
    let bad = |path: &Path, what| TlsError::Content {
        path: path.to_owned(),
        what,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)
        .ok_or_else(|| bad(&paths.certificate, "PEM certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| bad(&paths.key, "PEM private key"))?;
    let clients = match (&paths.client_ca, &files.client_ca) {
        (Some(path), Some(text)) => Some(clients(paths, path, text, files, &provider)?),
        (_, _) => None,
    };
    let builder =
        ServerConfig::builder_with_details(provider, Arc::new(WallTime(Arc::clone(clock))))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?;
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Own)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring its certificate along without anybody looking at it again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(InForce {
        generation,
        digest: files.digest(),
        config: Arc::new(config),
        clients,
    })
}

fn clients(
    paths: &TlsPaths,
    path: &Path,
    text: &[u8],
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let bad = |path: &Path, what| TlsError::Content {
        path: path.to_owned(),
        what,
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(text).ok_or_else(|| bad(path, "PEM certificate"))? {
        roots
            .add(authority)
            .map_err(|_| bad(path, "certificate of an authority"))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let (Some(path), Some(text)) = (&paths.revocation_list, &files.revocation_list) {
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(|_| bad(path, "PEM revocation list"))?;
        if lists.is_empty() {
            return Err(bad(path, "PEM revocation list"));
        }
        note_next_update(&lists);
        // Of the certificate itself: its authorities are those that were chosen in `client_ca`. One whose status no
        // list tells is refused.
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if !paths.is_client_certificate_required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(TlsError::Clients)
}

fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .ok()?;
    (!found.is_empty()).then_some(found)
}

/// Says when the first of the lists should have been replaced: an old list is used on, since without it everybody
/// would be locked out, and whoever watches must know.
fn note_next_update(lists: &[CertificateRevocationListDer<'_>]) {
    let next = lists.iter().filter_map(|list| {
        let (_, list) =
            x509_parser::revocation_list::CertificateRevocationList::from_der(list).ok()?;
        Some(list.next_update()?.timestamp())
    });
    if let Some(next) = next.min() {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 fit a double for millions of years"
        )]
        metrics::gauge!(NEXT_UPDATE).set(next as f64);
    }
}

const OUTCOMES: [&str; 6] = [
    "done",
    "no_certificate",
    "certificate_expired",
    "certificate_revoked",
    "certificate_untrusted",
    "other",
];

fn outcome(error: &io::Error) -> &'static str {
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return "other";
    };
    if matches!(error, rustls::Error::NoCertificatesPresented) {
        return "no_certificate";
    }
    let rustls::Error::InvalidCertificate(why) = error else {
        return "other";
    };
    if matches!(
        why,
        CertificateError::Expired | CertificateError::ExpiredContext { .. }
    ) {
        "certificate_expired"
    } else if matches!(why, CertificateError::Revoked) {
        "certificate_revoked"
    } else {
        "certificate_untrusted"
    }
}

const HANDSHAKES: &str = "latchkey_tls_handshakes_total";
const RELOADS: &str = "latchkey_tls_reloads_total";
const STALE: &str = "latchkey_tls_is_stale";
const NEXT_UPDATE: &str = "latchkey_tls_revocation_list_next_update_timestamp_seconds";

fn count_reloads(outcome: &'static str, by: u64) {
    metrics::counter!(RELOADS, "outcome" => outcome).increment(by);
}

fn set_stale(is_stale: bool) {
    metrics::gauge!(STALE).set(f64::from(u8::from(is_stale)));
}

/// Registers help texts.
pub(super) fn describe_metrics() {
    metrics::describe_counter!(HANDSHAKES, "TLS handshakes of callers, by how they ended");
    metrics::describe_counter!(
        RELOADS,
        "Times that changed TLS files were taken, or could not be and the old ones were kept"
    );
    metrics::describe_gauge!(
        STALE,
        "1 while the TLS files cannot be used and older ones are in force"
    );
    metrics::describe_gauge!(
        NEXT_UPDATE,
        metrics::Unit::Seconds,
        "When the revocation list of callers should be replaced, as a Unix time"
    );
}
