//! The customer's law.
//!
//! Owns the contract: every question has an answer at once, and where there is doubt it is a refusal. Never asks
//! anybody else while it decides.

use std::fmt::Debug;

use crate::domain::law::{Question, Verdict, Wants};

/// Decides what callers may do.
pub trait Law: Debug + Send + Sync {
    /// Answers a question from its facts alone.
    fn decide(&self, question: &Question) -> Verdict;

    /// Which of the costly facts it looks at; those that it does not are left empty.
    fn wants(&self) -> Wants;
}
