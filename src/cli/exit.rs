//! Exit codes and the two lines that go with a failure.
//!
//! Owns the mapping of gRPC statuses to exit codes and advice. Never prints: see [`super::streams`].

use std::fmt;
use std::io;
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::text;

/// How a command ended. The numbers are part of the interface and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// Something else went wrong.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Refused by policy, permission or as invalid.
    Refused = 3,
    /// No such grant, member, role or resource.
    NotFound = 4,
    /// Request id reused with another body, or not possible in this state.
    Conflict = 5,
    /// The connector or Elastic Cloud cannot be reached.
    Unavailable = 6,
    /// Timed out waiting; the grant is still on its way.
    TimedOut = 7,
    /// Access that should be gone is still there.
    Overdue = 8,
    /// Bad configuration (`EX_USAGE` of sysexits.h).
    Configuration = 64,
    /// Interrupted by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The number given to the shell.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code for a gRPC status.
    #[must_use]
    pub fn from_grpc(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated => Self::Refused,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict,
            Code::Unavailable | Code::ResourceExhausted => Self::Unavailable,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::Cancelled
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what was asked: one line what, one line what to do about it.
///
/// The text may hold words of the server; it is escaped when it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What went wrong; empty to print nothing.
    pub what: String,
    /// What to do; empty when there is nothing to advise.
    pub advice: String,
}

impl Failure {
    /// A failure with its advice.
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// A command line that was understood by the parser but makes no sense.
    #[must_use]
    pub fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, advice)
    }

    /// What the server said: the message, and the best advice found in its `google.rpc` details.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let said = status.message();
        let what = if said.is_empty() {
            default_words(status.code()).to_owned()
        } else {
            said.to_owned()
        };
        Self::new(Exit::from_grpc(status.code()), what, advice(status))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::safe(&self.what))
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

impl From<io::Error> for Failure {
    /// A reader that closed the pipe (`latchkey list | head`) has seen enough: that is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::Done, "", "")
        } else {
            Self::new(Exit::Failed, format!("cannot write: {error}"), "")
        }
    }
}

fn advice(status: &Status) -> String {
    let details = status.get_error_details();
    let mut parts = Vec::new();
    if let Some(bad) = details.bad_request() {
        for violation in &bad.field_violations {
            // The description often is the message again; then the field alone adds something.
            let repeated = violation.description == status.message()
                || status.message() == format!("{}: {}", violation.field, violation.description);
            let written = argument(&violation.field);
            if violation.description.is_empty() || repeated {
                parts.push(format!("look at {written}"));
            } else {
                parts.push(format!("{written}: {}", violation.description));
            }
        }
    }
    if let Some(failed) = details.precondition_failure() {
        for violation in &failed.violations {
            parts.push(format!("{}: {}", violation.subject, violation.description));
        }
    }
    if let Some(help) = details.error_info().and_then(|info| {
        ["advice", "help", "remedy"]
            .iter()
            .find_map(|key| info.metadata.get(*key))
    }) {
        parts.push(help.clone());
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let whole = std::time::Duration::from_secs(delay.as_secs().max(1));
        parts.push(format!(
            "try again in {}",
            humantime::format_duration(whole)
        ));
    }
    if parts.is_empty() {
        default_advice(status.code()).to_owned()
    } else {
        parts.join("; ")
    }
}

/// What stands for a field of the API on the command line; the field itself where nothing does.
fn argument(field: &str) -> &str {
    let plain = |prefix: &str| {
        field
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let known = [
        ("spec.integration", "--integration"),
        ("spec.beneficiary", "MEMBER"),
        ("spec.requester", "--requester"),
        ("spec.justification", "--reason"),
        ("spec.role", "ROLE"),
        ("spec.targets", "--on"),
        ("spec.application_roles", "--as-roles"),
        ("spec.duration", "--for"),
        ("spec.starts_at", "--starts"),
        ("spec.not_after", "--until"),
        ("spec.invite", "--invite"),
        ("filter.integration", "--integration"),
        ("filter.beneficiary", "--member"),
        ("filter.target", "--on"),
        ("filter.states", "--state"),
        ("integration", "--integration"),
        ("member", "MEMBER"),
        ("target", "--on"),
        ("grant_id", "GRANT"),
        ("grant_request_id", "--request-id"),
        ("request_id", "--request-id"),
        ("requester", "--requester"),
        ("reason", "--reason"),
        ("duration", "--by"),
        ("max_members", "--max-members"),
        ("project", "PROJECT"),
    ];
    known
        .iter()
        .find(|(prefix, _)| plain(prefix))
        .map_or(field, |(_, argument)| argument)
}

fn default_words(code: Code) -> &'static str {
    match code {
        Code::Ok => "done",
        Code::InvalidArgument | Code::OutOfRange => "the connector does not accept this request",
        Code::PermissionDenied => "refused",
        Code::Unauthenticated => "the connector does not know you",
        Code::NotFound => "not found",
        Code::AlreadyExists => "this request id was used for something else",
        Code::FailedPrecondition | Code::Aborted => "not possible in this state",
        Code::Unavailable => "the connector is not available",
        Code::ResourceExhausted => "too many requests",
        Code::DeadlineExceeded => "no answer in time",
        Code::Cancelled => "cancelled",
        Code::Unimplemented => "the connector does not know this call",
        Code::Unknown | Code::Internal | Code::DataLoss => "the connector failed",
    }
}

