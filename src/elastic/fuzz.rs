//! What the fuzz targets of `tests/fuzz` reach in this module, and nobody else.
//!
//! Owns nothing: every function is a decoder with its answer turned into text. Never called by the program.

use std::fmt::Debug;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use url::Url;

use super::answer::{Head, parse_instant};
use super::ended::{Ended, Got, add_codes, good_bytes};
use super::path::Path;
use super::{assignments, listings, members, wire};
use crate::domain::Timestamp;
use crate::domain::assignment::{Assignment, ProjectType};
use crate::domain::ids::{Email, OrganizationId, UserId};
use crate::domain::observation::Interest;

/// The lists and records that are read besides the members.
pub const KINDS: [&str; 8] = [
    "organizations",
    "invitations",
    "keys",
    "made_key",
    "deployments",
    "projects",
    "roles",
    "failure",
];

fn organization() -> OrganizationId {
    OrganizationId::parse("198583657190").expect("a valid id")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

fn shown<T: Debug>(all: impl Iterator<Item = T>) -> String {
    format!("{:?}", all.collect::<Vec<_>>())
}

/// A list of members as one body: what was kept of it, and every assignment that it showed.
#[must_use]
pub fn members(body: &[u8], max_member: u64) -> Option<(String, Vec<Assignment>)> {
    let mut interest = Interest::user(UserId::parse("1014289666").expect("a valid id"));
    interest.merge(Interest::email(
        Email::parse("ada@example.com").expect("a valid address"),
    ));
    interest.pages.insert((None, 3));
    let shown = members::parse(body, &organization(), &interest, max_member).ok()?;
    let held = shown.members.values();
    let assignments = held.flat_map(|member| member.assignments.iter().cloned());
    Some((format!("{shown:?}"), assignments.collect()))
}

/// The body of another answer; `kind` is one of [`KINDS`]. What was read of it, as text.
#[must_use]
pub fn body(kind: &str, body: &[u8]) -> Option<String> {
    Some(match kind {
        "organizations" => format!("{:?}", read::<wire::Organizations>(body)?),
        "invitations" => {
            let list: wire::Invitations = read(body)?;
            let open = list.invitations.into_iter();
            shown(open.filter_map(|one| listings::open_invitation(one, &organization())))
        }
        "keys" => {
            let list: wire::ApiKeys = read(body)?;
            shown(list.keys.into_iter().map(|key| {
                let roles = assignments::read(key.role_assignments.as_ref(), "198583657190");
                let expires = key.expiration_date.as_str().and_then(parse_instant);
                (key.id, roles, expires)
            }))
        }
        "made_key" => {
            let wire::MadeApiKey {
                id,
                key,
                expiration_date,
            } = read(body)?;
            format!("{id:?} {} {expiration_date:?}", key.is_some())
        }
        "deployments" => {
            let list: wire::Deployments = read(body)?;
            shown(
                list.deployments
                    .into_iter()
                    .filter_map(listings::deployment),
            )
        }
        "projects" => {
            let list: wire::Projects = read(body)?;
            let kind = ProjectType::Security;
            shown(
                list.items
                    .into_iter()
                    .filter_map(|one| listings::project(one, kind)),
            )
        }
        "roles" => format!("{:?}", read::<wire::ProjectRolesById>(body)?),
        _ => format!("{:?}", read::<wire::Failure>(body)?),
    })
}

/// What an answer means: its status, headers and body. The texts that leave this module.
#[must_use]
pub fn meaning(
    status: u16,
    headers: &[(&str, &[u8])],
    body: &[u8],
    now: Timestamp,
    patience: Duration,
) -> Option<Vec<String>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        map.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    let status = StatusCode::from_u16(status).ok()?;
    let mut head = Head::read(status, &map, now, patience);
    assert!(
        head.retry_after.is_none_or(|after| after <= patience),
        "a wait that nobody bounded"
    );
    let got = Ok(Got::Bytes(body.to_vec()));
    add_codes(&mut head, &got);
    let mut words = head.codes.clone();
    words.push(head.code());
    words.extend(head.all_codes());
    words.extend(head.request_id.clone());
    let ended = Ended::Answered(head, got);
    if let Some(refusal) = ended.refusal() {
        assert!(good_bytes(&ended).is_none(), "refused and good at once");
        words.push(refusal.code().to_owned());
    }
    words.push(ended.unavailable());
    Some(words)
}

/// The body that names these assignments, read back.
#[must_use]
pub fn again(all: &[Assignment]) -> Vec<Assignment> {
    let body = assignments::write(all, organization().as_str());
    let body = serde_json::to_value(body).expect("it has a JSON form");
    let shown = assignments::read(Some(&body), organization().as_str());
    assert!(!shown.is_odd, "what we write is never odd");
    shown.assignments.into_iter().collect()
}

/// The address of a call about this member, and of one about this project.
#[must_use]
pub fn addresses(base: &Url, id: &str) -> [Option<Url>; 2] {
    let built = |words, then| Path::new(words).id(id)?.then(then).below(base);
    [
        built("/users", "/role_assignments"),
        built("/serverless/projects/security", "/roles"),
    ]
}
