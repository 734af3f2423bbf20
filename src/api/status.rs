//! The one mapping of errors to gRPC status.
//!
//! Owns codes, reasons and details. Never lets inner text out: what the caller sees was written for callers, and
//! internal errors show a reference to our log only.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use chrono::TimeDelta;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::identity::Refused;
use crate::policy::Kind;
use crate::ports::ledger::LedgerError;
use crate::ports::provider::{ReadError, Refusal};
use crate::service::{ServiceError, policies_of};

/// The domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "latchkey.dev";

/// Turns an error into a status; `incident` makes a reference for internal errors.
pub(super) fn status(error: &ServiceError, incident: impl FnOnce() -> String) -> Status {
    let code = code(error);
    let mut details =
        ErrorDetails::with_error_info(error.code().to_uppercase(), DOMAIN, metadata(error));
    if let Some((field, problem)) = field(error) {
        details.add_bad_request_violation(field, problem);
    }
    if let Some(delay) = retry_after(error) {
        details.set_retry_info(Some(delay));
    }
    if code == Code::Internal {
        let reference = incident();
        tracing::error!(reference, error = chain(error), "Request failed");
        details.set_request_info(reference.clone(), "");
        return Status::with_error_details(
            code,
            format!("internal error, reference {reference}"),
            details,
        );
    }
    if error.source().is_some() {
        tracing::warn!(code = error.code(), error = chain(error), "Request failed");
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// A refusal of the listener itself: too much at once.
pub(super) fn exhausted(what: &'static str, retry_after: Duration) -> Status {
    status(&ServiceError::Exhausted { what, retry_after }, String::new)
}

/// Nobody known calls.
pub(super) fn unauthenticated(why: Refused) -> Status {
    let code = if why == Refused::IssuerUnavailable {
        Code::Unavailable
    } else {
        Code::Unauthenticated
    };
    let mut details =
        ErrorDetails::with_error_info(why.code().to_uppercase(), DOMAIN, HashMap::new());
    if code == Code::Unavailable {
        details.set_retry_info(Some(Duration::from_secs(5)));
    }
    Status::with_error_details(code, why.to_string(), details)
}

/// The caller is known, and this is not for callers like it.
pub(super) fn forbidden(allowed: String) -> Status {
    Status::with_error_details(
        Code::PermissionDenied,
        format!("this call is for callers with the role {allowed}"),
        ErrorDetails::with_error_info(
            "ROLE_NOT_ALLOWED",
            DOMAIN,
            HashMap::from([(
                "policies".to_owned(),
                "latchkey.roles-of-callers".to_owned(),
            )]),
        ),
    )
}

/// What a program needs to ask again.
fn metadata(error: &ServiceError) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let policies = policies_of(error);
    if !policies.is_empty() {
        metadata.insert("policies".to_owned(), policies.join(", "));
    }
    if let ServiceError::Voucher { why, .. } = error {
        metadata.insert("why".to_owned(), (*why).to_owned());
    }
    if let ServiceError::TooLate {
        predicted,
        bound,
        asked: _,
        earliest,
    } = error
    {
        let seconds = |length: &TimeDelta| format!("{}s", length.num_seconds());
        metadata.insert("predicted_lateness".to_owned(), seconds(predicted));
        metadata.insert("bound".to_owned(), seconds(bound));
        if let Some(at) = earliest {
            let at = at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            metadata.insert("earliest_end".to_owned(), at);
        }
    }
    metadata
}

fn code(error: &ServiceError) -> Code {
    match error {
        ServiceError::InvalidField { .. } => Code::InvalidArgument,
        ServiceError::UnknownGrant
        | ServiceError::UnknownIntegration
        | ServiceError::NotAMember { .. }
        | ServiceError::NotOwned
        | ServiceError::UnknownResource { .. } => Code::NotFound,
        ServiceError::NotShown
        | ServiceError::Ambiguous
        | ServiceError::RequestClosed
        | ServiceError::KeyExpires { .. }
        | ServiceError::State(_)
        | ServiceError::Held { .. }
        | ServiceError::ClockSkew { .. }
        | ServiceError::Unfit { .. }
        | ServiceError::TooMany { .. } => Code::FailedPrecondition,
        // An approval is an argument like others; a token is a claim to be somebody who may.
        ServiceError::Voucher { code, .. } if *code == "approval_refused" => Code::InvalidArgument,
        ServiceError::Voucher { .. } | ServiceError::OwnIdentity | ServiceError::Law(_) => {
            Code::PermissionDenied
        }
        ServiceError::RequestIdReused => Code::AlreadyExists,
        ServiceError::Policy(refusal) => match refusal.kind {
            Kind::Impossible => Code::InvalidArgument,
            Kind::Denied => Code::PermissionDenied,
        },
        ServiceError::Draining | ServiceError::Unwitnessed | ServiceError::OwnerOnly => {
            Code::Unavailable
        }
        ServiceError::Contended => Code::Aborted,
        ServiceError::Exhausted { .. } | ServiceError::TooLate { .. } => Code::ResourceExhausted,
        ServiceError::Upstream(ReadError::Unavailable { .. }) => Code::Unavailable,
        ServiceError::Upstream(ReadError::Refused(refusal)) => {
            if refusal.is_transient() {
                Code::Unavailable
            } else {
                Code::FailedPrecondition
            }
        }
        ServiceError::Ledger(error) => match error {
            LedgerError::Conflict { .. } => Code::Aborted,
            LedgerError::Unavailable { .. } if error.is_full() => Code::ResourceExhausted,
            LedgerError::Unavailable { .. } | LedgerError::CommitUnknown { .. } => {
                Code::Unavailable
            }
            LedgerError::Corrupt { .. } | LedgerError::OrganizationTaken { .. } => Code::Internal,
        },
    }
}

fn field(error: &ServiceError) -> Option<(String, String)> {
    if let ServiceError::InvalidField { field, problem } = error {
        return Some((field.clone(), problem.clone()));
    }
    if let ServiceError::Voucher { field, problem, .. } = error {
        return Some((field.clone(), problem.clone()));
    }
    if let ServiceError::Law(refusal) = error {
        let field = refusal.field.clone()?;
        return Some((field, refusal.remedy.clone()));
    }
    if let ServiceError::Policy(refusal) = error {
        return Some((refusal.field.to_owned(), refusal.remedy.clone()));
    }
    None
}

fn retry_after(error: &ServiceError) -> Option<Duration> {
    if let ServiceError::Exhausted { retry_after, .. } = error {
        return Some(*retry_after);
    }
    if let ServiceError::TooLate {
        asked, earliest, ..
    } = error
    {
        // The same duration asked for that much later ends when it can be kept.
        let later = earliest.map_or(TimeDelta::minutes(5), |at| at - *asked);
        return Some(
            later
                .to_std()
                .unwrap_or_default()
                .max(Duration::from_secs(1)),
        );
    }
    if let ServiceError::Upstream(ReadError::Refused(Refusal::Throttled {
        retry_after: Some(delay),
    })) = error
    {
        return Some(*delay);
    }
    let code = code(error);
    if code == Code::Aborted {
        return Some(Duration::from_millis(200));
    }
    matches!(code, Code::Unavailable | Code::ResourceExhausted).then_some(Duration::from_secs(5))
}

/// The error and all of its causes on one line, for our log.
fn chain(error: &ServiceError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::grant::InvalidTransition;
    use crate::domain::ids::{IntegrationName, UserId};
    use crate::domain::member::{MemberKey, Subject};
    use crate::policy;
    use crate::ports::ledger::DiskFull;

    const CANARY: &str = "canary-inner-text";

    fn source() -> Box<dyn Error + Send + Sync> {
        CANARY.into()
    }

    fn refused(refusal: Refusal) -> ServiceError {
        ServiceError::Upstream(ReadError::Refused(refusal))
    }

    fn policy(kind: Kind) -> ServiceError {
        ServiceError::Policy(policy::Refusal {
            kind,
            code: "duration_too_long",
            field: "duration",
            remedy: "ask for less".to_owned(),
        })
    }

    #[test]
    fn every_error_has_its_code_its_reason_and_no_inner_text() {
        let inner = || CANARY.to_owned();
        let key = MemberKey {
            integration: IntegrationName::parse("main").expect("valid"),
            subject: Subject::Member(UserId::parse("1").expect("valid")),
        };
        let rows: Vec<(ServiceError, Code)> = vec![
            (
                ServiceError::invalid("role", "is empty"),
                Code::InvalidArgument,
            ),
            (ServiceError::UnknownGrant, Code::NotFound),
            (ServiceError::UnknownIntegration, Code::NotFound),
            (
                ServiceError::NotAMember { remedy: "invite" },
                Code::NotFound,
            ),
            (ServiceError::NotShown, Code::FailedPrecondition),
            (ServiceError::Ambiguous, Code::FailedPrecondition),
            (ServiceError::OwnIdentity, Code::PermissionDenied),
            (
                ServiceError::UnknownResource {
                    what: "deployment a".to_owned(),
                    list: "ListDeployments",
                },
                Code::NotFound,
            ),
            (ServiceError::RequestIdReused, Code::AlreadyExists),
            (ServiceError::RequestClosed, Code::FailedPrecondition),
            (policy(Kind::Denied), Code::PermissionDenied),
            (policy(Kind::Impossible), Code::InvalidArgument),
            (
                ServiceError::KeyExpires {
                    expires_at: Timestamp::UNIX_EPOCH,
                },
                Code::FailedPrecondition,
            ),
            (
                ServiceError::State(InvalidTransition {
                    action: "extend",
                    from: "revoking",
                }),
                Code::FailedPrecondition,
            ),
            (
                ServiceError::TooMany {
                    members: 2,
                    limit: 1,
                },
                Code::FailedPrecondition,
            ),
            (ServiceError::NotOwned, Code::NotFound),
            (
                ServiceError::Unfit {
                    code: "not_overdue",
                    problem: "it is not overdue",
                },
                Code::FailedPrecondition,
            ),
            (ServiceError::Draining, Code::Unavailable),
            (ServiceError::Unwitnessed, Code::Unavailable),
            (
                ServiceError::Held {
                    since: Timestamp::UNIX_EPOCH,
                    reasons: vec!["ledger_behind".to_owned()],
                },
                Code::FailedPrecondition,
            ),
            (
                ServiceError::ClockSkew {
                    skew_ms: 31_000,
                    limit: chrono::TimeDelta::seconds(30),
                },
                Code::FailedPrecondition,
            ),
            (ServiceError::Contended, Code::Aborted),
            (ServiceError::OwnerOnly, Code::Unavailable),
            (
                ServiceError::Exhausted {
                    what: "calls",
                    retry_after: Duration::from_secs(1),
                },
                Code::ResourceExhausted,
            ),
            (
                ServiceError::Upstream(ReadError::Unavailable { code: inner() }),
                Code::Unavailable,
            ),
            (
                refused(Refusal::Unauthenticated { code: inner() }),
                Code::Unavailable,
            ),
            (
                refused(Refusal::Forbidden { code: inner() }),
                Code::FailedPrecondition,
            ),
            (
                refused(Refusal::NotFound { code: inner() }),
                Code::FailedPrecondition,
            ),
            (
                refused(Refusal::Invalid { code: inner() }),
                Code::FailedPrecondition,
            ),
            (
                ServiceError::TooLate {
                    predicted: TimeDelta::seconds(90),
                    bound: TimeDelta::seconds(60),
                    asked: Timestamp::UNIX_EPOCH,
                    earliest: None,
                },
                Code::ResourceExhausted,
            ),
            (
                refused(Refusal::Throttled { retry_after: None }),
                Code::Unavailable,
            ),
            (
                refused(Refusal::NotSent { code: inner() }),
                Code::Unavailable,
            ),
            (refused(Refusal::KeyRotated), Code::Unavailable),
            (LedgerError::Conflict { key }.into(), Code::Aborted),
            (
                LedgerError::Unavailable {
                    action: "accepting",
                    source: Box::new(DiskFull { source: source() }),
                }
                .into(),
                Code::ResourceExhausted,
            ),
            (
                LedgerError::Unavailable {
                    action: "accepting",
                    source: source(),
                }
                .into(),
                Code::Unavailable,
            ),
            (
                LedgerError::CommitUnknown {
                    action: "accepting",
                    source: source(),
                }
                .into(),
                Code::Unavailable,
            ),
            (
                LedgerError::Corrupt {
                    action: "reading",
                    source: source(),
                }
                .into(),
                Code::Internal,
            ),
        ];
        for (error, expected) in rows {
            let status = status(&error, || "0123".to_owned());
            assert_eq!(status.code(), expected, "{error:?}");
            let details = status.get_error_details();
            let info = details.error_info().expect("every status has a reason");
            assert_eq!(info.domain, DOMAIN);
            assert_eq!(info.reason, error.code().to_uppercase());
            assert!(!status.message().contains(CANARY), "{status:?}");
            assert!(
                !String::from_utf8_lossy(status.details()).contains(CANARY),
                "{status:?}"
            );
            let retried = matches!(
                expected,
                Code::Unavailable | Code::Aborted | Code::ResourceExhausted
            );
            assert_eq!(details.retry_info().is_some(), retried, "{error:?}");
        }
    }

    #[test]
    fn an_internal_error_shows_its_reference_only() {
        let error = ServiceError::from(LedgerError::Corrupt {
            action: "reading",
            source: source(),
        });
        let status = status(&error, || "0123".to_owned());
        assert_eq!(status.message(), "internal error, reference 0123");
    }

    #[test]
    fn an_end_that_cannot_be_kept_is_refused_with_one_that_can() {
        let asked = Timestamp::UNIX_EPOCH;
        let error = ServiceError::TooLate {
            predicted: TimeDelta::seconds(90),
            bound: TimeDelta::seconds(60),
            asked,
            earliest: Some(asked + TimeDelta::seconds(75)),
        };
        let details = status(&error, String::new).get_error_details();
        let info = details.error_info().expect("a reason");
        assert_eq!(info.reason, "LATENESS_EXCEEDED");
        assert_eq!(info.metadata["earliest_end"], "1970-01-01T00:01:15Z");
        assert_eq!(info.metadata["predicted_lateness"], "90s");
        assert_eq!(info.metadata["bound"], "60s");
        let retry = details.retry_info().expect("when to try again");
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(75)));
    }

    #[test]
    fn a_bad_field_is_named() {
        let error = ServiceError::invalid("spec.role", "is empty");
        let status = status(&error, String::new);
        let details = status.get_error_details();
        let violations = &details
            .bad_request()
            .expect("a bad request")
            .field_violations;
        assert_eq!(violations[0].field, "spec.role");
    }
}
