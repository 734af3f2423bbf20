//! The key in Azure Key Vault, through the official SDK.
//!
//! Owns the call, its time limits and the meaning of its errors. The identity is that of the process: workload
//! identity, a client secret from the environment, or the managed identity of the machine; none is ever configured
//! here. Never caches the secret, and never writes one.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::{
    AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, Transport,
};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::models::{Secret, SecretClientGetSecretOptions};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use reqwest::Url;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use crate::ports::SecretStore;
use crate::ports::secrets::SecretError;

use super::parse::parse_key;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one call may take. None is repeated, except by the SDK to the managed identity of a machine: Latchkey asks
/// again by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a fetch may take in all: the vault's challenge, the token, then the call.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a machine asks for the token of its managed identity. The SDK knows no other address.
const METADATA_HOST: &str = "169.254.169.254";

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureOptions {
    /// Scheme and host of the vault.
    pub vault_url: Url,
    /// Name of the secret.
    pub secret: String,
    /// Which version; the newest one when it is not given.
    pub version: Option<String>,
    /// Field that holds the key where the secret is a JSON object.
    pub field: String,
}

/// One secret of Azure Key Vault.
pub struct AzureSecret {
    options: AzureOptions,
    /// Who this process is, if not whom its environment tells.
    identity: Option<Identity>,
    /// What answers in the place of [`METADATA_HOST`], if not that.
    metadata_server: Option<Url>,
    call_timeout: Duration,
    fetch_timeout: Duration,
    client: OnceCell<SecretClient>,
}

impl fmt::Debug for AzureSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds a token.
        f.debug_struct("AzureSecret")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Who this process is, in the words of the environment that Azure's own tools agree on.
#[derive(Debug, Clone, Default)]
struct Identity {
    tenant: Option<String>,
    client: Option<String>,
    token_file: Option<PathBuf>,
    client_secret: Option<SecretString>,
    /// Where tokens are asked for; the SDK decides when it is not given.
    authority: Option<String>,
}

impl Identity {
    fn of_this_process() -> Self {
        let word = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            tenant: word("AZURE_TENANT_ID"),
            client: word("AZURE_CLIENT_ID"),
            token_file: word("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            client_secret: word("AZURE_CLIENT_SECRET").map(SecretString::from),
            authority: None,
        }
    }

    /// The first of: workload identity, a client secret, the managed identity of the machine.
    fn credential(self, wire: Transport) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_options = ClientOptions {
            transport: Some(wire),
            retry: RetryOptions::none(),
            cloud: self.authority.map(|authority| {
                let mut cloud = CustomConfiguration::default();
                cloud.authority_host = authority;
                Arc::new(CloudConfiguration::Custom(cloud))
            }),
            ..ClientOptions::default()
        };
        if let Some(file) = self.token_file {
            return Ok(WorkloadIdentityCredential::new(Some(
                WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options },
                    client_id: self.client,
                    tenant_id: self.tenant,
                    token_file_path: Some(file),
                },
            ))?);
        }
        if let Some(secret) = self.client_secret {
            return Ok(ClientSecretCredential::new(
                &self.tenant.unwrap_or_default(),
                self.client.unwrap_or_default(),
                secret.expose_secret().to_owned().into(),
                Some(ClientSecretCredentialOptions { client_options }),
            )?);
        }
        Ok(ManagedIdentityCredential::new(Some(
            ManagedIdentityCredentialOptions {
                user_assigned_id: self.client.map(UserAssignedId::ClientId),
                client_options,
            },
        ))?)
    }
}

