//! Code generated from `proto/latchkey/v1`.
//!
//! Owns nothing by hand. Never leaves `api`, except for clients of the surface (the command line).
#![expect(
    clippy::allow_attributes,
    reason = "generated code carries its own allow attributes"
)]

tonic::include_proto!("latchkey.v1");

/// Encoded descriptors of the surface, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/latchkey.v1.bin"));
