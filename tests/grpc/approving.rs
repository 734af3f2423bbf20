//! Approvals that travel with a request, and emergency tokens: what is taken, and everything that is not.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use latchkey::api::pb;
use latchkey::domain::Timestamp;
use latchkey::domain::asked::{Asked, CreateAsked, ExtendAsked};
use latchkey::domain::event::EventKind;
use latchkey::identity::seal::{
    ApprovalDraft, ApproverOptions, EmergencyKeyOptions, Keyring, KeyringOptions, SealKey,
    TokenDraft,
};
use latchkey::law::{CedarLaw, Source};
use latchkey::policy::Rules;
use latchkey::ports::ledger::{EventFilter, Ledger as _};
use pb::access_service_client::AccessServiceClient;
use pb::operations_service_client::OperationsServiceClient;
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::callers::{GLASS, OPS, PLANE, Secured};
use super::support::*;

/// People and keys around a connector.
struct Keys {
    folder: TempDir,
    bob: SealKey,
    cy: SealKey,
    ada: SealKey,
    safe: SealKey,
}

fn key() -> SealKey {
    SealKey::generate().expect("randomness").0
}

impl Keys {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            bob: key(),
            cy: key(),
            ada: key(),
            safe: key(),
        }
    }

    fn setup(&self) -> Setup {
        let put = |name: &str, key: &SealKey| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, key.public_pem()).expect("written");
            path
        };
        let approver = |name: &str, names: &[&str], key: &SealKey| ApproverOptions {
            name: name.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            key_file: put(&format!("{name}.pem"), key),
        };
        let options = KeyringOptions {
            approvers: vec![
                approver("bob", &["bob@example.com", "2"], &self.bob),
                approver("cy", &["cy@example.com"], &self.cy),
                // Known by another address; only the user id tells that she is the beneficiary.
                approver("ada", &["ada@home.example", "1"], &self.ada),
            ],
            max_age: TimeDelta::hours(24),
            emergency: vec![EmergencyKeyOptions {
                name: "safe".to_owned(),
                key_file: put("safe.pem", &self.safe),
            }],
        };
        Setup {
            seals: Some(Arc::new(Keyring::open(options).expect("usable keys"))),
            ..Setup::default()
        }
    }

    /// Under a law that wants so many approvals.
    fn wanting(&self, count: u8) -> Setup {
        let path = self.folder.path().join("law");
        std::fs::create_dir(&path).expect("made");
        let text = format!(
            "@id(\"all\") permit (principal, action, resource);\n\
             @id(\"many-eyes\") forbid (principal, action in [Latchkey::Action::\"create\", \
             Latchkey::Action::\"extend\"], resource) when {{ context.approver_count < {count} }};"
        );
        std::fs::write(path.join("law.cedar"), text).expect("written");
        let law = CedarLaw::open(Source::Directory(path), "UTC", Rules::default());
        Setup {
            law: Some(Arc::new(law.expect("usable policies"))),
            ..self.setup()
        }
    }
}

fn asked(request_id: &str) -> Asked {
    Asked::Create(CreateAsked {
        request_id: request_id.to_owned(),
        integration: "main".to_owned(),
        beneficiary: "ada@example.com".to_owned(),
        requester: "ada".to_owned(),
        justification: "look at a slow query".to_owned(),
        role: "deployment-viewer".to_owned(),
        targets: ["deployment/a".to_owned()].into(),
        application_roles: None,
        duration_s: 3600,
        starts_at: None,
        not_after: None,
        invite: false,
    })
}

fn sign(key: &SealKey, approver: &str, asked: Asked) -> String {
    sign_at(key, approver, asked, at(START))
}

fn sign_at(key: &SealKey, approver: &str, asked: Asked, now: Timestamp) -> String {
    let draft = ApprovalDraft {
        approver: approver.to_owned(),
        id: format!("{approver}-1"),
        now,
        lasts: TimeDelta::hours(1),
        asked,
    };
    key.approve(&draft).expect("a good draft")
}

fn with(request_id: &str, approvals: &[&String]) -> pb::CreateGrantRequest {
    pb::CreateGrantRequest {
        approvals: approvals.iter().map(|&text| text.clone()).collect(),
        ..create(request_id)
    }
}

/// Code, reason, field and the word for what is wrong.
fn why(status: &Status) -> (Code, String, String, String) {
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    let field = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map(|violation| violation.field.clone());
    (
        status.code(),
        info.reason.clone(),
        field.unwrap_or_default(),
        info.metadata.get("why").cloned().unwrap_or_default(),
    )
}

