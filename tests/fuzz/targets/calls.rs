//! Requests of callers and answers of Elastic Cloud.

use std::collections::BTreeSet;
use std::time::Duration;

use latchkey::domain::assignment::Assignment;
use latchkey::domain::ids::{
    ApplicationRole, DeploymentId, Email, GrantId, InvitationToken, OrganizationId, ProjectId,
    RequestId, UserId,
};
use latchkey::{api, elastic};
use url::Url;

use super::super::seeds::{self, NOW};
use super::{Verdict, choice, verdict};

pub(super) fn requests(input: &[u8]) -> Verdict {
    let Some((at, bytes)) = choice(input, &api::fuzz::REQUESTS) else {
        return verdict(false, "");
    };
    let kind = api::fuzz::REQUESTS[at];
    match api::fuzz::request(kind, bytes) {
        None => verdict(false, kind),
        Some(Ok(read)) => verdict(true, &format!("{kind} {}", read.len() / 64)),
        Some(Err(told)) => {
            assert!(told.len() < 4096, "a refusal as long as its request");
            assert!(
                told.chars().all(|c| !c.is_control()),
                "a refusal that disturbs a terminal: {told:?}"
            );
            verdict(false, &format!("{kind} {told}"))
        }
    }
}

pub(super) fn members(input: &[u8]) -> Verdict {
    let Some((kept, held)) = elastic::fuzz::members(input, 1 << 16) else {
        return verdict(false, "");
    };
    let held: BTreeSet<Assignment> = held.into_iter().collect();
    let all: Vec<Assignment> = held.iter().cloned().collect();
    let again: BTreeSet<Assignment> = elastic::fuzz::again(&all).into_iter().collect();
    assert_eq!(held, again, "what we would send is not what was shown");
    for one in &held {
        let text = one.to_string();
        assert_eq!(
            Assignment::parse(&text).as_ref(),
            Ok(one),
            "{text:?} is read as something else"
        );
    }
    verdict(true, &format!("{} {}", held.len(), kept.len() / 200))
}

pub(super) fn answers(input: &[u8]) -> Verdict {
    let Some((at, body)) = choice(input, &elastic::fuzz::KINDS) else {
        return verdict(false, "");
    };
    let kind = elastic::fuzz::KINDS[at];
    match elastic::fuzz::body(kind, body) {
        None => verdict(false, kind),
        Some(read) => verdict(true, &format!("{kind} {}", read.len() / 50)),
    }
}

/// `STATUS`, lines of `NAME: VALUE`, an empty line, the body.
pub(super) fn meanings(input: &[u8]) -> Verdict {
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| std::str::from_utf8(line).ok()?.trim().parse().ok());
    let mut found = Vec::new();
    for line in lines {
        let at = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let Ok(name) = std::str::from_utf8(name) else {
            return verdict(false, "name");
        };
        found.push((name, value.strip_prefix(b": ").unwrap_or(value)));
    }
    let patience = Duration::from_secs(60);
    match elastic::fuzz::meaning(
        status.unwrap_or(200),
        &found,
        body,
        seeds::at(NOW),
        patience,
    ) {
        None => verdict(false, "no answer"),
        Some(words) => {
            for word in &words {
                assert!(
                    (1..=4 * 65).contains(&word.len())
                        && word.bytes().all(|b| b.is_ascii_graphic()),
                    "a text of upstream leaves the client: {word:?}"
                );
            }
            verdict(true, &words.join(" "))
        }
    }
}

pub(super) fn page_tokens(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let given = api::fuzz::token("ListGrants", "filter", &text);
    if given.len() <= 2048 {
        let back = api::fuzz::cursor("ListGrants", "filter", &given);
        assert_eq!(back.as_deref(), Some(&*text), "a token loses its cursor");
    }
    assert_eq!(
        api::fuzz::cursor("ListGrants", "other", &given),
        None,
        "a token fits another filter"
    );
    let Some(cursor) = api::fuzz::cursor("ListGrants", "filter", &text) else {
        return verdict(false, "");
    };
    assert_eq!(
        api::fuzz::token("ListGrants", "filter", &cursor),
        text,
        "one cursor has two tokens"
    );
    verdict(true, &cursor)
}

