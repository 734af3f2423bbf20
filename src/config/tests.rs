//! What a configuration says when it is wrong.

mod docs;
mod sinks;

use super::*;

const MINIMAL: &str = "integrations:\n  - name: production\n    secret: {file: {path: /run/key}}\n";

fn complaints(text: &str) -> String {
    let errors = Config::parse("test.yaml", text.as_bytes()).expect_err(text);
    assert!(!errors.problems.is_empty());
    for problem in &errors.problems {
        assert!(!problem.problem.is_empty() && !problem.remedy.is_empty());
    }
    errors.to_string()
}

/// A minimal configuration with one more section, and what must be said of it.
#[track_caller]
fn refused(section: &str, path: &str, said: &str) {
    let text = format!("{MINIMAL}{section}\n");
    let complaints = complaints(&text);
    let line = complaints
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{path}: ")))
        .unwrap_or_else(|| panic!("nothing about {path} in\n{complaints}"));
    assert!(line.contains(said), "{said:?} is not in\n{line}");
    assert!(line.contains("; "), "no remedy in\n{line}");
}

/// An integration with these lines, and what must be said of it.
#[track_caller]
fn refused_integration(lines: &str, path: &str, said: &str) {
    let text = format!("integrations: [{{{lines}}}]");
    let complaints = complaints(&text);
    assert!(
        complaints
            .lines()
            .any(|line| line.contains(&format!("{path}: ")) && line.contains(said)),
        "nothing about {path} with {said:?} in\n{complaints}"
    );
}

#[test]
fn a_minimal_file_gets_every_default() {
    let config = Config::parse("test.yaml", MINIMAL.as_bytes()).expect("valid");
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.policy.max_duration, Period::seconds(12 * 3600));
    let integration = &config.integrations[0];
    assert_eq!(integration.upstream, Upstream::default());
    assert!(matches!(
        integration.secret.source(),
        Some(SecretSource::File(file)) if file.path == Path::new("/run/key") && file.field == "api_key"
    ));
}

#[test]
fn probes_and_metrics_may_come_from_other_machines() {
    let text = format!("{MINIMAL}listen: {{http: '[::]:7480'}}\n");
    let config = Config::parse("test.yaml", text.as_bytes()).expect("valid");
    assert!(!config.listen.http.get().ip().is_loopback());
}

