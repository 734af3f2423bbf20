//! The server: limits, health, reflection, shutdown.
//!
//! Owns how the surface is served on a socket that somebody else bound. Never outlives its shutdown signal by
//! more than the calls in flight.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::domain::caller::Caller;
use crate::domain::ids::CallerName;
use crate::identity::Identity;
use crate::service::Service;

use super::access::AccessApi;
use super::audit::AuditApi;
use super::connector::ConnectorApi;
use super::directory::DirectoryApi;
use super::guard::{Entry, GuardLayer};
use super::listener;
use super::operations::OperationsApi;
use super::pb;
use super::pb::access_service_server::AccessServiceServer;
use super::pb::audit_service_server::AuditServiceServer;
use super::pb::connector_service_server::ConnectorServiceServer;
use super::pb::directory_service_server::DirectoryServiceServer;
use super::pb::operations_service_server::OperationsServiceServer;

pub use super::guard::Rate;

/// Numbers of the listener. Each bounds what one caller or one connection can cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest message taken, in bytes.
    pub max_message_bytes: usize,
    /// Streams at once on one connection.
    pub max_concurrent_streams: u32,
    /// Longest deadline of a call; a longer one, or none, is shortened to it.
    pub max_deadline: Duration,
    /// Calls in flight at once over all connections; revocations have as many of their own.
    pub max_in_flight: usize,
    /// Watches at once.
    pub max_watches: usize,
    /// How long a watch lasts before its caller has to resume it.
    pub watch_age: Duration,
    /// Rate of calls of one caller, revocations excepted.
    pub calls: Rate,
    /// Rate of revocations of one caller.
    pub revocations: Rate,
    /// Connections at once; one more is closed as soon as it is accepted. Each costs a file of the process, which the
    /// ledger and the calls to Elastic Cloud need as well.
    pub max_connections: usize,
    /// How long a connection may take to begin HTTP/2: a round trip and the scheduling of a busy client. Longer
    /// only keeps places for peers that say nothing.
    pub handshake_timeout: Duration,
    /// How long a connection without calls is kept. A control plane calls more often than every quarter of an hour
    /// or can afford to connect again.
    pub idle_timeout: Duration,
    /// How often an idle connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it has to answer.
    pub keepalive_timeout: Duration,
    /// How long a connection lasts before its peer is asked to come back.
    pub connection_age: Duration,
    /// How long calls on such a connection may still take.
    pub connection_grace: Duration,
    /// Whether the surface describes itself to clients.
    pub reflection: bool,
    /// Name of whoever calls where nobody has to prove anything: the listener stands on loopback then.
    pub caller: CallerName,
    /// Makes out callers; `None` on loopback, where whoever calls is `caller`.
    pub identity: Option<Arc<Identity>>,
}

impl Default for Options {
    fn default() -> Self {
        let rate = |per_second, burst| Rate {
            per_second: NonZeroU32::new(per_second).expect("not zero"),
            burst: NonZeroU32::new(burst).expect("not zero"),
        };
        Self {
            max_message_bytes: 256 * 1024,
            max_concurrent_streams: 64,
            max_deadline: Duration::from_secs(60),
            max_in_flight: 1024,
            max_watches: 64,
            watch_age: Duration::from_secs(3600),
            calls: rate(1000, 2000),
            revocations: rate(1000, 4000),
            max_connections: 256,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(900),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(2 * 3600),
            connection_grace: Duration::from_secs(120),
            reflection: false,
            caller: CallerName::parse(Caller::LOCAL).expect("a valid name"),
            identity: None,
        }
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("serving the gRPC surface")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of the surface could not be read.
    #[error("describing the gRPC surface")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Services whose health follows readiness; the empty name stands for the whole server.
const HEALTH_OF: [&str; 6] = [
    "",
    "latchkey.v1.AccessService",
    "latchkey.v1.DirectoryService",
    "latchkey.v1.ConnectorService",
    "latchkey.v1.AuditService",
    "latchkey.v1.OperationsService",
];

/// Serves the surface on a bound listener until `shutdown`, then lets calls in flight end. Watches end at once with
/// UNAVAILABLE and can be resumed elsewhere.
///
/// # Errors
/// [`ServeError`] when the transport fails.
pub async fn serve(
    service: Arc<Service>,
    options: Options,
    socket: TcpListener,
    ready: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let is_ready = *ready.borrow();
    report(&health, is_ready).await;
    // Both versions of the protocol: many clients still speak only the older one.
    let (reflection, older_reflection) = if options.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        };
        (
            Some(builder().build_v1()?),
            Some(builder().build_v1alpha()?),
        )
    } else {
        (None, None)
    };
    let limit = options.max_message_bytes;
    let access = AccessServiceServer::new(AccessApi::new(
        Arc::clone(&service),
        options.max_watches,
        options.watch_age,
        shutdown.clone(),
    ))
    .max_decoding_message_size(limit);
    let directory = DirectoryServiceServer::new(DirectoryApi::new(Arc::clone(&service)))
        .max_decoding_message_size(limit);
    let audit = AuditServiceServer::new(AuditApi::new(Arc::clone(&service)))
        .max_decoding_message_size(limit);
    let operations = OperationsServiceServer::new(OperationsApi::new(Arc::clone(&service)))
        .max_decoding_message_size(limit);
    let guard = GuardLayer::new(
        options.calls,
        options.revocations,
        options.max_in_flight,
        options.max_deadline,
        Entry {
            implicit: Caller::implicit(options.caller.clone()),
            identity: options.identity.clone(),
            service: Arc::clone(&service),
        },
    );
    let connector = ConnectorServiceServer::new(ConnectorApi::new(service, &options))
        .max_decoding_message_size(limit);
    let tls = options
        .identity
        .as_ref()
        .and_then(|identity| identity.tls().cloned());
    let bounds = listener::Bounds {
        connections: options.max_connections,
        handshake: options.handshake_timeout,
        idle: options.idle_timeout,
    };
    let serving = Server::builder()
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_connection_age(options.connection_age)
        .max_connection_age_grace(options.connection_grace)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        // Enough for the metadata of a call; a peer that sends more is not one of ours.
        .http2_max_header_list_size(16 * 1024)
        .http2_max_pending_accept_reset_streams(Some(32))
        .http2_max_local_error_reset_streams(Some(128))
        .layer(guard)
        .add_service(health_service)
        .add_service(access)
        .add_service(directory)
        .add_service(connector)
        .add_service(audit)
        .add_service(operations)
        .add_optional_service(reflection)
        .add_optional_service(older_reflection)
        .serve_with_incoming_shutdown(
            listener::incoming(socket, bounds, tls),
            shutdown.clone().cancelled_owned(),
        );
    tokio::select! {
        served = serving => served.map_err(ServeError::from),
        never = follow(&health, ready, &shutdown) => match never {},
    }
}

/// Keeps health in step with readiness for as long as it is polled.
async fn follow(
    health: &HealthReporter,
    mut ready: watch::Receiver<bool>,
    shutdown: &CancellationToken,
) -> std::convert::Infallible {
    loop {
        let is_ready = *ready.borrow_and_update();
        report(health, is_ready && !shutdown.is_cancelled()).await;
        tokio::select! {
            changed = ready.changed() => if changed.is_err() {
                // Whoever decided on readiness is gone: what it said last stays until shutdown.
                shutdown.cancelled().await;
                report(health, false).await;
                return std::future::pending().await;
            },
            () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
        }
    }
}

async fn report(health: &HealthReporter, is_ready: bool) {
    let status = if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in HEALTH_OF {
        health.set_service_status(name, status).await;
    }
}