/// The way to Azure: this project's TLS, short limits, no redirects.
#[derive(Debug)]
struct Wire {
    client: reqwest::Client,
    /// A vault on this machine that speaks plain HTTP. The SDK shows a token to nobody without TLS, so it is told
    /// `https`, and what it sends there is put right here.
    plain: Option<Url>,
    /// What answers in the place of [`METADATA_HOST`], if not that.
    metadata_server: Option<Url>,
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        if let Some(server) = &self.metadata_server
            && request.url().host_str() == Some(METADATA_HOST)
        {
            let mut moved = server.clone();
            moved.set_path(request.url().path());
            moved.set_query(request.url().query());
            let mut request = request.clone();
            *request.url_mut() = moved;
            return self.client.execute_request(&request).await;
        }
        let here = |url: &Url| {
            (
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        if let Some(plain) = &self.plain {
            let mut open = request.url().clone();
            if open.set_scheme("http").is_ok() && here(&open) == here(plain) {
                let mut request = request.clone();
                *request.url_mut() = open;
                return self.client.execute_request(&request).await;
            }
        }
        self.client.execute_request(request).await
    }
}

impl AzureSecret {
    /// Names the secret. Nothing is looked up before the first fetch, so that a missing identity cannot hold up the
    /// start.
    #[must_use]
    pub fn new(options: AzureOptions) -> Self {
        Self {
            options,
            identity: None,
            metadata_server: None,
            call_timeout: CALL_TIMEOUT,
            fetch_timeout: FETCH_TIMEOUT,
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> Result<&SecretClient, SecretError> {
        self.client.get_or_try_init(|| async { self.made() }).await
    }

    fn made(&self) -> Result<SecretClient, SecretError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.call_timeout)
            .build()
            .map_err(|_| SecretError::Unavailable {
                place: self.describe(),
                code: "client".to_owned(),
                remedy: "look at the certificate authorities of this machine: no HTTPS client could be made"
                    .to_owned(),
            })?;
        let mut vault = self.options.vault_url.clone();
        let plain = (vault.scheme() == "http").then(|| vault.clone());
        let local = plain.is_some() && vault.set_scheme("https").is_ok();
        let wire = Transport::new(Arc::new(Wire {
            client,
            plain,
            metadata_server: self.metadata_server.clone(),
        }));
        let identity = self.identity.clone();
        let credential = identity
            .unwrap_or_else(Identity::of_this_process)
            .credential(wire.clone())
            .map_err(|_| self.no_identity("no_identity"))?;
        let options = SecretClientOptions {
            client_options: ClientOptions {
                transport: Some(wire),
                retry: RetryOptions::none(),
                ..ClientOptions::default()
            },
            // A vault elsewhere must ask for a token of its own domain, or it could pass it on to another one.
            verify_challenge_resource: Some(!local),
            ..SecretClientOptions::default()
        };
        SecretClient::new(vault.as_str(), credential, Some(options))
            .map_err(|_| self.unreachable("bad_url"))
    }

    async fn ask(&self) -> Result<SecretString, SecretError> {
        let options = SecretClientGetSecretOptions {
            secret_version: self.options.version.clone(),
            ..SecretClientGetSecretOptions::default()
        };
        let client = self.client().await?;
        let asked = client.get_secret(&self.options.secret, Some(options));
        let answer = asked.await.map_err(|error| self.explain(&error))?;
        let secret: Secret = answer.into_model().map_err(|error| self.explain(&error))?;
        let text = secret.value.as_deref().unwrap_or_default();
        parse_key(&self.describe(), text, &self.options.field)
    }

