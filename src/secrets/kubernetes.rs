//! The key in a Kubernetes Secret, read through the API with this pod's service account.
//!
//! Owns one `get` of one named Secret, and one `patch` where its key is rotated, so that a Role limited to that name is
//! enough. Never lists or watches. A Secret mounted as a volume needs none of this: that is a file.

use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{StatusCode, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::ports::SecretStore;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

use super::file::read_text;
use super::parse::{Found, field_of, parse_key};
use super::rest::{Answer, Rest, below};

/// Where Kubernetes puts token, certificate authority and namespace of a pod's service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the secret is.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// The API server; `None` for the one that Kubernetes names in the environment of every pod.
    pub api_server: Option<Url>,
    /// Folder with `token`, `ca.crt` and `namespace`, usually [`SERVICE_ACCOUNT`].
    pub service_account: PathBuf,
    /// Namespace of the Secret; `None` for this pod's own.
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
    /// Which entry of the Secret.
    pub key: String,
    /// Field that holds the key where that entry is a JSON object.
    pub field: String,
}

/// One Kubernetes Secret.
#[derive(Debug)]
pub struct KubernetesSecret {
    options: KubernetesOptions,
    rest: Rest,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl KubernetesSecret {
    /// Names the Secret. Nothing is read before the first fetch.
    #[must_use]
    pub fn new(options: KubernetesOptions) -> Self {
        let namespace = options.namespace.as_deref().unwrap_or("own namespace");
        let encrypted = options
            .api_server
            .as_ref()
            .is_none_or(|url| url.scheme() == "https");
        let rest = Rest {
            place: format!(
                "Kubernetes Secret {namespace}/{} ({})",
                options.name, options.key
            ),
            authority: encrypted.then(|| options.service_account.join("ca.crt")),
            redirect: false,
        };
        Self { options, rest }
    }

    fn server(&self) -> Result<Url, SecretError> {
        if let Some(url) = &self.options.api_server {
            return Ok(url.clone());
        }
        let read = |name| std::env::var(name).ok();
        address(
            read("KUBERNETES_SERVICE_HOST"),
            read("KUBERNETES_SERVICE_PORT"),
        )
        .ok_or_else(|| SecretError::Unavailable {
            place: self.rest.place.clone(),
            code: "no_api_server".to_owned(),
            remedy: "run Latchkey in a pod, or set `api_server` of the secret".to_owned(),
        })
    }

    async fn account(&self, file: &str) -> Result<Zeroizing<String>, SecretError> {
        let path = self.options.service_account.join(file);
        read_text(&path).await.map_err(|problem| SecretError::Denied {
            place: self.rest.place.clone(),
            code: format!("service_account_{file}:{problem}"),
            remedy: format!(
                "mount the service account's token at {}: set automountServiceAccountToken, or project it",
                self.options.service_account.display()
            ),
        })
    }

    async fn namespace(&self) -> Result<String, SecretError> {
        match &self.options.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => Ok(self.account("namespace").await?.trim().to_owned()),
        }
    }

    fn key(&self, answer: &Answer, namespace: &str) -> Result<SecretString, SecretError> {
        let text = self.text(answer, namespace)?;
        parse_key(&self.rest.place, &text, &self.options.field)
    }

    /// What the entry of the Secret holds.
    fn text(&self, answer: &Answer, namespace: &str) -> Result<Zeroizing<String>, SecretError> {
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer.status, namespace));
        }
        let place = &self.rest.place;
        let object: Object<'_> =
            serde_json::from_slice(&answer.body).map_err(|_| self.rest.odd("bad_answer"))?;
        let missing = || SecretError::NotFound {
            place: place.clone(),
            remedy: format!(
                "add the entry `{}` to the Secret, or name the right one with `key`",
                self.options.key
            ),
        };
        let data = object
            .data
            .map(RawValue::get)
            .filter(|text| text.starts_with('{'))
            .ok_or_else(missing)?;
        let encoded = match field_of(data, &self.options.key) {
            Ok(Found::One(encoded)) => encoded,
            Ok(Found::None) => return Err(missing()),
            Ok(_) | Err(_) => return Err(self.rest.odd("bad_answer")),
        };
        let bytes = STANDARD
            .decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| self.rest.odd("bad_answer"))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::Malformed {
            place: place.clone(),
            problem: "it is not UTF-8 text".to_owned(),
            remedy: "store the bare key".to_owned(),
        })?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn refused(&self, status: StatusCode, namespace: &str) -> SecretError {
        let place = self.rest.place.clone();
        let code = format!("http_{}", status.as_u16());
        let name = &self.options.name;
        match status.as_u16() {
            404 => SecretError::NotFound {
                place,
                remedy: format!(
                    "create the Secret {name} in namespace {namespace}, or correct `name` and `namespace`"
                ),
            },
            401 => SecretError::Denied {
                place,
                code,
                remedy:
                    "look whether the projected token is that of a service account of this cluster"
                        .to_owned(),
            },
            403 => SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "allow the service account of this pod to get it: a Role in namespace {namespace} with resources \
                     [secrets], resourceNames [{name}], verbs [get], and its RoleBinding"
                ),
            },
            _ => SecretError::Unavailable {
                place,
                code,
                remedy: "look at the API server; Latchkey asks again by itself".to_owned(),
            },
        }
    }
}

/// The address that Kubernetes puts into the environment of a pod.
fn address(host: Option<String>, port: Option<String>) -> Option<Url> {
    let (host, port) = (host?, port?);
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    Url::parse(&format!("https://{host}:{port}")).ok()
}

#[async_trait]
impl SecretStore for KubernetesSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let server = self.server()?;
        // Read afresh each time: Kubernetes replaces the token well before it expires.
        let token = self.account("token").await?;
        let namespace = self.namespace().await?;
        let segments = [
            "api",
            "v1",
            "namespaces",
            &namespace,
            "secrets",
            &self.options.name,
        ];
        let request = self
            .rest
            .client()
            .await?
            .get(below(&server, segments))
            .bearer_auth(token.trim());
        let answer = self.rest.send(request).await?;
        self.key(&answer, &namespace)
    }

    fn describe(&self) -> String {
        self.rest.place.clone()
    }

    fn can_replace(&self) -> bool {
        true
    }

    async fn replace(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        self.write(replacement).await
    }
}

#[path = "kubernetes_write.rs"]
mod write;

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
