//! Invitations, from sending to joining.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Cloud, read};

impl Cloud {
    fn invitations(&self) -> String {
        format!("/organizations/{}/invitations", self.org)
    }

    async fn invite(&self, email: &str) -> Answer {
        self.call("POST", &self.invitations(), json!({ "emails": [email] }))
            .await
    }

    async fn open(&self) -> Vec<Value> {
        self.get(&self.invitations()).await.body["invitations"]
            .as_array()
            .unwrap()
            .clone()
    }

    async fn accept(&self, token: &str, user: Option<&str>) -> Answer {
        let url = format!(
            "{}/api/v1/organizations/invitations/{token}/_accept",
            self.base()
        );
        let mut request = self.http.request(Method::POST, url);
        request = match user {
            Some(user) => request.header("x-sim-user", user),
            None => request.header("authorization", format!("ApiKey {}", self.key)),
        };
        read(request).await.unwrap()
    }

    fn outsider(&self) -> String {
        self.handle()
            .with(|core| core.world.people[0].user_id.clone())
    }
}

fn token(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.body["invitations"][0]["token"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn an_accepted_invitation_makes_a_member_with_its_roles() {
    let cloud = Cloud::start().await;
    let body = json!({
        "emails": ["ines.contractor@example.net"],
        "expires_in": "7d",
        "role_assignments": cloud.organization_role("billing-admin"),
    });
    let made = cloud.call("POST", &cloud.invitations(), body).await;
    let token = token(&made);
    let invitation = &made.body["invitations"][0];
    assert_eq!(invitation["expires_at"], "2026-03-09T12:00:00.000Z");
    assert_eq!(invitation["expired"], false);
    assert_eq!(invitation["organization"]["id"], cloud.org.as_str());
    let read = cloud
        .get(&format!("/organizations/invitations/{token}"))
        .await;
    assert_eq!(&read.body, invitation);
    assert_eq!(cloud.open().await, std::slice::from_ref(invitation));

    let user = cloud.outsider();
    cloud
        .accept(&token, None)
        .await
        .refused(403, "root.invalid_authentication");
    cloud
        .accept(&token, Some("1"))
        .await
        .refused(404, "user.not_found");
    cloud.accept(&token, Some(&user)).await.is_empty_success();
    assert!(cloud.open().await.is_empty());
    let shown = cloud.shown(&cloud.key, &user).await;
    assert_eq!(shown, cloud.organization_role("billing-admin"));
    cloud
        .accept(&token, Some(&user))
        .await
        .refused(404, "organization.invitation_not_found");
}

#[tokio::test]
async fn a_member_of_an_organization_cannot_accept() {
    let cloud = Cloud::start().await;
    let token = token(&cloud.invite("x@example.com").await);
    let member = cloud.user(6);
    cloud
        .accept(&token, Some(&member))
        .await
        .refused(400, "organization.user_organization_already_belongs");
}

#[tokio::test]
async fn the_default_is_three_days_and_expired_tokens_are_dead() {
    for (choice, listed) in [("shown", 1), ("hidden", 0)] {
        let cloud = Cloud::set(&[&format!("expired_invitations={choice}")]).await;
        let token = token(&cloud.invite("ines.contractor@example.net").await);
        cloud.advance(72 * 3_600 - 1);
        assert_eq!(cloud.open().await[0]["expired"], false);
        cloud.advance(1);
        let open = cloud.open().await;
        assert_eq!(open.len(), listed, "{choice}");
        assert!(open.iter().all(|invitation| invitation["expired"] == true));
        let answer = cloud.accept(&token, Some(&cloud.outsider())).await;
        answer.refused(404, "organization.invitation_not_found");
    }
}

#[tokio::test]
async fn a_second_invitation_answers_as_set() {
    let cloud = Cloud::start().await;
    let first = token(&cloud.invite("x@example.com").await);
    let again = cloud.invite("X@example.com").await;
    again.refused(400, "organization.invitation_already_exists");
    let path = format!("{}/{first}", cloud.invitations());
    cloud
        .call("DELETE", &path, Value::Null)
        .await
        .is_empty_success();
    token(&cloud.invite("x@example.com").await);

    let cloud = Cloud::set(&["second_invitation=refresh"]).await;
    let first = token(&cloud.invite("x@example.com").await);
    let second = token(&cloud.invite("X@example.com").await);
    assert_ne!(first, second);
    assert_eq!(cloud.open().await.len(), 1);
}

#[tokio::test]
async fn an_expired_invitation_does_not_stand_in_the_way() {
    let cloud = Cloud::start().await;
    token(&cloud.invite("x@example.com").await);
    cloud.advance(80 * 3_600);
    token(&cloud.invite("x@example.com").await);
    assert_eq!(cloud.open().await.len(), 1);
}

#[tokio::test]
async fn wrong_addresses_and_members_are_refused() {
    let cloud = Cloud::start().await;
    for email in ["", "x", "x@", "@example.com", "a b@example.com"] {
        cloud
            .invite(email)
            .await
            .refused(400, "organization.invitation_invalid_email");
    }
    cloud
        .invite("Ada.Fischer@example.com")
        .await
        .refused(400, "organization.user_organization_already_belongs");
    let none = cloud
        .call("POST", &cloud.invitations(), json!({ "emails": [] }))
        .await;
    none.refused(400, "organization.invitation_invalid_email");
}

#[tokio::test]
async fn the_length_of_an_invitation_is_checked() {
    let cloud = Cloud::set(&["invitation_max_seconds=86400"]).await;
    for (length, status) in [("24h", 201), ("2d", 400), ("tomorrow", 400)] {
        let email = format!("{length}@example.com");
        let body = json!({ "emails": [email], "expires_in": length });
        assert_eq!(
            cloud.call("POST", &cloud.invitations(), body).await.status,
            status,
            "{length}"
        );
    }
}

#[tokio::test]
async fn the_invitation_limit_recovers_and_tells_when_as_set() {
    for (choice, told) in [("absent", None), ("present", Some("600"))] {
        let cloud = Cloud::set(&[
            "invitation_limit=2",
            "invitation_window_seconds=600",
            &format!("invitation_retry_after={choice}"),
        ])
        .await;
        token(&cloud.invite("a@example.com").await);
        token(&cloud.invite("b@example.com").await);
        let answer = cloud.invite("c@example.com").await;
        answer.refused(429, "organization.invitations_rate_limit_exceeded");
        assert_eq!(answer.header("retry-after"), told);
        cloud.advance(600);
        token(&cloud.invite("c@example.com").await);
    }
}

#[tokio::test]
async fn unknown_tokens_are_refused_as_set() {
    for (choice, status) in [("all_or_nothing", 404), ("best_effort", 200)] {
        let cloud = Cloud::set(&[&format!("partial_csv={choice}")]).await;
        let known = token(&cloud.invite("a@example.com").await);
        let path = format!("{}/{known}%2Cnothing", cloud.invitations());
        assert_eq!(
            cloud.call("DELETE", &path, Value::Null).await.status,
            status,
            "{choice}"
        );
    }
    let cloud = Cloud::start().await;
    let path = format!("{}/%2C", cloud.invitations());
    cloud
        .call("DELETE", &path, Value::Null)
        .await
        .refused(400, "root.invalid_data");
    let path = format!("{}/nothing", cloud.invitations());
    let answer = cloud.call("DELETE", &path, Value::Null).await;
    answer.refused(404, "organization.invitation_not_found");
}

#[tokio::test]
async fn another_address_may_accept_as_set() {
    for (choice, status) in [("false", 200), ("true", 403)] {
        let cloud = Cloud::set(&[&format!("accept_requires_email={choice}")]).await;
        let token = token(&cloud.invite("somebody.else@example.com").await);
        let answer = cloud.accept(&token, Some(&cloud.outsider())).await;
        assert_eq!(answer.status, status, "{choice}");
    }
}

#[tokio::test]
async fn admins_invite_within_their_scope_only() {
    let cloud = Cloud::start().await;
    let a = cloud.deployment(0);
    let admin = cloud
        .key_with(cloud.on_deployments("deployment-admin", &[&a]))
        .await;
    let invite = |email: &str, held: Value| json!({ "emails": [email], "role_assignments": held });
    let path = cloud.invitations();
    let within = invite(
        "a@example.com",
        cloud.on_deployments("deployment-viewer", &[&a]),
    );
    assert_eq!(
        cloud.call_as(&admin, "POST", &path, within).await.status,
        201
    );
    let beyond = invite("b@example.com", cloud.organization_role("billing-admin"));
    assert_eq!(
        cloud.call_as(&admin, "POST", &path, beyond).await.status,
        403
    );
    let bare = json!({ "emails": ["c@example.com"] });
    let answer = cloud.call_as(&admin, "POST", &path, bare).await;
    answer.refused(403, "root.invalid_authentication");
}
