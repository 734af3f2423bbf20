//! Latchkey, a just-in-time access connector for Elastic Cloud.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod elastic;
pub mod policy;
pub mod ports;
pub mod reconcile;
pub mod runtime;
pub mod scheduler;
pub mod secrets;
pub mod service;
pub mod sim;
pub mod store;
pub mod telemetry;