fn approval_refused(index: usize, word: &str) -> (Code, String, String, String) {
    (
        Code::InvalidArgument,
        "APPROVAL_REFUSED".to_owned(),
        format!("approvals[{index}]"),
        word.to_owned(),
    )
}

fn token_refused(word: &str) -> (Code, String, String, String) {
    (
        Code::PermissionDenied,
        "BREAK_GLASS_REFUSED".to_owned(),
        "break_glass_token".to_owned(),
        word.to_owned(),
    )
}

async fn kinds(bed: &Bed) -> Vec<&'static str> {
    let events = bed.ledger.events(&EventFilter::default(), 0, 1000).await;
    let events = events.expect("readable");
    events
        .iter()
        .map(|stored| stored.event.kind.name())
        .collect()
}

#[tokio::test]
async fn a_law_can_want_approvals_and_counts_people() {
    let keys = Keys::new();
    let bed = Bed::with(keys.wanting(2)).await;
    let bob = sign(&keys.bob, "bob", asked("r1"));
    let cy = sign(&keys.cy, "cy", asked("r1"));
    for few in [vec![], vec![&bob]] {
        let refused = bed.access().create_grant(with("r1", &few)).await;
        let refused = refused.expect_err("too few");
        assert_eq!(refused.code(), Code::PermissionDenied);
        let details = refused.get_error_details();
        let info = details.error_info().expect("a reason");
        assert_eq!(info.metadata["policies"], "many-eyes");
    }
    let twice = bed.access().create_grant(with("r1", &[&bob, &bob])).await;
    assert_eq!(
        why(&twice.expect_err("one person")),
        approval_refused(1, "duplicate")
    );
    let created = bed.access().create_grant(with("r1", &[&bob, &cy])).await;
    let grant = created
        .expect("enough")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(grant.approvers, ["bob@example.com", "cy@example.com"]);
    assert!(!grant.is_break_glass);
    assert!(kinds(&bed).await.contains(&"approved"));
    let again = bed.access().create_grant(with("r1", &[&bob, &cy])).await;
    assert!(again.expect("the same").into_inner().replayed);
}

#[tokio::test]
async fn an_approval_that_is_not_of_this_request_or_not_in_order_refuses_it_and_is_named() {
    let keys = Keys::new();
    let bed = Bed::with(keys.setup()).await;
    let bob = sign(&keys.bob, "bob", asked("r1"));
    let cy = sign(&keys.cy, "cy", asked("r1"));
    let (head, tail) = bob.rsplit_once('.').expect("three parts");
    // Keys are drawn anew in every run: one signature in 64 begins with either letter.
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{head}.{other}{}", &tail[1..]);
    let other = sign(&keys.cy, "cy", asked("r2"));
    let unknown = sign(&keys.cy, "eve", asked("r1"));
    let forged = sign(&keys.cy, "bob", asked("r1"));
    let later = sign_at(&keys.cy, "cy", asked("r1"), at("2026-01-01T01:00:00Z"));
    let old = sign_at(&keys.cy, "cy", asked("r1"), at("2025-12-31T22:00:00Z"));
    let own = sign(&keys.ada, "ada", asked("r1"));
    for (second, word) in [
        (&altered, "signature"),
        (&other, "other_request"),
        (&unknown, "key_unknown"),
        (&forged, "signature"),
        (&later, "early"),
        (&old, "expired"),
        (&own, "own"),
    ] {
        let refused = bed.access().create_grant(with("r1", &[&cy, second])).await;
        let refused = why(&refused.expect_err(word));
        assert_eq!(refused, approval_refused(1, word));
    }
    assert_eq!(bed.count().await, 0, "nothing was granted");
    bed.access()
        .create_grant(with("r1", &[&bob, &cy]))
        .await
        .expect("as signed");
}

#[tokio::test]
async fn an_extension_needs_approvals_of_its_own() {
    let keys = Keys::new();
    let bed = Bed::with(keys.wanting(1)).await;
    let bob = sign(&keys.bob, "bob", asked("r1"));
    let created = bed.access().create_grant(with("r1", &[&bob])).await;
    let id = created
        .expect("approved")
        .into_inner()
        .grant
        .expect("a grant")
        .id;
    bed.activate(&id).await;
    let extension = |approvals: Vec<String>| pb::ExtendGrantRequest {
        approvals,
        ..extend("e1", &id, 600)
    };
    let plain = extension(Vec::new());
    let asked = Asked::Extend(ExtendAsked {
        request_id: "e1".to_owned(),
        grant_id: id.clone(),
        duration_s: 600,
        requester: plain.requester.clone(),
        reason: plain.reason.clone(),
    });
    let without = bed.access().extend_grant(plain).await;
    assert_eq!(without.expect_err("none").code(), Code::PermissionDenied);
    let reused = bed.access().extend_grant(extension(vec![bob])).await;
    assert_eq!(
        why(&reused.expect_err("of the grant")),
        approval_refused(0, "other_request")
    );
    let cy = sign(&keys.cy, "cy", asked);
    let extended = bed.access().extend_grant(extension(vec![cy])).await;
    let grant = extended
        .expect("approved")
        .into_inner()
        .grant
        .expect("a grant");
    assert_eq!(grant.approvers, ["bob@example.com", "cy@example.com"]);
}

