//! A URL with a path, such as that of a webhook.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::{Fault, schema};
use crate::domain::host::is_loopback;

/// A URL with a path and nothing that could be secret. Plain HTTP only to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads and checks a URL.
    ///
    /// # Errors
    /// [`Fault`] for other schemes, plain HTTP to other machines, and URLs with user, query or fragment.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        const REMEDY: &str = "write it as https://siem.example.com/hooks/latchkey";
        let instead = "requests are signed with the secret";
        Ok(Self(parsed(text, REMEDY, instead, "the audit")?))
    }

    /// The URL.
    #[must_use]
    pub fn get(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A URL that holds nothing secret and leaves this machine encrypted. `instead` says where credentials belong, and
/// `shown` what plain HTTP would show.
pub(super) fn parsed(
    text: &str,
    remedy: &'static str,
    instead: &str,
    shown: &str,
) -> Result<Url, Fault> {
    let url = Url::parse(text).map_err(|_| Fault::new("is not a URL", remedy))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(Fault::new("has a scheme other than https", remedy));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new(
            "carries a user name or password",
            format!("write the URL without them; {instead}"),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Fault::new("carries a query or fragment", remedy));
    }
    if url.host().is_none() {
        return Err(Fault::new("has no host", remedy));
    }
    if url.scheme() == "http" && !is_loopback(url.host_str()) {
        return Err(Fault::new(
            format!("is plain HTTP to another machine, which would show {shown} to the network"),
            "write https instead of http",
        ));
    }
    Ok(url)
}

checked_text!(Endpoint, "latchkey-endpoint");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_path_and_no_secret_and_leaves_the_machine_encrypted() {
        for good in [
            "https://siem.example.com/hooks/latchkey",
            "https://siem.example.com:8443",
            "http://127.0.0.1:1/x",
            "http://[::1]/",
            "http://localhost:9000/hook",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("siem.example.com/hook", "not a URL"),
            ("ftp://siem.example.com/hook", "scheme"),
            ("http://siem.example.com/hook", "plain HTTP"),
            ("http://10.0.0.1/hook", "plain HTTP"),
            ("https://user:HUSH@siem.example.com/", "user name"),
            ("https://siem.example.com/?token=HUSH", "query"),
            ("https://siem.example.com/#x", "query or fragment"),
        ] {
            let fault = Endpoint::parse(bad).expect_err(bad);
            assert!(fault.problem.contains(said), "{bad}: {fault}");
            assert!(!fault.to_string().contains("HUSH"), "{fault}");
        }
    }
}
