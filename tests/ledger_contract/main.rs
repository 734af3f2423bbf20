//! The contract of the ledger port, claim by claim, against every adapter; then what only a file can promise, and
//! what only a server can.

mod audit;
mod cursors;
mod due;
mod listing;
mod members;
mod model;
mod once;
mod ownership;
mod postgres;
mod receipts;
mod recovery;
mod requests;
mod rotations;
mod seals;
mod server;
mod sights;
mod sqlite;
mod support;
