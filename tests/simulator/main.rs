//! The simulator over HTTP: what `docs/simulator.md` promises, one claim per test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod assignments;
mod control;
mod discovery;
mod elasticsearch;
mod faults;
mod harness;
mod invitations;
mod keys;
mod members;
mod rotation;
mod wire;
