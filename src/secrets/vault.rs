//! The key in HashiCorp Vault or OpenBao, in a key-value engine of version 2.
//!
//! Owns logging in (token file, AppRole, Kubernetes), keeping the session until it nears its end, reading one secret,
//! writing it by check-and-set, and the meaning of the store's answers. Never caches the secret.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::ports::SecretStore;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

use super::file::read_text;
use super::parse::parse_key;
use super::rest::{Answer, Rest, below};

/// How long a fetch may take in all: logging in and reading, each once more when the session was ended early.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the secret is and how to log in.
#[derive(Debug, Clone)]
pub struct VaultOptions {
    /// Scheme, host and port.
    pub address: Url,
    /// Namespace, for editions that have them.
    pub namespace: Option<String>,
    /// Where the key-value engine is mounted.
    pub mount: String,
    /// Path of the secret below the mount.
    pub path: String,
    /// Field that holds the key.
    pub field: String,
    /// PEM certificates of the authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: VaultAuth,
}

/// How to log in.
#[derive(Debug, Clone)]
pub enum VaultAuth {
    /// A token that something else keeps fresh in a file.
    Token {
        /// The file.
        file: PathBuf,
    },
    /// A role id and a secret id.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Which role.
        role_id: String,
        /// The file with the secret id.
        secret_id_file: PathBuf,
    },
    /// The service account of this pod.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// Which role.
        role: String,
        /// The file with the service account's token.
        token_file: PathBuf,
    },
}

/// A login that was granted.
#[derive(Debug)]
struct Session {
    token: SecretString,
    /// When it should be renewed by another login; `None` for one without an end.
    until: Option<Instant>,
}

/// One secret of Vault or OpenBao.
#[derive(Debug)]
pub struct VaultSecret {
    options: VaultOptions,
    rest: Rest,
    session: Mutex<Option<Session>>,
}

#[derive(Deserialize)]
struct Login {
    auth: LoginAuth,
}

#[derive(Deserialize)]
struct LoginAuth {
    client_token: SecretString,
    #[serde(default)]
    lease_duration: u64,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    data: ReadData<'a>,
}

#[derive(Deserialize)]
struct ReadData<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl VaultSecret {
    /// Names the secret. Nothing is asked before the first fetch.
    #[must_use]
    pub fn new(options: VaultOptions) -> Self {
        let rest = Rest {
            place: place(&options),
            authority: options.ca_file.clone(),
            redirect: true,
        };
        Self {
            options,
            rest,
            session: Mutex::new(None),
        }
    }

    async fn ask(&self) -> Result<SecretString, SecretError> {
        let client = self.rest.client().await?;
        // Held over the calls: fetches that coincide share one login.
        let mut session = self.session.lock().await;
        let now = Instant::now();
        let kept = session
            .take()
            .filter(|session| session.until.is_none_or(|until| now < until));
        let fresh = kept.is_none();
        let held = match kept {
            Some(held) => held,
            None => self.log_in(&client).await?,
        };
        let answer = self.read(&client, &held.token).await?;
        if answer.status == StatusCode::FORBIDDEN && !fresh {
            // The session was ended early: revoked, or the store was replaced. A file may hold a newer token, too.
            let again = self.log_in(&client).await?;
            let answer = self.read(&client, &again.token).await?;
            return self.key(&answer).inspect(|_| *session = Some(again));
        }
        self.key(&answer).inspect(|_| *session = Some(held))
    }

