//! service (under construction).

pub mod doctor;
