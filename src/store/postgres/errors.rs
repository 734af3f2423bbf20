//! What an error of the server means for the promise that was being made.
//!
//! Owns the difference between "nothing happened" and "nobody knows". When in doubt it is the latter.

use std::sync::Arc;

use crate::ports::ledger::{DiskFull, LedgerError, ReadOnly};
pub(super) use crate::store::failure::{corrupt, unavailable, unknown};

/// No room left.
const DISK_FULL: &str = "53100";
/// A stand-by, or set to read only.
const READ_ONLY: &str = "25006";
/// Whether the statement was completed is not known.
const COMPLETION_UNKNOWN: &str = "40003";

/// The code that the server gave, where the error comes from it.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the error says that what is stored cannot be read.
fn is_corrupt(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "XX001" | "XX002"))
        || matches!(
            error,
            sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::TypeNotFound { .. }
        )
}

/// Whether the password or the right to come in was refused.
pub(super) fn is_refused_login(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code.starts_with("28"))
}

/// Whether the connection must not be asked again: it is gone, or it leads to a server that does not write any more.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    if matches!(error, sqlx::Error::Database(_)) {
        return code(error).is_some_and(|code| {
            // The session was ended, the server goes down, or it is not the one that writes.
            code.starts_with("57P")
                || code.starts_with("08")
                || code == "25P03"
                || code == READ_ONLY
        });
    }
    // A value that cannot be written or read says nothing of the connection.
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

/// Whether the server took the transaction back for the sake of another one: a deadlock, or an order that it could not
/// keep. Nothing happened, and the same again may pass.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "40001" | "40P01"))
}

/// Whether a failed `COMMIT` certainly left nothing behind: the server says so itself.
fn commit_left_nothing(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| {
        let class = code.get(..2).unwrap_or_default();
        code != COMPLETION_UNKNOWN && matches!(class, "23" | "25" | "40" | "53")
    })
}

/// An error of a statement that is not `COMMIT`: the transaction is rolled back, so nothing happened.
pub(super) fn of_statement(
    action: &'static str,
    error: impl Into<Arc<sqlx::Error>>,
) -> LedgerError {
    let error = error.into();
    if is_corrupt(&error) {
        corrupt(action, error)
    } else {
        not_written(action, error)
    }
}

/// Nothing was written, and why.
fn not_written(action: &'static str, error: Arc<sqlx::Error>) -> LedgerError {
    match code(&error).as_deref() {
        Some(DISK_FULL) => {
            let source = error.into();
            unavailable(action, DiskFull { source })
        }
        Some(READ_ONLY) => {
            let source = error.into();
            unavailable(action, ReadOnly { source })
        }
        _ => unavailable(action, error),
    }
}

/// An error of `COMMIT`.
pub(super) fn of_commit(action: &'static str, error: Arc<sqlx::Error>) -> LedgerError {
    if commit_left_nothing(&error) {
        not_written(action, error)
    } else {
        unknown(action, error)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    #[derive(Debug)]
    struct State(&'static str);

    impl fmt::Display for State {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for State {}

    impl DatabaseError for State {
        fn message(&self) -> &str {
            "a message"
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(self.0))
        }
        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn server(state: &'static str) -> Arc<sqlx::Error> {
        Arc::new(sqlx::Error::Database(Box::new(State(state))))
    }

    #[test]
    fn a_server_that_goes_down_in_a_commit_leaves_its_outcome_unknown() {
        for state in ["57P01", "57P02", "57014", "08006", "40003", "XX000"] {
            let error = of_commit("test", server(state));
            assert!(
                matches!(error, LedgerError::CommitUnknown { .. }),
                "{state}"
            );
        }
        let cut = Arc::new(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        assert!(matches!(
            of_commit("test", cut),
            LedgerError::CommitUnknown { .. }
        ));
    }

    #[test]
    fn a_full_disk_and_a_stand_by_have_names_and_left_nothing() {
        for error in [
            of_commit("test", server(DISK_FULL)),
            of_statement("test", server(DISK_FULL)),
        ] {
            assert!(error.is_full());
            assert_eq!(error.code(), "ledger_full");
        }
        for error in [
            of_commit("test", server(READ_ONLY)),
            of_statement("test", server(READ_ONLY)),
        ] {
            assert!(error.is_read_only());
            assert_eq!(error.code(), "ledger_read_only");
        }
        assert!(is_broken(&server(READ_ONLY)), "another server may write");
        assert!(!is_broken(&server(DISK_FULL)));
    }

    #[test]
    fn only_a_conflict_with_somebody_else_is_tried_again() {
        for state in ["40001", "40P01"] {
            assert!(is_conflict(&server(state)), "{state}");
        }
        for state in ["40003", "40002", "23505", "53100", "57014", "55P03"] {
            assert!(!is_conflict(&server(state)), "{state}");
        }
    }

    #[test]
    fn a_session_that_was_ended_is_not_asked_again_and_a_refused_row_is_no_reason() {
        for state in ["57P01", "25P03", "08006"] {
            assert!(is_broken(&server(state)), "{state}");
        }
        for state in ["23505", "P0001", "40P01", "55P03"] {
            assert!(!is_broken(&server(state)), "{state}");
        }
        assert!(matches!(
            of_statement("test", server("XX001")),
            LedgerError::Corrupt { .. }
        ));
    }
}
