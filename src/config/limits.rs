//! What one caller may take of the gRPC surface.
//!
//! Owns the numbers. Never enforces them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::Period;

/// Limits of the gRPC surface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message in bytes. The largest sensible grant, hundreds of targets, is a tenth of 256 KiB.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub message_bytes: u32,
    /// Calls at a time on one connection. A control plane needs a few; watchers hold one each.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrent_streams: u32,
    /// Connections at a time, so that nobody can use up the files of the process.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: u32,
    /// Longest deadline a call can have, whatever its caller asks for. Ten minutes is longer than any wait for an
    /// activation makes sense; watching has no deadline.
    pub max_deadline: Period,
    /// How long a connection may take to say its first word. Longer only keeps files open for nobody.
    pub handshake_timeout: Period,
    /// How long a connection without calls is kept.
    pub idle_timeout: Period,
    /// How often a silent connection is asked whether it is still there, so that dead watchers are noticed.
    pub keep_alive_interval: Period,
    /// How long that answer may take.
    pub keep_alive_timeout: Period,
    /// Calls a second, per caller, in the long run. Beyond any control plane, below what would hurt the ledger.
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: u32,
    /// Calls at once, per caller: an off-boarding is a burst.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 256 * 1024,
            concurrent_streams: 64,
            connections: 256,
            max_deadline: Period::seconds(600),
            handshake_timeout: Period::seconds(10),
            idle_timeout: Period::seconds(900),
            keep_alive_interval: Period::seconds(60),
            keep_alive_timeout: Period::seconds(20),
            requests_per_second: 50,
            burst: 200,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, problems: &mut Problems) {
        let second = Duration::from_secs(1);
        let mut within = |name: &str, value, most| {
            problems.within(&format!("limits.{name}"), value, second, second * most);
        };
        within("max_deadline", self.max_deadline, 3600);
        within("handshake_timeout", self.handshake_timeout, 60);
        within("idle_timeout", self.idle_timeout, 86_400);
        within("keep_alive_interval", self.keep_alive_interval, 3600);
        within("keep_alive_timeout", self.keep_alive_timeout, 300);
    }
}
