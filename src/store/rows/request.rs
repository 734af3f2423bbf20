//! The row of a request id, there and back.
//!
//! Owns how its three kinds stand in columns. Never does I/O.

use super::{Unreadable, micros};
use crate::domain::Timestamp;
use crate::domain::ids::GrantId;
use crate::domain::request::Fingerprint;
use crate::ports::ledger::RequestRecord;

/// A request id as it stands in its table.
#[derive(Debug, Clone)]
pub(crate) struct RequestRow {
    pub(crate) caller: String,
    pub(crate) request_id: String,
    pub(crate) kind: &'static str,
    pub(crate) fingerprint: Option<String>,
    pub(crate) grant_id: Option<String>,
    pub(crate) remember_until: i64,
}

impl RequestRow {
    pub(crate) fn new(
        caller: &impl ToString,
        request_id: &impl ToString,
        record: &RequestRecord,
        remember_until: Timestamp,
    ) -> Self {
        let (kind, fingerprint, grant_id) = match record {
            RequestRecord::Grant { id, fingerprint } => {
                ("grant", Some(fingerprint), Some(id.to_string()))
            }
            RequestRecord::Done { fingerprint, grant } => (
                "done",
                Some(fingerprint),
                grant.as_ref().map(ToString::to_string),
            ),
            RequestRecord::Tombstone => ("tombstone", None, None),
        };
        Self {
            caller: caller.to_string(),
            request_id: request_id.to_string(),
            kind,
            fingerprint: fingerprint.map(|fingerprint| hex::encode(fingerprint.0)),
            grant_id,
            remember_until: micros(remember_until),
        }
    }
}

/// Reads a request id back.
pub(crate) fn request(
    kind: &str,
    fingerprint: Option<&str>,
    grant_id: Option<&str>,
) -> Result<RequestRecord, Unreadable> {
    let unreadable = |what, value: Option<&str>| Unreadable::Value {
        what,
        value: value.unwrap_or("nothing").to_owned(),
    };
    let fingerprint_of = || {
        let mut bytes = [0; 32];
        hex::decode_to_slice(fingerprint.unwrap_or_default(), &mut bytes)
            .map(|()| Fingerprint(bytes))
            .map_err(|_| unreadable("the fingerprint of a request id", fingerprint))
    };
    let grant = grant_id
        .map(|id| GrantId::parse(id).map_err(|_| unreadable("the grant of a request id", Some(id))))
        .transpose()?;
    match (kind, grant) {
        ("grant", Some(id)) => Ok(RequestRecord::Grant {
            id,
            fingerprint: fingerprint_of()?,
        }),
        ("done", grant) => Ok(RequestRecord::Done {
            fingerprint: fingerprint_of()?,
            grant,
        }),
        ("tombstone", _) => Ok(RequestRecord::Tombstone),
        _ => Err(unreadable("the kind of a request id", Some(kind))),
    }
}