    async fn log_in(&self, client: &Client) -> Result<Session, SecretError> {
        let (mount, body) = match &self.options.auth {
            VaultAuth::Token { file } => {
                return Ok(Session {
                    token: self.file(file, "auth.token.file").await?,
                    until: None,
                });
            }
            VaultAuth::AppRole {
                mount,
                role_id,
                secret_id_file,
            } => {
                let secret_id = self
                    .file(secret_id_file, "auth.approle.secret_id_file")
                    .await?;
                let body = json!({"role_id": role_id, "secret_id": secret_id.expose_secret()});
                (mount, Zeroizing::new(body.to_string()))
            }
            VaultAuth::Kubernetes {
                mount,
                role,
                token_file,
            } => {
                let jwt = self.file(token_file, "auth.kubernetes.token_file").await?;
                let body = json!({"role": role, "jwt": jwt.expose_secret()});
                (mount, Zeroizing::new(body.to_string()))
            }
        };
        let segments = ["v1", "auth"].into_iter().chain(mount.split('/'));
        let url = below(&self.options.address, segments.chain(["login"]));
        let request = self
            .namespaced(client.post(url))
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body.as_bytes().to_vec());
        let asked = Instant::now();
        let answer = self.rest.send(request).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer, Step::Login));
        }
        let login: Login =
            serde_json::from_slice(&answer.body).map_err(|_| self.rest.odd("bad_answer"))?;
        let lasts = Duration::from_secs(login.auth.lease_duration);
        Ok(Session {
            token: login.auth.client_token,
            // Renewed at nine tenths of its life, counted from before it was asked for.
            until: (!lasts.is_zero()).then(|| asked + lasts * 9 / 10),
        })
    }

    async fn file(&self, path: &std::path::Path, key: &str) -> Result<SecretString, SecretError> {
        read_text(path)
            .await
            .map(|text| SecretString::from(text.trim()))
            .map_err(|problem| SecretError::Denied {
                place: self.rest.place.clone(),
                code: format!("{key}:{problem}"),
                remedy: format!(
                    "put what to log in with at {}, or correct `{key}`",
                    path.display()
                ),
            })
    }

    async fn read(&self, client: &Client, token: &SecretString) -> Result<Answer, SecretError> {
        let options = &self.options;
        let mut header =
            reqwest::header::HeaderValue::from_str(token.expose_secret()).map_err(|_| {
                SecretError::Denied {
                    place: self.rest.place.clone(),
                    code: "bad_token".to_owned(),
                    remedy: "store only the token in the token file".to_owned(),
                }
            })?;
        header.set_sensitive(true);
        let segments = ["v1"].into_iter().chain(options.mount.split('/'));
        let segments = segments.chain(["data"]).chain(options.path.split('/'));
        let request = client
            .get(below(&options.address, segments))
            .header("X-Vault-Token", header);
        self.rest.send(self.namespaced(request)).await
    }

    fn namespaced(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        // Asked of agents and proxies: a request that another site made a browser send has no such header.
        let request = request.header("X-Vault-Request", "true");
        match &self.options.namespace {
            Some(namespace) => request.header("X-Vault-Namespace", namespace),
            None => request,
        }
    }

    fn key(&self, answer: &Answer) -> Result<SecretString, SecretError> {
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer, Step::Read));
        }
        let read: Read<'_> =
            serde_json::from_slice(&answer.body).map_err(|_| SecretError::Malformed {
                place: self.rest.place.clone(),
                problem: "the answer is not that of a key-value engine of version 2".to_owned(),
                remedy: "correct `mount`, or upgrade the engine to version 2".to_owned(),
            })?;
        let text = read.data.data.get();
        if !text.starts_with('{') {
            return Err(self.not_found());
        }
        parse_key(&self.rest.place, text, &self.options.field)
    }

    fn not_found(&self) -> SecretError {
        SecretError::NotFound {
            place: self.rest.place.clone(),
            remedy: format!(
                "write the key with `vault kv put -mount={} {} {}=…`, or correct `mount` and `path` (without `data/`)",
                self.options.mount, self.options.path, self.options.field
            ),
        }
    }

    /// Says what a refusal means. The store's own words are dropped, its status is kept.
    fn refused(&self, answer: &Answer, step: Step) -> SecretError {
        let place = self.rest.place.clone();
        let status = answer.status.as_u16();
        let step_name = match step {
            Step::Login => "login",
            Step::Read => "read",
        };
        let code = format!("{step_name}:http_{status}");
        match (status, step) {
            (404, Step::Read) => self.not_found(),
            (400 | 401 | 403 | 404 | 405, Step::Login) => SecretError::Denied {
                place,
                code,
                remedy: match &self.options.auth {
                    VaultAuth::AppRole { mount, .. } => format!(
                        "check that AppRole is enabled at `{mount}`, the role id, and that the secret id is neither \
                         expired nor used up; issue a new secret id if in doubt"
                    ),
                    VaultAuth::Kubernetes { mount, role, .. } => format!(
                        "check that Kubernetes authentication is enabled at `{mount}` and that role `{role}` is bound \
                         to this pod's namespace and service account"
                    ),
                    VaultAuth::Token { .. } => "renew the token in its file".to_owned(),
                },
            },
            (401 | 403, Step::Read) => SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "give this identity a policy with: path \"{}/data/{}\" {{ capabilities = [\"read\"] }}; a token of \
                     a file may have expired",
                    self.options.mount, self.options.path
                ),
            },
            (400 | 405, Step::Read) => SecretError::Malformed {
                place,
                problem: format!("the store did not understand the request ({code})"),
                remedy: "correct `mount` and `path`; the engine must be key-value of version 2".to_owned(),
            },
            (503, _) => SecretError::Unavailable {
                place,
                code,
                remedy: "unseal the store, or wait until its maintenance is over; Latchkey asks again by itself"
                    .to_owned(),
            },
            _ => SecretError::Unavailable {
                place,
                code,
                remedy: "look at the store's log: it is failing, throttling or a stand-by without a way to the active \
                         server; Latchkey asks again by itself"
                    .to_owned(),
            },
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Login,
    Read,
}

fn place(options: &VaultOptions) -> String {
    let host = options.address.host_str().unwrap_or_default();
    format!("Vault {}/{} at {host}", options.mount, options.path)
}

#[async_trait]
impl SecretStore for VaultSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.ask())
            .await
            .unwrap_or_else(|_| {
                Err(SecretError::Unavailable {
                    place: self.describe(),
                    code: "timeout".to_owned(),
                    remedy: "look at the store and the network: it answers too slowly".to_owned(),
                })
            })
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

#[path = "vault_write.rs"]
mod write;

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
