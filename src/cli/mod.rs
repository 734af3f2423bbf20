//! cli (under construction).

pub mod bench;
pub mod demo;
pub mod simulate;
