//! The connection to a running connector.
//!
//! Owns deadlines, interruption and the repetition of calls whose connection broke; every mutating call carries a
//! request id, so repeating it is harmless. Never interprets answers.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::args::Global;
use super::exit::{Exit, Failure};
use super::secure::{self, Shown};
use super::stranger;
use crate::api::pb;
use crate::api::pb::access_service_client::AccessServiceClient;
use crate::api::pb::audit_service_client::AuditServiceClient;
use crate::api::pb::connector_service_client::ConnectorServiceClient;
use crate::api::pb::directory_service_client::DirectoryServiceClient;
use crate::api::pb::operations_service_client::OperationsServiceClient;
use crate::domain::host::is_loopback;

/// Limit of one command when none is given.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit of one call of a command that may go on for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit of a look-up that only makes a message better.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses before a call is repeated whose connection broke: long enough for a restart behind a load balancer, short
/// enough that a wrong address is reported at once.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];

/// Whether a command without `--timeout` has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// A minute.
    Default,
    /// None: it goes on until it is done or interrupted.
    Endless,
}

/// A lazily made connection and the limits of this command.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    access: AccessServiceClient<Shown>,
    directory: DirectoryServiceClient<Shown>,
    connector: ConnectorServiceClient<Shown>,
    audit: AuditServiceClient<Shown>,
    operations: OperationsServiceClient<Shown>,
    server: String,
    deadline: Option<Instant>,
    interrupt: CancellationToken,
}

