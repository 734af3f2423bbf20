//! runtime (under construction).
