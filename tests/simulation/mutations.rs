//! Rules that can be broken on purpose: `mutations.toml` lists them, `scripts/mutations` builds a copy of the sources in
//! which each stands behind a switch.
//!
//! Owns the switch. In the sources as they are nothing can be switched: production code knows no mutations.

/// Breaks one rule in this process. `false` when this build cannot.
pub(crate) fn choose(name: &str) -> bool {
    drop(name.to_owned());
    false
}
