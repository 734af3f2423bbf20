//! Secret stores: AWS Secrets Manager, Google Secret Manager, Azure Key Vault, Vault or OpenBao, a Kubernetes Secret, a
//! mounted file, an environment variable.
//!
//! Owns fetching the Elastic Cloud key, putting another in its place, and saying plainly why that cannot be. Never
//! caches, logs or repeats a secret, in errors neither.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
pub mod env;
pub mod file;
#[cfg(feature = "google")]
pub mod google;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod parse;
mod replace;
#[cfg(any(feature = "kubernetes", feature = "vault"))]
mod rest;
#[cfg(all(test, any(feature = "azure", feature = "google", feature = "vault")))]
mod test_support;
#[cfg(feature = "vault")]
pub mod vault;

#[cfg(feature = "aws")]
pub use aws::{AwsOptions, AwsSecret};
#[cfg(feature = "azure")]
pub use azure::{AzureOptions, AzureSecret};
pub use env::EnvSecret;
pub use file::FileSecret;
#[cfg(feature = "google")]
pub use google::{GoogleOptions, GoogleSecret};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{KubernetesOptions, KubernetesSecret};
#[cfg(feature = "vault")]
pub use vault::{VaultAuth, VaultOptions, VaultSecret};
