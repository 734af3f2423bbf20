//! The page about metrics says what the code registers and records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::DESCRIBE;
use crate::telemetry::metrics::describe;

/// One row of the page, without its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    kind: &'static str,
    unit: &'static str,
    meaning: String,
}

/// Takes down descriptions and records nothing.
#[derive(Debug, Default)]
struct Scribe(Mutex<BTreeMap<String, Described>>);

impl Scribe {
    fn note(&self, kind: &'static str, key: &KeyName, unit: Option<Unit>, meaning: &SharedString) {
        let unit = match unit {
            Some(Unit::Seconds) => "seconds",
            None | Some(Unit::Count) => "",
            Some(other) => panic!("{}: the page has no word for {other:?}", key.as_str()),
        };
        let described = Described {
            kind,
            unit,
            meaning: meaning.to_string(),
        };
        let before = self
            .0
            .lock()
            .expect("not poisoned")
            .insert(key.as_str().to_owned(), described);
        assert_eq!(before, None, "{} is described twice", key.as_str());
    }
}

impl Recorder for Scribe {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("counter", &key, unit, &meaning);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("gauge", &key, unit, &meaning);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.note("histogram", &key, unit, &meaning);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn described() -> BTreeMap<String, Described> {
    let scribe = Scribe::default();
    metrics::with_local_recorder(&scribe, || describe(DESCRIBE));
    scribe.0.into_inner().expect("not poisoned")
}

/// A metric as some line of code records it.
#[derive(Debug)]
struct Recorded {
    kind: &'static str,
    labels: BTreeSet<String>,
}

/// Every recording in the production code, by name.
fn recorded() -> BTreeMap<String, Recorded> {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut found: BTreeMap<String, Recorded> = BTreeMap::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let source = fs::read_to_string(path).expect("a source file is text");
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for kind in ["counter", "gauge", "histogram"] {
            for (at, opening) in code.match_indices(&format!("{kind}!(")) {
                // `describe_counter!(` is not a recording.
                if code[..at].ends_with('_') {
                    continue;
                }
                let inside = balanced(&code[at + opening.len()..]);
                let first = inside.split(',').next().unwrap_or_default().trim();
                let name = literal(first).or_else(|| constant(code, first));
                let name = name
                    .unwrap_or_else(|| panic!("{}: which metric is `{first}`?", path.display()));
                let labels = inside
                    .split("=>")
                    .filter_map(|before| literal(before.rsplit(',').next()?.trim()));
                let labels = labels.filter(|label| *label != name).collect();
                let before = found.insert(name.clone(), Recorded { kind, labels });
                if let Some(before) = before {
                    let now = &found[&name];
                    assert_eq!(
                        (before.kind, &before.labels),
                        (now.kind, &now.labels),
                        "{name} differs by place"
                    );
                }
            }
        }
    }
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        let part = part.trim_end_matches(".rs");
        part == "tests" || part.ends_with("_tests")
    })
}

/// The text up to the parenthesis that closes what is open before it.
fn balanced(text: &str) -> &str {
    let mut level = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => level += 1,
            ')' => level -= 1,
            _ => {}
        }
        if level == 0 {
            return &text[..at];
        }
    }
    text
}

fn literal(text: &str) -> Option<String> {
    text.strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
}

/// What `const NAME: &str = "…";` of the same file says.
fn constant(code: &str, name: &str) -> Option<String> {
    let (_, value) = code.split_once(&format!("const {name}: &str = "))?;
    literal(value.split(';').next()?)
}

#[test]
fn what_is_recorded_is_described_as_what_it_is() {
    let (described, recorded) = (described(), recorded());
    let names = |map: Vec<&String>| map.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(recorded.keys().collect()),
        names(described.keys().collect())
    );
    for (name, metric) in &recorded {
        assert_eq!(metric.kind, described[name].kind, "{name}");
    }
}

#[test]
fn names_tell_counters_and_units() {
    for (name, Described { kind, unit, .. }) in described() {
        assert!(name.starts_with("latchkey_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert_eq!(name.ends_with("_seconds"), unit == "seconds", "{name}");
    }
}

#[test]
fn the_page_lists_every_metric_and_nothing_else() {
    let recorded = recorded();
    let wanted: Vec<String> = described()
        .into_iter()
        .map(
            |(
                name,
                Described {
                    kind,
                    unit,
                    meaning,
                },
            )| {
                let labels: Vec<String> = recorded
                    .get(&name)
                    .into_iter()
                    .flat_map(|metric| &metric.labels)
                    .map(|l| format!("`{l}`"))
                    .collect();
                let cells = [
                    format!("`{name}`"),
                    kind.to_owned(),
                    labels.join(", "),
                    unit.to_owned(),
                    meaning,
                ];
                cells
                    .map(|cell| {
                        if cell.is_empty() {
                            "|".to_owned()
                        } else {
                            format!("| {cell} ")
                        }
                    })
                    .concat()
                    + "|"
            },
        )
        .collect();
    let page = include_str!("../../docs/metrics.md");
    let rows: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("| `latchkey_"))
        .map(|line| {
            // Labels in any order, empty cells of any width.
            let mut cells: Vec<String> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect();
            assert_eq!(cells.len(), 5, "{line}");
            let mut labels: Vec<&str> = cells[2].split(", ").collect();
            labels.sort_unstable();
            cells[2] = labels.join(", ");
            cells
                .iter()
                .map(|cell| {
                    if cell.is_empty() {
                        "|".to_owned()
                    } else {
                        format!("| {cell} ")
                    }
                })
                .collect::<String>()
                + "|"
        })
        .collect();
    assert_eq!(
        rows,
        wanted,
        "docs/metrics.md should have these rows, in this order:\n{}\n",
        wanted.join("\n")
    );
}
