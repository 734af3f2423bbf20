//! The contract of the ledger port, claim by claim, against every adapter; then what only a file can promise.

mod audit;
mod due;
mod listing;
mod members;
mod model;
mod receipts;
mod recovery;
mod requests;
mod sights;
mod sqlite;
mod support;
