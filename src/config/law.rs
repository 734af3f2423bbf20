//! The customer's law: where its policies are.
//!
//! Owns these settings. Never reads a policy.

use std::path::PathBuf;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text;

/// Cedar policies that decide what callers may do. What section `policy` refuses stays refused, whatever they permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LawSection {
    /// A folder whose files ending in .cedar are the law. Left out, with `files`, the shipped default is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::schemas::path")]
    pub directory: Option<PathBuf>,
    /// The files that are the law, instead of a folder.
    #[schemars(schema_with = "text::paths")]
    pub files: Vec<PathBuf>,
    /// The time zone of the local time that policies see, by its IANA name.
    #[schemars(length(min = 1, max = 64))]
    pub zone: String,
}

impl Default for LawSection {
    fn default() -> Self {
        Self {
            directory: None,
            files: Vec::new(),
            zone: "UTC".to_owned(),
        }
    }
}

impl LawSection {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.directory.is_some() && !self.files.is_empty() {
            problems.add(
                "law.files",
                "names files beside a folder, so that nobody could tell which of them is the law",
                "write either `directory` or `files`",
            );
        }
        if self.zone.parse::<Tz>().is_err() {
            problems.add(
                "law.zone",
                "is no time zone of the IANA data base",
                "write a name such as UTC or Europe/Berlin",
            );
        }
        let paths = self
            .directory
            .iter()
            .map(|path| ("law.directory".to_owned(), path));
        let files = self.files.iter().enumerate();
        let files = files.map(|(index, path)| (format!("law.files[{index}]"), path));
        for (at, path) in paths.chain(files) {
            if !path.is_absolute() {
                problems.add(
                    at,
                    "is relative, so the law would depend on where Latchkey is started",
                    "write an absolute path such as /etc/latchkey/law",
                );
            }
        }
    }
}
