//! Where the key of an integration is.
//!
//! Owns naming the place and how to log in there. Never holds a key, and never fetches one.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::text::{self, HttpUrl};

/// Where the key is; exactly one place. A key itself is never written here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Secret {
    /// A secret of AWS Secrets Manager, read with the credentials of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secrets_manager: Option<AwsSecretsManager>,
    /// A secret of Google Secret Manager, read with the credentials of this process. It is only ever read: rotating the
    /// key needs another place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google_secret_manager: Option<GoogleSecretManager>,
    /// A secret of Azure Key Vault, read with the identity of this process. It is only ever read: rotating the key needs
    /// another place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure_key_vault: Option<AzureKeyVault>,
    /// A secret of HashiCorp Vault or OpenBao, in a key-value engine of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultSource>,
    /// A Kubernetes Secret, read through the API. A Secret that is mounted as a volume is a `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSource>,
    /// A mounted file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    /// An environment variable; it cannot be rotated without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvSource>,
}

/// The place that a [`Secret`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretSource<'c> {
    /// AWS Secrets Manager.
    Aws(&'c AwsSecretsManager),
    /// Google Secret Manager.
    Google(&'c GoogleSecretManager),
    /// Azure Key Vault.
    Azure(&'c AzureKeyVault),
    /// Vault or OpenBao.
    Vault(&'c VaultSource),
    /// A Kubernetes Secret.
    Kubernetes(&'c KubernetesSource),
    /// A file.
    File(&'c FileSource),
    /// An environment variable.
    Env(&'c EnvSource),
}

impl Secret {
    /// The one place that is named; `None` only for values that were not read from a checked configuration.
    #[must_use]
    pub fn source(&self) -> Option<SecretSource<'_>> {
        let aws = self.aws_secrets_manager.as_ref().map(SecretSource::Aws);
        let google = self
            .google_secret_manager
            .as_ref()
            .map(SecretSource::Google);
        let azure = self.azure_key_vault.as_ref().map(SecretSource::Azure);
        let vault = self.vault.as_ref().map(SecretSource::Vault);
        let kubernetes = self.kubernetes.as_ref().map(SecretSource::Kubernetes);
        let file = self.file.as_ref().map(SecretSource::File);
        let env = self.env.as_ref().map(SecretSource::Env);
        let clouds = aws.or(google).or(azure);
        clouds.or(vault).or(kubernetes).or(file).or(env)
    }

    /// Why a key that is kept here cannot be replaced, where that is certain before anything is asked.
    pub(super) fn unwritable(&self) -> Option<&'static str> {
        let places = [
            (
                self.env.is_some(),
                "cannot be kept: a key in an environment variable cannot be replaced",
            ),
            (
                self.google_secret_manager.is_some(),
                "cannot be kept: Latchkey only reads from Google Secret Manager",
            ),
            (
                self.azure_key_vault.is_some(),
                "cannot be kept: Latchkey only reads from Azure Key Vault",
            ),
        ];
        let mut named = places.into_iter().filter(|(named, _)| *named);
        named.next().map(|(_, problem)| problem)
    }
}

/// A secret of AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSecretsManager {
    /// Name or ARN of the secret.
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub secret_id: String,
    /// Its region. Left out, the default of the AWS SDK decides (AWS_REGION and so on).
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub region: Option<String>,
    /// Another endpoint than the region's, for private endpoints.
    #[serde(default)]
    pub endpoint_url: Option<HttpUrl>,
    /// Staging label of the version that is read. Always sent, so that a rotation switches when the label moves.
    #[serde(default = "current")]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub version_stage: String,
    /// Field that holds the key where the secret is a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

/// A secret of Google Secret Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoogleSecretManager {
    /// Id of the project that holds the secret, or its number in quotes.
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub project: String,
    /// Name of the secret, without `projects/`.
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub secret: String,
    /// Which version: a number in quotes, an alias, or `latest`, which switches when another version is added.
    #[serde(default = "latest")]
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub version: String,
    /// Location of a regional secret, such as europe-west3. Left out, the secret is a global one.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub location: Option<String>,
    /// Another endpoint than Google's, for private endpoints. Plain HTTP only to this machine.
    #[serde(default)]
    pub endpoint_url: Option<HttpUrl>,
    /// Field that holds the key where the secret is a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

/// A secret of Azure Key Vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AzureKeyVault {
    /// The vault, such as <https://latchkey.vault.azure.net>. Plain HTTP only to this machine.
    pub vault_url: HttpUrl,
    /// Name of the secret.
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub secret: String,
    /// Which version. Left out, the newest one, which switches when another version is added.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::cloud_name")]
    pub version: Option<String>,
    /// Field that holds the key where the secret is a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

/// A secret of HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultSource {
    /// Scheme, host and port, such as <https://vault.example.com:8200>. Plain HTTP only to this machine.
    pub address: HttpUrl,
    /// Namespace, for editions that have them.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub namespace: Option<String>,
    /// Where the key-value engine of version 2 is mounted.
    #[serde(default = "secret_mount")]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub mount: String,
    /// Path of the secret below the mount, without `data/`.
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub path: String,
    /// Field of the secret that holds the key.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
    /// PEM certificates of the authority that signed the server's certificate, where the machine does not know it.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::path")]
    pub ca_file: Option<PathBuf>,
    /// How to log in; exactly one way.
    pub auth: VaultLogin,
}

/// How to log in to Vault; exactly one way. Nothing secret is written here: only where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct VaultLogin {
    /// A token that something else keeps fresh in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<VaultToken>,
    /// A role id and a secret id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approle: Option<VaultAppRole>,
    /// The service account of this pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<VaultKubernetes>,
}

/// The way that a [`VaultLogin`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultWay<'c> {
    /// A token in a file.
    Token(&'c VaultToken),
    /// A role id and a secret id.
    AppRole(&'c VaultAppRole),
    /// A service account.
    Kubernetes(&'c VaultKubernetes),
}

impl VaultLogin {
    /// The one way that is named; `None` only for values that were not read from a checked configuration.
    #[must_use]
    pub fn way(&self) -> Option<VaultWay<'_>> {
        let token = self.token.as_ref().map(VaultWay::Token);
        let approle = self.approle.as_ref().map(VaultWay::AppRole);
        let kubernetes = self.kubernetes.as_ref().map(VaultWay::Kubernetes);
        token.or(approle).or(kubernetes)
    }
}

/// A token in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultToken {
    /// The file, read anew at every login.
    #[schemars(schema_with = "text::schemas::path")]
    pub file: PathBuf,
}

/// A role id and a secret id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultAppRole {
    /// Where the method is mounted.
    #[serde(default = "approle_mount")]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub mount: String,
    /// Which role.
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub role_id: String,
    /// The file with the secret id, read anew at every login.
    #[schemars(schema_with = "text::schemas::path")]
    pub secret_id_file: PathBuf,
}

/// The service account of this pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultKubernetes {
    /// Where the method is mounted.
    #[serde(default = "kubernetes_mount")]
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub mount: String,
    /// Which role.
    #[schemars(schema_with = "text::schemas::aws_word")]
    pub role: String,
    /// The file with the service account's token, read anew at every login.
    #[serde(default = "account_token")]
    #[schemars(schema_with = "text::schemas::path")]
    pub token_file: PathBuf,
}

