//! The list of members, read while it arrives.
//!
//! Owns what is kept of it and whether it proves absence. Memory is bounded by what is asked for, never by the size
//! of the organization. A list that ends early is an error, not a short list.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokio::sync::mpsc;

use super::answer::parse_instant;
use super::{assignments, wire};
use crate::domain::ids::{Email, OrganizationId, UserId};
use crate::domain::observation::{Incomplete, Interest, ObservedMember, meet};
use crate::domain::sight::Recognized;

/// Top-level fields that say, when they hold anything, that there is more.
const MORE: [&str; 8] = [
    "next_page",
    "next",
    "cursor",
    "from",
    "next_cursor",
    "next_page_token",
    "has_more",
    "scroll_id",
];
/// Top-level fields that count the members of all pages.
const COUNTS: [&str; 3] = ["total", "total_count", "match_count"];
/// Owners that are told apart by id; an organization with more of them is in no danger of losing its last.
const MAX_OWNERS: usize = 10_000;
/// Characters kept of a name.
const MAX_NAME: usize = 256;

/// A piece of the body on its way to the parser.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The body ended as it should.
    End,
}

/// What was kept and counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) members: BTreeMap<UserId, ObservedMember>,
    pub(super) total: usize,
    pub(super) owners: usize,
    pub(super) incomplete: Option<Incomplete>,
    pub(super) recognized: Vec<Recognized>,
}

/// Reads pieces as one body. A channel that closes without an end is a broken body.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Pieces {
    pub(super) fn new(receiver: mpsc::Receiver<Piece>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Counts what one member takes and refuses a larger one before it is in memory.
struct Counted<R> {
    inner: R,
    since: Rc<Cell<u64>>,
    limit: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let since = self.since.get() + count as u64;
        if since > self.limit {
            return Err(io::Error::other("one member is larger than allowed"));
        }
        self.since.set(since);
        Ok(count)
    }
}

/// Parses a whole body.
pub(super) fn parse(
    body: impl Read,
    organization: &OrganizationId,
    interest: &Interest,
    max_member: u64,
) -> Result<Shown, serde_json::Error> {
    let since = Rc::new(Cell::new(0));
    let reader = Counted {
        inner: io::BufReader::new(body),
        since: Rc::clone(&since),
        limit: max_member,
    };
    let mut filter = Filter {
        organization,
        interest,
        since,
        kept: BTreeMap::new(),
        pages: interest.pages.iter().map(|_| BTreeMap::new()).collect(),
        recognized: interest.recognize(),
        total: 0,
        owner_ids: BTreeSet::new(),
        owners: 0,
        other_organization: false,
        more_pages: false,
        ambiguous: false,
        told_total: None,
        seen_list: false,
    };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    Body(&mut filter).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(filter.finish())
}

struct Filter<'a> {
    organization: &'a OrganizationId,
    interest: &'a Interest,
    since: Rc<Cell<u64>>,
    kept: BTreeMap<UserId, ObservedMember>,
    /// One for each page of interest, in order.
    pages: Vec<BTreeMap<UserId, ObservedMember>>,
    recognized: Vec<Recognized>,
    total: usize,
    owner_ids: BTreeSet<UserId>,
    owners: usize,
    other_organization: bool,
    more_pages: bool,
    ambiguous: bool,
    told_total: Option<u64>,
    seen_list: bool,
}