fn draft() -> TokenDraft {
    TokenDraft {
        key: "safe".to_owned(),
        id: "t-1".to_owned(),
        now: at("2025-12-01T00:00:00Z"),
        not_before: at("2025-12-02T00:00:00Z"),
        not_after: at("2026-02-01T00:00:00Z"),
        integration: "main".to_owned(),
        beneficiaries: ["ada@example.com".to_owned()].into(),
        role: "deployment-viewer".to_owned(),
        targets: ["deployment/a".to_owned(), "deployment/b".to_owned()].into(),
        application_roles: None,
        max_duration_s: 3600,
        reason: "the control plane is gone".to_owned(),
    }
}

fn by_token(request_id: &str, token: &str) -> pb::CreateGrantRequest {
    pb::CreateGrantRequest {
        break_glass_token: token.to_owned(),
        ..create(request_id)
    }
}

#[tokio::test]
async fn a_token_opens_one_grant_which_alarms_owes_a_review_and_cannot_be_extended() {
    let keys = Keys::new();
    let bed = Bed::with(keys.setup()).await;
    let token = keys.safe.seal(draft()).expect("a good draft");
    let created = bed.access().create_grant(by_token("r1", &token)).await;
    let grant = created
        .expect("opened")
        .into_inner()
        .grant
        .expect("a grant");
    assert!(grant.is_break_glass);
    assert_eq!(grant.warnings.len(), 1, "{:?}", grant.warnings);
    let again = bed.access().create_grant(by_token("r1", &token)).await;
    assert!(again.expect("the same request").into_inner().replayed);
    let second = bed.access().create_grant(by_token("r2", &token)).await;
    assert_eq!(why(&second.expect_err("used")), token_refused("used"));
    assert_eq!(bed.count().await, 1);

    let events = bed.ledger.events(&EventFilter::default(), 0, 100).await;
    let events = events.expect("readable");
    let used = events.iter().find_map(|stored| {
        if let EventKind::BreakGlassUsed {
            key, id, reason, ..
        } = &stored.event.kind
        {
            Some((key, id, reason))
        } else {
            None
        }
    });
    let (key, id, reason) = used.expect("an event");
    assert_eq!((key.as_str(), id.as_str()), ("safe", "t-1"));
    assert_eq!(reason, "the control plane is gone");

    bed.activate(&grant.id).await;
    let extended = bed.access().extend_grant(extend("e1", &grant.id, 60)).await;
    let (code, reason, _, _) = why(&extended.expect_err("never"));
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(reason, "BREAK_GLASS_NOT_EXTENDABLE");

    let mut operations = OperationsServiceClient::new(bed.channel.clone());
    let list = pb::ListReviewsRequest::default();
    let open = operations.list_reviews(list.clone()).await;
    let open = open.expect("listed").into_inner().reviews;
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].grant_id, grant.id);
    let close = |who: &str| pb::CloseReviewRequest {
        grant_id: grant.id.clone(),
        requester: who.to_owned(),
        note: "looked at the log".to_owned(),
    };
    for own in ["ada@example.com", "Ada"] {
        let refused = operations.close_review(close(own)).await;
        let refused = refused.expect_err("of her own use");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{own}");
    }
    let closed = operations.close_review(close("bob")).await;
    let closed = closed.expect("closed").into_inner().review;
    assert_eq!(closed.expect("a review").closed_by, "bob");
    let open = operations.list_reviews(list).await;
    assert!(open.expect("listed").into_inner().reviews.is_empty());
    assert!(kinds(&bed).await.contains(&"review_closed"));
}

