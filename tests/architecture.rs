//! Who may know whom inside the package. `docs/architecture.md`, section 4, has the picture; this file
//! holds it: every path in `src/` is read as text and compared with the tables below. It owns the
//! rules and never looks at what the code does.

use std::{collections::BTreeSet, fs, path::Path};

/// For each module of the package the modules it may name. A module may always name itself; `app`,
/// the composition root, names everything but its own callers and the simulator.
const INTERNAL: &str = "
domain:
policy: domain
ports: domain
runtime: domain ports
telemetry: domain runtime
config: domain policy telemetry
reconcile: domain policy ports runtime telemetry
scheduler: domain policy ports runtime telemetry reconcile
service: domain policy ports runtime telemetry reconcile
elastic: domain ports runtime
store: domain ports runtime
secrets: domain ports runtime
witness: domain ports runtime
audit: domain ports runtime
sinks: domain ports runtime
identity: domain ports runtime
law: domain policy ports runtime
api: identity service domain policy ports runtime telemetry
sim:
cli: app api config domain ports runtime telemetry
app: api audit config domain elastic identity law policy ports reconcile runtime scheduler secrets service sinks store telemetry witness
main: app cli runtime telemetry
lib: ";

/// Files that may name a module their own module may not: only these commands start the simulator, and only `doctor`
/// calls a use case in its own process, since it looks at a connector that may not run. Verifying an export is
/// arithmetic over a file, which nothing has to be wired for, and `policy` tries a law out on cases.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("src/cli/simulate", "sim"),
    ("src/cli/demo", "sim"),
    ("src/cli/bench", "sim"),
    ("src/cli/doctor", "service"),
    ("src/cli/audit", "audit"),
    ("src/cli/bench/verify", "audit"),
    ("src/cli/policy", "law"),
];

/// The pure modules and the only dependencies they may name. `serde` is allowed because a derive is
/// a description of data and does nothing; the others compute from their arguments alone.
const PURE: &[&str] = &["domain", "policy"];
const PURE_DEPENDENCIES: &[&str] = &[
    "chrono",
    "hex",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "uuid",
];

/// Dependencies that belong to some modules: rows stay in `store`, wire types and HTTP to the outside
/// in `elastic` and `secrets`, generated types at the gRPC edge and in its client.
const CONFINED: &str = "
sqlx: store
reqwest: elastic identity secrets sinks cli
rustls: cli elastic identity main
tokio_rustls: cli identity main
jsonwebtoken: identity
x509_parser: identity
cedar_policy: law
tonic: api app cli
tonic_prost: api
tonic_types: api cli
prost: api cli
prost_types: api cli
axum: api app sim telemetry
tokio_cron_scheduler: scheduler app
aws_config: secrets
aws_sdk_secretsmanager: secrets
azure_core: secrets
azure_identity: secrets
azure_security_keyvault_secrets: secrets
google_cloud_auth: secrets
google_cloud_gax: secrets
google_cloud_secretmanager_v1: secrets
clap: cli main
anyhow: cli app main";

/// Text that only the gRPC edge and its client may hold: the generated protobuf types.
const GENERATED: &[&str] = &["api::pb", "include_proto!", "latchkey.v1"];

const LONGEST_FILE: usize = 700;