    /// Says what an SDK error means. Messages of the services are dropped, codes are kept.
    fn explain(&self, error: &Error) -> SecretError {
        let cause = Cause::of(error);
        let step = if cause.login { "login:" } else { "" };
        let Some(status) = cause.status else {
            return match cause.wire {
                Some(code) if cause.login => self.silent_login(&format!("{step}{code}")),
                Some(code) => self.unreachable(code),
                None if cause.login => self.no_identity("no_identity"),
                None => self.unreachable("bad_answer"),
            };
        };
        let code = format!("{step}http_{status}");
        let AzureOptions {
            secret, vault_url, ..
        } = &self.options;
        let vault = vault_url.host_str().unwrap_or_default();
        let vault = vault.split('.').next().unwrap_or_default();
        let place = self.describe();
        if cause.login {
            return if (400..=499).contains(&status) && status != 408 && status != 429 {
                self.no_identity(&code)
            } else {
                self.silent_login(&code)
            };
        }
        match status {
            404 => SecretError::NotFound {
                place,
                remedy: format!(
                    "create the secret (`az keyvault secret set --vault-name {vault} --name {secret} --file …`), or \
                     correct `vault_url`, `secret` and `version`"
                ),
            },
            403 => SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "give this identity the role Key Vault Secrets User on the secret {secret}, check that the vault's \
                     firewall lets this network in, and that the version is enabled and not expired"
                ),
            },
            401 => SecretError::Denied {
                place,
                code,
                remedy: "check that the vault belongs to the tenant of this identity, and that the clock is right"
                    .to_owned(),
            },
            400 => SecretError::Denied {
                place,
                code,
                remedy: "correct `secret` and `version` in the configuration".to_owned(),
            },
            408 | 429 | 500..=599 => SecretError::Unavailable {
                place,
                code,
                remedy: "wait: the vault is throttling or failing; Latchkey asks again by itself".to_owned(),
            },
            _ => SecretError::Unavailable {
                place,
                code,
                remedy: "check `vault_url`: it answered like something else than a key vault".to_owned(),
            },
        }
    }

    fn unreachable(&self, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "check that `vault_url` is that of the vault (https://NAME.vault.azure.net), DNS, and the way out \
                     to it (NAT or private endpoint)"
                .to_owned(),
        }
    }

    fn silent_login(&self, code: &str) -> SecretError {
        SecretError::Unavailable {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "let this process reach what gives out its tokens: login.microsoftonline.com port 443, or for a \
                     managed identity 169.254.169.254 port 80; with workload identity also check that the pod was \
                     given AZURE_FEDERATED_TOKEN_FILE"
                .to_owned(),
        }
    }

    fn no_identity(&self, code: &str) -> SecretError {
        SecretError::Denied {
            place: self.describe(),
            code: code.to_owned(),
            remedy: "give this process an identity of Azure: workload identity (client id at the service account, label \
                     azure.workload.identity/use at the pod, a federated credential for exactly this service account), \
                     AZURE_TENANT_ID with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or the managed identity of the machine"
                .to_owned(),
        }
    }
}

/// What an error of the SDK is about, without any of its words.
struct Cause {
    /// Whether it befell getting a token, not reading the secret.
    login: bool,
    /// The status that was answered.
    status: Option<u16>,
    /// Why nothing was answered.
    wire: Option<&'static str>,
}

impl Cause {
    fn of(error: &Error) -> Self {
        let mut cause = Self {
            login: false,
            status: None,
            wire: None,
        };
        let mut link: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(now) = link {
            if let Some(error) = now.downcast_ref::<Error>() {
                match error.kind() {
                    ErrorKind::Credential => cause.login = true,
                    ErrorKind::HttpResponse { status, .. } => cause.status = Some((*status).into()),
                    ErrorKind::Connection => cause.wire = Some("connect"),
                    ErrorKind::Io => cause.wire = Some("broken"),
                    ErrorKind::DataConversion | ErrorKind::Other => {}
                }
            }
            if now
                .downcast_ref::<reqwest::Error>()
                .is_some_and(reqwest::Error::is_timeout)
            {
                cause.wire = Some("timeout");
            }
            link = now.source();
        }
        cause
    }
}

#[async_trait]
impl SecretStore for AzureSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let asked = tokio::time::timeout(self.fetch_timeout, self.ask()).await;
        // Each call has a shorter limit of its own: only a managed identity is asked for again and again.
        asked.unwrap_or_else(|_| Err(self.silent_login("timeout")))
    }

    fn describe(&self) -> String {
        let AzureOptions {
            vault_url,
            secret,
            version,
            ..
        } = &self.options;
        let host = vault_url.host_str().unwrap_or_default();
        let version = version.as_deref().unwrap_or("newest version");
        format!("Azure Key Vault {secret} at {host} ({version})")
    }
}

#[cfg(test)]
#[path = "azure_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "azure_machine_tests.rs"]
mod machine_tests;
