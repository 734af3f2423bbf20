//! Values that people write as text: durations, addresses, URLs, cron expressions and the like.
//!
//! Owns each grammar once, for the schema and for reading, together with what to write instead. Never repeats the
//! text it refuses.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::DateTime;
use croner::parser::{CronParser, Seconds};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::domain::catalogue;
use crate::domain::ids::{CallerName, Email, IntegrationName, InvalidId, OrganizationId};

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub problem: String,
    /// What to write, beginning with "write".
    pub remedy: String,
}

impl Fault {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl From<InvalidId> for Fault {
    fn from(error: InvalidId) -> Self {
        // The grammar's own words name the offending character, never the text.
        Self::new(error.problem, format!("write a valid {}", error.what))
    }
}

/// A grammar by its name in the schema.
pub(super) struct Grammar {
    /// The `format` in the schema.
    pub(super) name: &'static str,
    /// What such a value is, with an article and an example.
    pub(super) what: &'static str,
    /// Whether a text is one.
    pub(super) check: fn(&str) -> Result<(), Fault>,
}

/// Every grammar that the schema names.
pub(super) const GRAMMARS: &[Grammar] = &[
    Grammar {
        name: "latchkey-duration",
        what: "a duration such as 45m, 12h or 7d",
        check: |text| Period::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-address",
        what: "an IP address and a port such as 127.0.0.1:7443",
        check: |text| Address::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-http-url",
        what: "a URL such as https://api.elastic-cloud.com",
        check: |text| HttpUrl::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-endpoint",
        what: "a URL with a path such as https://siem.example.com/hooks/latchkey",
        check: |text| Endpoint::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-cron",
        what: "a cron expression of six fields in quotes such as \"0 */5 * * * *\"",
        check: |text| Cron::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-log-filter",
        what: "a log filter such as info or info,latchkey=debug",
        check: |text| LogFilter::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-role",
        what: "a role such as deployment-viewer",
        check: |text| RoleName::parse(text).map(drop),
    },
    Grammar {
        name: "latchkey-integration",
        what: "a name of lower-case letters, digits and '-' such as production",
        check: |text| Ok(IntegrationName::parse(text).map(drop)?),
    },
    Grammar {
        name: "latchkey-organization",
        what: "an organization id in quotes such as \"198583657190\"",
        check: |text| Ok(OrganizationId::parse(text).map(drop)?),
    },
    Grammar {
        name: "latchkey-email",
        what: "an e-mail address such as team@example.com",
        check: |text| Ok(Email::parse(text).map(drop)?),
    },
    Grammar {
        name: "latchkey-variable",
        what: "the name of an environment variable such as ELASTIC_API_KEY",
        check: variable,
    },
    Grammar {
        name: "latchkey-caller",
        what: "a name of letters, digits and . _ : / @ - such as control-plane",
        check: |text| Ok(CallerName::parse(text).map(drop)?),
    },
    Grammar {
        name: "latchkey-path",
        what: "a path such as /run/secrets/elastic-key",
        check: path,
    },
    Grammar {
        name: "latchkey-aws-word",
        what: "a word without spaces such as latchkey/elastic or eu-west-1",
        check: aws_word,
    },
    Grammar {
        name: "latchkey-cloud-name",
        what: "a name of letters, digits, '-' and '_' such as elastic-key",
        check: cloud_name,
    },
    Grammar {
        name: "latchkey-kubernetes-name",
        what: "a Kubernetes name of lower-case letters, digits, '-' and '.' such as elastic-key",
        check: kubernetes_name,
    },
];

/// Finds a grammar by its name in the schema.
pub(super) fn grammar(name: &str) -> Option<&'static Grammar> {
    GRAMMARS.iter().find(|grammar| grammar.name == name)
}

/// A schema for text of a grammar.
fn schema(format: &str) -> Schema {
    let what = grammar(format).map_or("", |grammar| grammar.what);
    json_schema!({"type": "string", "format": format, "description": what})
}

macro_rules! checked_text {
    ($name:ident, $format:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema($format)
            }
        }
    };
}

mod endpoint;

pub use endpoint::Endpoint;

