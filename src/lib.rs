//! Latchkey, a just-in-time access connector for Elastic Cloud.
//!
//! It gives people roles for a bounded time and takes them away again. One sentence decides every trade-off: a grant
//! may be late or refused; a revocation may be late but never lost, never silent, and never takes away what Latchkey
//! did not give.
//!
//! The map, from the outside in; `docs/architecture.md` says why, `tests/architecture.rs` keeps it so:
//!
//! * [`cli`] is what people type; [`app`] wires everything and is the only place that names a port and its adapter.
//! * [`api`] is the gRPC surface, [`service`] the use cases behind it, [`policy`] what may be asked for.
//! * [`scheduler`] decides when a member is looked at, [`reconcile`] what is done then: the only path that changes
//!   access.
//! * [`domain`] is the vocabulary and its rules, [`ports`] what the core needs from the world.
//! * [`elastic`], [`store`], [`secrets`], [`witness`], [`audit`], [`sinks`], [`identity`] and [`law`] are the adapters; they
//!   never know each other.
//! * [`config`], [`runtime`] and [`telemetry`] run the process; [`sim`] is a simulated Elastic Cloud that knows none of
//!   the others.

pub mod api;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod domain;
pub mod elastic;
pub mod identity;
pub mod law;
pub mod policy;
pub mod ports;
pub mod reconcile;
pub mod runtime;
pub mod scheduler;
pub mod secrets;
pub mod service;
pub mod sim;
pub mod sinks;
pub mod store;
pub mod telemetry;
pub mod witness;
