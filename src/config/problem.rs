//! What is wrong with a configuration, all of it at once.
//!
//! Owns the form of a complaint: where, what, and what to write instead. Never repeats a value, because one of them
//! might be a key in the wrong place.

use std::fmt;
use std::time::Duration;

use super::text::Period;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `integrations[0].secret`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to do, as a command: "write …".
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// Everything that is wrong with one configuration; one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: String,
    /// What is wrong, in order of path. Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{}: {count} {noun} in the configuration", self.file)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// Gathers problems while a configuration is checked.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(
        &mut self,
        path: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Problem {
            path: path.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Complains when a duration lies outside of its bounds, both allowed.
    pub(super) fn within(&mut self, path: &str, value: Period, min: Duration, max: Duration) {
        let (least, most) = (Period::new(min), Period::new(max));
        if value.get() < min {
            self.add(
                path,
                format!("{value} is too short"),
                format!("write a duration from {least} to {most}"),
            );
        } else if value.get() > max {
            self.add(
                path,
                format!("{value} is too long"),
                format!("write a duration from {least} to {most}"),
            );
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems in order of path, each once.
    pub(super) fn into_errors(mut self, file: &str) -> ConfigErrors {
        self.0
            .sort_by(|a, b| (&a.path, &a.problem).cmp(&(&b.path, &b.problem)));
        self.0.dedup();
        ConfigErrors {
            file: file.to_owned(),
            problems: self.0,
        }
    }
}
