//! The configuration file: one YAML document, checked as a whole before anything starts.
//!
//! Owns every setting with its default and reason, and complaints that say what to write instead, all at once. Never
//! holds a secret: only where one is. Never expands variables.

pub mod audit;
pub mod callers;
pub mod engine;
pub mod integration;
pub mod lateness;
pub mod law;
pub mod ledger;
pub mod limits;
pub mod listen;
pub mod log;
pub mod policy;
pub mod problem;
pub mod seals;
pub mod secret;
pub mod service_level;
pub mod sink;
pub mod sweeps;
pub mod text;
pub mod witness;

mod schema;
mod yaml;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use audit::Audit;
pub use callers::{CallerSection, CertificateProof, Role, TokenProof};
pub use engine::Engine;
pub use integration::{Integration, Reapply, Rotation, Upstream};
pub use lateness::{Lateness, OnExceeded};
pub use law::LawSection;
pub use ledger::{Ledger, LedgerKind, Retention};
pub use limits::Limits;
pub use listen::{Listen, ListenTls, Oidc};
pub use log::Log;
pub use policy::Policy;
pub use problem::{ConfigErrors, Problem};
pub use schema::{Setting, schema, settings};
pub use seals::{Approvals, Approver, BreakGlass, BreakGlassKey};
pub use secret::{KubernetesSource, Secret, SecretSource, VaultSource, VaultWay};
pub use service_level::ServiceLevel;
pub use sink::{ElasticsearchSink, FileSink, Sink, SinkKind, WebhookMode, WebhookSink};
pub use sweeps::{Reminders, Sweeps};
pub use text::{HttpUrl, Period};
pub use witness::Witness;

use problem::Problems;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Latchkey listens.
    #[serde(default)]
    pub listen: Listen,
    /// Who may call, where the listener authenticates callers. Over plain loopback it stays empty: whoever is on this
    /// machine is `local` and may do everything.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub callers: Vec<CallerSection>,
    /// What is logged and how.
    #[serde(default)]
    pub log: Log,
    /// The durable record.
    #[serde(default)]
    pub ledger: Ledger,
    /// A second record of what was intended, apart from the ledger. Without it a restored or lost ledger is taken at
    /// its word, and what it does not know is left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    /// Seals over the audit, and where it is delivered to. Without seals whoever can write to the ledger can rewrite
    /// what it says happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Limits of the gRPC surface.
    #[serde(default)]
    pub limits: Limits,
    /// What may be granted at all.
    #[serde(default)]
    pub policy: Policy,
    /// The customer's law: what callers may do.
    #[serde(default)]
    pub law: LawSection,
    /// People who may approve requests by a signature of their own.
    #[serde(default)]
    pub approvals: Approvals,
    /// Keys whose sealed tokens open emergency grants.
    #[serde(default)]
    pub break_glass: BreakGlass,
    /// How late access may be taken away when much of it ends at once.
    #[serde(default)]
    pub lateness: Lateness,
    /// How access is added, removed and looked at again.
    #[serde(default)]
    pub engine: Engine,
    /// When the recurring sweeps run.
    #[serde(default)]
    pub sweeps: Sweeps,
    /// When callers are told that access ends soon.
    #[serde(default)]
    pub reminders: Reminders,
    /// What revocations are measured against.
    #[serde(default)]
    pub service_level: ServiceLevel,
    /// The Elastic Cloud organizations that are served; at least one.
    #[schemars(length(min = 1, max = 1000))]
    pub integrations: Vec<Integration>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = schema::plain(&path.display().to_string());
        let limit = yaml::MAX_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|open| open.take(limit).read_to_end(&mut bytes));
        if let Err(error) = read {
            let mut problems = Problems::default();
            problems.add(
                "",
                format!("the file cannot be read ({})", error.kind()),
                "check the path and that the user Latchkey runs as may read it",
            );
            return Err(problems.into_errors(&file));
        }
        Self::parse(&file, &bytes)
    }

    /// Checks the text of a configuration; `file` names it in complaints.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong: what is malformed hides nothing but what depends on it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::default();
        let value = match yaml::parse(bytes) {
            Ok(value) => value,
            Err(fault) => {
                let path = fault.at.map_or(String::new(), |(line, column)| {
                    format!("line {line}, column {column}")
                });
                problems.add(
                    path,
                    fault.problem,
                    "write one plain YAML document as in docs/config.sample.yaml",
                );
                return Err(problems.into_errors(file));
            }
        };
        if value.is_null() {
            problems.add(
                "",
                "the file is empty",
                "write at least one entry under `integrations`, as in docs/config.sample.yaml",
            );
            return Err(problems.into_errors(file));
        }
        schema::check(&value, &mut problems);
        if !problems.is_empty() {
            // Sections that are well formed are checked further, so that one round shows as much as can be known.
            check_sections(&value, &mut problems);
            return Err(problems.into_errors(file));
        }
        let config: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            // Not reached as long as schema and types agree. The inner text may hold a value and is dropped.
            let mut problems = Problems::default();
            problems.add(
                error.path().to_string(),
                "cannot be read",
                "compare it with docs/configuration.md",
            );
            problems.into_errors(file)
        })?;
        config.check(&mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems.into_errors(file))
        }
    }

    fn check(&self, problems: &mut Problems) {
        let Self {
            listen,
            callers,
            log: _,
            ledger,
            witness,
            audit,
            limits,
            policy,
            law,
            approvals,
            break_glass,
            lateness,
            engine,
            sweeps: _,
            reminders,
            service_level,
            integrations,
        } = self;
        listen.check(problems);
        callers::check(callers, listen, problems);
        ledger.check(problems);
        if let Some(witness) = witness {
            witness.check(Some(ledger), problems);
        }
        if let Some(audit) = audit {
            audit.check(Some(ledger), problems);
        }
        limits.check(problems);
        policy.check(problems);
        law.check(problems);
        approvals.check(problems);
        break_glass.check(problems);
        lateness.check(problems);
        engine.check(problems);
        reminders.check(problems);
        service_level.check(problems);
        integration::check(integrations, problems);
    }
}

