//! Every fault does what it says, as often as it should, and repeats with the seed.

use std::time::Duration;

use latchkey::sim::{Action, FaultRule, LateAnswer};
use serde_json::{Value, json};

use crate::harness::{Answer, Cloud};

const ADD: &str = "role_assignments.add";

impl Cloud {
    fn fault(&self, kind: &str, action: Action) {
        self.handle()
            .set_faults(vec![FaultRule::on(kind, action).times(1)]);
    }

    async fn try_add(&self) -> reqwest::Result<Answer> {
        let path = format!("/users/{}/role_assignments", self.user(6));
        self.send(
            &self.key,
            "POST",
            &path,
            self.organization_role("billing-admin"),
        )
        .await
    }

    async fn try_remove(&self) -> reqwest::Result<Answer> {
        let path = format!("/users/{}/role_assignments", self.user(6));
        self.send(
            &self.key,
            "DELETE",
            &path,
            self.organization_role("billing-admin"),
        )
        .await
    }

    fn has(&self) -> bool {
        !self.handle().assignments(&self.user(6)).is_empty()
    }
}

#[tokio::test]
async fn dropping_before_applies_nothing_and_answers_nothing() {
    let cloud = Cloud::start().await;
    cloud.fault(ADD, Action::DropBeforeApply);
    assert!(cloud.try_add().await.is_err());
    assert!(!cloud.has());
    assert_eq!(cloud.try_add().await.unwrap().status, 200, "once only");
}

#[tokio::test]
async fn dropping_after_applies_and_answers_nothing() {
    let cloud = Cloud::start().await;
    cloud.fault(ADD, Action::DropAfterApply);
    assert!(cloud.try_add().await.is_err());
    assert!(cloud.has());
}

#[tokio::test]
async fn a_late_effect_lands_after_a_removal() {
    let cloud = Cloud::start().await;
    cloud.fault(
        ADD,
        Action::ApplyLate {
            ms: 5_000,
            answer: LateAnswer::Ok,
        },
    );
    cloud.try_add().await.unwrap().is_empty_success();
    assert!(!cloud.has());
    cloud.try_remove().await.unwrap().is_empty_success();
    cloud.advance(4);
    assert!(!cloud.has());
    cloud.advance(1);
    assert!(cloud.has(), "resurrected");
    assert!(cloud.handle().calls().log.last().unwrap().late);
}

#[tokio::test]
async fn a_late_effect_may_go_unanswered() {
    let cloud = Cloud::start().await;
    for (answer, status) in [
        (LateAnswer::Drop, None),
        (LateAnswer::Hang, None),
        (LateAnswer::Timeout, Some(504)),
    ] {
        cloud.fault(ADD, Action::ApplyLate { ms: 1_000, answer });
        let told = tokio::time::timeout(Duration::from_millis(300), cloud.try_add()).await;
        let told = told.ok().and_then(Result::ok).map(|answer| answer.status);
        assert_eq!(told, status, "{answer:?}");
        assert!(!cloud.has());
        cloud.advance(1);
        assert!(cloud.has(), "{answer:?}");
        cloud.try_remove().await.unwrap().is_empty_success();
    }
}

#[tokio::test]
async fn applying_twice_undoes_a_removal_in_between() {
    let cloud = Cloud::start().await;
    cloud.fault(ADD, Action::ApplyTwice { ms: 1_000 });
    cloud.try_add().await.unwrap().is_empty_success();
    assert!(cloud.has());
    cloud.try_remove().await.unwrap().is_empty_success();
    assert!(!cloud.has());
    cloud.advance(1);
    assert!(cloud.has());
}

#[tokio::test]
async fn a_lie_is_200_and_changes_nothing() {
    let cloud = Cloud::start().await;
    cloud.fault(ADD, Action::Lie);
    cloud.try_add().await.unwrap().is_empty_success();
    assert!(!cloud.has());
}

#[tokio::test]
async fn failures_have_the_wanted_status_and_form() {
    let cloud = Cloud::start().await;
    let fail = |html| Action::Fail {
        status: 503,
        code: Some("some.code".to_owned()),
        message: None,
        html,
        applied: false,
    };
    cloud.fault(ADD, fail(false));
    cloud.try_add().await.unwrap().refused(503, "some.code");
    cloud.fault(ADD, fail(true));
    let page = cloud.try_add().await.unwrap();
    assert_eq!(
        (page.status, page.header("content-type")),
        (503, Some("text/html"))
    );
    cloud.fault(
        ADD,
        Action::Throttle {
            retry_after: Some("7".to_owned()),
        },
    );
    let throttled = cloud.try_add().await.unwrap();
    assert_eq!(
        (throttled.status, throttled.header("retry-after")),
        (429, Some("7"))
    );
    cloud.fault(
        ADD,
        Action::Redirect {
            location: "/elsewhere".to_owned(),
            status: None,
        },
    );
    let moved = cloud.try_add().await.unwrap();
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("/elsewhere"))
    );
    cloud.fault(ADD, Action::GarbageHtml);
    let garbage = cloud.try_add().await.unwrap();
    assert_eq!(
        (garbage.status, garbage.header("content-type")),
        (200, Some("text/html"))
    );
    assert!(!cloud.has());
}

