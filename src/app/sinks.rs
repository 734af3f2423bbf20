//! Delivering the audit to the configured sinks.
//!
//! Owns which adapter stands behind which sink, and their tasks. Of several replicas the owner of the first
//! integration delivers: it is one at a time, and another one follows when it is gone.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::adapters;
use super::replicas::Claims;
use crate::config::{Config, HttpUrl, Period, Sink, SinkKind, WebhookMode};
use crate::ports::audit::{AuditSink, AuditStore};
use crate::ports::{Clock, Ledger};
use crate::runtime::{Shutdown, Tasks};
use crate::sinks::{
    Batch, Delivery, ElasticsearchOptions, ElasticsearchSink, FileSink, HttpOptions, LineSink,
    WebhookOptions, WebhookSink,
};

/// The most bytes of events at a time: what receivers usually take in one request, with room for what is around them.
const BYTES: usize = 1 << 20;
/// Events at a time where a line costs nothing but its bytes.
const LINES: usize = 500;

/// What deliveries are made of.
pub(super) struct Parts<'p> {
    pub(super) config: &'p Config,
    pub(super) ledger: &'p Arc<dyn Ledger>,
    pub(super) store: Option<Arc<dyn AuditStore>>,
    pub(super) claims: &'p Claims,
    pub(super) clock: &'p Arc<dyn Clock>,
    /// Nothing is delivered before: the first line of standard output says that the process listens.
    pub(super) begin: CancellationToken,
}

/// Starts a task for each sink.
pub(super) async fn start(
    parts: Parts<'_>,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let sinks = parts.config.audit.as_ref().map(|audit| &audit.sinks);
    let (Some(sinks), Some(store)) = (sinks, parts.store) else {
        return Ok(());
    };
    let (Some(first), false) = (parts.config.integrations.first(), sinks.is_empty()) else {
        return Ok(());
    };
    let identity = parts.ledger.identity().await;
    let identity = identity.context("reading the ledger's identity")?.id;
    let (standing, _) = parts.claims.of(&first.name, parts.ledger);
    for sink in sinks {
        let delivery = Delivery::new(
            sink.name.clone(),
            open(sink, &identity, parts.clock)
                .with_context(|| format!("setting up sink {} of the audit", sink.name))?,
            Arc::clone(&store),
            parts.ledger.changes(),
            standing.tenure(),
            Arc::clone(parts.clock),
        );
        tasks.attend(
            format!("audit sink {}", sink.name),
            delivery.run(parts.begin.clone(), shutdown.clone()),
        );
    }
    Ok(())
}

fn open(
    sink: &Sink,
    ledger: &str,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Arc<dyn AuditSink>, Batch)> {
    let batch = |events: usize| Batch {
        events,
        bytes: BYTES,
    };
    Ok(match sink.kind() {
        None => bail!("configuration names exactly one kind"),
        Some(SinkKind::Stdout) => (
            Arc::new(LineSink::stdout().context("starting a thread")?),
            batch(LINES),
        ),
        Some(SinkKind::File(file)) => (
            Arc::new(FileSink::new(file.path.clone(), file.max_bytes, file.keep)),
            batch(LINES),
        ),
        Some(SinkKind::Webhook(webhook)) => {
            let options = WebhookOptions {
                http: HttpOptions {
                    ca_file: webhook.ca_file.clone(),
                    ..http(webhook.timeout, webhook.proxy.as_ref(), webhook.url.get())
                },
                batched: webhook.mode == WebhookMode::Batched,
                ledger: ledger.to_owned(),
            };
            let secret = adapters::secret(&webhook.secret)?;
            (
                Arc::new(WebhookSink::new(options, secret, Arc::clone(clock))),
                batch(webhook.batch as usize),
            )
        }
        Some(SinkKind::Elasticsearch(elastic)) => {
            let options = ElasticsearchOptions {
                http: HttpOptions {
                    ca_file: elastic.ca_file.clone(),
                    ..http(elastic.timeout, elastic.proxy.as_ref(), elastic.url.get())
                },
                data_stream: elastic.data_stream.clone(),
                ledger: ledger.to_owned(),
            };
            let key = adapters::secret(&elastic.api_key)?;
            (
                Arc::new(ElasticsearchSink::new(options, key)),
                batch(elastic.batch as usize),
            )
        }
    })
}

fn http(timeout: Period, proxy: Option<&HttpUrl>, url: &url::Url) -> HttpOptions {
    HttpOptions {
        url: url.clone(),
        timeout: timeout.get(),
        ca_file: None,
        proxy: proxy.map(|proxy| proxy.get().clone()),
    }
}
