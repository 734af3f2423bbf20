//! elastic (under construction).
