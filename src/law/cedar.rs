//! Deciding with Cedar.
//!
//! Owns which policies are in force and how their answer is read. Never takes an evaluation with an error for an
//! answer: a forbid that could not be evaluated might have forbidden.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cedar_policy::{
    Authorizer, Context, Decision, Effect, Entities, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, Schema, ValidationMode, Validator,
};
use chrono_tz::Tz;
use sha2::{Digest as _, Sha256};

use crate::domain::law::{Question, Refusal, Verdict, Wants};
use crate::policy::Rules;
use crate::ports::Law;

use super::source::{LawError, SCHEMA, Source, Text};
use super::{Reload, count_decision, count_reloads, facts, set_stale};

static PARSED_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
        .expect("the schema is part of the program, and a test reads it");
    schema
});

/// Codes that refusals may have; a stable set, since callers compare them.
const CODES: [&str; 8] = [
    "organization_roles_disabled",
    "all_targets_disabled",
    "duration_too_long",
    "total_reached",
    "start_too_late",
    "role_not_allowed",
    "invitations_disabled",
    "approved_by_beneficiary",
];

/// The code of a refusal by a policy that names no other.
const CODE: &str = "law_refused";

/// Policies that were read and fit the schema.
#[derive(Debug)]
struct InForce {
    digest: String,
    policies: PolicySet,
    wants: Wants,
}

/// What a check of policies found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Names of the policies, with `permit` or `forbid`, in order of name.
    pub policies: BTreeMap<String, &'static str>,
    /// What may not be meant so.
    pub warnings: Vec<String>,
    /// SHA-256 of the texts in hexadecimal digits.
    pub digest: String,
}

/// Reads policies and checks them, without bringing them into force.
///
/// # Errors
/// [`LawError`] with everything that is wrong.
pub fn check(source: &Source) -> Result<Checked, LawError> {
    let texts = source.read()?;
    let (policies, mut warnings) = build(&texts)?;
    let effects: BTreeMap<String, &'static str> = policies
        .policies()
        .map(|policy| {
            let effect = match policy.effect() {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            };
            (policy.id().to_string(), effect)
        })
        .collect();
    if !effects.values().any(|effect| *effect == "permit") {
        warnings.push("no policy permits anything, so everything is refused".to_owned());
    }
    Ok(Checked {
        policies: effects,
        warnings,
        digest: digest(&texts),
    })
}

/// Puts the policies of all texts into one set under their own names. Answers warnings beside it.
fn build(texts: &[Text]) -> Result<(PolicySet, Vec<String>), LawError> {
    let mut set = PolicySet::new();
    let mut problems = Vec::new();
    let mut homes: BTreeMap<String, &str> = BTreeMap::new();
    for Text { name, text } in texts {
        let read = match PolicySet::from_str(text) {
            Ok(read) => read,
            Err(errors) => {
                problems.extend(errors.iter().map(|error| format!("{name}: {error}")));
                continue;
            }
        };
        if read.num_of_templates() > 0 {
            problems.push(format!(
                "{name}: holds a template; write policies without slots"
            ));
        }
        for policy in read.policies() {
            let id = match policy.annotation("id") {
                Some(id) if is_name(id) => id.to_owned(),
                Some(_) => {
                    problems.push(format!(
                        "{name}: an @id is not a name; write lower-case letters, digits and '-', at most 64, and not \
                         `{}`",
                        Refusal::NO_PERMIT
                    ));
                    continue;
                }
                None => {
                    problems.push(format!(
                        "{name}: a policy has no @id; write @id(\"a-name\") before it, so that refusals can name it"
                    ));
                    continue;
                }
            };
            if let Some(code) = policy.annotation("code")
                && code != CODE
                && !CODES.contains(&code)
            {
                problems.push(format!(
                    "{name}: policy {id} has a @code that callers do not know; leave it out or write one of {}",
                    CODES.join(", ")
                ));
            }
            if let Some(other) = homes.insert(id.clone(), name) {
                problems.push(format!(
                    "{name}: policy {id} is in {other} as well; write another @id"
                ));
                continue;
            }
            if let Err(error) = set.add(policy.new_id(PolicyId::new(&id))) {
                problems.push(format!("{name}: policy {id}: {error}"));
            }
        }
    }
    let place = |id: &PolicyId| {
        let id = id.to_string();
        let home = homes.get(&id).copied().unwrap_or("policies");
        format!("{home}: policy {id}")
    };
    let checked = Validator::new(PARSED_SCHEMA.clone()).validate(&set, ValidationMode::Strict);
    for error in checked.validation_errors() {
        problems.push(format!("{}: {error}", place(error.policy_id())));
    }
    let warnings = checked
        .validation_warnings()
        .map(|warning| format!("{}: {warning}", place(warning.policy_id())))
        .collect();
    if problems.is_empty() {
        Ok((set, warnings))
    } else {
        problems.sort();
        problems.dedup();
        Err(LawError { problems })
    }
}

fn is_name(id: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(is_plain) && id != Refusal::NO_PERMIT
}

