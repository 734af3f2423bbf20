//! The gRPC surface: tonic services over [`crate::service`].
//!
//! Owns the wire: generated types, their conversion, status codes, limits of the listener. Never decides about
//! access and never reaches an adapter.

mod access;
mod audit;
mod connector;
mod convert;
mod directory;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod guard;
mod hold;
mod keys;
mod listener;
mod operations;
pub mod pb;
mod render;
mod review;
mod server;
pub mod status;
mod token;

pub use server::{Options, Rate, ServeError, serve};

/// Registers the help texts of this module's metrics.
pub fn describe_metrics() {
    guard::describe_metrics();
    listener::describe_metrics();
}
