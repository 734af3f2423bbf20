//! What a server says while we log in, without our password.
//!
//! Owns taking the password out of its words: a server that is shown one may repeat it. Never keeps a password, and
//! never changes what an error means: its code stays.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions as _;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

/// What stands in the place of the password.
const MASK: &str = "***";

/// A refusal of the server: its code and its words, nothing else of what came along.
#[derive(Debug)]
struct Refusal {
    code: Option<String>,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {}

impl DatabaseError for Refusal {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.as_deref().map(Cow::Borrowed)
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

/// The password of these settings, from wherever they have it.
fn password(settings: &PgConnectOptions) -> Option<Zeroizing<String>> {
    // The settings tell their password only as part of an address; an odd host or user would make none.
    let plain = settings.clone().host("localhost").username("latchkey");
    let url = plain.to_url_lossy();
    let text = percent_decode_str(url.password()?)
        .decode_utf8_lossy()
        .into_owned();
    (!text.is_empty()).then(|| Zeroizing::new(text))
}

/// The error of a login with these settings, in which the password does not stand.
pub(super) fn hushed(error: sqlx::Error, settings: &PgConnectOptions) -> sqlx::Error {
    let Some(password) = password(settings) else {
        return error;
    };
    if let sqlx::Error::Database(said) = &error {
        // What else the server may add, detail and hint, is shown nowhere and not taken over.
        return sqlx::Error::Database(Box::new(Refusal {
            code: said
                .code()
                .filter(|code| !code.contains(password.as_str()))
                .map(Cow::into_owned),
            message: said.message().replace(password.as_str(), MASK),
        }));
    }
    if format!("{error} {error:?}").contains(password.as_str()) {
        // Bytes that are no message of the protocol.
        return sqlx::Error::Protocol(
            "the answer to the login is not repeated: our password stands in it".to_owned(),
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::errors;

    const PASSWORD: &str = "pa/ss %40wörd";

    /// Those of a user and a host that stand in no address as they are.
    fn settings() -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .username("a:b/c@d")
            .host("")
            .password(PASSWORD)
    }

    fn refusal(code: &str, message: &str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Refusal {
            code: Some(code.to_owned()),
            message: message.to_owned(),
        }))
    }

    fn shown(error: &sqlx::Error) -> String {
        format!("{error} {error:?}")
    }

    #[test]
    fn the_words_of_a_refusal_stay_without_the_password_and_mean_the_same() {
        let error = refusal("28P01", &format!("no `{PASSWORD}` here, {PASSWORD}"));
        let error = hushed(error, &settings());
        assert!(!shown(&error).contains(PASSWORD), "{error:?}");
        assert!(error.to_string().ends_with("no `***` here, ***"), "{error}");
        assert!(errors::is_refused_login(&error));
    }

    #[test]
    fn a_password_in_the_place_of_a_code_is_no_code() {
        let error = hushed(refusal(PASSWORD, "no"), &settings());
        assert!(!shown(&error).contains(PASSWORD), "{error:?}");
    }

    #[test]
    fn an_answer_that_is_no_refusal_is_not_repeated_either() {
        let error = sqlx::Error::Protocol(format!("unexpected {PASSWORD}"));
        let error = hushed(error, &settings());
        assert!(!shown(&error).contains(PASSWORD), "{error:?}");
        let other = hushed(sqlx::Error::Protocol("odd".to_owned()), &settings());
        assert!(other.to_string().contains("odd"), "{other}");
    }

    #[test]
    fn without_a_password_nothing_is_taken_out() {
        for none in [
            PgConnectOptions::new_without_pgpass(),
            PgConnectOptions::new_without_pgpass().password(""),
        ] {
            let error = hushed(refusal("28000", "no entry for you"), &none);
            assert!(error.to_string().ends_with("no entry for you"), "{error}");
        }
    }
}
