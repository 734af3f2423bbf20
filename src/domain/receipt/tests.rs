//! What a receipt says, and how sure it is.

use std::collections::BTreeSet;

use super::*;

fn stored(value: impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("serialises")
}

#[test]
fn names_are_those_of_the_record() {
    for fate in [
        Fate::NotGiven,
        Fate::Standing,
        Fate::Removed,
        Fate::TakenAway,
        Fate::MemberLeft,
        Fate::Kept,
        Fate::Forgotten,
        Fate::Adopted,
    ] {
        assert_eq!(stored(fate), fate.name());
    }
    for assurance in [
        Assurance::Reopened,
        Assurance::GivenUp,
        Assurance::SeenGoneOnce,
        Assurance::SeenGoneTwice,
        Assurance::NothingToRemove,
    ] {
        assert_eq!(stored(assurance), assurance.name());
    }
}

#[test]
fn every_warning_has_its_code_and_a_sentence_of_its_own() {
    let warnings = [
        Warning::MembershipOutlives,
        Warning::ExternallyModified,
        Warning::RemovedAgain,
        Warning::SurvivorsRestored,
        Warning::RemovalBlocked,
        Warning::Forgotten,
        Warning::Adopted,
        Warning::ReviewOpen,
    ];
    for warning in warnings {
        assert_eq!(stored(warning), warning.code());
        assert!(warning.message().ends_with('.'), "{}", warning.message());
    }
    let sentences: BTreeSet<_> = warnings.map(Warning::message).into_iter().collect();
    assert_eq!(sentences.len(), warnings.len());
}

#[test]
fn the_code_of_a_failure_stays_with_the_calls_and_success_brings_none() {
    let at = Timestamp::default();
    let evidence = |code: Option<&str>| CallEvidence {
        attempts: 1,
        code: code.map(str::to_owned),
        ..CallEvidence::default()
    };
    let mut calls = Calls::default();
    calls.end("refused", &evidence(Some("root.forbidden")), at);
    calls.end("done", &evidence(None), at);
    assert_eq!(calls.last_code.as_deref(), Some("root.forbidden"));
    assert_eq!((calls.sent, calls.refused, calls.unanswered), (2, 1, 0));
    calls.end("unknown", &evidence(Some("timeout")), at);
    assert_eq!(calls.last_code.as_deref(), Some("timeout"));
    calls.end(NOT_SENT, &evidence(Some("budget")), at);
    assert_eq!((calls.sent, calls.unanswered), (3, 1));
}
