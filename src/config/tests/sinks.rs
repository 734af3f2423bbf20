//! What is said of sinks of the audit that are wrong.

use super::*;

#[test]
fn sinks_of_the_audit_are_read_with_their_defaults() {
    let text = format!(
        "{MINIMAL}audit: {{sinks: [{{name: out, stdout: {{}}}}, {{name: disk, file: {{path: /var/log/a.jsonl}}}}, \
         {{name: hook, webhook: {{url: 'https://siem.example.com/in', secret: {{env: {{name: HOOK}}}}}}}}, \
         {{name: elastic, elasticsearch: {{url: 'https://es.example.com:9243', api_key: {{file: {{path: /run/key}}}}}}}}]}}\n"
    );
    let config = Config::parse("test.yaml", text.as_bytes()).expect("valid");
    let audit = config.audit.expect("configured");
    assert_eq!(audit.signing_key, None);
    let kinds: Vec<SinkKind<'_>> = audit.sinks.iter().filter_map(Sink::kind).collect();
    let [
        SinkKind::Stdout,
        SinkKind::File(file),
        SinkKind::Webhook(hook),
        SinkKind::Elasticsearch(elastic),
    ] = kinds[..]
    else {
        panic!("{kinds:?}");
    };
    assert_eq!((file.max_bytes, file.keep), (64 << 20, 8));
    assert_eq!((hook.mode, hook.batch), (WebhookMode::Batched, 100));
    assert_eq!(elastic.data_stream, "logs-latchkey.audit-default");
}

#[test]
fn sinks_that_would_lose_or_show_events_are_refused() {
    refused("audit: {}", "audit", "neither seals nor delivers");
    refused("audit: {sinks: []}", "audit", "neither seals nor delivers");
    let sink = |lines: &str, path: &str, said: &str| {
        let section = format!("audit: {{sinks: [{lines}]}}");
        refused(&section, &format!("audit.sinks[{path}"), said);
    };
    sink("{name: a}", "0]", "exactly one place");
    sink(
        "{name: a, stdout: {}, file: {path: /a}}",
        "0]",
        "exactly one place",
    );
    sink("{stdout: {}}", "0].name", "is missing");
    sink("{name: 'A b', stdout: {}}", "0].name", "");
    sink(
        "{name: a, stdout: {}}, {name: a, file: {path: /a}}",
        "1].name",
        "also the name of audit.sinks[0]",
    );
    sink(
        "{name: a, file: {path: /a}}, {name: b, file: {path: /a}}",
        "1].file.path",
        "also the file",
    );
    sink(
        "{name: a, file: {path: a.jsonl}}",
        "0].file.path",
        "relative",
    );
    sink(
        "{name: a, file: {path: /a, max_bytes: 5}}",
        "0].file.max_bytes",
        "too small",
    );
    sink(
        "{name: a, file: {path: /a, keep: 0}}",
        "0].file.keep",
        "too small",
    );
    let hook = |lines: &str, path: &str, said: &str| {
        sink(
            &format!("{{name: a, webhook: {{{lines}}}}}"),
            &format!("0].webhook.{path}"),
            said,
        );
    };
    let secret = "secret: {file: {path: /s}}";
    hook(
        &format!("url: 'http://siem.example.com/in', {secret}"),
        "url",
        "plain HTTP",
    );
    hook(
        &format!("url: 'https://siem.example.com/in?token=x', {secret}"),
        "url",
        "query",
    );
    hook("url: 'https://siem.example.com/in'", "secret", "is missing");
    hook(
        &format!("url: 'https://siem.example.com/in', {secret}, timeout: 1h"),
        "timeout",
        "too long",
    );
    hook(
        &format!("url: 'https://siem.example.com/in', {secret}, ca_file: ca.pem"),
        "ca_file",
        "relative",
    );
    hook(
        "url: 'https://siem.example.com/in', secret: {file: {path: s}}",
        "secret.file.path",
        "relative",
    );
    let elastic = |lines: &str, path: &str, said: &str| {
        let key = "api_key: {file: {path: /s}}";
        sink(
            &format!("{{name: a, elasticsearch: {{{key}, {lines}}}}}"),
            &format!("0].elasticsearch.{path}"),
            said,
        );
    };
    elastic("url: 'http://es.example.com'", "url", "plain HTTP");
    elastic(
        "url: 'https://es.example.com', data_stream: 'Logs X'",
        "data_stream",
        "not the name",
    );
    elastic(
        "url: 'https://es.example.com', batch: 5000",
        "batch",
        "too large",
    );
    refused(
        "ledger: {kind: memory}\naudit: {sinks: [{name: a, stdout: {}}]}",
        "audit",
        "forgotten with the process",
    );
    let twice = "audit: {sinks: [{name: a, stdout: {}}, {name: b, stdout: {}}]}";
    refused(twice, "audit.sinks", "more than once");
}
