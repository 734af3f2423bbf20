//! What the fuzz targets of `tests/fuzz` reach in this module, and nobody else.
//!
//! Owns nothing: every function is a decoder with its answer turned into text. Never called by the program.

use prost::Message;
use tonic::Code;

use super::{convert, listener, pb, render, status, token};
use crate::domain::assignment::Assignment;
use crate::service::{Result, ServiceError};

/// The requests whose fields are parsed into values.
pub const REQUESTS: [&str; 8] = [
    "create", "plan", "extend", "revoke", "bulk", "drain", "list", "explain",
];

/// A message of the wire, decoded, encoded and decoded again: nothing may be lost between.
fn decoded<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice()).expect("what we encoded");
    assert!(message == again, "a message changed on its way");
    Some(message)
}

/// Bytes as a request; `kind` is one of [`REQUESTS`]. `None` where they are no such message, else what became of its
/// fields: as text, or the status that the caller is told.
#[must_use]
pub fn request(kind: &str, bytes: &[u8]) -> Option<std::result::Result<String, String>> {
    let converted: Result<String> = match kind {
        "create" => {
            let message: pb::CreateGrantRequest = decoded(bytes)?;
            convert::request_id("request_id", message.request_id)
                .and_then(|_| convert::waits_for_access(message.wait))
                .and_then(|_| asked(message.spec))
        }
        "plan" => asked(decoded::<pb::PlanGrantRequest>(bytes)?.spec),
        "extend" => convert::extension(decoded(bytes)?).map(|one| format!("{one:?}")),
        "revoke" => convert::revocation(decoded(bytes)?).map(|one| format!("{one:?}")),
        "bulk" => convert::bulk(decoded(bytes)?).map(|one| format!("{one:?}")),
        "drain" => convert::drain(decoded(bytes)?).map(|one| format!("{one:?}")),
        "list" => {
            let message: pb::ListGrantsRequest = decoded(bytes)?;
            convert::page_size(message.page_size, 50)
                .and_then(|_| convert::filter(message.filter))
                .map(|one| format!("{one:?}"))
        }
        _ => {
            let message: pb::ExplainAccessRequest = decoded(bytes)?;
            convert::principal("member", message.member).map(|one| format!("{one:?}"))
        }
    };
    Some(converted.map_err(|error| told(&error)))
}

/// What is asked for; each target is written for the wire and read back.
fn asked(spec: Option<pb::GrantSpec>) -> Result<String> {
    let ask = convert::ask(spec)?;
    for target in &ask.targets {
        let given = Assignment {
            role: ask.role.clone(),
            target: target.clone(),
            application_roles: ask.application_roles.clone(),
        };
        let shown = render::assignment(given);
        let target_again = convert::target("target", shown.target.expect("always there"));
        assert!(
            target_again.as_ref().ok() == Some(target),
            "{target:?} is shown as another target"
        );
        let roles_again = convert::application_roles("roles", shown.application_roles);
        assert!(
            roles_again.as_ref().ok() == Some(&ask.application_roles),
            "stack roles are shown as others"
        );
    }
    Ok(format!("{ask:?}"))
}

fn told(error: &ServiceError) -> String {
    let told = status::status(error, || "fuzz".to_owned());
    assert!(
        told.code() == Code::InvalidArgument,
        "a request that is not well formed is the caller's doing: {told:?}"
    );
    told.message().to_owned()
}

/// The cursor of a token that was given, if it is taken for this call and filter.
#[must_use]
pub fn cursor(call: &str, filter: &str, text: &str) -> Option<String> {
    token::decode("page_token", call, filter, text)
        .ok()
        .flatten()
}

/// A token for a cursor.
#[must_use]
pub fn token(call: &str, filter: &str, cursor: &str) -> String {
    token::encode(call, filter, cursor)
}

/// How a connection stands after these bytes of its peer, however they are cut: `true` while a call is open.
#[must_use]
pub fn is_busy(bytes: &[u8], lengths: &[usize]) -> bool {
    listener::is_busy(bytes, lengths)
}
