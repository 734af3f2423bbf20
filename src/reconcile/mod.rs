//! Reconciliation: desired access against observed access.
//!
//! Owns the only path that adds or removes access: load a member, plan purely, write the intent, send once, write
//! the outcome, look again. Never executes "undo of grant X", and never removes what the ledger does not own.

pub mod observer;

pub use observer::Observer;