impl Connector {
    /// Prepares the connection; the first call makes it.
    pub(super) fn new(
        global: &Global,
        limit: Limit,
        interrupt: CancellationToken,
    ) -> Result<Self, Failure> {
        const EXAMPLE: &str = "write it like http://127.0.0.1:7443";
        let bad = |what: String| Failure::usage(what, EXAMPLE);
        let url = url::Url::parse(&global.server)
            .map_err(|error| bad(format!("--server {:?} is no URL: {error}", global.server)))?;
        let is_secure = url.scheme() == "https";
        if !(is_secure || url.scheme() == "http") || url.host().is_none() {
            return Err(bad(format!(
                "--server {:?} is not an address that can be called; the scheme must be http or https",
                global.server
            )));
        }
        let token = secure::token(global)?;
        let is_local = is_loopback(url.host_str());
        if token.is_some() && !is_secure && !is_local {
            return Err(bad(
                "--token-file would show the token to the network, since --server is not https"
                    .to_owned(),
            ));
        }
        // The transport below is chosen by us: the URL only names the host.
        let plain = global.server.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain)
            .and_then(|endpoint| {
                endpoint.user_agent(concat!("latchkey-cli/", env!("CARGO_PKG_VERSION")))
            })
            .map_err(|error| bad(format!("--server {:?}: {error}", global.server)))?
            .connect_timeout(Duration::from_secs(10));
        let channel = if is_secure {
            secure::channel(global, &url, endpoint)?
        } else {
            endpoint.connect_lazy()
        };
        let channel = Shown::new(channel, token);
        let timeout = match (global.timeout, limit) {
            (Some(given), _) => Some(given),
            (None, Limit::Default) => Some(DEFAULT_TIMEOUT),
            (None, Limit::Endless) => None,
        };
        Ok(Self {
            access: AccessServiceClient::new(channel.clone()),
            directory: DirectoryServiceClient::new(channel.clone()),
            connector: ConnectorServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            operations: OperationsServiceClient::new(channel),
            server: global.server.clone(),
            deadline: timeout.map(|limit| Instant::now() + limit),
            interrupt,
        })
    }

    /// A client of the access service.
    pub(super) fn access(&self) -> AccessServiceClient<Shown> {
        self.access.clone()
    }

    /// A client of the directory service.
    pub(super) fn directory(&self) -> DirectoryServiceClient<Shown> {
        self.directory.clone()
    }

    /// A client of the connector service.
    pub(super) fn connector(&self) -> ConnectorServiceClient<Shown> {
        self.connector.clone()
    }

    /// A client of the audit service.
    pub(super) fn audit(&self) -> AuditServiceClient<Shown> {
        self.audit.clone()
    }

    /// A client of the operations service.
    pub(super) fn operations(&self) -> OperationsServiceClient<Shown> {
        self.operations.clone()
    }

    /// Makes a call, within the limits. A broken connection is tried again with the same message.
    pub(super) async fn call<M, T, F, Sent>(&self, message: M, send: F) -> Result<T, Failure>
    where
        M: Clone,
        F: Fn(Request<M>) -> Sent,
        Sent: Future<Output = Result<Response<T>, Status>>,
    {
        let mut pauses = PAUSES.iter();
        loop {
            let limit = self.deadline.map_or(CALL_TIMEOUT, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let mut request = Request::new(message.clone());
            // A second more than we wait: the server may stop working then, and ours is the clearer message.
            request.set_timeout(limit + Duration::from_secs(1));
            let answer = tokio::select! {
                biased;
                () = self.interrupt.cancelled() => return Err(interrupted()),
                answer = tokio::time::timeout(limit, send(request)) => answer,
            };
            let status = match answer {
                Err(_) => return Err(self.no_answer(limit)),
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
            };
            // A status with a source was made on this side of the connection.
            if status.source().is_none() {
                return Err(self.explain(&status).await);
            }
            if let Some(failure) = self.stranger(&status).await {
                return Err(failure);
            }
            let Some(pause) = pauses.next() else {
                return Err(self.unreachable(&status));
            };
            self.pause(*pause).await?;
        }
    }

    /// Waits, within the limits.
    pub(super) async fn pause(&self, length: Duration) -> Result<(), Failure> {
        let wake = Instant::now() + length;
        let (until, in_time) = match self.deadline {
            Some(deadline) if deadline < wake => (deadline, false),
            _ => (wake, true),
        };
        tokio::select! {
            biased;
            () = self.interrupt.cancelled() => Err(interrupted()),
            () = tokio::time::sleep_until(until) => if in_time { Ok(()) } else { Err(self.no_answer(length)) },
        }
    }

    /// Waits for something else, within the limits.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.interrupt.cancelled() => Err(interrupted()),
            done = work => Ok(done),
            () = deadline => Err(self.no_answer(Duration::ZERO)),
        }
    }

    fn no_answer(&self, _waited: Duration) -> Failure {
        Failure::new(
            Exit::TimedOut,
            format!("no answer in time from the connector at {}", self.server),
            "an accepted request goes on: look with `latchkey list`, or give a longer --timeout",
        )
    }

    /// A failure for what the connector said, with the names of the integrations where one was missing or wrong.
    pub(super) async fn explain(&self, status: &Status) -> Failure {
        if let Some(failure) = self.stranger(status).await {
            return failure;
        }
        let failure = Failure::from_status(status);
        let details = status.get_error_details();
        let unknown = details
            .error_info()
            .is_some_and(|info| info.reason == "INTEGRATION_UNKNOWN");
        let missing = details.bad_request().is_some_and(|bad| {
            let mut fields = bad.field_violations.iter().map(|one| one.field.as_str());
            fields.any(|field| matches!(field, "integration" | "spec.integration"))
        });
        if !unknown && !missing {
            return failure;
        }
        let mut request = Request::new(pb::ListIntegrationsRequest::default());
        request.set_timeout(EXPLAIN_TIMEOUT);
        let mut client = self.connector();
        let Ok(Ok(answer)) =
            tokio::time::timeout(EXPLAIN_TIMEOUT, client.list_integrations(request)).await
        else {
            return failure;
        };
        let names: Vec<String> = answer
            .into_inner()
            .integrations
            .into_iter()
            .map(|one| one.name)
            .collect();
        let advice = format!("write --integration with one of: {}", names.join(", "));
        Failure { advice, ..failure }
    }

    /// A failure where something else than a connector answers, and what that is.
    pub(super) async fn stranger(&self, status: &Status) -> Option<Failure> {
        if !stranger::is_suspected(status) {
            return None;
        }
        let found = stranger::identify(&self.server).await?;
        Some(Failure::new(
            Exit::Unavailable,
            format!(
                "what answers at {} is not a connector: it {found}",
                self.server
            ),
            "check --server or LATCHKEY_SERVER: it takes the address of `listen.grpc` (port 7443 unless configured \
             otherwise), not that of the health pages and not that of Elastic Cloud",
        ))
    }

    /// A failure for a status that the transport made.
    pub(super) fn unreachable(&self, status: &Status) -> Failure {
        let mut cause: Option<&dyn std::error::Error> = status.source();
        let mut words = status.message().to_owned();
        while let Some(error) = cause {
            words = error.to_string();
            cause = error.source();
        }
        Failure::new(
            Exit::Unavailable,
            format!("cannot reach the connector at {}: {words}", self.server),
            "check that it runs (`latchkey serve`) and the address: --server or LATCHKEY_SERVER",
        )
    }
}

/// Ctrl-C with nothing to explain.
pub(super) fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "", "")
}
