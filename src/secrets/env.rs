//! The key in an environment variable: for trying things out. It cannot be rotated without a restart.
//!
//! Owns reading one variable. Never changes the environment.

use std::ffi::OsString;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::ports::SecretStore;
use crate::ports::secrets::SecretError;

use super::parse::parse_key;

/// An environment variable that holds the key.
#[derive(Debug)]
pub struct EnvSecret {
    name: String,
    field: String,
    read: fn(&str) -> Option<OsString>,
}

impl EnvSecret {
    /// Names the variable, and the field where it holds a JSON object.
    #[must_use]
    pub fn new(name: impl Into<String>, field: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            field: field.into(),
            read: |name| std::env::var_os(name),
        }
    }
}

#[async_trait]
impl SecretStore for EnvSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let place = self.describe();
        let text = (self.read)(&self.name).ok_or_else(|| SecretError::NotFound {
            place: place.clone(),
            remedy: format!(
                "set {} before Latchkey starts, or use another secret store",
                self.name
            ),
        })?;
        let text = text.into_string().map_err(|_| SecretError::Malformed {
            place: place.clone(),
            problem: "it is not UTF-8 text".to_owned(),
            remedy: format!("set {} to the bare key", self.name),
        })?;
        parse_key(&place, &text, &self.field)
    }

    fn describe(&self) -> String {
        format!("environment variable {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::parse::DEFAULT_FIELD;
    use secrecy::ExposeSecret;
    use std::os::unix::ffi::OsStringExt;

    #[tokio::test]
    async fn the_variable_gives_the_key_or_a_remedy_that_names_it() {
        let mut store = EnvSecret::new("ELASTIC_KEY", DEFAULT_FIELD);
        store.read = |name| (name == "ELASTIC_KEY").then(|| OsString::from("essu_abc\n"));
        let key = store
            .fetch()
            .await
            .map(|key| key.expose_secret().to_owned());
        assert_eq!(key.as_deref(), Ok("essu_abc"));
        store.read = |_| None;
        let error = store.fetch().await.expect_err("not set");
        assert_eq!(error.code(), "secret_not_found");
        assert!(error.remedy().contains("ELASTIC_KEY"));
        store.read = |_| Some(OsString::from_vec(vec![0xff]));
        assert_eq!(
            store.fetch().await.expect_err("not text").code(),
            "secret_malformed"
        );
    }
}
