//! The JSON schema of the configuration, and what its complaints mean to people.
//!
//! Owns the wording of structural problems. Never shows a value: only its kind.

use std::sync::LazyLock;

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value, json};

use super::Config;
use super::problem::Problems;
use super::text::{self, GRAMMARS};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<Config>();
    Plain.transform(&mut schema);
    schema.insert("title".to_owned(), "Configuration of Latchkey".into());
    let mut schema = schema.to_value();
    // Whether JSON maps keep their order is a feature of serde_json that any dependency can switch on.
    schema.sort_all_objects();
    schema
});

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let mut options = jsonschema::options().should_validate_formats(true);
    for grammar in GRAMMARS {
        options = options.with_format(grammar.name, |text| (grammar.check)(text).is_ok());
    }
    options
        .build(&SCHEMA)
        .expect("the schema is derived from types and built by a test")
});

/// The JSON schema of the configuration file (draft 2020-12), for editors and for `latchkey schema`.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// Simplifies what the derives write: optional values are absent rather than null, and a choice of words is one
/// list, so that a complaint can name what is allowed.
#[derive(Debug, Clone)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|one| one != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type") != Some(&json!("null")));
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
        if let Some(Value::Array(choices)) = object.get("oneOf")
            && let Some(words) = choices.iter().map(word).collect::<Option<Vec<_>>>()
        {
            object.remove("oneOf");
            object.insert("type".to_owned(), "string".into());
            object.insert("enum".to_owned(), Value::Array(words));
        }
        if object.get("default") == Some(&Value::Null) {
            object.remove("default");
        }
    }
}

fn word(choice: &Value) -> Option<Value> {
    choice
        .get("const")
        .or_else(|| choice.get("enum")?.as_array()?.first())
        .cloned()
}

/// Complains about everything in `value` that does not have the shape of the schema.
pub(super) fn check(value: &Value, problems: &mut Problems) {
    for error in VALIDATOR.iter_errors(value) {
        let path = error
            .instance_path()
            .into_iter()
            .fold(String::new(), |path, segment| match segment {
                LocationSegment::Property(name) => join(&path, &name),
                LocationSegment::Index(index) => format!("{path}[{index}]"),
            });
        let rule = error.schema_path().as_str();
        let owner = rule.rsplit_once('/').map_or("", |(owner, _)| owner);
        let owner = SCHEMA.pointer(owner).unwrap_or(&Value::Null);
        explain(&path, owner, error.instance(), error.kind(), problems);
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum lists every rule of JSON schema; the derives write only those named here"
)]
fn explain(
    path: &str,
    schema: &Value,
    found: &Value,
    kind: &ValidationErrorKind,
    problems: &mut Problems,
) {
    let write = || format!("write {}", wanted(schema));
    match kind {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = keys(schema);
            for key in unexpected {
                let remedy = if let Some(near) = text::nearest(key, known.iter().copied()) {
                    format!(
                        "write `{near}` if that is meant; known here: {}",
                        list(&known)
                    )
                } else {
                    format!("leave it out; known here: {}", list(&known))
                };
                let shown = show_key(key, text::nearest(key, known.iter().copied()).is_some());
                let problem = format!("{shown} is not a known key");
                problems.add(path, problem, remedy);
            }
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let inner = resolve(&schema["properties"][name]);
            let path = join(path, name);
            problems.add(path, "is missing", format!("write {}", wanted(inner)));
        }
        ValidationErrorKind::Type { kind } => {
            let problem = if found.is_null() {
                "is empty".to_owned()
            } else {
                format!("is {}", kind_of(found))
            };
            let mut remedy = if schema.get("format").is_some() || schema.get("enum").is_some() {
                write()
            } else {
                format!("write {}", expected(kind, schema))
            };
            if found.is_null() {
                remedy += ", or leave the key out";
            } else if found.is_number()
                && schema["type"] == "string"
                && schema.get("enum").is_none()
            {
                remedy += "; numbers need quotes here";
            }
            problems.add(path, problem, remedy);
        }
        // Already told by its type.
        ValidationErrorKind::Enum { .. } if !found.is_string() => {}
        ValidationErrorKind::Enum { options } => {
            let words: Vec<&str> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            problems.add(
                path,
                "is not one of the words that are known here",
                format!("write one of {}", list(&words)),
            );
        }
        ValidationErrorKind::Format { format } => {
            let fault = found.as_str().and_then(|text| {
                text::grammar(format).and_then(|grammar| (grammar.check)(text).err())
            });
            match fault {
                Some(fault) => problems.add(path, fault.problem, fault.remedy),
                None => problems.add(path, "is malformed", write()),
            }
        }
        ValidationErrorKind::Minimum { limit } => {
            problems.add(path, "is too small", format!("write at least {limit}"));
        }
        ValidationErrorKind::Maximum { limit } => {
            problems.add(path, "is too large", format!("write at most {limit}"));
        }
        ValidationErrorKind::MaxLength { limit } => problems.add(
            path,
            "is too long",
            format!("write at most {limit} characters"),
        ),
        ValidationErrorKind::MinLength { .. } => {
            problems.add(path, "is empty", "write some text, or leave the key out");
        }
        ValidationErrorKind::MinItems { limit } => problems.add(
            path,
            "has too few entries",
            format!("write at least {limit}"),
        ),
        ValidationErrorKind::MaxItems { limit } => problems.add(
            path,
            "has too many entries",
            format!("write at most {limit}"),
        ),
        ValidationErrorKind::MinProperties { .. } => problems.add(
            path,
            "is empty",
            format!("write exactly one of {}", list(&keys(schema))),
        ),
        ValidationErrorKind::MaxProperties { .. } => problems.add(
            path,
            "names more than one place",
            format!("write exactly one of {}", list(&keys(schema))),
        ),
        ValidationErrorKind::UniqueItems => {
            problems.add(path, "names something twice", "write each entry once");
        }
        // The derives write no other rule; a new one is at least named.
        other => problems.add(
            path,
            format!("breaks the rule `{}`", other.keyword()),
            write(),
        ),
    }
}