/// A Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSource {
    /// Its namespace. Left out, this pod's own.
    #[serde(default)]
    #[schemars(schema_with = "text::schemas::kubernetes_name")]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(schema_with = "text::schemas::kubernetes_name")]
    pub name: String,
    /// Which entry of it.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Field that holds the key where that entry is a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
    /// The API server. Left out, the one that Kubernetes names to every pod.
    #[serde(default)]
    pub api_server: Option<HttpUrl>,
    /// Folder with token, certificate authority and namespace of the service account.
    #[serde(default = "service_account")]
    #[schemars(schema_with = "text::schemas::path")]
    pub service_account: PathBuf,
}

/// A mounted file that holds the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// Its path. It is read anew at every refresh.
    #[schemars(schema_with = "text::schemas::path")]
    pub path: PathBuf,
    /// Field that holds the key where the file is a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

/// An environment variable that holds the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvSource {
    /// Its name.
    #[schemars(schema_with = "text::schemas::variable")]
    pub name: String,
    /// Field that holds the key where the variable holds a JSON object.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

fn current() -> String {
    "AWSCURRENT".to_owned()
}

fn latest() -> String {
    "latest".to_owned()
}

fn field() -> String {
    "api_key".to_owned()
}

fn secret_mount() -> String {
    "secret".to_owned()
}

