//! secrets (under construction).
