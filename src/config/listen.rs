//! Where Latchkey listens.
//!
//! Owns the rule that nobody but this machine may ask for access. Never opens a socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::Address;

/// Where Latchkey listens. Loopback only until callers can be authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The gRPC surface. Loopback, because whoever reaches it can ask for access.
    pub grpc: Address,
    /// Health and metrics over HTTP: /healthz, /readyz, /metrics. Anybody may ask, so loopback or a closed network.
    pub http: Address,
    /// Offer gRPC reflection, for trying things out with grpcurl. Off, because a service needs none of it.
    pub reflection: bool,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| Address::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        Self {
            grpc: loopback(7443),
            http: loopback(7480),
            reflection: false,
        }
    }
}

impl Listen {
    pub(super) fn check(&self, problems: &mut Problems) {
        // `http` may be anywhere: probes and Prometheus come from other machines, and nothing can be done there.
        if !self.grpc.get().ip().is_loopback() {
            problems.add(
                "listen.grpc",
                "can be reached from other machines, and callers cannot be authenticated yet",
                format!(
                    "write 127.0.0.1:{} and put an authenticating proxy in front of it",
                    self.grpc.get().port()
                ),
            );
        }
        if self.grpc == self.http && self.grpc.get().port() != 0 {
            problems.add(
                "listen.http",
                "is the same address as listen.grpc",
                "write another port",
            );
        }
    }
}
