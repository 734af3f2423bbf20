//! cli (under construction).

pub mod doctor;