fn default_advice(code: Code) -> &'static str {
    match code {
        Code::Ok | Code::Cancelled => "",
        Code::InvalidArgument | Code::OutOfRange => "check the values; `--help` shows examples",
        Code::PermissionDenied => {
            "ask for less (a narrower role, one target, a shorter time), or ask whoever owns the policy"
        }
        Code::Unauthenticated => "check the credentials that you call the connector with",
        Code::NotFound => "`latchkey list`, `members`, `roles` and `resources` show what there is",
        Code::AlreadyExists => {
            "leave --request-id out, or repeat the original request word for word"
        }
        Code::FailedPrecondition | Code::Aborted => {
            "look at the state with `latchkey get GRANT`, then decide"
        }
        Code::Unavailable => "check --server and that the connector runs, then try again",
        Code::ResourceExhausted => "wait a moment, then try again",
        Code::DeadlineExceeded => {
            "an accepted request goes on: look with `latchkey list`, or give a longer --timeout"
        }
        Code::Unimplemented => "command line and connector may be of different versions",
        Code::Unknown | Code::Internal | Code::DataLoss => {
            "the connector's log has the cause; an accepted request goes on"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn every_grpc_code_has_its_exit_code() {
        let table = [
            (Code::Ok, 0),
            (Code::Cancelled, 1),
            (Code::Unknown, 1),
            (Code::InvalidArgument, 3),
            (Code::DeadlineExceeded, 7),
            (Code::NotFound, 4),
            (Code::AlreadyExists, 5),
            (Code::PermissionDenied, 3),
            (Code::ResourceExhausted, 6),
            (Code::FailedPrecondition, 5),
            (Code::Aborted, 5),
            (Code::OutOfRange, 3),
            (Code::Unimplemented, 1),
            (Code::Internal, 1),
            (Code::Unavailable, 6),
            (Code::DataLoss, 1),
            (Code::Unauthenticated, 3),
        ];
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let (_, expected) = table
                .iter()
                .find(|(listed, _)| *listed == code)
                .expect("every code stands in the table");
            assert_eq!(Exit::from_grpc(code).code(), *expected, "{code:?}");
            assert!(!default_words(code).is_empty());
        }
    }

    #[test]
    fn advice_comes_from_the_details() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("duration", "at most 12h are allowed");
        details.set_retry_info(Some(Duration::from_millis(2_500)));
        let status = Status::with_error_details(Code::InvalidArgument, "too long", details);
        let failure = Failure::from_status(&status);
        assert_eq!(failure.what, "too long");
        assert_eq!(
            failure.advice,
            "--by: at most 12h are allowed; try again in 2s"
        );
        assert_eq!(failure.exit, Exit::Refused);
    }

    #[test]
    fn fields_are_named_as_they_are_written_on_the_command_line() {
        for (field, written) in [
            ("spec.targets[2].deployment.deployment_id", "--on"),
            ("spec.duration", "--for"),
            ("spec.not_after", "--until"),
            ("duration", "--by"),
            ("durations", "durations"),
            ("page_token", "page_token"),
        ] {
            assert_eq!(argument(field), written);
        }
    }

    #[test]
    fn a_status_without_words_still_says_something() {
        let failure = Failure::from_status(&Status::new(Code::Unavailable, ""));
        assert_eq!(failure.what, "the connector is not available");
        assert!(failure.advice.contains("--server"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Done, ""));
        let failure = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(failure.exit, Exit::Failed);
    }
}
