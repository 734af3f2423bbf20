//! The key in Google Secret Manager, through the official SDK.
//!
//! Owns the call, its time limits and the meaning of its errors. Credentials are those that the SDK finds by itself
//! (workload identity, a file that GOOGLE_APPLICATION_CREDENTIALS names); none is ever configured here. Never caches
//! the secret, and never writes one.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use crc::{CRC_32_ISCSI, Crc};
use google_cloud_auth::credentials::{self, Credentials};
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::error::{CredentialsError, Error};
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_secretmanager_v1::client::SecretManagerService;
use google_cloud_secretmanager_v1::model::AccessSecretVersionResponse;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::ports::SecretStore;
use crate::ports::secrets::SecretError;

use super::parse::parse_key;

/// How long the call may take. It is not repeated: Latchkey asks again by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a fetch may take in all: finding credentials, then the call. The SDK itself sets no limit to the first.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A variable by which the SDK writes every answer into the log, the secret with it.
const SDK_LOGS: &str = "GOOGLE_CLOUD_RUST_LOGGING";

/// The checksum that Secret Manager keeps of every version, CRC32C.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleOptions {
    /// Id or number of the project.
    pub project: String,
    /// Name of the secret.
    pub secret: String,
    /// A number, an alias, or `latest`.
    pub version: String,
    /// Location of a regional secret.
    pub location: Option<String>,
    /// Another endpoint than Google's, for private endpoints and tests.
    pub endpoint_url: Option<String>,
    /// Field that holds the key where the secret is a JSON object.
    pub field: String,
}

/// One secret of Google Secret Manager.
pub struct GoogleSecret {
    options: GoogleOptions,
    /// Where credentials are asked for, if not where the SDK looks by itself.
    metadata_server: Option<String>,
    /// Whether the SDK was told to log what it is answered.
    sdk_logs: bool,
    call_timeout: Duration,
    fetch_timeout: Duration,
    /// Dropped whenever credentials fail or nothing is heard: the SDK asks for tokens in the background, gives up for
    /// good where it takes a refusal for permanent, and waits without an end for a server that is silent.
    client: Mutex<Option<SecretManagerService>>,
}