impl Filter<'_> {
    fn take(&mut self, member: wire::Member) {
        let wire::Member {
            organization_id,
            user_id,
            member_since,
            name,
            email,
            role_assignments,
        } = member;
        self.total += 1;
        if organization_id
            .as_str()
            .is_some_and(|id| id != self.organization.as_str())
        {
            self.other_organization = true;
            return;
        }
        let parsed = (
            user_id.into_string().and_then(|id| UserId::parse(id).ok()),
            member_since.as_str().and_then(parse_instant),
            organization_id.as_str(),
        );
        let (Some(user_id), Some(member_since), Some(_)) = parsed else {
            self.ambiguous = true;
            return;
        };
        let shown = assignments::read(role_assignments.as_ref(), self.organization.as_str());
        if shown.is_owner {
            self.count_owner(&user_id);
        }
        let email = email
            .into_string()
            .and_then(|email| Email::parse(email).ok());
        let wanted = self.interest.users.contains(&user_id)
            || email
                .as_ref()
                .is_some_and(|email| self.interest.emails.contains(email));
        let on_a_page = self
            .interest
            .pages
            .iter()
            .any(|(after, _)| after.as_ref().is_none_or(|after| user_id > *after));
        let is_known = self
            .interest
            .known
            .iter()
            .any(|known| known.contains(&user_id));
        if !wanted && !on_a_page && !is_known {
            return;
        }
        if (wanted || is_known) && shown.is_odd {
            self.ambiguous = true;
        }
        let observed = ObservedMember {
            user_id,
            member_since,
            email,
            name: name
                .into_string()
                .map(|name| name.chars().take(MAX_NAME).collect())
                .unwrap_or_default(),
            assignments: shown.assignments,
        };
        let (differs, again) = meet(&mut self.recognized, &observed);
        self.ambiguous |= again;
        for ((after, limit), page) in self.interest.pages.iter().zip(&mut self.pages) {
            if after
                .as_ref()
                .is_some_and(|after| observed.user_id <= *after)
            {
                continue;
            }
            let full = page.len() >= *limit;
            let beyond = page
                .last_key_value()
                .is_none_or(|(last, _)| observed.user_id > *last);
            if full && beyond {
                continue;
            }
            self.ambiguous |= keep(page, observed.clone());
            if page.len() > *limit {
                page.pop_last();
            }
        }
        if wanted || differs {
            self.ambiguous |= keep(&mut self.kept, observed);
        }
    }

    fn count_owner(&mut self, user: &UserId) {
        if self.owner_ids.len() < MAX_OWNERS {
            self.owners += usize::from(self.owner_ids.insert(user.clone()));
        } else {
            self.owners += usize::from(!self.owner_ids.contains(user));
        }
    }

    fn finish(self) -> Shown {
        let Self {
            mut kept,
            pages,
            total,
            owners,
            other_organization,
            more_pages,
            ambiguous,
            told_total,
            recognized,
            ..
        } = self;
        let counted_more = told_total.is_some_and(|told| told > total as u64);
        let incomplete = if other_organization {
            Some(Incomplete::OtherOrganization)
        } else if more_pages || counted_more {
            Some(Incomplete::MorePages)
        } else if owners == 0 {
            Some(Incomplete::KeyIsNotOwner)
        } else if ambiguous {
            Some(Incomplete::Ambiguous)
        } else {
            None
        };
        for page in pages {
            kept.extend(page);
        }
        Shown {
            members: kept,
            total,
            owners,
            incomplete,
            recognized,
        }
    }
}

/// Keeps a member; answers whether that id was there already. What either shows is shown.
fn keep(kept: &mut BTreeMap<UserId, ObservedMember>, observed: ObservedMember) -> bool {
    match kept.get_mut(&observed.user_id) {
        Some(first) => {
            first.assignments.extend(observed.assignments);
            true
        }
        None => {
            kept.insert(observed.user_id.clone(), observed);
            false
        }
    }
}

/// The top-level object.
struct Body<'f, 'a>(&'f mut Filter<'a>);

impl<'de> DeserializeSeed<'de> for Body<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let filter = self.0;
        while let Some(field) = map.next_key::<String>()? {
            if field == "members" {
                if std::mem::replace(&mut filter.seen_list, true) {
                    return Err(A::Error::custom("members stands twice"));
                }
                map.next_value_seed(List(filter))?;
            } else if MORE.contains(&field.as_str()) {
                let value: Value = map.next_value()?;
                filter.more_pages |= !matches!(value, Value::Null | Value::Bool(false));
            } else if COUNTS.contains(&field.as_str()) {
                filter.told_total = filter.told_total.max(map.next_value::<Value>()?.as_u64());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            filter.since.set(0);
        }
        if filter.seen_list {
            Ok(())
        } else {
            Err(A::Error::missing_field("members"))
        }
    }
}

