//! What an error of the database means for the promise that was being made.
//!
//! Owns the difference between "nothing happened" and "nobody knows". When in doubt it is the latter.

use std::sync::Arc;

use crate::ports::ledger::{DiskFull, LedgerError};
pub(super) use crate::store::failure::{corrupt, unavailable, unknown};

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_IOERR_SHORT_READ: i32 = SQLITE_IOERR | (2 << 8);
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CONSTRAINT: i32 = 19;
const SQLITE_NOTADB: i32 = 26;

/// Extended result code of SQLite, where the error comes from it.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn primary(error: &sqlx::Error) -> Option<i32> {
    code(error).map(|code| code & 0xff)
}

/// Whether a transaction was taken back for the sake of another one. Here there is only one that writes.
pub(super) fn is_conflict(_error: &sqlx::Error) -> bool {
    false
}

/// Whether the error says that what is stored cannot be read.
pub(super) fn is_corrupt(error: &sqlx::Error) -> bool {
    matches!(primary(error), Some(SQLITE_CORRUPT | SQLITE_NOTADB))
        // The file ends before a page of it: it was cut.
        || code(error) == Some(SQLITE_IOERR_SHORT_READ)
        || matches!(
            error,
            sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::TypeNotFound { .. }
        )
}

/// Whether the connection must not be asked again: after a failed write or fsync the kernel may answer the next one
/// with success without having written anything.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    is_corrupt(error)
        || primary(error) == Some(SQLITE_IOERR)
        || matches!(error, sqlx::Error::WorkerCrashed | sqlx::Error::Io(_))
}

/// Whether a failed `COMMIT` certainly left nothing behind. A failed write or fsync of the log may have reached the
/// disk all the same and come back with the next recovery.
pub(super) fn commit_left_nothing(error: &sqlx::Error) -> bool {
    matches!(
        primary(error),
        Some(SQLITE_BUSY | SQLITE_LOCKED | SQLITE_READONLY | SQLITE_FULL | SQLITE_CONSTRAINT)
    )
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

/// Nothing was written, and whether that is for want of room.
fn not_written(action: &'static str, error: Arc<sqlx::Error>) -> LedgerError {
    if primary(&error) == Some(SQLITE_FULL) {
        let source = error.into();
        unavailable(action, DiskFull { source })
    } else {
        unavailable(action, error)
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
    struct Code(i32);

    impl fmt::Display for Code {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "code {}", self.0)
        }
    }

    impl Error for Code {}

    impl DatabaseError for Code {
        fn message(&self) -> &str {
            "a message"
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(Cow::Owned(self.0.to_string()))
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

    fn sqlite(code: i32) -> Arc<sqlx::Error> {
        Arc::new(sqlx::Error::Database(Box::new(Code(code))))
    }

    #[test]
    fn a_failed_fsync_at_commit_is_of_unknown_outcome_and_a_full_disk_is_not() {
        const IOERR_FSYNC: i32 = 10 | (4 << 8);
        const IOERR_WRITE: i32 = 10 | (3 << 8);
        for code in [IOERR_FSYNC, IOERR_WRITE, 7, 9, 21] {
            assert!(
                matches!(
                    of_commit("test", sqlite(code)),
                    LedgerError::CommitUnknown { .. }
                ),
                "{code}"
            );
        }
        assert!(matches!(
            of_commit("test", Arc::new(sqlx::Error::WorkerCrashed)),
            LedgerError::CommitUnknown { .. }
        ));
        for code in [SQLITE_FULL, SQLITE_READONLY, SQLITE_READONLY | (4 << 8)] {
            assert!(
                matches!(
                    of_commit("test", sqlite(code)),
                    LedgerError::Unavailable { .. }
                ),
                "{code}"
            );
        }
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_trouble() {
        assert!(of_commit("test", sqlite(SQLITE_FULL)).is_full());
        assert!(of_statement("test", sqlite(SQLITE_FULL)).is_full());
        assert!(!of_statement("test", sqlite(SQLITE_READONLY)).is_full());
        assert!(!of_statement("test", sqlite(SQLITE_CORRUPT)).is_full());
    }

    #[test]
    fn a_connection_that_failed_to_write_is_not_asked_again() {
        for code in [SQLITE_IOERR, SQLITE_IOERR | (4 << 8), SQLITE_CORRUPT] {
            assert!(is_broken(&sqlite(code)), "{code}");
        }
        assert!(is_broken(&sqlx::Error::WorkerCrashed));
        for code in [SQLITE_FULL, SQLITE_CONSTRAINT] {
            assert!(!is_broken(&sqlite(code)), "{code}");
        }
    }

    #[test]
    fn before_commit_nothing_happened_and_a_malformed_file_is_corrupt() {
        for code in [SQLITE_FULL, SQLITE_IOERR, SQLITE_READONLY] {
            assert!(
                matches!(
                    of_statement("test", sqlite(code)),
                    LedgerError::Unavailable { .. }
                ),
                "{code}"
            );
        }
        for code in [SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_CORRUPT | (1 << 8)] {
            assert!(
                matches!(
                    of_statement("test", sqlite(code)),
                    LedgerError::Corrupt { .. }
                ),
                "{code}"
            );
        }
    }
}
