//! What is logged and how.
//!
//! Owns two settings. Never installs a logger.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::telemetry::LogFormat;

use super::text::LogFilter;

/// Logs, written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` for people, `json` for machines. Text, because the first reader is a person.
    pub format: LogFormat,
    /// Level, or levels by module. At `info` there is a line for every change of access.
    pub filter: LogFilter,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: LogFilter::parse("info").expect("a level"),
        }
    }
}
