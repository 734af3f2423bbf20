//! Secret stores: AWS Secrets Manager, a mounted file, an environment variable.
//!
//! Owns fetching the Elastic Cloud key and saying plainly why it cannot be had. Never caches, logs or repeats a
//! secret, in errors neither.

#[cfg(feature = "aws")]
pub mod aws;
pub mod env;
pub mod file;
pub mod parse;

#[cfg(feature = "aws")]
pub use aws::{AwsOptions, AwsSecret};
pub use env::EnvSecret;
pub use file::FileSecret;
