//! Open differences over the wire, repairs that wait for a word, and blocked removals whose target changes.

use chrono::TimeDelta;
use latchkey::api::pb;
use latchkey::domain::drift::{DriftAction, DriftKind, OpenDrift};
use latchkey::domain::member::{
    Blocked, DueKind, LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
    WriteOutcome,
};
use latchkey::ports::ledger::MemberCommit;
use latchkey::ports::{Clock as _, Ledger as _};

use super::support::*;

async fn record(bed: &Bed, id: &str) -> MemberRecord {
    let integration = latchkey::domain::ids::IntegrationName::parse("main").expect("valid");
    let subject = Subject::Member(user(id));
    let key = MemberKey {
        integration,
        subject,
    };
    bed.ledger.member(&key).await.expect("readable")
}

async fn store(bed: &Bed, record: MemberRecord) {
    let (audit, request) = (Vec::new(), None);
    let commit = MemberCommit {
        record,
        audit,
        request,
    };
    bed.ledger.commit(commit).await.expect("nobody in between");
}

async fn differs(bed: &Bed, id: &str, action: DriftAction) {
    let mut record = record(bed, id).await;
    let now = bed.clock.now();
    record.drifts.push(OpenDrift {
        kind: DriftKind::Missing,
        assignment: assignment("deployment-viewer", "a"),
        first_seen: now - TimeDelta::minutes(5),
        last_seen: now,
        action,
    });
    store(bed, record).await;
}

async fn list(bed: &Bed, page_size: i32, page_token: String) -> pb::ListDriftResponse {
    let request = pb::ListDriftRequest {
        integration: String::new(),
        page_size,
        page_token,
    };
    let answer = bed.directory().list_drift(request).await;
    answer.expect("listed").into_inner()
}

#[tokio::test]
async fn open_differences_are_listed_with_who_what_and_since_when() {
    let bed = Bed::start().await;
    assert_eq!(list(&bed, 0, String::new()).await.drift, []);
    differs(&bed, "1", DriftAction::Held { limit: 3 }).await;
    differs(&bed, "2", DriftAction::AddedAgain).await;
    let first = list(&bed, 1, String::new()).await;
    assert_eq!(first.drift.len(), 1);
    let open = &first.drift[0];
    assert_eq!(
        (open.user_id.as_str(), open.kind()),
        ("1", pb::DriftKind::Missing)
    );
    let seconds = |at: Option<prost_types::Timestamp>| at.expect("always told").seconds;
    assert!(open.is_held && seconds(open.first_seen_at) < seconds(open.last_seen_at));
    let second = list(&bed, 1, first.next_page_token).await;
    assert_eq!(second.drift[0].user_id, "2");
    assert!(!second.drift[0].is_held);
}

#[tokio::test]
async fn held_repairs_go_on_with_a_reason_and_only_those() {
    let bed = Bed::start().await;
    differs(&bed, "1", DriftAction::Held { limit: 3 }).await;
    differs(&bed, "2", DriftAction::GrantEnds).await;
    let request = |reason: &str| pb::ConfirmReapplyRequest {
        reason: reason.to_owned(),
        ..pb::ConfirmReapplyRequest::default()
    };
    let refused = bed.connector().confirm_reapply(request("")).await;
    assert_eq!(
        refused.expect_err("no reason").code(),
        tonic::Code::InvalidArgument
    );
    let answer = bed.connector().confirm_reapply(request("INC-7")).await;
    assert_eq!(answer.expect("confirmed").into_inner().members, 1);
    let one = record(&bed, "1").await;
    assert_eq!(one.drifts[0].action, DriftAction::Confirmed);
    assert_eq!(one.check_at, Some(bed.clock.now()));
    assert_eq!(
        record(&bed, "2").await.drifts[0].action,
        DriftAction::GrantEnds
    );
    let again = bed.connector().confirm_reapply(request("INC-7")).await;
    assert_eq!(again.expect("nothing left").into_inner().members, 0);
}

#[tokio::test]
async fn a_blocked_removal_is_tried_at_once_when_its_target_appears_or_changes() {
    let bed = Bed::start().await;
    let id = bed.grant("r1").await.id;
    bed.activate(&id).await;
    let block = async || {
        let mut record = record(&bed, "1").await;
        let now = bed.clock.now();
        record.owned = vec![Owned {
            assignment: assignment("deployment-viewer", "a"),
            phase: Phase::Live,
            since: now,
            must_end_by: None,
            last_write: LastWrite {
                kind: WriteKind::Add,
                at: now,
                outcome: WriteOutcome::Done,
            },
            seen: true,
            echo_until: None,
            removal_echo_until: None,
            must_survive: Vec::new(),
            blocked: Some(Blocked {
                code: "root.unauthorized".to_owned(),
                since: now,
                retry_at: now + TimeDelta::minutes(10),
                refusals: 1,
            }),
            isolate: false,
            attempts: 0,
        }];
        store(&bed, record).await;
    };
    block().await;
    bed.provider
        .script(|org| org.deployments.retain(|one| one.id.as_str() != "a"));
    bed.service.refresh_directory().await.expect("read");
    let due = |record: &MemberRecord| record.owned[0].blocked.as_ref().expect("blocked").retry_at;
    assert!(
        due(&record(&bed, "1").await) > bed.clock.now(),
        "it is away"
    );
    bed.provider
        .script(|org| org.deployments.push(deployment("a")));
    bed.service.refresh_directory().await.expect("read");
    let woken = record(&bed, "1").await;
    assert_eq!(due(&woken), bed.clock.now());
    let next = woken.due.expect("due");
    assert_eq!((next.at, next.kind), (bed.clock.now(), DueKind::Remove));
    block().await;
    bed.service.refresh_directory().await.expect("read");
    assert!(
        due(&record(&bed, "1").await) > bed.clock.now(),
        "nothing changed"
    );
}
