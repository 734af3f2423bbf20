//! A build without Cedar: the settings alone decide.
//!
//! Owns saying so. Never pretends that a policy was read.

use std::collections::BTreeMap;

use crate::domain::law::{Question, Refusal, Verdict, Wants};
use crate::policy::Rules;
use crate::ports::Law;

use super::Reload;
use super::source::{LawError, Source};

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

fn without() -> LawError {
    LawError::one("this build cannot read policies: build it with the feature `cedar`")
}

/// Reads policies and checks them.
///
/// # Errors
/// Always, in this build.
pub fn check(_source: &Source) -> Result<Checked, LawError> {
    Err(without())
}

/// The law of Cedar policies, which this build does not have.
#[derive(Debug)]
pub struct CedarLaw(());

impl CedarLaw {
    /// Reads policies.
    ///
    /// # Errors
    /// Always, in this build.
    pub fn open(_source: Source, _zone: &str, _rules: Rules) -> Result<Self, LawError> {
        Err(without())
    }

    /// SHA-256 of the texts in force.
    #[must_use]
    pub fn digest(&self) -> String {
        String::new()
    }

    /// Reads the policies again.
    pub fn reload(&self) -> Reload {
        Reload::Unchanged
    }

    /// The facts of a question.
    #[must_use]
    pub fn facts(&self, _question: &Question) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Law for CedarLaw {
    fn decide(&self, _question: &Question) -> Verdict {
        Verdict::Refused(Refusal::undecided(Vec::new()))
    }

    fn wants(&self) -> Wants {
        Wants::default()
    }
}