macro_rules! schema_of {
    ($($name:ident => $format:literal),* $(,)?) => {
        /// Schemas of values whose types belong to other modules.
        pub(super) mod schemas {
            use super::{Schema, SchemaGenerator, schema};
            $(pub(in crate::config) fn $name(_: &mut SchemaGenerator) -> Schema { schema($format) })*
        }
    };
}

schema_of! {
    integration => "latchkey-integration",
    organization => "latchkey-organization",
    variable => "latchkey-variable",
    caller => "latchkey-caller",
    path => "latchkey-path",
    aws_word => "latchkey-aws-word",
    cloud_name => "latchkey-cloud-name",
    kubernetes_name => "latchkey-kubernetes-name",
}

/// The schema of a list of files.
pub(super) fn paths(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": schema("latchkey-path"), "maxItems": 1000})
}

/// The schema of a list of addresses of people.
pub(super) fn emails(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": schema("latchkey-email")})
}

/// A length of time, written as `45m`, `12h`, `1h 30m` or `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// Wraps a length of time.
    #[must_use]
    pub const fn new(length: Duration) -> Self {
        Self(length)
    }

    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads what people write.
    ///
    /// # Errors
    /// [`Fault`] for a bare number, a negative or an absurd length.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        const REMEDY: &str = "write a number and a unit, such as 500ms, 30s, 45m, 12h or 7d";
        let length = humantime::parse_duration(text.trim())
            .map_err(|_| Fault::new("is not a duration", REMEDY))?;
        if length > Duration::from_secs(10 * 366 * 24 * 3600) {
            return Err(Fault::new("is longer than ten years", REMEDY));
        }
        Ok(Self(length))
    }

    /// The length of time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (u128::from(seconds / 86_400), "d"),
            (u128::from(seconds / 3600 % 24), "h"),
            (u128::from(seconds / 60 % 60), "m"),
            (u128::from(seconds % 60), "s"),
            (u128::from(self.0.subsec_millis()), "ms"),
        ];
        let text: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, unit)| format!("{count}{unit}"))
            .collect();
        f.write_str(&if text.is_empty() {
            "0s".to_owned()
        } else {
            text.join(" ")
        })
    }
}

checked_text!(Period, "latchkey-duration");

/// Where to listen: an IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(SocketAddr);

impl Address {
    /// Wraps an address.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Reads `127.0.0.1:7443` or `[::1]:7443`. Host names are refused: what they mean can change behind our back.
    ///
    /// # Errors
    /// [`Fault`] for host names, missing ports and everything else.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map(Self).map_err(|_| {
            Fault::new(
                "is not an IP address with a port",
                "write an address and a port, such as 127.0.0.1:7443 or \"[::1]:7443\"; host names are not taken",
            )
        })
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

checked_text!(Address, "latchkey-address");

