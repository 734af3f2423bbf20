//! What is shown of a grant.