/// The list itself.
struct List<'f, 'a>(&'f mut Filter<'a>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of members")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let filter = self.0;
        filter.since.set(0);
        while let Some(member) = list.next_element()? {
            filter.take(member);
            filter.since.set(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("valid id")
    }

    fn member(id: &str, owner: bool) -> Value {
        let roles = if owner {
            json!({"organization": [{"role_id": "organization-admin", "organization_id": "7"}]})
        } else {
            json!({})
        };
        json!({"organization_id": "7", "user_id": id, "member_since": "2026-01-01T00:00:00Z",
               "email": format!("{id}@example.com"), "role_assignments": roles})
    }

    fn read(body: &Value, interest: &Interest) -> Shown {
        let organization = OrganizationId::parse("7").expect("valid id");
        parse(
            body.to_string().as_bytes(),
            &organization,
            interest,
            1 << 20,
        )
        .expect("well formed")
    }

    fn ids(shown: &Shown) -> Vec<&str> {
        shown.members.keys().map(UserId::as_str).collect()
    }

    #[test]
    fn only_members_of_interest_are_kept_and_all_are_counted() {
        let list: Vec<_> = (100..200)
            .map(|n| member(&n.to_string(), n == 150))
            .collect();
        let body = json!({"members": list, "new_field": {"deep": [1, 2]}});
        let mut interest = Interest::user(user("120"));
        interest.merge(Interest::email(
            Email::parse("130@EXAMPLE.com").expect("valid"),
        ));
        interest.pages.insert((Some(user("195")), 2));
        interest.pages.insert((None, 1));
        let shown = read(&body, &interest);
        assert_eq!(ids(&shown), ["100", "120", "130", "196", "197"]);
        assert_eq!(
            (shown.total, shown.owners, shown.incomplete),
            (100, 1, None)
        );
    }

    #[test]
    fn pages_do_not_depend_on_the_order_of_the_list() {
        let list: Vec<_> = [5, 3, 9, 1, 7]
            .iter()
            .map(|n| member(&n.to_string(), true))
            .collect();
        let interest = Interest {
            pages: BTreeSet::from([(Some(user("1")), 2)]),
            ..Interest::default()
        };
        assert_eq!(ids(&read(&json!({"members": list}), &interest)), ["3", "5"]);
    }

    #[test]
    fn every_reason_for_doubt_makes_the_read_incomplete() {
        let owner = member("1", true);
        let foreign =
            json!({"organization_id": "8", "user_id": "2", "member_since": "2026-01-01T00:00:00Z"});
        let garbled =
            json!({"organization_id": "7", "user_id": 2, "member_since": "2026-01-01T00:00:00Z"});
        let undated = json!({"organization_id": "7", "user_id": "2", "member_since": "once"});
        let interest = Interest::user(user("1"));
        for (body, expected) in [
            (json!({"members": [owner]}), None),
            (
                json!({"members": [owner], "next_page": null, "has_more": false}),
                None,
            ),
            (
                json!({"members": [owner], "next_page": "x"}),
                Some(Incomplete::MorePages),
            ),
            (
                json!({"from": 100, "members": [owner]}),
                Some(Incomplete::MorePages),
            ),
            (
                json!({"members": [owner], "total": 2}),
                Some(Incomplete::MorePages),
            ),
            (
                json!({"members": [member("1", false)]}),
                Some(Incomplete::KeyIsNotOwner),
            ),
            (json!({"members": null}), Some(Incomplete::KeyIsNotOwner)),
            (
                json!({"members": [owner, foreign]}),
                Some(Incomplete::OtherOrganization),
            ),
            (
                json!({"members": [owner, garbled]}),
                Some(Incomplete::Ambiguous),
            ),
            (
                json!({"members": [owner, undated]}),
                Some(Incomplete::Ambiguous),
            ),
            (
                json!({"members": [owner, owner]}),
                Some(Incomplete::Ambiguous),
            ),
        ] {
            assert_eq!(read(&body, &interest).incomplete, expected, "{body}");
        }
    }

    #[test]
    fn one_owner_shown_twice_is_one_owner() {
        let body = json!({"members": [member("1", true), member("1", true)]});
        assert_eq!(read(&body, &Interest::default()).owners, 1);
    }

    #[test]
    fn a_list_that_ends_early_is_an_error_wherever_it_ends() {
        let organization = OrganizationId::parse("7").expect("valid id");
        let body = json!({"members": [member("1", true), member("2", false)]}).to_string();
        for end in 0..body.len() {
            let cut = parse(
                &body.as_bytes()[..end],
                &organization,
                &Interest::default(),
                1 << 20,
            );
            assert!(cut.is_err(), "accepted after {end} bytes");
        }
    }

    #[test]
    fn nonsense_deep_nesting_and_giant_members_are_errors() {
        let organization = OrganizationId::parse("7").expect("valid id");
        let deep = format!(
            "{{\"members\":[{{\"role_assignments\":{}{}}}]}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let giant = format!("{{\"members\":[{{\"name\":\"{}\"}}]}}", "x".repeat(2 << 20));
        for body in [
            deep.as_str(),
            &giant,
            "[]",
            "{}",
            "{\"members\":{}}",
            "<html>",
            "{\"members\":[]}x",
        ] {
            let read = parse(
                body.as_bytes(),
                &organization,
                &Interest::default(),
                1 << 20,
            );
            assert!(read.is_err(), "{:.40} was accepted", body);
        }
    }

    #[test]
    fn a_closed_channel_is_not_the_end_of_the_body() {
        let (sender, receiver) = mpsc::channel(4);
        sender
            .blocking_send(Piece::Bytes(Bytes::from_static(b"{\"members\":[]}")))
            .expect("room for one");
        drop(sender);
        let mut text = Vec::new();
        assert!(Pieces::new(receiver).read_to_end(&mut text).is_err());
        assert_eq!(text, b"{\"members\":[]}");
    }
}
