//! Writing the key to Vault or OpenBao: check-and-set on the version that was read.

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::super::replace::{Change, change};
use super::{FETCH_TIMEOUT, VaultSecret, below};
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: VersionedData<'a>,
}

#[derive(Deserialize)]
struct VersionedData<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

impl VaultSecret {
    pub(super) async fn write(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        timeout(FETCH_TIMEOUT, self.try_write(replacement))
            .await
            .unwrap_or_else(|_| {
                Err(SecretError::Unavailable {
                    place: self.rest.place.clone(),
                    code: "timeout".to_owned(),
                    remedy: "look at the store and the network: it answers too slowly".to_owned(),
                }
                .into())
            })
    }

    async fn try_write(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        let client = self.rest.client().await?;
        // A login of its own: a write is rare, and the one that is kept may end in between.
        let session = self.log_in(&client).await?;
        let read = self.read(&client, &session.token).await?;
        // Says what is wrong, in the words of a fetch.
        self.key(&read)?;
        let shown: Versioned<'_> =
            serde_json::from_slice(&read.body).map_err(|_| self.rest.odd("bad_answer"))?;
        let place = &self.rest.place;
        let text = match change(
            place,
            shown.data.data.get(),
            &self.options.field,
            replacement,
        )? {
            Change::Nothing => return Ok(()),
            Change::Write(text) => text,
        };
        let body = Zeroizing::new(format!(
            "{{\"options\":{{\"cas\":{}}},\"data\":{}}}",
            shown.data.metadata.version,
            text.as_str()
        ));
        let options = &self.options;
        let segments = ["v1"].into_iter().chain(options.mount.split('/'));
        let segments = segments.chain(["data"]).chain(options.path.split('/'));
        let mut token = reqwest::header::HeaderValue::from_str(session.token.expose_secret())
            .map_err(|_| self.rest.odd("bad_token"))?;
        token.set_sensitive(true);
        let request = client
            .post(below(&options.address, segments))
            .header("X-Vault-Token", token)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body.as_bytes().to_vec());
        let answer = self.rest.send(self.namespaced(request)).await?;
        let code = format!("write:http_{}", answer.status.as_u16());
        let place = place.clone();
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            // The version is another one by now.
            StatusCode::BAD_REQUEST => Err(ReplaceError::Changed { place }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "give this identity a policy with: path \"{}/data/{}\" {{ capabilities = [\"read\", \"update\"] }}",
                    options.mount, options.path
                ),
            }
            .into()),
            _ => Err(SecretError::Unavailable {
                place,
                code,
                remedy: "look at the store's log; Latchkey tries again by itself".to_owned(),
            }
            .into()),
        }
    }
}
