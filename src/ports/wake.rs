//! Telling the scheduler that a member became due.
//!
//! Owns only the signal. Never carries work: what is due stands in the ledger, and a lost signal costs at most one
//! poll.

use std::fmt::Debug;

use crate::domain::member::{Due, MemberKey};

/// Receives word that a member's due time was written.
pub trait Wake: Debug + Send + Sync {
    /// The ledger now says that this member is due then. Returns at once.
    fn wake(&self, key: &MemberKey, due: Due);
}
