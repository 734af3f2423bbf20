//! Writing the key to a Kubernetes Secret: a patch that holds only for the version that was read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::replace::{Change, change};
use super::{KubernetesSecret, below};
use crate::ports::secrets::{ReplaceError, Replacement, SecretError, digest};

#[derive(Deserialize)]
struct Shown {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl KubernetesSecret {
    pub(super) async fn write(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        let server = self.server()?;
        let token = self.account("token").await?;
        let namespace = self.namespace().await?;
        let name = &self.options.name;
        let segments = ["api", "v1", "namespaces", &namespace, "secrets", name];
        let url = below(&server, segments);
        let client = self.rest.client().await?;
        let read = client.get(url.clone()).bearer_auth(token.trim());
        let read = self.rest.send(read).await?;
        let place = &self.rest.place;
        let text = self.text(&read, &namespace)?;
        let text = match change(place, &text, &self.options.field, replacement)? {
            Change::Nothing => return Ok(()),
            Change::Write(text) => text,
        };
        let shown: Shown =
            serde_json::from_slice(&read.body).map_err(|_| self.rest.odd("bad_answer"))?;
        let encoded = Zeroizing::new(STANDARD.encode(text.as_bytes()));
        // A patch that changes nothing leaves the version as it is, and what is on its way against it could still land.
        let is_fence = digest(replacement.key) == replacement.expected;
        let mark = format!(
            "{}{}",
            replacement.token,
            if is_fence { "-undone" } else { "" }
        );
        let patch = json!({
            "metadata": {
                "resourceVersion": shown.metadata.resource_version,
                "annotations": {"latchkey/rotation": mark},
            },
            "data": {self.options.key.as_str(): encoded.as_str()},
        });
        let patch = Zeroizing::new(patch.to_string());
        let request = client
            .patch(url)
            .bearer_auth(token.trim())
            .header(
                reqwest::header::CONTENT_TYPE,
                "application/merge-patch+json",
            )
            .body(patch.as_bytes().to_vec());
        let answer = self.rest.send(request).await?;
        let code = format!("write:http_{}", answer.status.as_u16());
        let place = place.clone();
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::CONFLICT => Err(ReplaceError::Changed { place }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SecretError::Denied {
                place,
                code,
                remedy: format!(
                    "allow the service account of this pod to patch it: a Role in namespace {namespace} with resources \
                     [secrets], resourceNames [{name}], verbs [get, patch]"
                ),
            }
            .into()),
            StatusCode::UNPROCESSABLE_ENTITY => Err(SecretError::Denied {
                place,
                code,
                remedy: "look whether the Secret is immutable".to_owned(),
            }
            .into()),
            _ => Err(SecretError::Unavailable {
                place,
                code,
                remedy: "look at the API server; Latchkey tries again by itself".to_owned(),
            }
            .into()),
        }
    }
}
