//! That the published schema, sample and guide are those of this release.

use std::path::PathBuf;

use super::*;

#[test]
fn a_configuration_survives_being_written_and_read() {
    let config = Config::load(&docs("config.sample.yaml")).expect("the sample is valid");
    let json = serde_json::to_value(&config).expect("plain values");
    let pruned = prune(json);
    let text = serde_json::to_vec(&pruned).expect("plain values");
    assert_eq!(Config::parse("again", &text), Ok(config));
}

fn prune(mut value: serde_json::Value) -> serde_json::Value {
    if let Some(entries) = value.as_object_mut() {
        entries.retain(|_, value| !value.is_null());
        for value in entries.values_mut() {
            *value = prune(value.take());
        }
    }
    if let Some(items) = value.as_array_mut() {
        for item in items {
            *item = prune(item.take());
        }
    }
    value
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

/// Compares a generated document with the one in the tree; with `UPDATE_DOCS=1` it is written instead.
#[track_caller]
fn published(name: &str, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(docs(name), text).expect("docs can be written");
    }
    let found = std::fs::read_to_string(docs(name)).unwrap_or_default();
    assert!(
        found == text,
        "docs/{name} is out of date; run the tests of `config` with UPDATE_DOCS=1 and commit it"
    );
}

#[test]
fn the_published_schema_is_the_one_in_force() {
    let text = serde_json::to_string_pretty(&schema()).expect("plain values") + "\n";
    published("config.schema.json", &text);
}

#[test]
fn the_sample_is_valid_and_its_integrations_are_two() {
    let config = Config::load(&docs("config.sample.yaml")).expect("the sample is valid");
    let names: Vec<&str> = config
        .integrations
        .iter()
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(names, ["production", "staging"]);
}

const GUIDE: &str = "\
# Configuration

Latchkey reads one YAML file. `latchkey check-config` says everything that is wrong with it at once, each with its
place and what to write instead; `latchkey schema` prints its JSON schema, which is also in `config.schema.json` for
editors. `config.sample.yaml` is a documented example.

* Unknown keys are errors. So are duplicate keys, tags, merge keys (`<<`), and files over 1 MiB.
* Variables such as `${HOME}` are **not** expanded: a file means the same everywhere.
* Keys and passwords are never written in the file, only where they are (`secret`). Complaints never repeat a value.
* Durations are a number and a unit: `500ms`, `30s`, `45m`, `12h`, `7d`, `1h 30m`.
* Cron expressions have six fields (second minute hour day month weekday), in UTC, in quotes.
* A key without a value (`listen:`) is an error; leave the key out to get the defaults.

A key may lie in its store as bare text or as a JSON object such as `{\"api_key\": \"…\"}`; `field` names another field.

The table is made from the program: run its tests with `UPDATE_DOCS=1` to renew it.

| key | takes | default | what it does |
|---|---|---|---|
";

#[test]
fn every_setting_is_documented() {
    let mut text = GUIDE.to_owned();
    for setting in settings() {
        let Setting {
            path,
            takes,
            default,
            required,
            about,
        } = setting;
        assert!(about.len() > 8, "{path} is not documented");
        let default = match default {
            Some(default) => format!("`{default}`"),
            None if required => "required".to_owned(),
            None => "none".to_owned(),
        };
        let cell = |text: String| text.replace('|', "\\|");
        text += &format!(
            "| `{path}` | {} | {} | {} |\n",
            cell(takes),
            cell(default),
            cell(about)
        );
    }
    published("configuration.md", &text);
}
