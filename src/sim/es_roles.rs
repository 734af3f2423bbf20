//! Elasticsearch role descriptors: what a serverless project accepts and how it shows them.

use serde_json::{Map, Value, json};

/// Why a descriptor is refused.
pub(crate) struct Refusal {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
}

const FIELDS: [&str; 6] = [
    "cluster",
    "indices",
    "applications",
    "metadata",
    "description",
    "run_as",
];

const CLUSTER_PRIVILEGES: [&str; 24] = [
    "all",
    "manage",
    "manage_api_key",
    "manage_connector",
    "manage_enrich",
    "manage_index_templates",
    "manage_inference",
    "manage_ingest_pipelines",
    "manage_logstash_pipelines",
    "manage_ml",
    "manage_own_api_key",
    "manage_pipeline",
    "manage_search_application",
    "manage_search_query_rules",
    "manage_search_synonyms",
    "manage_security",
    "manage_transform",
    "monitor",
    "monitor_enrich",
    "monitor_inference",
    "monitor_ml",
    "monitor_transform",
    "none",
    "read_security",
];

const INDEX_PRIVILEGES: [&str; 16] = [
    "all",
    "auto_configure",
    "create",
    "create_doc",
    "create_index",
    "delete",
    "delete_index",
    "index",
    "maintenance",
    "manage",
    "manage_data_stream_lifecycle",
    "monitor",
    "none",
    "read",
    "view_index_metadata",
    "write",
];

const RESERVED: [&str; 6] = [
    "admin",
    "developer",
    "editor",
    "viewer",
    "superuser",
    "kibana_system",
];

fn validation(reasons: &[String]) -> Refusal {
    let listed: Vec<String> = reasons
        .iter()
        .enumerate()
        .map(|(at, text)| format!("{}: {text};", at + 1))
        .collect();
    Refusal {
        kind: "action_request_validation_exception",
        reason: format!("Validation Failed: {}", listed.join("")),
    }
}

fn parse(name: &str, what: &str) -> Refusal {
    Refusal {
        kind: "parse_exception",
        reason: format!("failed to parse role [{name}]. {what}"),
    }
}

/// Checks a descriptor and brings it into its stored form.
pub(crate) fn descriptor(name: &str, body: &Value) -> Result<Value, Refusal> {
    let Value::Object(fields) = body else {
        return Err(parse(name, "expected an object"));
    };
    if let Some(field) = fields
        .keys()
        .find(|field| !FIELDS.contains(&field.as_str()))
    {
        return Err(parse(name, &format!("unexpected field [{field}]")));
    }
    let cluster = texts(name, "cluster", fields.get("cluster"))?;
    let indices = objects(
        name,
        "indices",
        fields.get("indices"),
        &["names", "privileges"],
    )?;
    let applications = objects(
        name,
        "applications",
        fields.get("applications"),
        &["privileges", "resources"],
    )?;
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        Some(_) => return Err(parse(name, "expected field [metadata] to be an object")),
    };
    let description = match fields.get("description") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err(parse(name, "expected field [description] to be a string")),
    };
    let runs_as = texts(name, "run_as", fields.get("run_as"))?;

    let mut wrong = Vec::new();
    check_name(name, &mut wrong);
    if !runs_as.is_empty() {
        wrong.push("In serverless mode, run_as must be absent or empty.".to_owned());
    }
    for privilege in &cluster {
        if !CLUSTER_PRIVILEGES.contains(&privilege.as_str()) && !privilege.starts_with("cluster:") {
            wrong.push(format!("unknown cluster privilege [{privilege}]"));
        }
    }
    for entry in &indices {
        let privileges = texts(name, "privileges", entry.get("privileges"))?;
        for privilege in privileges {
            if !INDEX_PRIVILEGES.contains(&privilege.as_str()) && !privilege.starts_with("indices:")
            {
                wrong.push(format!("unknown index privilege [{privilege}]"));
            }
        }
    }
    for entry in &applications {
        let application = entry
            .get("application")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !is_application_name(application) {
            wrong.push(format!("invalid application name [{application}]"));
        }
    }
    if let Some(key) = metadata.keys().find(|key| key.starts_with('_')) {
        wrong.push(format!(
            "role descriptor metadata keys may not start with [_], found [{key}]"
        ));
    }
    if description
        .as_ref()
        .is_some_and(|text| text.chars().count() > 1_000)
    {
        wrong.push("Role description must be less than 1000 characters.".to_owned());
    }
    if !wrong.is_empty() {
        return Err(validation(&wrong));
    }
    let mut stored = json!({
        "cluster": cluster,
        "indices": indices,
        "applications": applications,
        "metadata": metadata,
    });
    if let Some(text) = description {
        stored["description"] = json!(text);
    }
    Ok(stored)
}

