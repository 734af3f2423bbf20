//! The key in AWS Secrets Manager, through the official SDK.
//!
//! Owns the calls, their time limits and the meaning of its errors. Credentials come from the SDK's default chain, web
//! identity included; none is ever configured here. Never caches the secret.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Region;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use crate::ports::SecretStore;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

use super::parse::parse_key;

/// How long one attempt of the call may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the call may take with its retries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a fetch may take in all: finding region and credentials, then the call. Without credentials the chain
/// ends with the instance metadata service, which outside of AWS nobody answers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The version that is asked for unless configured otherwise.
pub const CURRENT: &str = "AWSCURRENT";

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsOptions {
    /// Name or ARN of the secret.
    pub secret_id: String,
    /// Region; the SDK's default chain decides when it is not given.
    pub region: Option<String>,
    /// Another endpoint than the region's, for private endpoints and tests.
    pub endpoint_url: Option<String>,
    /// Staging label of the version, usually [`CURRENT`]. Always sent, so that a rotation switches keys exactly when
    /// the label moves.
    pub version_stage: String,
    /// Field that holds the key where the secret is a JSON object.
    pub field: String,
}

/// One secret of AWS Secrets Manager.
#[derive(Debug)]
pub struct AwsSecret {
    options: AwsOptions,
    client: OnceCell<Client>,
}

impl AwsSecret {
    /// Names the secret. Nothing is looked up before the first fetch, so that a missing credential cannot hold up
    /// the start.
    #[must_use]
    pub fn new(options: AwsOptions) -> Self {
        Self {
            options,
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> Result<&Client, SecretError> {
        self.client
            .get_or_try_init(|| async {
                let timeouts = TimeoutConfig::builder()
                    .connect_timeout(ATTEMPT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(OPERATION_TIMEOUT)
                    .build();
                let mut loader = aws_config::defaults(BehaviorVersion::latest())
                    .timeout_config(timeouts)
                    .retry_config(RetryConfig::standard().with_max_attempts(2));
                if let Some(region) = &self.options.region {
                    loader = loader.region(Region::new(region.clone()));
                }
                if let Some(endpoint) = &self.options.endpoint_url {
                    loader = loader.endpoint_url(endpoint);
                }
                let config = loader.load().await;
                if config.region().is_none() {
                    return Err(SecretError::Unavailable {
                        place: self.describe(),
                        code: "no_region".to_owned(),
                        remedy: "set `region` of the secret in the configuration, or AWS_REGION"
                            .to_owned(),
                    });
                }
                Ok(Client::new(&config))
            })
            .await
    }

    async fn ask(&self) -> Result<SecretString, SecretError> {
        let answer = self.get().await?;
        self.key(&answer)
    }

    async fn get(&self) -> Result<GetSecretValueOutput, SecretError> {
        self.client()
            .await?
            .get_secret_value()
            .secret_id(&self.options.secret_id)
            .version_stage(&self.options.version_stage)
            .send()
            .await
            .map_err(|error| explain(&self.describe(), &self.options, &error))
    }

    fn key(&self, answer: &GetSecretValueOutput) -> Result<SecretString, SecretError> {
        parse_key(&self.describe(), self.text(answer)?, &self.options.field)
    }

    fn text<'a>(&self, answer: &'a GetSecretValueOutput) -> Result<&'a str, SecretError> {
        let text = match (answer.secret_string(), answer.secret_binary()) {
            (Some(text), _) => Some(text),
            (None, Some(bytes)) => std::str::from_utf8(bytes.as_ref()).ok(),
            (None, None) => Some(""),
        };
        text.ok_or_else(|| SecretError::Malformed {
            place: self.describe(),
            problem: "it is binary".to_owned(),
            remedy: "store the key as text".to_owned(),
        })
    }
}

#[async_trait]
impl SecretStore for AwsSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.ask())
            .await
            .unwrap_or_else(|_| Err(unreachable(&self.describe(), "timeout")))
    }

    fn describe(&self) -> String {
        let region = self.options.region.as_deref().unwrap_or("default region");
        format!(
            "AWS Secrets Manager {} ({region}, {})",
            self.options.secret_id, self.options.version_stage
        )
    }

    fn can_replace(&self) -> bool {
        true
    }

    async fn replace(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        self.write(replacement).await
    }
}

fn unreachable(place: &str, code: &str) -> SecretError {
    SecretError::Unavailable {
        place: place.to_owned(),
        code: code.to_owned(),
        remedy: "check the region, `endpoint_url`, DNS and the way out to Secrets Manager (NAT or VPC endpoint); \
                 outside of AWS also that credentials are set"
            .to_owned(),
    }
}

fn no_credentials(place: &str, code: &str) -> SecretError {
    SecretError::Denied {
        place: place.to_owned(),
        code: code.to_owned(),
        remedy: "give this process AWS credentials: a role for its service account (IRSA or pod identity), an \
                 instance profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned(),
    }
}

