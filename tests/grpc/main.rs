//! The gRPC surface, with a real client over a loopback socket.

mod asks;
mod connections;
mod creating;
mod directory;
mod drift;
mod ending;
mod following;
mod holding;
mod limits;
mod operations;
mod support;