fn check_name(name: &str, wrong: &mut Vec<String>) {
    let starts_well = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !starts_well || !name.chars().all(is_plain) || name.len() > 507 {
        wrong.push(format!(
            "Invalid custom role name [{name}]: it must begin with a letter or digit and contain only letters, digits, '_', '-', and '.'"
        ));
    }
    if RESERVED.contains(&name) {
        wrong.push(format!("Role [{name}] is reserved and may not be used."));
    }
}

fn is_application_name(name: &str) -> bool {
    let (prefix, suffix) = name
        .find(['-', '_'])
        .map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])));
    name == "*"
        || (prefix.len() >= 3
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '*')
            && suffix.is_none_or(|rest| {
                !rest.is_empty() && !rest.contains(|c: char| "\\/*?\"<>|, ".contains(c))
            }))
}

fn texts(name: &str, field: &str, value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                item.as_str().map(str::to_owned).ok_or_else(|| {
                    parse(name, &format!("field [{field}] must be a list of strings"))
                })
            })
            .collect(),
        Some(_) => Err(parse(
            name,
            &format!("field [{field}] must be a list of strings"),
        )),
    }
}

fn objects(
    name: &str,
    field: &str,
    value: Option<&Value>,
    required: &[&str],
) -> Result<Vec<Map<String, Value>>, Refusal> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => {
            return Err(parse(
                name,
                &format!("expected field [{field}] to be a list"),
            ));
        }
    };
    let mut objects = Vec::new();
    for item in items {
        let Value::Object(entry) = item else {
            return Err(parse(name, &format!("field [{field}] must hold objects")));
        };
        let mut entry = entry.clone();
        for part in required {
            let list = texts(name, part, entry.get(*part))?;
            if list.is_empty() {
                return Err(parse(
                    name,
                    &format!("{field} require at least one item in [{part}]"),
                ));
            }
            entry.insert((*part).to_owned(), json!(list));
        }
        objects.push(entry);
    }
    Ok(objects)
}

/// A stored descriptor as GET shows it.
pub(crate) fn shown(stored: &Value) -> Value {
    let mut role = json!({
        "cluster": [],
        "indices": [],
        "applications": [],
        "run_as": [],
        "metadata": {},
        "transient_metadata": { "enabled": true },
    });
    if let (Value::Object(role), Value::Object(stored)) = (&mut role, stored) {
        role.extend(stored.clone());
    }
    if let Some(indices) = role["indices"].as_array_mut() {
        for entry in indices.iter_mut().filter_map(Value::as_object_mut) {
            entry
                .entry("allow_restricted_indices")
                .or_insert(json!(false));
        }
    }
    role
}

/// Whether the holder of this role may manage roles.
pub(crate) fn manages_security(role: &Value) -> bool {
    role.get("cluster")
        .and_then(Value::as_array)
        .is_some_and(|privileges| {
            privileges
                .iter()
                .filter_map(Value::as_str)
                .any(|p| p == "all" || p == "manage_security")
        })
}
