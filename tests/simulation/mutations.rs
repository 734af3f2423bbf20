//! Rules that can be broken on purpose: `mutations.toml` lists them, `scripts/mutations` builds a copy of the sources in
//! which each stands behind a switch.
//!
//! Owns the switch, and that every line of the list still fits the sources. In the sources as they are nothing can be
//! switched: production code knows no mutations.

use std::fs::read_to_string;
use std::path::Path;

const LIST: &str = include_str!("mutations.toml");

/// Breaks one rule in this process. `false` when this build cannot.
pub(crate) fn choose(name: &str) -> bool {
    drop(name.to_owned());
    false
}

/// What a line of the list would replace.
#[derive(Debug)]
struct Entry<'a> {
    name: &'a str,
    file: &'a str,
    old: &'a str,
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).map_or("", |(_, rest)| rest);
    rest.split_once(to).map_or("", |(found, _)| found)
}

fn entries() -> impl Iterator<Item = Entry<'static>> {
    LIST.split("[[mutation]]").skip(1).map(|entry| Entry {
        name: between(entry, "name = \"", "\""),
        file: between(entry, "file = \"", "\""),
        old: between(entry, "old = '''\n", "\n'''"),
    })
}

/// The entries of the list whose text does not stand exactly once in its file. Nothing in the copy with the switches,
/// where they have been replaced.
pub(crate) fn stale() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.join("src/mutated.rs").exists() {
        return Vec::new();
    }
    entries()
        .filter_map(|Entry { name, file, old }| {
            let source = read_to_string(root.join(file)).unwrap_or_default();
            let times = source.matches(old).count();
            (old.is_empty() || times != 1).then(|| format!("{name}: {times} times in {file}"))
        })
        .collect()
}
