//! cli (under construction).

pub mod simulate;