#[tokio::test]
async fn a_token_that_is_altered_early_late_forged_or_of_another_scope_opens_nothing() {
    let keys = Keys::new();
    let bed = Bed::with(keys.setup()).await;
    let sealed = |change: fn(&mut TokenDraft)| {
        let mut draft = draft();
        change(&mut draft);
        keys.safe.seal(draft).expect("a good draft")
    };
    let good = sealed(|_| {});
    let (head, tail) = good.rsplit_once('.').expect("three parts");
    // Keys are drawn anew in every run: one signature in 64 begins with either letter.
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{head}.{other}{}", &tail[1..]);
    let forged = keys.bob.seal(draft()).expect("a good draft");
    for (token, word) in [
        (altered, "signature"),
        (forged, "signature"),
        ("no token".to_owned(), "malformed"),
        (sealed(|one| one.key = "other".to_owned()), "key_unknown"),
        (
            sealed(|one| one.not_before = at("2026-01-01T00:00:01Z")),
            "early",
        ),
        (
            sealed(|one| one.not_after = at("2026-01-01T00:00:00Z")),
            "expired",
        ),
        (sealed(|one| one.integration = "west".to_owned()), "scope"),
        (
            sealed(|one| one.beneficiaries = ["bob@example.com".to_owned()].into()),
            "scope",
        ),
        (
            sealed(|one| one.role = "deployment-admin".to_owned()),
            "scope",
        ),
        (
            sealed(|one| one.targets = ["deployment/b".to_owned()].into()),
            "scope",
        ),
        (
            sealed(|one| one.application_roles = Some([].into())),
            "scope",
        ),
        (sealed(|one| one.max_duration_s = 3599), "scope"),
    ] {
        let refused = bed.access().create_grant(by_token("r1", &token)).await;
        assert_eq!(why(&refused.expect_err(word)), token_refused(word));
    }
    let mut later = by_token("r1", &good);
    if let Some(spec) = &mut later.spec {
        spec.starts_at = instant("2026-01-01T01:00:00Z");
    }
    let refused = bed.access().create_grant(later).await;
    assert_eq!(why(&refused.expect_err("later")), token_refused("scope"));
    assert_eq!(bed.count().await, 0, "nothing was granted");
    let refusals = kinds(&bed).await;
    assert_eq!(refusals.len(), 13, "each left an event");
    assert!(refusals.iter().all(|kind| *kind == "request_refused"));
    bed.clock.advance(Duration::from_secs(3600));
    bed.access()
        .create_grant(by_token("r1", &good))
        .await
        .expect("what was refused did not use it up");
}

#[tokio::test]
async fn a_token_is_for_the_role_break_glass_which_gets_nothing_without_one() {
    let keys = Keys::new();
    let law = CedarLaw::open(Source::Shipped, "UTC", Rules::default()).expect("usable");
    let secured = Secured::with(Setup {
        law: Some(Arc::new(law)),
        ..keys.setup()
    })
    .await;
    let token = keys.safe.seal(draft()).expect("a good draft");
    let mut glass = AccessServiceClient::new(secured.caller(GLASS));
    let mut plane = AccessServiceClient::new(secured.caller(PLANE));
    let reason = |status: &Status| why(status).1;
    let without = glass
        .create_grant(create("r1"))
        .await
        .expect_err("no token");
    assert_eq!(without.code(), Code::PermissionDenied);
    assert_eq!(reason(&without), "ROLE_NOT_ALLOWED");
    let stolen = plane.create_grant(by_token("r1", &token)).await;
    assert_eq!(
        reason(&stolen.expect_err("of the plane")),
        "ROLE_NOT_ALLOWED"
    );
    let opened = glass.create_grant(by_token("r1", &token)).await;
    let grant = opened.expect("opened").into_inner().grant.expect("a grant");
    assert_eq!(grant.caller, "glass");
    let mut operations = OperationsServiceClient::new(secured.caller(OPS));
    let closed = operations
        .close_review(pb::CloseReviewRequest {
            grant_id: grant.id,
            requester: "bob".to_owned(),
            note: "looked".to_owned(),
        })
        .await;
    assert!(closed.is_ok(), "{closed:?}");
}

#[tokio::test]
async fn without_configured_keys_no_signature_is_taken() {
    let keys = Keys::new();
    let bed = Bed::start().await;
    let bob = sign(&keys.bob, "bob", asked("r1"));
    let refused = bed.access().create_grant(with("r1", &[&bob])).await;
    assert_eq!(
        why(&refused.expect_err("nobody")),
        approval_refused(0, "not_configured")
    );
    let token = keys.safe.seal(draft()).expect("a good draft");
    let refused = bed.access().create_grant(by_token("r1", &token)).await;
    assert_eq!(
        why(&refused.expect_err("nobody")),
        token_refused("not_configured")
    );
}
