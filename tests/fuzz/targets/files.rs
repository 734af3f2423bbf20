//! Files that operators write: configuration, law, cases, requests to approve, keys.

use std::sync::LazyLock;

use latchkey::config::Config;
use latchkey::domain::asked::Asked;
use latchkey::domain::law::Verdict as Said;
use latchkey::law::cases::{Action, Cases};
use latchkey::law::{CedarLaw, Source};
use latchkey::policy::Rules;
use latchkey::ports::Law as _;
use latchkey::secrets::parse::parse_key;
use serde_json::Value;

use super::{Verdict, verdict};

static LAW: LazyLock<CedarLaw> = LazyLock::new(|| {
    CedarLaw::open(Source::Shipped, "Europe/Amsterdam", Rules::default()).expect("the shipped law")
});

pub(super) fn configuration(input: &[u8]) -> Verdict {
    match Config::parse("latchkey.yaml", input) {
        Ok(config) => {
            let value = serde_json::to_value(&config).expect("a configuration has a JSON form");
            let text = without_nulls(value).to_string();
            let again = Config::parse("latchkey.yaml", text.as_bytes());
            assert_eq!(
                again.as_ref(),
                Ok(&config),
                "a configuration that is written down is another one"
            );
            verdict(
                true,
                &format!("{} {}", config.integrations.len(), config.callers.len()),
            )
        }
        Err(errors) => {
            let text = errors.to_string();
            assert!(!errors.problems.is_empty(), "refused without a reason");
            assert!(
                text.chars().all(|c| c == '\n' || !c.is_control()),
                "{text:?}"
            );
            verdict(false, &text)
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

pub(super) fn policy_cases(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let cases: Cases = match serde_yaml::from_str(text) {
        Ok(cases) => cases,
        Err(error) => return verdict(false, &error.to_string()),
    };
    let mut words = String::new();
    for case in cases.cases.iter().take(20) {
        let question = match case.question() {
            Ok(question) => question,
            Err(error) => {
                words.push_str(&error.problem);
                continue;
            }
        };
        drop(LAW.facts(&question));
        match LAW.decide(&question) {
            Said::Allowed { policies } => {
                assert!(!policies.is_empty(), "allowed by nobody");
                let is_wide = case
                    .access
                    .iter()
                    .any(|one| one.contains("/all") || one.starts_with("organization-"));
                let is_new = matches!(case.action, Action::Create | Action::Extend);
                assert!(
                    !(is_wide && is_new),
                    "the shipped law allowed {:?}",
                    case.access
                );
                words.push_str(&policies.join(" "));
            }
            Said::Refused(refusal) => {
                assert!(!refusal.policies.is_empty(), "refused by nobody");
                words.push_str(&refusal.policies.join(" "));
            }
        }
    }
    verdict(!words.is_empty(), &words)
}

pub(super) fn policy_texts(input: &[u8]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.cedar");
    std::fs::write(&file, input).expect("written");
    match latchkey::law::check(&Source::Files(vec![file])) {
        Ok(checked) => verdict(true, &format!("{:?}", checked.policies)),
        Err(error) => verdict(
            false,
            &error
                .problems
                .join("\n")
                .chars()
                .skip(80)
                .take(120)
                .collect::<String>(),
        ),
    }
}

pub(super) fn request_files(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let asked: Asked = match serde_yaml::from_str(text) {
        Ok(asked) => asked,
        Err(error) => return verdict(false, &error.to_string()),
    };
    match asked.normalised() {
        Err(problem) => verdict(false, &problem.to_string()),
        Ok(asked) => {
            let canonical = asked.canonical();
            let again: Asked = serde_json::from_str(&canonical).expect("canonical JSON is JSON");
            let again = again.normalised().expect("what was normal stays so");
            assert_eq!(
                again.canonical(),
                canonical,
                "one request has two canonical forms"
            );
            assert_eq!(again.digest(), asked.digest());
            verdict(true, &canonical)
        }
    }
}

/// Whatever a secret store hands over: its text is never part of what is said about it.
pub(super) fn secrets(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    match parse_key("a place", &text, "api_key") {
        Ok(_) => verdict(true, "a key"),
        Err(error) => {
            let said = format!("{error} {error:?}");
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            for word in words.filter(|word| word.len() >= 16) {
                assert!(!said.contains(word), "{said:?} repeats the secret");
            }
            verdict(false, &error.to_string())
        }
    }
}
