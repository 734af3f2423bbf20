//! An audit event as a document of the Elastic Common Schema.
//!
//! Owns which field of the schema says what. What is particular to an event stands under `latchkey.event`, which the
//! shipped template maps as one flattened field, so that a new kind of event needs no new mapping.

use serde_json::{Map, Value, json};

use super::event_id;
use crate::ports::audit::AuditRecord;

/// The version of the schema whose fields are used.
const ECS: &str = "8.17.0";

/// The document of an event. One that this release does not know becomes a document all the same.
pub(super) fn document(ledger: &str, record: &AuditRecord) -> Value {
    let event: Value = serde_json::from_str(&record.body).unwrap_or(Value::Null);
    let kind = &event["kind"];
    let name = kind["event"].as_str().unwrap_or("unknown");
    let of_event = |field: &str| event[field].as_str();
    let (types, category) = class(name, kind);
    let mut document = json!({
        // A data stream takes no document without one.
        "@timestamp": of_event("at").unwrap_or("1970-01-01T00:00:00Z"),
        "ecs": {"version": ECS},
        "message": message(name, &event),
        "event": {
            "id": event_id(ledger, record),
            "sequence": record.sequence,
            "kind": "event",
            "category": [category],
            "type": types,
            "action": name,
            "module": "latchkey",
            "provider": "latchkey",
            "dataset": "latchkey.audit",
            // The bytes that the audit's seals are over.
            "original": record.body,
        },
        "latchkey": {
            "ledger": ledger,
            "sequence": record.sequence,
        },
    });
    put(&mut document, "/event", "outcome", outcome(name, kind));
    put(
        &mut document,
        "/event",
        "reason",
        text(kind, &["justification", "reason"]),
    );
    for field in ["integration", "grant_id", "caller", "subject"] {
        put(&mut document, "/latchkey", field, of_event(field));
    }
    if let Value::Object(details) = kind {
        let details: Map<String, Value> = details
            .iter()
            .filter(|(field, _)| *field != "event")
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        if !details.is_empty() {
            document["latchkey"]["event"] = Value::Object(details);
        }
    }
    people(&mut document, &event);
    document
}

fn put(document: &mut Value, at: &str, field: &str, value: Option<&str>) {
    if let (Some(value), Some(place)) = (value, document.pointer_mut(at)) {
        place[field] = json!(value);
    }
}

/// The first of these fields that holds text.
fn text<'v>(value: &'v Value, fields: &[&str]) -> Option<&'v str> {
    let mut found = fields.iter().filter_map(|field| value[*field].as_str());
    found.find(|text| !text.is_empty())
}

/// Who did it (`user`), to whom (`user.target`), and everybody (`related.user`).
fn people(document: &mut Value, event: &Value) {
    let kind = &event["kind"];
    let actor = text(kind, &["by", "requester", "confirmed_by"]);
    let subject = event["subject"].as_str();
    let mut related: Vec<&str> = Vec::new();
    let mut user = Map::new();
    if let Some(actor) = actor {
        user.insert("name".to_owned(), json!(actor));
        related.push(actor);
    }
    related.extend(text(kind, &["confirmed_by"]));
    if let Some((what, who)) = subject.and_then(|subject| subject.split_once(':')) {
        let field = if what == "email" { "email" } else { "id" };
        user.insert("target".to_owned(), json!({field: who}));
        related.push(who);
    }
    related.extend(
        [kind["email"].as_str(), kind["user_id"].as_str()]
            .into_iter()
            .flatten(),
    );
    related.sort_unstable();
    related.dedup();
    if !user.is_empty() {
        document["user"] = Value::Object(user);
    }
    if !related.is_empty() {
        document["related"] = json!({"user": related});
    }
    if let Some(integration) = event["integration"].as_str() {
        document["organization"] = json!({"name": integration});
    }
}

fn message(name: &str, event: &Value) -> String {
    let mut words = name.replace('_', " ");
    for (before, field) in [
        (" of ", "subject"),
        (" in ", "integration"),
        (", grant ", "grant_id"),
    ] {
        if let Some(text) = event[field].as_str() {
            words.push_str(before);
            words.push_str(text);
        }
    }
    words
}

/// `event.type` and `event.category`.
fn class(name: &str, kind: &Value) -> (Vec<&'static str>, &'static str) {
    let adds = kind["write"] == "add";
    match name {
        "grant_accepted" => (vec!["user", "creation"], "iam"),
        "grant_changed" if kind["to"] == "ended" => (vec!["user", "end"], "iam"),
        "grant_changed" if kind["to"] == "active" => (vec!["user", "start"], "iam"),
        "request_refused" => (vec!["user", "denied"], "iam"),
        "call_ended" if adds => (vec!["user", "change", "allowed"], "iam"),
        "call_ended" => (vec!["user", "change"], "iam"),
        "grant_extended" | "grant_changed" | "access_forgotten" | "access_adopted"
        | "member_joined" | "member_left" | "invitation_changed" | "drift" | "drift_ended"
        | "roles_overwritten" | "approved" | "break_glass_used" | "review_closed" => {
            (vec!["user", "change"], "iam")
        }
        "removal_blocked" => (vec!["user", "error"], "iam"),
        "key_changed" | "key_rotation" | "law_changed" | "hold_began" | "hold_released"
        | "breaker" | "clock_jumped" | "lifecycle" => (vec!["change"], "configuration"),
        _ => (vec!["user", "info"], "iam"),
    }
}