#[tokio::test]
async fn broken_bodies_break_reading() {
    let cloud = Cloud::start().await;
    let members = format!("/organizations/{}/members", cloud.org);
    cloud.fault("members.list", Action::Truncate);
    assert!(
        cloud
            .send(&cloud.key, "GET", &members, Value::Null)
            .await
            .is_err()
    );
    cloud.fault("members.list", Action::Malformed);
    let answer = cloud.get(&members).await;
    assert!(answer.status == 200 && answer.body.is_string(), "not JSON");
    cloud.fault("members.list", Action::Huge { bytes: 3_000_000 });
    assert_eq!(cloud.get(&members).await.text.len(), 3_000_000);
}

#[tokio::test]
async fn a_gzip_bomb_is_small_on_the_wire() {
    let cloud = Cloud::start().await;
    cloud.fault("organizations.list", Action::GzipBomb { bytes: 20_000_000 });
    let plain = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .build()
        .unwrap();
    let response = plain
        .get(format!("{}/api/v1/organizations", cloud.base()))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.bytes().await.unwrap().len() < 200_000);
    cloud.fault("organizations.list", Action::GzipBomb { bytes: 20_000_000 });
    assert_eq!(cloud.get("/organizations").await.text.len(), 20_000_000);
}

#[tokio::test]
async fn a_delayed_call_is_applied_even_when_its_client_has_gone() {
    let cloud = Cloud::start().await;
    cloud.fault(
        ADD,
        Action::Delay {
            // Far longer than the caller waits, so that a slow machine cannot see the effect early.
            ms: 2_000,
            jitter_ms: 0,
        },
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(50), cloud.try_add())
            .await
            .is_err()
    );
    assert!(!cloud.has());
    while !cloud.has() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hanging_call_ends_with_the_simulator() {
    let cloud = Cloud::start().await;
    cloud.fault("organizations.list", Action::Hang);
    let url = format!("{}/api/v1/organizations", cloud.base());
    let request = cloud.http.get(url).send();
    let (answer, ()) = tokio::join!(request, async {
        while cloud.handle().calls().total == 0 {
            tokio::task::yield_now().await;
        }
        cloud.stop().await;
    });
    assert!(answer.is_err());
}

#[tokio::test]
async fn rules_match_by_kind_method_path_user_and_body() {
    let cloud = Cloud::start().await;
    for (matcher, hits) in [
        (json!({ "kind": "role_assignments.*" }), true),
        (json!({ "kind": "members.list" }), false),
        (
            json!({ "method": "post", "path": "/role_assignments" }),
            true,
        ),
        (json!({ "method": "GET" }), false),
        (json!({ "user": cloud.user(6) }), true),
        (json!({ "user": cloud.user(7) }), false),
        (json!({ "body": "billing-admin" }), true),
        (json!({ "body": "deployment-admin" }), false),
    ] {
        let rules = json!({ "rules": [
            { "match": matcher, "action": { "type": "fail", "status": 500 } },
        ]});
        cloud.control("PUT", "faults", rules).await;
        let status = cloud.try_add().await.unwrap().status;
        assert_eq!(status == 500, hits, "{matcher}");
        let fired = cloud.control("GET", "faults", Value::Null).await["rules"][0]["fired"].clone();
        assert_eq!(fired == 1, hits, "{matcher}");
    }
    cloud.control("DELETE", "faults", Value::Null).await;
    assert_eq!(cloud.try_add().await.unwrap().status, 200);
}

#[tokio::test]
async fn after_and_times_bound_a_rule_and_luck_repeats_with_the_seed() {
    let cloud = Cloud::start().await;
    let mut rule = FaultRule::on(
        ADD,
        Action::Fail {
            status: 500,
            code: None,
            message: None,
            html: false,
            applied: false,
        },
    );
    rule.after = 2;
    cloud.handle().set_faults(vec![rule.clone().times(1)]);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(cloud.try_add().await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 500, 200]);

    rule.after = 0;
    rule.probability = 0.5;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let cloud = Cloud::start().await;
        cloud.handle().set_faults(vec![rule.clone()]);
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(cloud.try_add().await.unwrap().status);
        }
        assert!(statuses.contains(&200) && statuses.contains(&500));
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_failure_may_have_been_applied() {
    let cloud = Cloud::start().await;
    for html in [false, true] {
        let applied = true;
        cloud.fault(
            ADD,
            Action::Fail {
                status: 502,
                code: None,
                message: None,
                html,
                applied,
            },
        );
        assert_eq!(cloud.try_add().await.unwrap().status, 502);
        assert!(cloud.has());
        cloud.try_remove().await.unwrap().is_empty_success();
    }
}

#[tokio::test]
async fn an_answer_is_rewritten() {
    let cloud = Cloud::start().await;
    let members = format!("/organizations/{}/members", cloud.org);
    let merge = json!({ "next_page": "2", "members": null, "more": { "a": 1 } });
    cloud.fault("members.list", Action::Rewrite { merge });
    assert_eq!(
        cloud.get(&members).await.body,
        json!({ "next_page": "2", "more": { "a": 1 } })
    );
}
