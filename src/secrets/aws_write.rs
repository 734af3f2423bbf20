//! Writing the key to AWS Secrets Manager: a new version under a token of its own.
//!
//! The service cannot compare and swap. What is there is looked at right before, and a version's token is spent once:
//! a write that was overtaken by another one with the same token never lands.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;
use aws_sdk_secretsmanager::operation::put_secret_value::PutSecretValueError;
use tokio::time::timeout;

use super::super::replace::{Change, change};
use super::{AwsSecret, FETCH_TIMEOUT, explain, unreachable};
use crate::ports::SecretStore as _;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

impl AwsSecret {
    pub(super) async fn write(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        timeout(FETCH_TIMEOUT, self.try_write(replacement))
            .await
            .unwrap_or_else(|_| Err(unreachable(&self.describe(), "timeout").into()))
    }

    async fn try_write(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        let place = self.describe();
        let answer = self.get().await?;
        let text = self.text(&answer)?;
        let text = match change(&place, text, &self.options.field, replacement)? {
            Change::Nothing => return Ok(()),
            Change::Write(text) => text,
        };
        let put = self
            .client()
            .await?
            .put_secret_value()
            .secret_id(&self.options.secret_id)
            .client_request_token(replacement.token)
            .secret_string(text.as_str())
            .version_stages(&self.options.version_stage)
            .send()
            .await;
        let Err(error) = put else {
            return Ok(());
        };
        let code = error
            .as_service_error()
            .and_then(PutSecretValueError::code)
            .unwrap_or_default();
        match code {
            "ResourceExistsException" => Err(ReplaceError::Changed { place }),
            "AccessDeniedException" => Err(SecretError::Denied {
                place,
                code: code.to_owned(),
                remedy: format!(
                    "allow this role secretsmanager:PutSecretValue on {} and, where the secret has its own key, \
                     kms:GenerateDataKey and kms:Decrypt on that",
                    self.options.secret_id
                ),
            }
            .into()),
            _ => Err(explain(&place, &self.options, &error).into()),
        }
    }
}
