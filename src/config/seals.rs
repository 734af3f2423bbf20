//! Whose signatures are taken: approvers, and keys of emergency tokens.
//!
//! Owns these settings. Never reads a key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::{self, Period};

/// People who may approve requests by a signature of their own. Whether a request needs approvals, and how many, is
/// for the law to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Approvals {
    /// How long ago an approval may have been signed, whatever end it names itself.
    pub max_age: Period,
    /// Who may approve.
    #[schemars(length(max = 1000))]
    pub approvers: Vec<Approver>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            max_age: Period::seconds(24 * 3600),
            approvers: Vec::new(),
        }
    }
}

/// Somebody who may approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// Name of the approver, as approvals give it in `iss`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The person, as policies see it: the e-mail address in Elastic Cloud, so that nobody approves their own access.
    #[schemars(length(min = 1, max = 256))]
    pub person: String,
    /// Other addresses and the user id of the same person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub aliases: Vec<String>,
    /// File with the public key (PEM: Ed25519 or P-256). It is read again as soon as it changes.
    #[schemars(schema_with = "text::schemas::path")]
    pub key_file: PathBuf,
}

/// Keys whose emergency tokens are taken. Without one no token is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakGlass {
    /// The keys, which are kept offline.
    #[schemars(length(max = 20))]
    pub keys: Vec<BreakGlassKey>,
}

/// A key that seals emergency tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassKey {
    /// Name of the key, as tokens give it in `iss`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// File with the public key (PEM: Ed25519 or P-256). It is read again as soon as it changes.
    #[schemars(schema_with = "text::schemas::path")]
    pub key_file: PathBuf,
}

impl Approvals {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.within(
            "approvals.max_age",
            self.max_age,
            Duration::from_secs(60),
            Duration::from_secs(30 * 24 * 3600),
        );
        let mut people = BTreeMap::new();
        for (index, one) in self.approvers.iter().enumerate() {
            for person in std::iter::once(&one.person).chain(&one.aliases) {
                if let Some(other) = people.insert(person.to_lowercase(), index)
                    && other != index
                {
                    problems.add(
                        format!("approvals.approvers[{index}].person"),
                        format!(
                            "is the person of approvers[{other}] as well, who would count twice"
                        ),
                        "write one approver for each person",
                    );
                }
            }
        }
        let keys = self.approvers.iter().map(|one| (&one.name, &one.key_file));
        check_keys("approvals.approvers", keys, problems);
    }
}

impl BreakGlass {
    pub(super) fn check(&self, problems: &mut Problems) {
        let keys = self.keys.iter().map(|one| (&one.name, &one.key_file));
        check_keys("break_glass.keys", keys, problems);
    }
}

fn check_keys<'a>(
    list: &str,
    keys: impl Iterator<Item = (&'a String, &'a PathBuf)>,
    problems: &mut Problems,
) {
    let mut names = BTreeMap::new();
    for (index, (name, file)) in keys.enumerate() {
        if let Some(other) = names.insert(name, index) {
            problems.add(
                format!("{list}[{index}].name"),
                format!("is the name of the entry {other} as well"),
                "write another name",
            );
        }
        if !file.is_absolute() {
            problems.add(
                format!("{list}[{index}].key_file"),
                "is relative, so the key would depend on where Latchkey is started",
                "write an absolute path such as /etc/latchkey/keys/ada.pem",
            );
        }
    }
}