#[test]
fn defaults_are_within_their_own_bounds() {
    let mut problems = Problems::default();
    Listen::default().check(&mut problems);
    Ledger::default().check(&mut problems);
    Limits::default().check(&mut problems);
    Policy::default().check(&mut problems);
    Engine::default().check(&mut problems);
    Reminders::default().check(&mut problems);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn unknown_keys_are_refused_with_the_key_that_was_meant() {
    let said = complaints(&format!("{MINIMAL}lisen: {{}}\n"));
    assert!(
        said.contains("`lisen` is not a known key; write `listen`"),
        "{said}"
    );
    refused("listen: {gprc: 127.0.0.1:1}", "listen", "write `grpc`");
    refused(
        "policy: {max-duration: 1h}",
        "policy",
        "write `max_duration`",
    );
    refused(
        "policy: {zebra: 1}",
        "policy",
        "known here: `allow_all_targets`",
    );
    let said = complaints("5f0c1d7e-9b2a-4866: {}\nlog: {S3cret: 1, S3cret: 2}");
    assert!(!said.contains("5f0c") && !said.contains("S3cret"), "{said}");
    refused_integration(
        "name: a, secret: {valt: {}, file: {path: /a}}",
        "integrations[0].secret",
        "`valt` is not a known key; write `vault`",
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    refused(
        "listen: [1]",
        "listen",
        "is a list; write a mapping with `grpc`",
    );
    refused("listen:", "listen", "is empty");
    refused(
        "listen: {reflection: 'yes'}",
        "listen.reflection",
        "is text; write true or false",
    );
    refused(
        "limits: {message_bytes: big}",
        "limits.message_bytes",
        "write a whole number",
    );
    refused(
        "limits: {message_bytes: 1.5}",
        "limits.message_bytes",
        "write a whole number",
    );
    refused(
        "limits: {message_bytes: 1}",
        "limits.message_bytes",
        "write at least 1024",
    );
    refused(
        "limits: {burst: 99999999}",
        "limits.burst",
        "write at most 1000000",
    );
    refused(
        "policy: {max_duration: 12}",
        "policy.max_duration",
        "write a duration such as 45m",
    );
    refused(
        "log: {format: xml}",
        "log.format",
        "write one of `text`, `json`",
    );
    refused(
        "ledger: {kind: mysql}",
        "ledger.kind",
        "write one of `sqlite`, ",
    );
    refused_integration(
        "name: a, organization_id: 198583657190, secret: {file: {path: /a}}",
        "integrations[0].organization_id",
        "numbers need quotes",
    );
}

#[test]
fn callers_must_be_proven_by_something_that_proves_nobody_else() {
    let tls = "tls: {certificate: /c, key: /k, client_ca: /a}";
    let listen = format!("listen: {{{tls}}}");
    let caller = |lines: &str| format!("{listen}\ncallers: [{lines}]");
    let proof = "certificate: {dns: a.example}";
    refused(
        "listen: {grpc: '0.0.0.0:7443', oidc: [{issuer: 'https://i', audience: a}]}",
        "listen.grpc",
        "without TLS",
    );
    refused(
        "listen: {tls: {certificate: /c, key: /k}}",
        "listen.tls",
        "nothing says who calls",
    );
    refused(&listen, "callers", "nobody could call");
    refused(
        &caller(&format!("{{name: local, role: operator, {proof}}}")),
        "callers[0].name",
        "uses itself",
    );
    refused(
        &caller("{name: a, role: operator}"),
        "callers[0]",
        "nothing proves",
    );
    refused(
        &caller(&format!(
            "{{name: a, role: operator, {proof}}}, {{name: b, role: auditor, certificate: {{dns: A.example}}}}"
        )),
        "callers[1].certificate",
        "proves callers[0] as well",
    );
    refused(
        &caller("{name: a, role: operator, token: {issuer: 'https://i', subject: x}}"),
        "callers[0].token.issuer",
        "is no issuer of listen.oidc",
    );
    refused(
        &caller(&format!("{{name: a, role: king, {proof}}}")),
        "callers[0].role",
        "control-plane",
    );
    let oidc = "listen: {oidc: [{issuer: 'http://idp.example', audience: a}]}";
    refused(oidc, "listen.oidc[0].issuer", "https");
    let fine = format!(
        "{MINIMAL}listen: {{grpc: '0.0.0.0:7443', {tls}}}\ncallers: [{{name: a, role: operator, {proof}}}]\n"
    );
    Config::parse("test.yaml", fine.as_bytes()).expect("other machines may call");
}

#[test]
fn a_law_is_in_one_place_and_its_zone_exists() {
    refused(
        "law: {directory: /a, files: [/b]}",
        "law.files",
        "beside a folder",
    );
    refused("law: {directory: law}", "law.directory", "is relative");
    refused("law: {zone: Mars/Olympus}", "law.zone", "no time zone");
}

#[test]
fn values_that_mean_nothing_are_refused() {
    refused(
        "listen: {grpc: 'localhost:7443'}",
        "listen.grpc",
        "write an address and a port",
    );
    refused(
        "listen: {grpc: '0.0.0.0:7443'}",
        "listen.grpc",
        "write 127.0.0.1:7443",
    );
    refused(
        "listen: {http: '127.0.0.1:7443'}",
        "listen.http",
        "write another port",
    );
    refused("log: {filter: inof}", "log.filter", "write a level");
    refused(
        "service_level: {revocation_within: 10ms}",
        "service_level.revocation_within",
        "write a duration from 1s to 1d",
    );
    refused(
        "service_level: {objective: 1}",
        "service_level.objective",
        "write at most 0.99999",
    );
    refused(
        "service_level: {objective: 99.9%}",
        "service_level.objective",
        "write a number",
    );
    refused(
        "ledger: {path: ledger.db}",
        "ledger.path",
        "write an absolute path",
    );
    refused(
        "ledger: {path: ''}",
        "ledger.path",
        "write an absolute path",
    );
    refused(
        "ledger: {retention: {requests: 1h}}",
        "ledger.retention.requests",
        "write a duration from 1d to 366d",
    );
    refused(
        "limits: {max_deadline: 2h}",
        "limits.max_deadline",
        "too long",
    );
    refused(
        "policy: {max_duration: 1h 90x}",
        "policy.max_duration",
        "write a number and a unit",
    );
    refused(
        "policy: {max_duration: 0s}",
        "policy.max_duration",
        "too short",
    );
    refused(
        "policy: {max_total: 1h}",
        "policy.max_total",
        "shorter than policy.max_duration",
    );
    refused(
        "policy: {roles: [deployment-veiwer]}",
        "policy.roles[0]",
        "write `deployment-viewer`",
    );
    refused(
        "policy: {roles: [viewer]}",
        "policy.roles[0]",
        "canonical role id",
    );
    refused(
        "policy: {roles: [billing-admin]}",
        "policy.roles[0]",
        "write `allow_organization_roles: true`",
    );
    refused(
        "policy: {roles: [deployment-viewer, deployment-viewer]}",
        "policy.roles",
        "write each entry once",
    );
    refused(
        "engine: {read_staleness: 1d}",
        "engine.read_staleness",
        "too long",
    );
    refused(
        "engine: {read_staleness: 30s, unknown_look_after: 20s}",
        "engine.unknown_look_after",
        "prove nothing",
    );
    refused(
        "engine: {pass_concurrency: 0}",
        "engine.pass_concurrency",
        "write at least 1",
    );
    refused(
        "sweeps: {drift: '* * * * *'}",
        "sweeps.drift",
        "5 fields instead of six",
    );
    refused(
        "sweeps: {drift: '0 0 0 30 2 *'}",
        "sweeps.drift",
        "never comes",
    );
    refused(
        "sweeps: {drift: '99 * * * * *'}",
        "sweeps.drift",
        "write six fields",
    );
    refused(
        "reminders: {before: [15m, 15m]}",
        "reminders.before[1]",
        "twice",
    );
    refused(
        "reminders: {before: [1s]}",
        "reminders.before[0]",
        "too short",
    );
}

#[test]
fn integrations_are_checked_one_by_one_and_against_each_other() {
    let said = complaints("listen: {}");
    assert!(said.contains("integrations: is missing"), "{said}");
    let said = complaints("integrations: []");
    assert!(said.contains("integrations: has too few entries"), "{said}");
    let path = "integrations[0]";
    let at = |rest: &str| format!("{path}.{rest}");
    let file = "secret: {file: {path: /a}}";
    refused_integration(
        "name: a",
        &at("secret"),
        "is missing; write a mapping with exactly one of",
    );
    refused_integration(file, &at("name"), "is missing");
    refused_integration("name: a, secret: {}", &at("secret"), "write exactly one of");
    refused_integration(
        "name: a, secret: {env: {name: A}, file: {path: /a}}",
        &at("secret"),
        "more than one place",
    );
    refused_integration(
        "name: a, secret: {file: {path: a}}",
        &at("secret.file.path"),
        "absolute",
    );
    refused_integration(
        "name: a, secret: {env: {}}",
        &at("secret.env.name"),
        "is missing",
    );
    refused_integration(
        "name: a, secret: {vault: {address: 'http://vault.internal', path: a, auth: {token: {file: /a}}}}",
        &at("secret.vault.address"),
        "write https",
    );
    refused_integration(
        "name: a, secret: {vault: {address: 'https://vault.internal', path: a/../b, auth: {token: {file: /a}}}}",
        &at("secret.vault.path"),
        "..",
    );
    refused_integration(
        "name: a, secret: {vault: {address: 'https://vault.internal', path: a, auth: {approle: {role_id: r, secret_id_file: s}}}}",
        &at("secret.vault.auth.approle.secret_id_file"),
        "absolute",
    );
    refused_integration(
        "name: a, secret: {kubernetes: {name: A_b}}",
        &at("secret.kubernetes.name"),
        "lower-case",
    );
    refused_integration(
        "name: a, secret: {aws_secrets_manager: {secret_id: 'a b'}}",
        &at("secret.aws_secrets_manager.secret_id"),
        "spaces",
    );
    refused_integration(
        "name: a, secret: {google_secret_manager: {project: access, secret: projects/access/secrets/key}}",
        &at("secret.google_secret_manager.secret"),
        "only the last part",
    );
    refused_integration(
        "name: a, secret: {google_secret_manager: {project: access, secret: key, location: 'x.test/'}}",
        &at("secret.google_secret_manager.location"),
        "letters, digits",
    );
    refused_integration(
        "name: a, secret: {azure_key_vault: {vault_url: 'http://access.vault.azure.net', secret: key}}",
        &at("secret.azure_key_vault.vault_url"),
        "write https",
    );
    refused_integration(
        "name: a, secret: {azure_key_vault: {secret: key}}",
        &at("secret.azure_key_vault.vault_url"),
        "is missing",
    );
    for place in [
        "google_secret_manager: {project: access, secret: key}",
        "azure_key_vault: {vault_url: 'https://access.vault.azure.net', secret: key}",
        "env: {name: KEY}",
    ] {
        refused_integration(
            &format!("name: a, secret: {{{place}}}, rotation: {{every: 30d}}"),
            &at("rotation.every"),
            "cannot be kept",
        );
    }
    for (lines, below, said) in [
        ("name: A", "name", "write a valid integration name"),
        ("name: a, kind: ece", "kind", "write one of `elastic_cloud`"),
        (
            "name: a, organization_id: '*'",
            "organization_id",
            "write a valid organization id",
        ),
        (
            "name: a, base_url: 'http://api.elastic-cloud.com'",
            "base_url",
            "write https",
        ),
        (
            "name: a, base_url: 'https://u:p@x'",
            "base_url",
            "user name",
        ),
        ("name: a, base_url: 'https://x/api/v1'", "base_url", "path"),
        ("name: a, owners: [nobody]", "owners[0]", "e-mail address"),
        (
            "name: a, resource_owner: {tag: owner}",
            "owners",
            "resource_owner",
        ),
        (
            "name: a, upstream: {proxy: 'socks5://x'}",
            "upstream.proxy",
            "scheme",
        ),
        (
            "name: a, upstream: {read_attempt: 60s}",
            "upstream.read_budget",
            "shorter than read_attempt",
        ),
        (
            "name: a, upstream: {initial_rate: 0}",
            "upstream.initial_rate",
            "at least 1",
        ),
    ] {
        refused_integration(&format!("{lines}, {file}"), &at(below), said);
    }
    let long = format!(
        "name: a, custom_access_details: '{}', {file}",
        "x".repeat(401)
    );
    refused_integration(
        &long,
        &at("custom_access_details"),
        "write at most 400 characters",
    );
    let twice = "integrations:\n\
        - {name: a, organization_id: '1', secret: {file: {path: /a}}}\n\
        - {name: a, organization_id: '1', secret: {file: {path: /b}}}\n";
    let said = complaints(twice);
    assert!(
        said.contains("integrations[1].name: is also the name of integrations[0]"),
        "{said}"
    );
    assert!(
        said.contains(
            "integrations[1].organization_id: is also the organization of integrations[0]"
        ),
        "{said}"
    );
}

#[test]
fn an_unknown_key_does_not_hide_what_else_is_wrong_with_its_section() {
    let said = complaints(
        "listen: {grpc: \"0.0.0.0:7443\", htttp: x}\nintegrations:\n  - {name: a, secret: {file: {path: /a}}}\n",
    );
    assert!(said.contains("htttp"), "{said}");
    assert!(
        said.contains("listen.grpc: can be reached from other machines"),
        "{said}"
    );
}

#[test]
fn everything_wrong_is_told_at_once_in_order_of_path() {
    let text = "listen: {grpc: 1.2.3.4:5, nope: 1}\nlog: {format: 7}\npolicy: {max_total: 1h}\nintegrations: 5\n";
    let errors = Config::parse("test.yaml", text.as_bytes()).expect_err("five faults");
    let paths: Vec<&str> = errors.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "integrations",
            "listen",
            "listen.grpc",
            "log.format",
            "policy.max_total"
        ],
        "{errors}"
    );
    assert_eq!(
        errors.to_string().lines().count(),
        1 + errors.problems.len()
    );
}

