//! ports (under construction).