/// A base URL: scheme, host and port, nothing else. Plain HTTP only to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// Reads and checks a base URL.
    ///
    /// # Errors
    /// [`Fault`] for other schemes, plain HTTP to other machines, and URLs with user, path, query or fragment.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        const REMEDY: &str =
            "write scheme, host and port only, such as https://api.elastic-cloud.com";
        let url = endpoint::parsed(text, REMEDY, "keys come from the secret store", "the key")?;
        if !matches!(url.path(), "" | "/") {
            return Err(Fault::new(
                "carries a path",
                "write the URL without a path; Latchkey adds it itself",
            ));
        }
        Ok(Self(url))
    }

    /// The URL.
    #[must_use]
    pub fn get(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

checked_text!(HttpUrl, "latchkey-http-url");

/// A cron expression of six fields (second, minute, hour, day, month, weekday), in UTC, that happens sometimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron(String);

impl Cron {
    /// Reads an expression the way the scheduler will.
    ///
    /// # Errors
    /// [`Fault`] for another number of fields, values out of range, and dates that never come.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        const REMEDY: &str = "write six fields in quotes (second minute hour day month weekday, UTC), such as \
                              \"0 */5 * * * *\" for every five minutes";
        let fields = text.split_whitespace().count();
        if fields != 6 {
            return Err(Fault::new(
                format!("is a cron expression of {fields} fields instead of six"),
                REMEDY,
            ));
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .dom_and_dow(true)
            .build()
            .parse(text)
            .map_err(|_| Fault::new("is not a cron expression", REMEDY))?;
        let start = DateTime::from_timestamp(1_767_225_600, 0).expect("a constant in range");
        cron.find_next_occurrence(&start, false)
            .map_err(|_| Fault::new("names a time that never comes", REMEDY))?;
        Ok(Self(text.to_owned()))
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(Cron, "latchkey-cron");

/// Which events are logged: a level, or levels by module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`Fault`] when no level is one of error, warn, info, debug, trace, off.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        const REMEDY: &str = "write a level (error, warn, info, debug, trace), or levels by module such as info,latchkey=debug";
        if text.trim().is_empty() {
            return Err(Fault::new("is empty", REMEDY));
        }
        // A bare word that is no level would be read as the name of a module and silence everything else.
        let known = |word: &str| {
            matches!(
                word.to_ascii_lowercase().as_str(),
                "error" | "warn" | "info" | "debug" | "trace" | "off"
            )
        };
        let bare = text.split(',').map(str::trim);
        if bare
            .filter(|word| !word.contains(['=', '[', ']', '{', '}']))
            .any(|word| !known(word))
        {
            return Err(Fault::new("names a level that does not exist", REMEDY));
        }
        tracing_subscriber::EnvFilter::try_new(text)
            .map_err(|_| Fault::new("is not a log filter", REMEDY))?;
        Ok(Self(text.to_owned()))
    }

    /// The filter as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(LogFilter, "latchkey-log-filter");

/// The canonical id of a role of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// Looks the role up.
    ///
    /// # Errors
    /// [`Fault`] with the nearest role that exists.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if catalogue::find(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        let known = catalogue::ROLES.iter().map(|role| role.id);
        let remedy = nearest(text, known).map_or_else(
            || "write a canonical role id; `latchkey roles` lists them".to_owned(),
            |role| format!("write `{role}`, or another canonical role id"),
        );
        Err(Fault::new("is not a role that Latchkey knows", remedy))
    }

    /// The role id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

checked_text!(RoleName, "latchkey-role");

fn variable(text: &str) -> Result<(), Fault> {
    let fits = |(index, c): (usize, char)| {
        c.is_ascii_uppercase() || c == '_' || (index > 0 && c.is_ascii_digit())
    };
    if text.is_empty() || text.len() > 128 || !text.chars().enumerate().all(fits) {
        return Err(Fault::new(
            "is not the name of an environment variable",
            "write its name in upper-case letters, digits and '_', such as ELASTIC_API_KEY; never the key itself",
        ));
    }
    Ok(())
}

fn path(text: &str) -> Result<(), Fault> {
    const REMEDY: &str = "write an absolute path such as /var/lib/latchkey/ledger.db";
    if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err(Fault::new("is not a path", REMEDY));
    }
    Ok(())
}

fn aws_word(text: &str) -> Result<(), Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.@:-".contains(c);
    if text.is_empty() || text.len() > 2048 || !text.chars().all(fits) {
        return Err(Fault::new(
            "contains spaces or characters that secret stores do not allow there",
            "write it as the store shows it, such as latchkey/elastic or eu-west-1",
        ));
    }
    Ok(())
}

/// One part of a path at Google or Azure: what it contains can neither become another part nor a host.
fn cloud_name(text: &str) -> Result<(), Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 255 || !text.chars().all(fits) {
        return Err(Fault::new(
            "is not a name of a secret store in the cloud",
            "write only the last part of what the store shows: letters, digits, '-' and '_', such as elastic-key",
        ));
    }
    Ok(())
}

fn kubernetes_name(text: &str) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| plain(c) || c == '-' || c == '.';
    if text.len() > 253
        || !text.starts_with(plain)
        || !text.ends_with(plain)
        || !text.chars().all(inner)
    {
        return Err(Fault::new(
            "is not a Kubernetes name",
            "write lower-case letters, digits, '-' and '.', such as elastic-key",
        ));
    }
    Ok(())
}

/// The known word that is most likely meant, if one is near.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    known
        .map(|candidate| {
            let plain = plain(candidate);
            let similar = plain.starts_with(&word) || word.starts_with(&plain);
            let distance = strsim::damerau_levenshtein(&word, &plain);
            (
                if similar && word.len() > 2 {
                    1.min(distance)
                } else {
                    distance
                },
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().min(word.len()) / 3 + 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