/// The words after `name:` in one of the tables above.
fn row(table: &'static str, name: &str) -> Option<Vec<&'static str>> {
    let mut rows = table.lines().filter_map(|line| line.split_once(':'));
    let (_, words) = rows.find(|(first, _)| *first == name)?;
    Some(words.split_whitespace().collect())
}

/// Says everything that is wrong with one source file. `path` is relative to the package, with `/`.
fn check(path: &str, source: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let inside = path
        .strip_prefix("src/")
        .expect("the caller passes files of src/");
    let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    let module = parts[0];
    let mut wrong = header(path, source, &parts);
    let Some(allowed) = row(INTERNAL, module) else {
        wrong.push(format!(
            "{path}: module `{module}` is not in the table of tests/architecture.rs"
        ));
        return wrong;
    };
    let test_code = parts[1..]
        .iter()
        .any(|part| *part == "tests" || part.ends_with("_tests"));
    if test_code {
        return wrong;
    }
    let code = production_code(source);
    let depth = parts.iter().filter(|part| **part != "mod").count();
    for named in modules_named(&code, depth) {
        let exception = EXCEPTIONS
            .iter()
            .any(|(prefix, other)| path.starts_with(prefix) && *other == named);
        if named != module && !allowed.contains(&&*named) && !exception {
            wrong.push(format!("{path}: `{module}` must not know `{named}`"));
        }
    }
    for named in dependencies
        .iter()
        .filter(|name| !paths_of(&code, &format!("{name}::")).is_empty())
    {
        if PURE.contains(&module) && !PURE_DEPENDENCIES.contains(&named.as_str()) {
            wrong.push(format!(
                "{path}: `{module}` is pure and must not use `{named}`"
            ));
        }
        if row(CONFINED, named).is_some_and(|homes| !homes.contains(&module)) {
            wrong.push(format!("{path}: `{named}` does not belong in `{module}`"));
        }
    }
    for text in GENERATED.iter().filter(|text| code.contains(**text)) {
        if !["api", "cli"].contains(&module) {
            wrong.push(format!(
                "{path}: generated types (`{text}`) stay in `api` and the client"
            ));
        }
    }
    wrong
}

/// The rules for a file as a page: it says what it is, it is not endless, and the head of a module
/// with code says what the module never does.
fn header(path: &str, source: &str, parts: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    if !source.starts_with("//!") {
        wrong.push(format!("{path}: begins with no `//!`"));
    }
    if source.lines().count() > LONGEST_FILE {
        wrong.push(format!("{path}: longer than {LONGEST_FILE} lines"));
    }
    let docs: String = source
        .lines()
        .take_while(|line| line.starts_with("//"))
        .collect();
    let has_code = source
        .lines()
        .any(|line| !line.is_empty() && !line.starts_with("//"));
    let heads_module = parts.len() == 1 || *parts.last().expect("a path has parts") == "mod";
    if heads_module
        && has_code
        && !["lib", "main"].contains(&parts[0])
        && !docs.to_lowercase().contains("never")
    {
        wrong.push(format!(
            "{path}: its `//!` does not say what the module never does"
        ));
    }
    wrong
}

/// The source without comments and without an inline test module (which ends a file).
fn production_code(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |next| next.trim());
        if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            break;
        }
        let text = line.trim_start();
        if !text.starts_with("//") {
            code.push_str(text.split(" // ").next().unwrap_or(text));
            code.push('\n');
        }
    }
    code
}

/// What follows each place where `prefix` (`name::`) begins a path.
fn paths_of<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let begins =
        |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    // `::name::` is a path of a dependency as well, spelled from the root.
    let rooted = |at: usize| {
        code[..at].ends_with("::")
            && !code[..at - 2].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>')
    };
    code.match_indices(prefix)
        .filter(|(at, _)| begins(*at) || rooted(*at))
        .map(|(at, _)| &code[at + prefix.len()..])
        .collect()
}

/// The modules of this package that `code` names, through `crate::`, `latchkey::` or enough `super::`.
fn modules_named(code: &str, depth: usize) -> BTreeSet<String> {
    let mut tails = paths_of(code, "crate::");
    tails.extend(paths_of(code, "latchkey::"));
    tails.extend(paths_of(code, &"super::".repeat(depth)));
    tails
        .into_iter()
        .flat_map(first_names)
        .filter(|name| row(INTERNAL, name).is_some())
        .collect()
}

