//! The health listener: `/healthz`, `/readyz`, `/metrics`.
//!
//! Owns three read-only pages and their limits. Never offers anything that changes state, and answers nothing that
//! is secret.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::runtime::{Readiness, Shutdown, TaskError};

use super::metrics::Metrics;

/// Connections at a time. Probes and scrapers need a handful; the rest would only be a way to use up files.
const CONNECTIONS: usize = crate::runtime::limits::HEALTH_CONNECTIONS;

/// How long a client may take to send its request head; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request body; none of the pages reads one.
const BODY_LIMIT: usize = 1024;

/// How long open answers may take when the listener closes.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Health {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`.
    pub metrics: Metrics,
}

impl Health {
    /// The pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
            .layer(TimeoutLayer::with_status_code(
                StatusCode::SERVICE_UNAVAILABLE,
                ANSWER_TIMEOUT,
            ))
            .layer(CatchPanicLayer::new())
            .with_state(self)
    }

    /// Serves the pages until all work of the process has ended, drain included; a task for
    /// [`crate::runtime::Tasks::attend`].
    ///
    /// # Errors
    /// None while running: a connection that fails concerns only itself.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), TaskError> {
        let router = self.router();
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Reap what has ended, so that the set does not grow.
            while connections.try_join_next().is_some() {}
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let accepted = tokio::select! {
                () = shutdown.closing() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        serve_connection(stream, router, shutdown).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of files, or a peer that went away again; a pause keeps this from spinning.
                    tracing::warn!(%error, "Accepting a health connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(
            tokio::time::timeout(CLOSE_LIMIT, async {
                while connections.join_next().await.is_some() {}
            })
            .await,
        );
        Ok(())
    }
}

async fn serve_connection(stream: TcpStream, router: Router, shutdown: Shutdown) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A health connection ended badly");
    }
}

/// Alive: the process answers. It says nothing of Elastic Cloud or the ledger, since a restart would not help them.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(health): State<Health>) -> Response {
    let report = health.readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(report)).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        )],
        health.metrics.render(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Running {
        address: std::net::SocketAddr,
        readiness: Readiness,
        shutdown: Shutdown,
        served: JoinSet<Result<(), TaskError>>,
    }

    async fn running() -> Running {
        let shutdown = Shutdown::new(Duration::ZERO);
        let readiness = Readiness::new(shutdown.clone());
        let (metrics, _recorder) = Metrics::local(&[]).expect("valid buckets");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let health = Health {
            readiness: readiness.clone(),
            metrics,
        };
        let mut served = JoinSet::new();
        served.spawn(health.serve(listener, shutdown.clone()));
        Running {
            address,
            readiness,
            shutdown,
            served,
        }
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is taken");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("the answer is text");
        answer
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        ask(address, &request).await
    }

    #[tokio::test]
    async fn readyz_names_what_is_not_ready_and_follows_it() {
        let server = running().await;
        let ledger = server.readiness.component("ledger");
        ledger.set_waiting("disk full");
        let answer = get(server.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with(
                r#"{"ready":false,"draining":false,"waiting_for":{"ledger":"disk full"}}"#
            ),
            "{answer}"
        );
        ledger.set_ready();
        let answer = get(server.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_draining_process_is_alive_but_not_ready_and_is_served_until_the_work_has_ended() {
        let mut server = running().await;
        server.shutdown.drain();
        let answer = get(server.address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains(r#""draining":true"#),
            "{answer}"
        );
        let answer = get(server.address, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server.shutdown.close();
        let ended = server.served.join_next().await.expect("one task");
        assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
    }

    #[tokio::test]
    async fn metrics_are_text_and_nothing_else_is_served() {
        let server = running().await;
        let answer = get(server.address, "/metrics").await;
        assert!(answer.contains("version=0.0.4"), "{answer}");
        assert!(answer.contains("latchkey_build_info"), "{answer}");
        let answer = get(server.address, "/debug").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let post =
            "POST /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let answer = ask(server.address, post).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let server = running().await;
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
        let mut stream = TcpStream::connect(server.address).await.expect("listening");
        // The server may answer and close before all of it is written; either way it must not serve it.
        drop(stream.write_all(long.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
}
