//! Identifiers as closed grammars, each its own type.
//!
//! Owns what a well-formed identifier looks like. Never trims, lower-cases or repairs one silently (e-mail
//! addresses excepted, whose case carries no meaning): what does not fit is refused with the reason.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// Why a piece of text is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidId {
    /// The kind of identifier, for example "deployment id".
    pub what: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn shape(
    what: &'static str,
    text: &str,
    max: usize,
    expected: &str,
    fits: impl Fn(usize, char) -> bool,
) -> Result<(), InvalidId> {
    let invalid = |problem: String| Err(InvalidId { what, problem });
    if text.is_empty() {
        return invalid(format!("is empty; expected {expected}"));
    }
    if text.len() > max {
        return invalid(format!(
            "is {} bytes long; at most {max} are allowed",
            text.len()
        ));
    }
    match text
        .char_indices()
        .find(|(index, character)| !fits(*index, *character))
    {
        None => Ok(()),
        Some((_, character)) => invalid(format!(
            "contains {:?}; expected {expected}",
            character.to_string().escape_default().to_string()
        )),
    }
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $what:literal, $max:literal, $expected:literal, $fits:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the grammar and wraps the text.
            ///
            /// # Errors
            /// [`InvalidId`] saying which character or length does not fit.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                shape($what, &text, $max, $expected, $fits)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

fn lower_word(_: usize, c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

fn alphanumeric(_: usize, c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

text_id!(
    /// Name of one configured Elastic Cloud organization and key, chosen in the configuration.
    IntegrationName, "integration name", 63, "lower-case letters, digits and '-', starting with a letter",
    |index, c| c.is_ascii_lowercase() || (index > 0 && (c.is_ascii_digit() || c == '-'))
);
text_id!(
    /// Elastic Cloud organization id: digits on Elastic Cloud today.
    OrganizationId, "organization id", 64, "lower-case letters, digits, '-' and '_'", lower_word
);
text_id!(
    /// Elastic Cloud user id of an organization member: digits on Elastic Cloud today.
    UserId, "user id", 64, "lower-case letters, digits, '-' and '_'", lower_word
);
text_id!(
    /// Deployment id: 32 lower-case letters and digits on Elastic Cloud.
    DeploymentId, "deployment id", 64, "lower-case letters and digits", alphanumeric
);
text_id!(
    /// Serverless project id: 32 lower-case letters and digits on Elastic Cloud.
    ProjectId, "project id", 64, "lower-case letters and digits", alphanumeric
);
text_id!(
    /// Name of a stack role handed on at sign-in (`application_roles`).
    ApplicationRole, "application role", 128,
    "a letter or digit, then letters, digits, '_', '-' and '.'",
    |index, c| c.is_ascii_alphanumeric() || (index > 0 && matches!(c, '_' | '-' | '.'))
);
text_id!(
    /// Configured name of an authenticated caller of the gRPC surface.
    CallerName, "caller name", 128, "letters, digits and any of . _ : / @ -",
    |_, c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '@' | '-')
);
text_id!(
    /// Caller-chosen key of one mutating call; the same id and body give the same answer.
    RequestId, "request id", 128, "printable ASCII without spaces", |_, c: char| c.is_ascii_graphic()
);
text_id!(
    /// Token of an invitation, as Elastic Cloud issues it. It lets its holder join, so it is never shown to callers.
    InvitationToken, "invitation token", 512, "letters, digits and any of . _ - = ~ +",
    |_, c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '~' | '+')
);

/// E-mail address, lower-cased: two spellings that differ in case are one person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

impl Email {
    /// Checks the shape `local@domain` and lower-cases the address.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is not one plain ASCII address of at most 254 bytes.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        const WHAT: &str = "e-mail address";
        let text = text.into();
        shape(
            WHAT,
            &text,
            254,
            "an ASCII address such as ada@example.com",
            |_, c| c.is_ascii_alphanumeric() || "@.!#$%&'+/=?^_`{|}~-".contains(c),
        )?;
        let well_formed = text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !domain.contains('@')
                && domain.split('.').count() > 1
                && domain.split('.').all(|label| {
                    !label.is_empty()
                        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                })
        });
        if !well_formed {
            return Err(InvalidId {
                what: WHAT,
                problem:
                    "is not of the form local@domain; expected an address such as ada@example.com"
                        .to_owned(),
            });
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The lower-cased address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Email {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> String {
        email.0
    }
}

/// Identifier of one grant: a UUID of version 7, so that ids sort by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GrantId(Uuid);

impl GrantId {
    /// Builds an id from the time of creation and 10 random bytes supplied by the caller.
    #[must_use]
    pub fn new(at: Timestamp, entropy: [u8; 10]) -> Self {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &entropy).into_uuid())
    }

    /// Wraps a UUID read from the ledger.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Reads the hyphenated form.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is not a UUID.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId {
            what: "grant id",
            problem:
                "is not a UUID; copy it from the answer of CreateGrant or from `latchkey list`"
                    .to_owned(),
        })
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_not_an_id() {
        for text in [
            "", " 1", "1 ", "../x", "a/b", "a%2fb", "*", "A", "é", "a\u{a0}", "a\n", "a\0", "а",
        ] {
            assert!(
                UserId::parse(text).is_err(),
                "{text:?} was accepted as user id"
            );
            assert!(
                DeploymentId::parse(text).is_err(),
                "{text:?} was accepted as deployment id"
            );
        }
        assert!(UserId::parse("1014289666002276").is_ok());
        assert!(UserId::parse("1".repeat(64)).is_ok());
        assert!(UserId::parse("1".repeat(65)).is_err());
    }

    #[test]
    fn the_problem_names_the_character_without_repeating_it_raw() {
        let error = UserId::parse("a\u{1b}[31m").expect_err("escape sequences are refused");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }

    #[test]
    fn email_addresses_compare_without_case() {
        assert_eq!(
            Email::parse("Ada@Example.COM"),
            Email::parse("ada@example.com")
        );
        for text in [
            "ada",
            "@example.com",
            "ada@",
            "ada@example",
            "a b@example.com",
            "a@b@c.d",
            "ada@ex..com",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn grant_ids_sort_by_creation() {
        let at = |ms| chrono::DateTime::from_timestamp_millis(ms).expect("in range");
        assert!(GrantId::new(at(1_000), [255; 10]) < GrantId::new(at(1_001), [0; 10]));
    }

    #[test]
    fn grant_ids_survive_text() {
        let id = GrantId::new(
            chrono::DateTime::from_timestamp_millis(1).expect("in range"),
            [7; 10],
        );
        assert_eq!(GrantId::parse(&id.to_string()), Ok(id));
    }

    #[test]
    fn every_part_of_a_domain_is_looked_at_and_an_address_keeps_its_letters() {
        let address = Email::parse("Ada.L+ops@sub-domain.example.com").expect("well formed");
        assert_eq!(address.as_str(), "ada.l+ops@sub-domain.example.com");
        assert_eq!(String::from(address.clone()), address.to_string());
        assert_eq!(Email::try_from(address.to_string()), Ok(address));
        for text in [
            "ada@exa_mple.com",
            "ada@.com",
            "ada@example.",
            "ada@ex ample.com",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
