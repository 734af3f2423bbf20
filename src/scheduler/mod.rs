//! scheduler (under construction).
