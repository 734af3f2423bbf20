//! The errors of the port, made from what a database said.
//!
//! Owns their making. Never decides which of them fits: that differs from database to database.

use std::error::Error;

use crate::ports::ledger::LedgerError;

/// Nothing happened.
pub(crate) fn unavailable(
    action: &'static str,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> LedgerError {
    LedgerError::Unavailable {
        action,
        source: source.into(),
    }
}

/// Nobody knows whether it happened.
pub(crate) fn unknown(
    action: &'static str,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> LedgerError {
    LedgerError::CommitUnknown {
        action,
        source: source.into(),
    }
}

/// What is stored cannot be read.
pub(crate) fn corrupt(
    action: &'static str,
    source: impl Into<Box<dyn Error + Send + Sync>>,
) -> LedgerError {
    LedgerError::Corrupt {
        action,
        source: source.into(),
    }
}

/// Passes an unreadable row on as the inner error of a read.
macro_rules! readable {
    ($action:expr, $value:expr) => {
        match $value {
            Ok(value) => value,
            Err(error) => return Ok(Err($crate::store::failure::corrupt($action, error))),
        }
    };
}

pub(crate) use readable;