/// Says what an SDK error means. Messages of the service are dropped, codes are kept.
fn explain<E, R>(place: &str, options: &AwsOptions, error: &SdkError<E, R>) -> SecretError
where
    E: Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + 'static,
{
    if let Some(found) = credentials_error(error) {
        let code = if matches!(found, CredentialsError::CredentialsNotLoaded(_)) {
            "no_credentials"
        } else if matches!(found, CredentialsError::ProviderTimedOut(_)) {
            "credentials_timeout"
        } else {
            "credentials_failed"
        };
        return no_credentials(place, code);
    }
    let Some(refused) = error.as_service_error() else {
        let timed_out = matches!(error, SdkError::TimeoutError(_))
            || matches!(error, SdkError::DispatchFailure(failure) if failure.is_timeout());
        let code = if timed_out {
            "timeout"
        } else if matches!(error, SdkError::DispatchFailure(_)) {
            "connect"
        } else if matches!(error, SdkError::ConstructionFailure(_)) {
            "bad_request"
        } else {
            "bad_answer"
        };
        return unreachable(place, code);
    };
    let code = refused.code().unwrap_or("unknown").to_owned();
    let place = place.to_owned();
    match code.as_str() {
        "ResourceNotFoundException" => SecretError::NotFound {
            place,
            remedy: format!(
                "create the secret in this region and account with a version staged {}, or correct `secret_id` and `region`",
                options.version_stage
            ),
        },
        "AccessDeniedException" => SecretError::Denied {
            place,
            code,
            remedy: format!(
                "allow this role secretsmanager:GetSecretValue on {} and, where the secret has its own key, kms:Decrypt on that",
                options.secret_id
            ),
        },
        "DecryptionFailure" => SecretError::Denied {
            place,
            code,
            remedy: "allow this role kms:Decrypt on the key of the secret, and check that the key is enabled".to_owned(),
        },
        "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidSignatureException"
        | "SignatureDoesNotMatch" | "ExpiredTokenException" | "ExpiredToken"
        | "RequestExpired" | "MissingAuthenticationToken" | "IncompleteSignature" => SecretError::Denied {
            place,
            code,
            remedy: "renew the AWS credentials of this process, and check that its clock is right".to_owned(),
        },
        "InvalidRequestException" => SecretError::Denied {
            place,
            code,
            remedy: "look whether the secret is scheduled for deletion, and restore it".to_owned(),
        },
        "InvalidParameterException" | "ValidationException" => SecretError::Denied {
            place,
            code,
            remedy: "correct `secret_id` and `version_stage` in the configuration".to_owned(),
        },
        _ => SecretError::Unavailable {
            place,
            code,
            remedy: "wait: Secrets Manager is throttling or failing; Latchkey asks again by itself".to_owned(),
        },
    }
}

fn credentials_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e CredentialsError> {
    let mut link = Some(error);
    while let Some(now) = link {
        if let Some(found) = now.downcast_ref::<CredentialsError>() {
            return Some(found);
        }
        link = now.source();
    }
    None
}

#[path = "aws_write.rs"]
mod write;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_secretsmanager::error::ErrorMetadata;
    use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
    use secrecy::ExposeSecret;

    fn options() -> AwsOptions {
        AwsOptions {
            secret_id: "latchkey/elastic".to_owned(),
            region: Some("eu-west-1".to_owned()),
            endpoint_url: None,
            version_stage: CURRENT.to_owned(),
            field: "api_key".to_owned(),
        }
    }

    fn refused(code: &str) -> SecretError {
        let error = GetSecretValueError::generic(
            ErrorMetadata::builder()
                .code(code)
                .message("HUSH is what the service said")
                .build(),
        );
        explain("the test", &options(), &SdkError::service_error(error, ()))
    }

    #[test]
    fn every_refusal_has_its_own_meaning_and_remedy() {
        let cases = [
            (
                "ResourceNotFoundException",
                "secret_not_found",
                "AWSCURRENT",
            ),
            (
                "AccessDeniedException",
                "secret_denied",
                "secretsmanager:GetSecretValue on latchkey/elastic",
            ),
            ("DecryptionFailure", "secret_denied", "kms:Decrypt"),
            ("ExpiredTokenException", "secret_denied", "renew"),
            ("InvalidRequestException", "secret_denied", "deletion"),
            ("ThrottlingException", "secret_unavailable", "wait"),
            ("InternalServiceError", "secret_unavailable", "wait"),
        ];
        for (code, expected, remedy) in cases {
            let error = refused(code);
            assert_eq!(error.code(), expected, "{code}");
            assert!(
                error.remedy().contains(remedy),
                "{code}: {}",
                error.remedy()
            );
            assert!(!format!("{error} {error:?}").contains("HUSH"), "{error:?}");
        }
    }

    #[test]
    fn missing_credentials_and_a_silent_service_are_told_apart() {
        let nothing = CredentialsError::not_loaded("nothing in the chain");
        let error: SdkError<GetSecretValueError, ()> = SdkError::construction_failure(nothing);
        let error = explain("the test", &options(), &error);
        assert!(
            matches!(&error, SecretError::Denied { code, .. } if code == "no_credentials"),
            "{error:?}"
        );
        let error: SdkError<GetSecretValueError, ()> = SdkError::timeout_error("too slow");
        let error = explain("the test", &options(), &error);
        assert!(
            matches!(&error, SecretError::Unavailable { code, .. } if code == "timeout"),
            "{error:?}"
        );
    }

    #[test]
    fn text_and_binary_secrets_give_the_key() {
        let store = AwsSecret::new(options());
        let text = GetSecretValueOutput::builder()
            .secret_string(r#"{"api_key":"essu_abc"}"#)
            .build();
        let binary = GetSecretValueOutput::builder()
            .secret_binary(aws_sdk_secretsmanager::primitives::Blob::new("essu_abc\n"))
            .build();
        for answer in [text, binary] {
            let key = store.key(&answer).map(|key| key.expose_secret().to_owned());
            assert_eq!(key.as_deref(), Ok("essu_abc"));
        }
        let nothing = GetSecretValueOutput::builder().build();
        assert!(store.key(&nothing).is_err());
    }
}