/// The first line is a base, the rest an id.
pub(super) fn addresses(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (base, id) = text
        .split_once('\n')
        .unwrap_or(("https://api.example.com/proxy/", &text));
    let Ok(base) = Url::parse(base) else {
        return verdict(false, "no base");
    };
    if base.cannot_be_a_base()
        || !matches!(base.scheme(), "http" | "https")
        || base.query().is_some()
        || base.fragment().is_some()
    {
        return verdict(false, "no base");
    }
    let before = base.path().trim_end_matches('/').split('/').skip(1).count();
    let mut words = String::new();
    for (built, last) in elastic::fuzz::addresses(&base, id)
        .iter()
        .zip(["role_assignments", "roles"])
    {
        let Some(url) = built else {
            words.push_str("refused ");
            continue;
        };
        assert_eq!(url.origin(), base.origin(), "{id:?} left the host");
        assert!(
            url.query().is_none() && url.fragment().is_none(),
            "{id:?} became a query"
        );
        assert_eq!(
            (url.username(), url.password()),
            (base.username(), base.password())
        );
        let segments: Vec<&str> = url.path_segments().expect("a base").collect();
        let fixed = if last == "roles" { 7 } else { 5 };
        assert_eq!(
            segments.len(),
            before + fixed,
            "{id:?} left its segment: {url}"
        );
        assert_eq!(segments.last(), Some(&last));
        let segment = segments[segments.len() - 2];
        let read = percent_encoding::percent_decode_str(segment)
            .decode_utf8()
            .expect("UTF-8");
        assert_eq!(read, id, "another id is asked for");
        // Whoever reads it again, such as a proxy, reads the same.
        assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(url));
        words.push_str("built ");
    }
    verdict(words.contains("built"), &words)
}

/// Ids and assignments as text: what is taken is written as it was.
pub(super) fn names(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let mut taken = String::new();
    macro_rules! same {
        ($($kind:ident),*) => {$(
            if let Ok(id) = $kind::parse(text) {
                assert_eq!(id.to_string(), text, "an id is written as another");
                assert!(text.is_ascii() && !text.contains(|c: char| c.is_ascii_control() || "/?#%\\ ".contains(c)), "{text:?} is no word of a path");
                taken.push_str(stringify!($kind));
            }
        )*};
    }
    same!(DeploymentId, ProjectId, UserId, OrganizationId);
    if let Ok(id) = RequestId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(
            text.bytes().all(|b| b.is_ascii_graphic()),
            "{text:?} disturbs a log"
        );
        taken.push_str("RequestId");
    }
    if let Ok(token) = InvitationToken::parse(text) {
        assert_eq!(token.as_str(), text);
        taken.push_str("InvitationToken");
    }
    if let Ok(role) = ApplicationRole::parse(text) {
        assert_eq!(role.as_str(), text);
        taken.push_str("ApplicationRole");
    }
    if let Ok(email) = Email::parse(text) {
        assert_eq!(
            Email::parse(email.as_str()).as_ref(),
            Ok(&email),
            "an address changes twice"
        );
        taken.push_str("Email");
    }
    if let Ok(id) = GrantId::parse(text) {
        assert_eq!(GrantId::parse(&id.to_string()), Ok(id));
        taken.push_str("GrantId");
    }
    if let Ok(assignment) = Assignment::parse(text) {
        let written = assignment.to_string();
        assert_eq!(
            Assignment::parse(&written).as_ref(),
            Ok(&assignment),
            "{written:?} is read as something else"
        );
        taken.push_str("Assignment");
    }
    verdict(!taken.is_empty(), &taken)
}

/// Bytes of a connection: how they are cut into reads changes nothing.
pub(super) fn frames(input: &[u8]) -> Verdict {
    let whole = api::fuzz::is_busy(input, &[]);
    let ones = vec![1; input.len()];
    let odd: Vec<usize> = input.iter().map(|byte| usize::from(byte % 23)).collect();
    assert_eq!(
        api::fuzz::is_busy(input, &ones),
        whole,
        "one by one it is another connection"
    );
    assert_eq!(
        api::fuzz::is_busy(input, &odd),
        whole,
        "in pieces it is another connection"
    );
    verdict(whole, &format!("{whole} {}", input.len() / 32))
}
