//! The gRPC surface: tonic services over [`crate::service`].
//!
//! Owns the wire: generated types, their conversion, status codes, limits of the listener. Never decides about
//! access and never reaches an adapter.

pub mod pb;