#[test]
fn a_key_in_the_file_is_refused_and_never_repeated() {
    const KEY: &str = "essu_SFVTSEhVU0hIVVNISFVTSA==";
    let faults = [
        format!("name: a, secret: {KEY}"),
        format!("name: a, secret: '{KEY}'"),
        format!("name: a, secret: {{value: '{KEY}'}}"),
        format!("name: a, secret: {{'{KEY}': x}}"),
        format!("name: a, secret: {{file: '{KEY}'}}"),
        format!("name: a, secret: {{env: {{name: '{KEY}'}}}}"),
        format!("name: a, secret: {{env: {{name: A, field: ['{KEY}']}}}}"),
        format!("name: a, api_key: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: a, base_url: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: a, organization_id: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: a, kind: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: a, owners: '{KEY}', secret: {{file: {{path: /a}}}}"),
        format!("name: a, upstream: {{idle_timeout: '{KEY}'}}, secret: {{file: {{path: /a}}}}"),
    ];
    for lines in faults {
        let said = complaints(&format!("integrations: [{{{lines}}}]"));
        assert!(!said.contains("SFVTSE"), "{lines} is repeated in\n{said}");
    }
    for text in [
        KEY.to_owned(),
        format!("'{KEY}"),
        format!("[{KEY}"),
        format!("!{KEY} x"),
    ] {
        let said = complaints(&text);
        assert!(!said.contains("SFVTSE"), "{text} is repeated in\n{said}");
    }
}

#[test]
fn broken_yaml_is_told_with_its_line() {
    let said = complaints("integrations:\n  - name: a\n   secret: {}\n");
    assert!(said.contains("line 3"), "{said}");
    let said = complaints("listen: {}\nlisten: {}\n");
    assert!(said.contains("`listen` stands there twice"), "{said}");
    assert!(complaints("").contains("the file is empty"));
    assert!(complaints("- 1\n").contains("is a list; write a mapping with"));
}

#[test]
fn a_file_that_cannot_be_read_is_said_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = dir.path().join("missing.yaml");
    let said = Config::load(&missing).expect_err("missing").to_string();
    assert!(said.contains("cannot be read (entity not found)"), "{said}");
    assert!(Config::load(dir.path()).is_err());
    let huge = dir.path().join("huge.yaml");
    std::fs::write(&huge, "a".repeat(2 << 20)).expect("writable");
    let said = Config::load(&huge).expect_err("too large").to_string();
    assert!(said.contains("larger than 1024 KiB"), "{said}");
}