impl fmt::Debug for GoogleSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds a token.
        f.debug_struct("GoogleSecret")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl GoogleSecret {
    /// Names the secret. Nothing is looked up before the first fetch, so that a missing credential cannot hold up
    /// the start.
    #[must_use]
    pub fn new(options: GoogleOptions) -> Self {
        Self {
            options,
            metadata_server: None,
            sdk_logs: std::env::var_os(SDK_LOGS).is_some_and(|said| said == "true"),
            call_timeout: CALL_TIMEOUT,
            fetch_timeout: FETCH_TIMEOUT,
            client: Mutex::new(None),
        }
    }

    async fn client(&self) -> Result<SecretManagerService, SecretError> {
        // Held over the calls: fetches that coincide share one set of credentials.
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref() {
            return Ok(client.clone());
        }
        let mut builder = SecretManagerService::builder()
            .with_credentials(self.credentials()?)
            .with_attempt_timeout(self.call_timeout)
            .with_retry_policy(NeverRetry);
        if let Some(endpoint) = self.endpoint() {
            builder = builder.with_endpoint(endpoint);
        }
        let client = builder.build().await.map_err(|error| {
            if error.is_universe_domain_mismatch() {
                return SecretError::Denied {
                    place: self.describe(),
                    code: "universe_domain".to_owned(),
                    remedy: "set GOOGLE_CLOUD_UNIVERSE_DOMAIN to the universe that the credentials belong to"
                        .to_owned(),
                };
            }
            self.unreachable("client")
        })?;
        Ok(held.insert(client).clone())
    }

    fn credentials(&self) -> Result<Credentials, SecretError> {
        let built = match &self.metadata_server {
            Some(server) => credentials::mds::Builder::default()
                .with_endpoint(server.as_str())
                .build(),
            None => credentials::Builder::default().build(),
        };
        built.map_err(|error| {
            let code = if error.is_loading() {
                "credentials_file_unreadable"
            } else {
                "credentials_file_unusable"
            };
            self.no_credentials(code)
        })
    }

    fn endpoint(&self) -> Option<String> {
        let regional =
            |location: &String| format!("https://secretmanager.{location}.rep.googleapis.com");
        let given = self.options.endpoint_url.clone();
        given.or_else(|| self.options.location.as_ref().map(regional))
    }

    fn name(&self) -> String {
        let GoogleOptions {
            project,
            secret,
            version,
            location,
            ..
        } = &self.options;
        match location {
            Some(location) => {
                format!(
                    "projects/{project}/locations/{location}/secrets/{secret}/versions/{version}"
                )
            }
            None => format!("projects/{project}/secrets/{secret}/versions/{version}"),
        }
    }

    async fn ask(&self) -> Result<SecretString, SecretError> {
        if self.sdk_logs {
            return Err(SecretError::Denied {
                place: self.describe(),
                code: "sdk_logs_secrets".to_owned(),
                remedy: format!(
                    "start Latchkey without {SDK_LOGS}: with it the SDK of Google would write the key into the log"
                ),
            });
        }
        let client = self.client().await?;
        let asked = client.access_secret_version().set_name(self.name());
        match asked.send().await {
            Ok(answer) => self.key(&answer),
            Err(error) => {
                let refused = error.http_status_code() == Some(401);
                if refused || credentials_error(&error).is_some() {
                    self.forget();
                }
                Err(self.explain(&error))
            }
        }
    }

    /// Makes the next fetch look for credentials anew. Where another one is at it already, nothing is left to do.
    fn forget(&self) {
        if let Ok(mut held) = self.client.try_lock() {
            *held = None;
        }
    }

    fn key(&self, answer: &AccessSecretVersionResponse) -> Result<SecretString, SecretError> {
        let place = self.describe();
        let payload = answer.payload.as_ref();
        let data = payload.map_or(&[][..], |payload| &payload.data[..]);
        // The SDK hands the sum on and leaves comparing to us. An answer without one has nothing to compare.
        let sum = payload.and_then(|payload| payload.data_crc32c);
        if sum.is_some_and(|sum| sum != i64::from(CHECKSUM.checksum(data))) {
            return Err(SecretError::Unavailable {
                place,
                code: "checksum_mismatch".to_owned(),
                remedy: "wait: what arrived is not what Secret Manager sent, by its checksum; Latchkey asks again by \
                         itself. If it stays so, look at what stands between (`endpoint_url`, proxies)"
                    .to_owned(),
            });
        }
        let text = std::str::from_utf8(data).map_err(|_| SecretError::Malformed {
            place: place.clone(),
            problem: "it is binary".to_owned(),
            remedy: "store the key as text".to_owned(),
        })?;
        parse_key(&place, text, &self.options.field)
    }

    /// Says what an SDK error means. Messages of the service are dropped, codes are kept.
    fn explain(&self, error: &Error) -> SecretError {
        if let Some(cause) = credentials_error(error) {
            return if cause.is_transient() {
                self.silent_credentials("credentials_unreachable")
            } else {
                self.no_credentials("no_credentials")
            };
        }
        let Some(status) = error.http_status_code() else {
            return self.unreachable(if error.is_timeout() {
                "timeout"
            } else if error.is_connect() {
                "connect"
            } else if error.is_binding() {
                "bad_request"
            } else if error.is_deserialization() || error.is_transport() {
                "bad_answer"
            } else {
                "broken"
            });
        };
        let place = self.describe();
        let said = error.status().map(|said| said.code);
        let code = said.map_or_else(|| format!("http_{status}"), |said| said.name().to_owned());
        let GoogleOptions {
            project, secret, ..
        } = &self.options;
        match status {
            404 => SecretError::NotFound {
                place,
                remedy: format!(
                    "create the secret with that version (`gcloud secrets versions add {secret} --project={project} \
                     --data-file=-`), or correct `project`, `secret`, `location` and `version`"
                ),
            },
            403 => SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "give this identity roles/secretmanager.secretAccessor on the secret {secret}, and check that the \
                     Secret Manager API is enabled in project {project} and no perimeter of VPC Service Controls is in \
                     the way"
                ),
            },
            401 => SecretError::Denied {
                place,
                code,
                remedy: "renew the Google credentials of this process, and check that its clock is right".to_owned(),
            },
            400 if said == Some(Code::FailedPrecondition) => SecretError::Denied {
                place,
                code,
                remedy: "enable that version of the secret, or name another one in `version`: it is disabled or \
                         destroyed"
                    .to_owned(),
            },
            400 => SecretError::Denied {
                place,
                code,
                remedy: "correct `project`, `secret`, `location` and `version` in the configuration".to_owned(),
            },
            429 | 500..=599 => SecretError::Unavailable {
                place,
                code,
                remedy: "wait: Secret Manager is throttling or failing; Latchkey asks again by itself".to_owned(),
            },
            _ => SecretError::Unavailable {
                place,
                code,
                remedy: "check `endpoint_url`: it answered like something else than Secret Manager".to_owned(),
            },
        }
    }

    fn unreachable(&self, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "check `location`, `endpoint_url`, DNS and the way out to secretmanager.googleapis.com (NAT or \
                     Private Google Access)"
                .to_owned(),
        }
    }

    fn silent_credentials(&self, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "let this process reach what gives out its tokens: on GKE the metadata server, 169.254.169.254 \
                     port 80 and 169.254.169.252 port 988; outside of Google Cloud set \
                     GOOGLE_APPLICATION_CREDENTIALS"
                .to_owned(),
        }
    }

    fn no_credentials(&self, code: &str) -> SecretError {
        SecretError::Denied {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "give this process Google credentials: workload identity for its service account \
                     (roles/iam.workloadIdentityUser), a service account of the machine, or a file that \
                     GOOGLE_APPLICATION_CREDENTIALS names"
                .to_owned(),
        }
    }
}

/// The failed attempt to get a token, where that is what an error is about.
fn credentials_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e CredentialsError> {
    let mut link = Some(error);
    while let Some(now) = link {
        if let Some(found) = now.downcast_ref::<CredentialsError>() {
            return Some(found);
        }
        link = now.source();
    }
    None
}

#[async_trait]
impl SecretStore for GoogleSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let asked = tokio::time::timeout(self.fetch_timeout, self.ask()).await;
        // The call has a shorter limit of its own, so it was the token that did not come.
        asked.unwrap_or_else(|_| {
            self.forget();
            Err(self.silent_credentials("credentials_timeout"))
        })
    }

    fn describe(&self) -> String {
        format!("Google Secret Manager {}", self.name())
    }
}

#[cfg(test)]
#[path = "google_tests.rs"]
mod tests;