fn approle_mount() -> String {
    "approle".to_owned()
}

fn kubernetes_mount() -> String {
    "kubernetes".to_owned()
}

fn service_account() -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount")
}

fn account_token() -> PathBuf {
    service_account().join("token")
}

impl Secret {
    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        let places = [
            self.aws_secrets_manager.is_some(),
            self.google_secret_manager.is_some(),
            self.azure_key_vault.is_some(),
            self.vault.is_some(),
            self.kubernetes.is_some(),
            self.file.is_some(),
            self.env.is_some(),
        ];
        if places.into_iter().filter(|named| *named).count() != 1 {
            // The schema counts keys; this catches keys without a value as well.
            problems.add(
                path,
                "does not name exactly one place",
                "write exactly one of `aws_secrets_manager`, `google_secret_manager`, `azure_key_vault`, `vault`, \
                 `kubernetes`, `file`, `env`",
            );
        }
        if let Some(file) = &self.file {
            absolute(&format!("{path}.file.path"), &file.path, problems);
        }
        if let Some(vault) = &self.vault {
            vault.check(&format!("{path}.vault"), problems);
        }
        if let Some(kubernetes) = &self.kubernetes {
            let path = format!("{path}.kubernetes.service_account");
            absolute(&path, &kubernetes.service_account, problems);
        }
        let built = [
            (
                "aws_secrets_manager",
                "aws",
                cfg!(feature = "aws"),
                self.aws_secrets_manager.is_some(),
            ),
            (
                "google_secret_manager",
                "google",
                cfg!(feature = "google"),
                self.google_secret_manager.is_some(),
            ),
            (
                "azure_key_vault",
                "azure",
                cfg!(feature = "azure"),
                self.azure_key_vault.is_some(),
            ),
            (
                "vault",
                "vault",
                cfg!(feature = "vault"),
                self.vault.is_some(),
            ),
            (
                "kubernetes",
                "kubernetes",
                cfg!(feature = "kubernetes"),
                self.kubernetes.is_some(),
            ),
        ];
        for (store, feature, built, wanted) in built {
            if wanted && !built {
                problems.add(
                    format!("{path}.{store}"),
                    "is not part of this build",
                    format!("write `file` or `env` instead, or build with the feature `{feature}`"),
                );
            }
        }
    }
}

impl VaultSource {
    fn check(&self, path: &str, problems: &mut Problems) {
        let Some(way) = self.auth.way() else {
            problems.add(
                format!("{path}.auth"),
                "names no way to log in",
                "write one of `token`, `approle`, `kubernetes`",
            );
            return;
        };
        let (name, file, mount) = match way {
            VaultWay::Token(token) => ("token.file", &token.file, None),
            VaultWay::AppRole(role) => (
                "approle.secret_id_file",
                &role.secret_id_file,
                Some(("approle.mount", &role.mount)),
            ),
            VaultWay::Kubernetes(account) => (
                "kubernetes.token_file",
                &account.token_file,
                Some(("kubernetes.mount", &account.mount)),
            ),
        };
        absolute(&format!("{path}.auth.{name}"), file, problems);
        if let Some(ca) = &self.ca_file {
            absolute(&format!("{path}.ca_file"), ca, problems);
        }
        let named = [
            (format!("{path}.mount"), &self.mount),
            (format!("{path}.path"), &self.path),
        ];
        let mount = mount.map(|(name, mount)| (format!("{path}.auth.{name}"), mount));
        for (path, text) in named.into_iter().chain(mount) {
            if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
                problems.add(
                    path,
                    "has an empty part, or one of `.` and `..`",
                    "write it as `vault kv get -mount=MOUNT PATH` takes it, such as secret and latchkey/elastic",
                );
            }
        }
    }
}

fn absolute(key: &str, path: &Path, problems: &mut Problems) {
    if !path.is_absolute() {
        problems.add(
            key,
            "is relative, so what is read would depend on where Latchkey is started",
            "write an absolute path such as /run/secrets/elastic-key",
        );
    }
}