/// Checks the meaning of every section that could be read, although others could not.
fn check_sections(value: &serde_json::Value, problems: &mut Problems) {
    fn section<T: DeserializeOwned + JsonSchema>(
        value: &serde_json::Value,
        name: &str,
    ) -> Option<T> {
        read_known(value.get(name)?.clone())
    }
    if let Some(listen) = section::<Listen>(value, "listen") {
        listen.check(problems);
        let callers = value.get("callers").and_then(serde_json::Value::as_array);
        let callers: Option<Vec<CallerSection>> =
            callers.and_then(|all| all.iter().cloned().map(read_known).collect());
        if let Some(callers) = callers {
            callers::check(&callers, &listen, problems);
        }
    }
    if let Some(ledger) = section::<Ledger>(value, "ledger") {
        ledger.check(problems);
    }
    if let Some(witness) = section::<Witness>(value, "witness") {
        witness.check(section::<Ledger>(value, "ledger").as_ref(), problems);
    }
    if let Some(audit) = section::<Audit>(value, "audit") {
        audit.check(section::<Ledger>(value, "ledger").as_ref(), problems);
    }
    if let Some(limits) = section::<Limits>(value, "limits") {
        limits.check(problems);
    }
    if let Some(policy) = section::<Policy>(value, "policy") {
        policy.check(problems);
    }
    if let Some(law) = section::<LawSection>(value, "law") {
        law.check(problems);
    }
    if let Some(approvals) = section::<Approvals>(value, "approvals") {
        approvals.check(problems);
    }
    if let Some(break_glass) = section::<BreakGlass>(value, "break_glass") {
        break_glass.check(problems);
    }
    if let Some(lateness) = section::<Lateness>(value, "lateness") {
        lateness.check(problems);
    }
    if let Some(engine) = section::<Engine>(value, "engine") {
        engine.check(problems);
    }
    if let Some(reminders) = section::<Reminders>(value, "reminders") {
        reminders.check(problems);
    }
    if let Some(service_level) = section::<ServiceLevel>(value, "service_level") {
        service_level.check(problems);
    }
    let entries = value
        .get("integrations")
        .and_then(serde_json::Value::as_array);
    let integrations: Option<Vec<Integration>> =
        entries.and_then(|entries| entries.iter().cloned().map(read_known).collect());
    if let Some(integrations) = integrations {
        integration::check(&integrations, problems);
    }
}

/// Reads a section without the keys that it does not have: those are complained about already, and must not hide
/// what else is wrong with it.
fn read_known<T: DeserializeOwned + JsonSchema>(mut value: serde_json::Value) -> Option<T> {
    let schema = schemars::schema_for!(T);
    if let Some(object) = value.as_object_mut()
        && let Some(known) = schema
            .get("properties")
            .and_then(serde_json::Value::as_object)
    {
        object.retain(|key, _| known.contains_key(key));
    }
    serde_json::from_value(value).ok()
}