fn keys(schema: &Value) -> Vec<&str> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

fn resolve(schema: &Value) -> &Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| SCHEMA.pointer(reference.trim_start_matches('#')))
        .unwrap_or(schema)
}

/// What belongs in a place, in words.
fn wanted(schema: &Value) -> String {
    if let Some(grammar) = schema
        .get("format")
        .and_then(Value::as_str)
        .and_then(text::grammar)
    {
        return grammar.what.to_owned();
    }
    if let Some(Value::Array(words)) = schema.get("enum") {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return format!("one of {}", list(&words));
    }
    if schema.get("maxProperties") == Some(&json!(1)) {
        return format!("a mapping with exactly one of {}", list(&keys(schema)));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => format!("a mapping with {}", list(&keys(schema))),
        Some("array") => "a list".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => "a whole number".to_owned(),
        Some("number") => "a number".to_owned(),
        _ => "text".to_owned(),
    }
}

fn expected(kind: &TypeKind, schema: &Value) -> String {
    let name = match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(_) => String::new(),
    };
    match name.as_str() {
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        _ => wanted(schema),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A key as it may be shown: one that is neither a slip of the pen for a known one nor looks like a name might be a
/// secret in the wrong place.
pub(super) fn show_key(key: &str, is_near: bool) -> String {
    let is_plain = key.len() <= 24 && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    let is_slip = is_near && key.len() <= 40 && key.bytes().all(|c| c.is_ascii_graphic());
    if is_plain || is_slip {
        format!("`{key}`")
    } else {
        format!("a key of {} characters", key.chars().count())
    }
}

/// Text of a parser, without control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// One setting, for the table in the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where it stands, for example `integrations[].name`.
    pub path: String,
    /// What it takes, in words.
    pub takes: String,
    /// What it is when left out, as JSON; `None` where nothing is assumed.
    pub default: Option<String>,
    /// Whether it must be written.
    pub required: bool,
    /// What it does and why it has this default.
    pub about: String,
}

/// Every setting, in order of path.
#[must_use]
pub fn settings() -> Vec<Setting> {
    let mut all = Vec::new();
    walk("", &SCHEMA, &SCHEMA["default"], &mut all);
    all
}

fn walk(path: &str, schema: &Value, defaults: &Value, all: &mut Vec<Setting>) {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    for (name, property) in properties {
        let inner = resolve(property);
        let here = join(path, name);
        let default = property
            .get("default")
            .or_else(|| defaults.get(name))
            .unwrap_or(&Value::Null);
        if inner["type"] == "object" {
            walk(&here, inner, default, all);
            continue;
        }
        let items = resolve(&inner["items"]);
        if items["type"] == "object" {
            walk(&format!("{here}[]"), items, &Value::Null, all);
            continue;
        }
        let required = schema["required"]
            .as_array()
            .is_some_and(|required| required.contains(&json!(name)));
        let about = property
            .get("description")
            .or_else(|| inner.get("description"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        all.push(Setting {
            path: here,
            takes: wanted(inner),
            default: (!default.is_null()).then(|| {
                default
                    .as_str()
                    .map_or_else(|| default.to_string(), str::to_owned)
            }),
            required,
            about: about.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
}
