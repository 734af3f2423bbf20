//! Where the audit is delivered to.
//!
//! Owns these settings. Never holds a secret: only where one is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::secret::Secret;
use super::text::{self, Endpoint, HttpUrl, Period};

/// One place that the audit is delivered to; exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Its name in logs and metrics; unique. Its cursor in the ledger goes by this name: another name begins again
    /// with the first event.
    #[schemars(schema_with = "text::schemas::integration")]
    pub name: String,
    /// Standard output, one line of JSON for each event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,
    /// A file that is rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSink>,
    /// Signed CloudEvents by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,
    /// A data stream of Elasticsearch, in the Elastic Common Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch: Option<ElasticsearchSink>,
}

/// What a [`Sink`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkKind<'c> {
    /// Standard output.
    Stdout,
    /// A file.
    File(&'c FileSink),
    /// CloudEvents by HTTP.
    Webhook(&'c WebhookSink),
    /// A data stream.
    Elasticsearch(&'c ElasticsearchSink),
}

impl Sink {
    /// The one kind that is named; `None` only for values that were not read from a checked configuration.
    #[must_use]
    pub fn kind(&self) -> Option<SinkKind<'_>> {
        let stdout = self.stdout.as_ref().map(|_| SinkKind::Stdout);
        let file = self.file.as_ref().map(SinkKind::File);
        let webhook = self.webhook.as_ref().map(SinkKind::Webhook);
        let elasticsearch = self.elasticsearch.as_ref().map(SinkKind::Elasticsearch);
        stdout.or(file).or(webhook).or(elasticsearch)
    }
}

/// Standard output; nothing to set: write `stdout: {}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutSink {}

/// A file that is rotated by its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// The file, made with mode 0600. Full ones are called `PATH.1`, `PATH.2` and so on beside it, newest first.
    #[schemars(schema_with = "text::schemas::path")]
    pub path: PathBuf,
    /// Bytes at which it is put aside. 64 MiB, which is some 100,000 events.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 65_536, max = 17_179_869_184_u64))]
    pub max_bytes: u64,
    /// How many full files are kept; the oldest goes first. Eight, so that whoever collects them may be away for a while.
    #[serde(default = "keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u32,
}

/// How a webhook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookMode {
    /// Many events in one request.
    #[default]
    Batched,
    /// One event in each request.
    Structured,
}

/// `CloudEvents` 1.0 in JSON, signed as Standard Webhooks does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSink {
    /// Where events are posted. Plain HTTP only to this machine.
    pub url: Endpoint,
    /// Where the secret that signs is: `whsec_` and the base64 of 24 to 64 random bytes.
    pub secret: Secret,
    /// Whether requests carry many events or one.
    #[serde(default)]
    pub mode: WebhookMode,
    /// The most events in one request; also at most 1 MiB of them.
    #[serde(default = "webhook_batch")]
    #[schemars(range(min = 1, max = 1000))]
    pub batch: u32,
    /// How long one request may take.
    #[serde(default = "webhook_timeout")]
    pub timeout: Period,
    /// PEM certificates of the authority that signed the server's certificate, where the machine does not know it.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::path")]
    pub ca_file: Option<PathBuf>,
    /// Proxy for every request. None, and proxies of the environment are never used.
    #[serde(default)]
    pub proxy: Option<HttpUrl>,
}

/// A data stream of Elasticsearch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElasticsearchSink {
    /// Scheme, host and port. Plain HTTP only to this machine.
    pub url: HttpUrl,
    /// Where the key is, as Elasticsearch shows it under `encoded`; it needs `create_doc` on the data stream only.
    pub api_key: Secret,
    /// The data stream. The template in `deploy/elasticsearch` is for `logs-latchkey.audit-*`.
    #[serde(default = "data_stream")]
    #[schemars(length(min = 1, max = 100))]
    pub data_stream: String,
    /// The most events in one request; also at most 1 MiB of them.
    #[serde(default = "elasticsearch_batch")]
    #[schemars(range(min = 1, max = 1000))]
    pub batch: u32,
    /// How long one request may take.
    #[serde(default = "elasticsearch_timeout")]
    pub timeout: Period,
    /// PEM certificates of the authority that signed the server's certificate, where the machine does not know it.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::path")]
    pub ca_file: Option<PathBuf>,
    /// Proxy for every request. None, and proxies of the environment are never used.
    #[serde(default)]
    pub proxy: Option<HttpUrl>,
}

