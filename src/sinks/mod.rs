//! Places that the audit is delivered to: standard output, a file, a webhook, a data stream of Elasticsearch.
//!
//! Owns delivering every event in order and at least once, and the cursor of each sink. Never changes, filters or skips
//! an event, and never holds up a grant or a revocation: nobody waits for a sink.

mod delivery;
mod ecs;
mod elasticsearch;
mod file;
mod http;
mod stdout;
mod webhook;

#[cfg(test)]
mod http_tests;

pub use delivery::{Batch, Delivery};
pub use elasticsearch::{ElasticsearchOptions, ElasticsearchSink};
pub use file::FileSink;
pub use http::HttpOptions;
pub use stdout::LineSink;
pub use webhook::{WebhookOptions, WebhookSink};

use sha2::{Digest as _, Sha256};

use crate::ports::audit::AuditRecord;

/// The id of an event for whoever receives it: the same whenever it comes again. Its sequence alone would not do: a
/// ledger that was restored from a copy gives the same sequences to other events.
fn event_id(ledger: &str, record: &AuditRecord) -> String {
    let digest = Sha256::digest(record.body.as_bytes());
    format!("{ledger}-{}-{}", record.sequence, hex::encode(&digest[..4]))
}

/// Registers help texts.
pub fn describe_metrics() {
    delivery::describe_metrics();
}
