//! The pages of the project hang together: what they link to is there, and the index names each of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, without what is built or hidden.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                files(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a page is text")
}

/// The page without fenced code.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The line without what stands between backticks.
fn without_code(prose: &str) -> String {
    let lines = prose
        .lines()
        .map(|line| line.split('`').step_by(2).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the links of a page lead that lead into the project: path and anchor.
fn links(page: &str) -> Vec<(String, String)> {
    let text = without_code(&prose(page));
    let inline = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let defined = text.lines().filter_map(|line| {
        line.strip_prefix('[')?
            .split_once("]: ")
            .map(|(_, target)| target)
    });
    inline
        .chain(defined)
        .map(|target| target.split_whitespace().next().unwrap_or_default())
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            (path.to_owned(), anchor.to_owned())
        })
        .collect()
}

/// The anchors that a page's headings get: lower case, words joined by hyphens, nothing else kept.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect()
}

/// Resolves `.` and `..` by name, as a reader of links does.
fn resolved(from: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in from
        .parent()
        .expect("a page is in a folder")
        .join(link)
        .components()
    {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => path.push(part),
        }
    }
    path
}

#[test]
fn every_relative_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 10, "the scan found the pages: {pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        let text = read(page);
        for (path, anchor) in links(&text) {
            let target = if path.is_empty() {
                page.clone()
            } else {
                resolved(page, &path)
            };
            let inside = target.starts_with(root());
            let is_page = target.extension().is_some_and(|ending| ending == "md");
            let known = anchor.is_empty() || !is_page || anchors(&read(&target)).contains(&anchor);
            if !inside || !target.exists() || !known {
                broken.push(format!("{}: {path}#{anchor}", page.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_index_names_every_page() {
    let docs = root().join("docs");
    let index = docs.join("README.md");
    let text = read(&index);
    let named: BTreeSet<PathBuf> = links(&text)
        .into_iter()
        .map(|(path, _)| resolved(&index, &path))
        .collect();
    let mut all = Vec::new();
    files(&docs, &mut all);
    let missing: Vec<_> = all
        .iter()
        .filter(|path| **path != index && !named.contains(*path))
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

#[test]
fn links_are_found_where_readers_see_them() {
    let page = "# A `b` title: it's 1\n[a](x.md#part) `[no](code.md)` [b](https://example.com/y)\n\
                ```\n[no](fence.md)\n```\n[c]: z.md\n[d](#a-b-title-its-1)";
    let found: Vec<String> = links(page)
        .into_iter()
        .map(|(path, anchor)| format!("{path}#{anchor}"))
        .collect();
    assert_eq!(found, ["x.md#part", "#a-b-title-its-1", "z.md#"]);
    assert_eq!(
        anchors(page),
        BTreeSet::from(["a-b-title-its-1".to_owned()])
    );
    assert_eq!(
        resolved(Path::new("/p/docs/a.md"), "../src/b.rs"),
        Path::new("/p/src/b.rs")
    );
}
