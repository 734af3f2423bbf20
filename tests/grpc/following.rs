//! Listing and watching grants, explaining access.

use latchkey::api::pb;
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

use super::support::*;

async fn next(stream: &mut Streaming<pb::WatchGrantsResponse>) -> pb::WatchGrantsResponse {
    loop {
        let item = stream.next().await.expect("it goes on").expect("an item");
        if item.kind() != pb::WatchKind::Alive {
            return item;
        }
    }
}

#[tokio::test]
async fn pages_hold_every_grant_once_and_a_token_fits_only_its_filter() {
    let bed = Bed::start().await;
    let mut created = Vec::new();
    for n in 0..7 {
        created.push(bed.grant(&format!("r{n}")).await.id);
    }
    created.reverse();
    let mut request = pb::ListGrantsRequest {
        page_size: 3,
        ..pb::ListGrantsRequest::default()
    };
    let (mut listed, mut sizes) = (Vec::new(), Vec::new());
    let mut token = String::new();
    loop {
        let page = bed
            .access()
            .list_grants(request.clone())
            .await
            .expect("listed")
            .into_inner();
        sizes.push(page.grants.len());
        listed.extend(page.grants.into_iter().map(|grant| grant.id));
        if page.next_page_token.is_empty() {
            break;
        }
        token.clone_from(&page.next_page_token);
        request.page_token = page.next_page_token;
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(listed, created, "newest first");

    let elsewhere = pb::ListGrantsRequest {
        filter: Some(pb::GrantFilter {
            states: vec![pb::GrantState::Active.into()],
            ..pb::GrantFilter::default()
        }),
        page_token: token,
        ..pb::ListGrantsRequest::default()
    };
    let status = bed
        .access()
        .list_grants(elsewhere)
        .await
        .expect_err("another filter");
    assert_eq!(status.code(), Code::InvalidArgument);
    let unknown = pb::ListGrantsRequest {
        filter: Some(pb::GrantFilter {
            integration: "nope".to_owned(),
            ..pb::GrantFilter::default()
        }),
        ..pb::ListGrantsRequest::default()
    };
    let status = bed
        .access()
        .list_grants(unknown)
        .await
        .expect_err("no such integration: an empty list would look like good news");
    assert_eq!(status.code(), Code::NotFound);
    let negative = pb::ListGrantsRequest {
        page_size: -1,
        ..pb::ListGrantsRequest::default()
    };
    let status = bed
        .access()
        .list_grants(negative)
        .await
        .expect_err("negative");
    assert_eq!(status.code(), Code::InvalidArgument);
    let zero_state = pb::ListGrantsRequest {
        filter: Some(pb::GrantFilter {
            states: vec![0],
            ..pb::GrantFilter::default()
        }),
        ..pb::ListGrantsRequest::default()
    };
    let status = bed
        .access()
        .list_grants(zero_state)
        .await
        .expect_err("unspecified");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn filters_choose_by_beneficiary_state_and_target() {
    let bed = Bed::start().await;
    let ada = bed.grant("r1").await.id;
    let bob = create_with("r2", |spec| {
        spec.beneficiary = by_id("2");
        spec.targets = vec![on_deployment("b")];
    });
    let bob = bed
        .access()
        .create_grant(bob)
        .await
        .expect("accepted")
        .into_inner();
    let bob = bob.grant.expect("a grant").id;
    bed.activate(&bob).await;
    let rows = [
        (
            pb::GrantFilter {
                beneficiary: email("ADA@example.com"),
                ..Default::default()
            },
            &ada,
        ),
        (
            pb::GrantFilter {
                beneficiary: by_id("2"),
                ..Default::default()
            },
            &bob,
        ),
        (
            pb::GrantFilter {
                states: vec![pb::GrantState::Active.into()],
                ..Default::default()
            },
            &bob,
        ),
        (
            pb::GrantFilter {
                target: Some(on_deployment("a")),
                ..Default::default()
            },
            &ada,
        ),
    ];
    for (filter, expected) in rows {
        let request = pb::ListGrantsRequest {
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let page = bed
            .access()
            .list_grants(request)
            .await
            .expect("listed")
            .into_inner();
        let ids: Vec<_> = page.grants.iter().map(|grant| &grant.id).collect();
        assert_eq!(ids, [expected], "{filter:?}");
    }
}

#[tokio::test]
async fn a_watch_begins_with_what_is_goes_on_with_what_changes_and_resumes_without_a_gap() {
    let mut bed = Bed::start().await;
    let old = bed.grant("r1").await.id;
    let mut stream = bed
        .access()
        .watch_grants(pb::WatchGrantsRequest::default())
        .await
        .expect("watched")
        .into_inner();
    let snapshot = next(&mut stream).await;
    assert_eq!(snapshot.kind(), pb::WatchKind::Snapshot);
    assert_eq!(snapshot.grant.expect("a grant").id, old);
    assert_eq!(snapshot.resume_token, "");
    let synced = next(&mut stream).await;
    assert_eq!(synced.kind(), pb::WatchKind::Synced);

    bed.activate(&old).await;
    let changed = next(&mut stream).await;
    assert_eq!(changed.kind(), pb::WatchKind::Changed);
    assert_eq!(
        changed.grant.expect("a grant").state(),
        pb::GrantState::Active
    );
    drop(stream);

    // While nobody watches: one more change, one new grant, and one of somebody else.
    bed.access()
        .revoke_grant(revoke(&old))
        .await
        .expect("revoked");
    let new = bed.grant("r2").await.id;
    bed.stranger()
        .await
        .create_grant(create("s"))
        .await
        .expect("accepted");
    let request = pb::WatchGrantsRequest {
        resume_token: changed.resume_token,
        filter: None,
    };
    let mut stream = bed
        .access()
        .watch_grants(request)
        .await
        .expect("resumed")
        .into_inner();
    let mut missed = Vec::new();
    for _ in 0..2 {
        let item = next(&mut stream).await;
        assert_eq!(item.kind(), pb::WatchKind::Changed);
        let grant = item.grant.expect("a grant");
        missed.push((grant.id.clone(), grant.state()));
    }
    assert_eq!(
        missed,
        [
            (old, pb::GrantState::Revoking),
            (new, pb::GrantState::Activating)
        ]
    );
    let alive = stream.next().await.expect("it goes on").expect("an item");
    assert_eq!(
        alive.kind(),
        pb::WatchKind::Alive,
        "nothing of somebody else"
    );
    assert_ne!(alive.resume_token, "");
}

#[tokio::test]
async fn a_resume_token_that_no_watch_gave_is_refused() {
    let bed = Bed::start().await;
    for resume_token in ["x", "AAAA", "🎉"] {
        let request = pb::WatchGrantsRequest {
            resume_token: resume_token.to_owned(),
            filter: None,
        };
        let status = bed
            .access()
            .watch_grants(request)
            .await
            .expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_resume_token_of_another_ledger_is_refused_rather_than_waited_for() {
    let old = Bed::start().await;
    old.grant("r1").await;
    let watch = pb::WatchGrantsRequest::default();
    let mut stream = old
        .access()
        .watch_grants(watch)
        .await
        .expect("watched")
        .into_inner();
    next(&mut stream).await;
    let resume_token = next(&mut stream).await.resume_token;
    assert_ne!(resume_token, "");
    let new = Bed::start().await;
    let request = pb::WatchGrantsRequest {
        resume_token,
        filter: None,
    };
    let mut stream = new
        .access()
        .watch_grants(request)
        .await
        .expect("asked")
        .into_inner();
    let status = stream
        .next()
        .await
        .expect("an answer")
        .expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn access_is_explained_as_standing_pending_or_covered() {
    let mut bed = Bed::start().await;
    bed.provider.script(|org| {
        let ada = org.members.get_mut(&user("1")).expect("Ada");
        ada.assignments.insert(assignment("deployment-viewer", "b"));
        ada.assignments.insert(assignment("deployment-editor", "c"));
    });
    let mine = create_with("r1", |spec| {
        spec.targets = vec![on_deployment("a"), on_deployment("b")];
    });
    let mine = bed
        .access()
        .create_grant(mine)
        .await
        .expect("accepted")
        .into_inner();
    bed.stranger()
        .await
        .create_grant(create("s"))
        .await
        .expect("accepted");
    let request = pb::ExplainAccessRequest {
        integration: String::new(),
        member: email("ada@example.com"),
    };
    let explained = bed
        .access()
        .explain_access(request)
        .await
        .expect("explained")
        .into_inner();
    let rows: Vec<_> = explained
        .access
        .iter()
        .map(|access| {
            let role = access
                .assignment
                .as_ref()
                .expect("an assignment")
                .role
                .as_str();
            (
                role,
                access.kind(),
                access.is_present,
                access.grant_ids.len(),
                access.foreign_grants,
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("deployment-editor", pb::AccessKind::Standing, true, 0, 0),
            ("deployment-viewer", pb::AccessKind::Pending, false, 1, 1),
            ("deployment-viewer", pb::AccessKind::Covered, true, 1, 0),
        ]
    );
    assert_eq!(
        explained.access[1].grant_ids,
        [mine.grant.expect("a grant").id]
    );
    let nobody = pb::ExplainAccessRequest {
        integration: String::new(),
        member: by_id("77"),
    };
    let status = bed
        .access()
        .explain_access(nobody)
        .await
        .expect_err("nobody");
    assert_eq!(status.code(), Code::NotFound);
}