/// `a::b` gives `a`; `{a::b, c::{d}}` gives `a` and `c`.
fn first_names(tail: &str) -> Vec<String> {
    let ident = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(group) = tail.strip_prefix('{') else {
        return vec![ident(tail)];
    };
    let (mut names, mut level, mut start) = (Vec::new(), 0_usize, 0_usize);
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                names.push(ident(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The names under which Rust code knows the dependencies of `Cargo.toml`.
fn dependencies() -> BTreeSet<String> {
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in include_str!("../Cargo.toml").lines() {
        if line.starts_with('[') {
            section = line;
        } else if ["[dependencies]", "[dev-dependencies]"].contains(&section)
            && !line.starts_with('#')
        {
            names.extend(
                line.split_once(" = ")
                    .map(|(name, _)| name.trim().replace('-', "_")),
            );
        }
    }
    names
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_keeps_to_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, dependencies) = (Vec::new(), dependencies());
    files(&root.join("src"), &mut found);
    assert!(
        found.len() >= INTERNAL.trim().lines().count() - 1,
        "the scan found the tree: {found:?}"
    );
    assert!(
        dependencies.contains("tokio") && dependencies.contains("sqlx"),
        "Cargo.toml was understood"
    );
    let mut wrong = Vec::new();
    for path in found {
        let name = path
            .strip_prefix(root)
            .expect("found below root")
            .to_string_lossy()
            .replace('\\', "/");
        wrong.extend(check(
            &name,
            &fs::read_to_string(&path).expect("a source file is text"),
            &dependencies,
        ));
    }
    assert!(
        wrong.is_empty(),
        "{} broken rules:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// One broken rule in each line: the file, what stands in it, what the check must say.
const BROKEN: &str = "
src/domain/ids.rs | use tokio::time; | pure and must not use `tokio`
src/domain/ids.rs | fn f() { tracing::info!(); } | pure and must not use `tracing`
src/domain/ids.rs | fn f() -> ::rand::Rng {} | pure and must not use `rand`
src/policy.rs | use super::service::Service; | `policy` must not know `service`
src/policy/rules.rs | use super::super::store; | `policy` must not know `store`
src/ports.rs | use crate::elastic::Error; | `ports` must not know `elastic`
src/service/grants.rs | use crate::{domain::{Grant, Role}, store::Sqlite}; | must not know `store`
src/reconcile/mod.rs | type P = crate::elastic::Provider; | must not know `elastic`
src/scheduler/queue.rs | use crate::service::Service; | must not know `service`
src/elastic/provider.rs | use crate::{store::{Rows}}; | must not know `store`
src/store/rows.rs | use crate::secrets::Store; | must not know `secrets`
src/api/grants.rs | use crate::store::Sqlite; | must not know `store`
src/cli/doctor.rs | use crate::elastic::Client; | must not know `elastic`
src/cli/serve.rs | use crate::sim::World; | must not know `sim`
src/cli/grants.rs | use crate::service::Service; | must not know `service`
src/app.rs | use crate::sim::World; | must not know `sim`
src/sim/mod.rs | use crate::domain::Role; | must not know `domain`
src/service/mod.rs | use crate::app::App; | must not know `app`
src/main.rs | use latchkey::store::Sqlite; | must not know `store`
src/app.rs | use crate::api::pb::Grant; | generated types
src/service/grants.rs | use sqlx::Row; | `sqlx` does not belong in `service`
src/service/grants.rs | fn f() -> tonic::Status {} | `tonic` does not belong in `service`
src/elsewhere/mod.rs | fn f() {} | `elsewhere` is not in the table";

/// What must pass; `¶` ends a line of the sample.
const ALLOWED: &str = "
src/domain/grant.rs | use crate::domain::ids::GrantId;¶ use chrono::{DateTime, Utc};¶ use serde::Serialize;
src/service/grants.rs | use crate::{domain::Grant, ports::{Clock, Ledger}, reconcile};¶ use super::Error;
src/service/grants.rs | /// See [`crate::elastic`].¶ fn f() {} // not crate::store::x
src/service/grants.rs | fn f() {}¶ #[cfg(test)]¶ mod tests {¶ use crate::store::Memory;¶ }
src/service/tests.rs | use crate::store::Memory;
src/cli/demo.rs | use crate::{app, sim::World};
src/cli/doctor.rs | use crate::service::doctor::examine;
src/cli/client.rs | use crate::api::pb::Grant;
src/main.rs | use latchkey::cli;";

#[test]
fn each_rule_fires_when_it_is_broken_on_purpose() {
    let broken = BROKEN
        .trim()
        .lines()
        .map(|line| line.split(" | ").collect::<Vec<_>>());
    let dependencies = dependencies();
    for sample in broken {
        let [path, body, expected] = sample[..] else {
            panic!("three cells: {sample:?}")
        };
        let said = check(
            path,
            &format!("//! Owns a thing, never another.\n{body}\n"),
            &dependencies,
        );
        assert!(
            said.iter().any(|line| line.contains(expected)),
            "{path}: {body}: {said:?}"
        );
    }
    for (source, expected) in [
        ("fn f() {}\n".to_owned(), "begins with no `//!`"),
        ("//! Owns ids.\nfn f() {}\n".to_owned(), "never does"),
        (
            format!("//! Never.\n{}", "//\n".repeat(LONGEST_FILE)),
            "longer than",
        ),
    ] {
        let said = check("src/domain/mod.rs", &source, &dependencies);
        assert!(
            said.iter().any(|line| line.contains(expected)),
            "{expected}: {said:?}"
        );
    }
}

#[test]
fn what_the_rules_allow_passes() {
    for line in ALLOWED.trim().lines() {
        let (path, body) = line.split_once(" | ").expect("two cells");
        let body = body.replace("¶ ", "\n");
        let said = check(
            path,
            &format!("//! Owns a thing, never another.\n{body}\n"),
            &dependencies(),
        );
        assert!(said.is_empty(), "{path}: {said:?}");
    }
}
