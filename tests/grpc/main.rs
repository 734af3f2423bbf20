//! The gRPC surface, with a real client over a loopback socket.

mod approving;
mod asks;
mod callers;
mod connections;
mod creating;
mod directory;
mod drift;
mod ending;
mod following;
mod holding;
mod keys;
mod law;
mod limits;
mod operations;
mod pki;
mod support;
mod tokens;