fn max_bytes() -> u64 {
    64 << 20
}

fn keep() -> u32 {
    8
}

fn webhook_batch() -> u32 {
    100
}

fn webhook_timeout() -> Period {
    Period::seconds(10)
}

fn elasticsearch_batch() -> u32 {
    500
}

fn elasticsearch_timeout() -> Period {
    Period::seconds(30)
}

fn data_stream() -> String {
    "logs-latchkey.audit-default".to_owned()
}

/// Checks every sink, and that no two are the same.
pub(super) fn check(sinks: &[Sink], problems: &mut Problems) {
    let mut names = BTreeMap::new();
    let mut files = BTreeMap::new();
    for (index, sink) in sinks.iter().enumerate() {
        let path = format!("audit.sinks[{index}]");
        sink.check(&path, problems);
        if let Some(first) = names.insert(&sink.name, index) {
            problems.add(
                format!("{path}.name"),
                format!("is also the name of audit.sinks[{first}]"),
                "write a name that no other sink has",
            );
        }
        if let Some(file) = &sink.file
            && let Some(first) = files.insert(&file.path, index)
        {
            problems.add(
                format!("{path}.file.path"),
                format!("is also the file of audit.sinks[{first}]"),
                "write a path of its own",
            );
        }
    }
    let stdout = |sink: &&Sink| sink.stdout.is_some();
    if sinks.iter().filter(stdout).count() > 1 {
        problems.add(
            "audit.sinks",
            "writes every event to standard output more than once",
            "write `stdout` under one of them",
        );
    }
}

impl Sink {
    fn check(&self, path: &str, problems: &mut Problems) {
        let kinds = [
            self.stdout.is_some(),
            self.file.is_some(),
            self.webhook.is_some(),
            self.elasticsearch.is_some(),
        ];
        if kinds.into_iter().filter(|named| *named).count() != 1 {
            problems.add(
                path,
                "does not name exactly one place to deliver to",
                "write exactly one of `stdout`, `file`, `webhook`, `elasticsearch`",
            );
        }
        if let Some(file) = &self.file {
            absolute(&format!("{path}.file.path"), &file.path, problems);
        }
        if let Some(webhook) = &self.webhook {
            let path = format!("{path}.webhook");
            webhook.secret.check(&format!("{path}.secret"), problems);
            http(&path, webhook.timeout, webhook.ca_file.as_deref(), problems);
        }
        if let Some(elastic) = &self.elasticsearch {
            let path = format!("{path}.elasticsearch");
            elastic.api_key.check(&format!("{path}.api_key"), problems);
            http(&path, elastic.timeout, elastic.ca_file.as_deref(), problems);
            let name = &elastic.data_stream;
            let is_plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            };
            if name.starts_with(['-', '_', '.']) || !name.bytes().all(is_plain) {
                problems.add(
                    format!("{path}.data_stream"),
                    "is not the name of a data stream",
                    "write lower-case letters, digits and '-', '_', '.', such as logs-latchkey.audit-default",
                );
            }
        }
    }
}

fn http(path: &str, timeout: Period, ca: Option<&Path>, problems: &mut Problems) {
    const SECOND: Duration = Duration::from_secs(1);
    problems.within(&format!("{path}.timeout"), timeout, SECOND, SECOND * 120);
    if let Some(ca) = ca {
        absolute(&format!("{path}.ca_file"), ca, problems);
    }
}

fn absolute(key: &str, path: &Path, problems: &mut Problems) {
    if !path.is_absolute() {
        problems.add(
            key,
            "is relative, so which file it is would depend on where Latchkey is started",
            "write an absolute path such as /var/log/latchkey/audit.jsonl",
        );
    }
}