fn outcome(name: &str, kind: &Value) -> Option<&'static str> {
    match (name, kind["outcome"].as_str()) {
        ("request_refused" | "removal_blocked", _)
        | ("call_ended" | "call_made", Some("refused" | "not_sent")) => Some("failure"),
        ("call_ended" | "call_made", Some("done"))
        | ("grant_accepted" | "grant_extended" | "second_look", _) => Some("success"),
        ("call_ended" | "call_made", _) => Some("unknown"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Events that between them fill every field.
    fn documents() -> Vec<Value> {
        let event = |subject: Value, kind: Value| {
            json!({
                "at": "2026-11-22T06:25:00.000001Z", "integration": "production", "subject": subject,
                "grant_id": "0199aaaa-0000-7000-8000-000000000001", "caller": "control-plane", "kind": kind,
            })
        };
        let events = [
            event(
                json!("user:123"),
                json!({"event": "grant_accepted", "state": "activating", "assignments": ["deployment-viewer on deployment/a"],
                    "duration_s": 60, "requester": "ann@example.com", "justification": "INC-7"}),
            ),
            event(
                json!("email:bob@example.com"),
                json!({"event": "member_joined", "email": "bob@example.com", "user_id": "9"}),
            ),
            event(
                json!("user:123"),
                json!({"event": "call_ended", "write": "add", "assignments": ["x"], "outcome": "refused",
                    "evidence": {"call": "POST /x", "attempts": 1, "status": 403, "code": null, "elapsed_ms": 3}}),
            ),
            event(
                json!("user:123"),
                json!({"event": "access_forgotten", "assignment": "x", "by": "ann", "confirmed_by": "eve", "reason": "gone"}),
            ),
            json!({"at": "2026-11-22T06:25:00Z", "integration": null, "subject": null, "grant_id": null, "caller": null,
                "kind": {"event": "lifecycle", "action": "started", "version": "1"}}),
            json!({"of": "a newer release"}),
        ];
        let record = |(at, event): (usize, &Value)| AuditRecord {
            sequence: at as u64 + 1,
            body: event.to_string(),
        };
        let records = events.iter().enumerate().map(record);
        records.map(|record| document("0199", &record)).collect()
    }

    #[test]
    fn a_document_says_who_did_what_to_whom() {
        let all = documents();
        let first = &all[0];
        assert_eq!(first["@timestamp"], "2026-11-22T06:25:00.000001Z");
        let id = first["event"]["id"].as_str().expect("text");
        assert!(id.starts_with("0199-1-") && id.len() == 15, "{id}");
        assert_eq!(first["event"]["action"], "grant_accepted");
        assert_eq!(first["event"]["reason"], "INC-7");
        assert_eq!(first["event"]["outcome"], "success");
        assert_eq!(
            first["user"],
            json!({"name": "ann@example.com", "target": {"id": "123"}})
        );
        assert_eq!(first["related"]["user"], json!(["123", "ann@example.com"]));
        assert_eq!(first["latchkey"]["event"]["duration_s"], 60);
        assert_eq!(
            first["message"],
            "grant accepted of user:123 in production, grant 0199aaaa-0000-7000-8000-000000000001"
        );
        assert_eq!(all[1]["user"]["target"]["email"], "bob@example.com");
        assert_eq!(all[1]["related"]["user"], json!(["9", "bob@example.com"]));
        assert_eq!(all[2]["event"]["outcome"], "failure");
        assert_eq!(all[3]["related"]["user"], json!(["123", "ann", "eve"]));
        assert_eq!(all[4].get("user"), None);
        assert_eq!(all[5]["event"]["action"], "unknown");
        let original: Value =
            serde_json::from_str(all[5]["event"]["original"].as_str().expect("text"))
                .expect("JSON");
        assert_eq!(original, json!({"of": "a newer release"}));
    }

    fn leaves(at: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value.as_object().filter(|_| at != "latchkey.event") {
            None => drop(found.insert(at.to_owned())),
            Some(fields) => {
                for (name, inner) in fields {
                    let at = if at.is_empty() {
                        name.clone()
                    } else {
                        format!("{at}.{name}")
                    };
                    leaves(&at, inner, found);
                }
            }
        }
    }

    fn mapped(at: &str, properties: &Value, found: &mut BTreeSet<String>) {
        for (name, field) in properties.as_object().expect("properties") {
            let at = if at.is_empty() {
                name.clone()
            } else {
                format!("{at}.{name}")
            };
            match field.get("properties") {
                Some(inner) => mapped(&at, inner, found),
                None => drop(found.insert(at)),
            }
        }
    }

    /// Read when the test runs: the sources build without `deploy/`.
    fn shipped(name: &str) -> Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/elasticsearch");
        let text = std::fs::read_to_string(format!("{folder}/{name}")).expect("shipped");
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn the_shipped_template_maps_every_field_that_is_sent_and_no_other() {
        let template = shipped("index-template.json");
        let mappings = &template["template"]["mappings"];
        let mut mapping = BTreeSet::new();
        mapped("", &mappings["properties"], &mut mapping);
        let mut sent = BTreeSet::new();
        for document in documents() {
            leaves("", &document, &mut sent);
        }
        assert_eq!(sent, mapping);
        // What a later release sends is kept, and refused by nobody.
        assert_eq!(mappings["dynamic"], false);
        assert_eq!(
            mappings["properties"]["latchkey"]["properties"]["event"]["type"],
            "flattened"
        );
        assert_eq!(template["index_patterns"], json!(["logs-latchkey.audit-*"]));
        let policy = shipped("ilm-policy.json");
        assert!(policy["policy"]["phases"]["hot"].is_object());
        assert_eq!(
            template["template"]["settings"]["index.lifecycle.name"],
            "latchkey-audit"
        );
    }
}