/// SHA-256 over texts, each with its length, in hexadecimal digits.
fn digest(texts: &[Text]) -> String {
    let mut hash = Sha256::new();
    for Text { name: _, text } in texts {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}

fn load(texts: &[Text]) -> Result<InForce, LawError> {
    let (policies, warnings) = build(texts)?;
    for warning in warnings {
        tracing::warn!(warning, "A policy may not mean what it says");
    }
    let mentions = |word: &str| texts.iter().any(|text| text.text.contains(word));
    Ok(InForce {
        digest: digest(texts),
        policies,
        wants: Wants {
            current: mentions("current"),
            tags: mentions("_tags"),
        },
    })
}

/// The law of Cedar policies.
#[derive(Debug)]
pub struct CedarLaw {
    source: Source,
    zone: Tz,
    rules: Rules,
    in_force: ArcSwap<InForce>,
    failed: Mutex<Option<String>>,
}

impl CedarLaw {
    /// Reads policies for the first time. `zone` is the one of local time, by its name in the IANA data base; `rules`
    /// are the settings that policies see.
    ///
    /// # Errors
    /// [`LawError`] when they cannot be used.
    pub fn open(source: Source, zone: &str, rules: Rules) -> Result<Self, LawError> {
        let zone = zone
            .parse::<Tz>()
            .map_err(|_| LawError::one("the time zone is not one of the IANA data base"))?;
        let in_force = load(&source.read()?)?;
        for outcome in ["changed", "kept"] {
            count_reloads(outcome, 0);
        }
        set_stale(false);
        Ok(Self {
            source,
            zone,
            rules,
            in_force: ArcSwap::from_pointee(in_force),
            failed: Mutex::new(None),
        })
    }

    /// SHA-256 of the texts in force, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        self.in_force.load().digest.clone()
    }

    /// Reads the policies again. Blocks for as long as that takes.
    pub fn reload(&self) -> Reload {
        let (digest, loaded) = match self.source.read() {
            Err(error) => (error.to_string(), Err(error)),
            Ok(texts) => {
                let digest = digest(&texts);
                if digest == self.in_force.load().digest {
                    *self.failed() = None;
                    set_stale(false);
                    return Reload::Unchanged;
                }
                if self.failed().as_ref() == Some(&digest) {
                    return Reload::Kept(None);
                }
                (digest, load(&texts))
            }
        };
        match loaded {
            Ok(next) => {
                self.in_force.store(Arc::new(next));
                *self.failed() = None;
                count_reloads("changed", 1);
                set_stale(false);
                Reload::Changed {
                    digest: digest.chars().take(16).collect(),
                }
            }
            Err(error) => {
                set_stale(true);
                if self.failed().replace(digest.clone()) == Some(digest) {
                    return Reload::Kept(None);
                }
                count_reloads("kept", 1);
                Reload::Kept(Some(error))
            }
        }
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts of a question as policies see them, for people.
    #[must_use]
    pub fn facts(&self, question: &Question) -> serde_json::Value {
        facts::context(question, self.zone, &self.rules)
    }

    fn answer(&self, question: &Question) -> Result<Verdict, String> {
        let schema = &*PARSED_SCHEMA;
        let action = uid("Latchkey::Action", question.matter.action())?;
        let words = |error: &dyn std::error::Error| error.to_string();
        let context = Context::from_json_value(
            facts::context(question, self.zone, &self.rules),
            Some((schema, &action)),
        )
        .map_err(|error| words(&error))?;
        let entities = Entities::from_json_value(facts::entities(question), Some(schema))
            .map_err(|error| words(&error))?;
        let request = Request::new(
            uid("Latchkey::Caller", question.caller.name.as_str())?,
            action,
            uid("Latchkey::Integration", facts::place(question))?,
            context,
            Some(schema),
        )
        .map_err(|error| words(&error))?;
        let in_force = self.in_force.load();
        let response = Authorizer::new().is_authorized(&request, &in_force.policies, &entities);
        let diagnostics = response.diagnostics();
        let errors: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(errors.join("; "));
        }
        let mut policies: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        policies.sort();
        Ok(match response.decision() {
            Decision::Allow => Verdict::Allowed { policies },
            Decision::Deny => Verdict::Refused(refusal(&in_force.policies, policies)),
        })
    }
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

/// What a caller is told: the words of the first policy that forbids.
fn refusal(set: &PolicySet, policies: Vec<String>) -> Refusal {
    let Some(first) = policies.first().map(PolicyId::new) else {
        return Refusal {
            policies: vec![Refusal::NO_PERMIT.to_owned()],
            code: CODE,
            field: None,
            remedy: "no policy of the customer's law permits this; ask for what one does"
                .to_owned(),
        };
    };
    let note = |key: &str| {
        set.annotation(&first, key)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let code = note("code");
    Refusal {
        code: CODES
            .into_iter()
            .find(|known| code.as_deref() == Some(*known))
            .unwrap_or(CODE),
        field: note("field"),
        remedy: note("remedy").unwrap_or_else(|| {
            format!("the customer's law does not allow this: policy {first} forbids it")
        }),
        policies,
    }
}

impl Law for CedarLaw {
    fn decide(&self, question: &Question) -> Verdict {
        let action = question.matter.action();
        let (outcome, verdict) = match self.answer(question) {
            Ok(verdict @ Verdict::Allowed { .. }) => ("allowed", verdict),
            Ok(verdict @ Verdict::Refused(_)) => ("refused", verdict),
            Err(error) => {
                tracing::error!(
                    action,
                    error,
                    "The law could not be applied, so a call was refused; look at the policies"
                );
                let policies = vec!["latchkey.undecided".to_owned()];
                ("undecided", Verdict::Refused(Refusal::undecided(policies)))
            }
        };
        count_decision(action, outcome);
        verdict
    }

    fn wants(&self) -> Wants {
        self.in_force.load().wants
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
