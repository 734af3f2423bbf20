//! domain (under construction).
