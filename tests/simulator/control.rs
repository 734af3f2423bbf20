//! The control API, the clock and the world file.

use latchkey::sim::{Options, Settings, Simulator, StartError, World};
use serde_json::{Value, json};

use crate::harness::Cloud;

#[tokio::test]
async fn a_dumped_world_loads_again() {
    let cloud = Cloud::start().await;
    cloud
        .add(
            &cloud.user(6),
            cloud.on_all_deployments("deployment-viewer"),
        )
        .await;
    let dump = cloud.control("GET", "world", Value::Null).await;
    let other = Cloud::with(|options| options.world = World::sample(8)).await;
    assert_ne!(other.control("GET", "world", Value::Null).await, dump);
    let ready = other.control("PUT", "world", dump.clone()).await;
    assert_eq!(ready["organization_id"], cloud.org.as_str());
    assert_eq!(other.control("GET", "world", Value::Null).await, dump);
    let yaml = serde_yaml::to_string(&cloud.handle().world()).unwrap();
    assert_eq!(World::from_text(&yaml).unwrap(), cloud.handle().world());
}

#[tokio::test]
async fn a_wrong_world_is_refused_and_named() {
    let cloud = Cloud::start().await;
    let mut twice = cloud.control("GET", "world", Value::Null).await;
    let member = twice["organizations"][0]["members"][0].clone();
    twice["organizations"][0]["members"]
        .as_array_mut()
        .unwrap()
        .push(member);
    for (world, part) in [
        (json!({ "organizations": [] }), "no organization"),
        (
            json!({ "organizations": [{ "id": "1", "name": "x", "odd": 1 }] }),
            "organizations[0]",
        ),
        (twice, "twice"),
    ] {
        let answer = cloud.call_as("", "PUT", "/_sim/world", world).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains(part), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_sso_login_overwrites_roles() {
    let cloud = Cloud::start().await;
    let user = cloud.user(6);
    cloud
        .add(&user, cloud.organization_role("billing-admin"))
        .await
        .is_empty_success();
    let mapped = cloud.on_all_deployments("deployment-viewer");
    let login = json!({ "user_id": user, "role_assignments": mapped });
    cloud.control("POST", "sso-login", login).await;
    assert_eq!(cloud.shown(&cloud.key, &user).await, mapped);
}

#[tokio::test]
async fn a_meddling_administrator_needs_no_key() {
    let cloud = Cloud::start().await;
    let path = format!("members/{}/assignments", cloud.user(6));
    let viewer = cloud.on_deployments("deployment-viewer", &[&cloud.deployment(0)]);
    let held = cloud.control("POST", &path, viewer.clone()).await;
    assert_eq!(held["role_assignments"], viewer);
    assert_eq!(cloud.control("GET", &path, Value::Null).await, held);
    let none = cloud.control("DELETE", &path, viewer).await;
    assert_eq!(none["role_assignments"], json!({}));
    assert_eq!(
        cloud.handle().calls().total,
        0,
        "control calls are not counted"
    );
}

#[tokio::test]
async fn people_accept_join_and_leave() {
    let cloud = Cloud::start().await;
    let path = format!("/organizations/{}/invitations", cloud.org);
    let body = json!({ "emails": ["a@example.com", "ines.contractor@example.net"] });
    let made = cloud.call("POST", &path, body).await;
    let token = made.body["invitations"][0]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("invitations/{token}/accept");
    let new = cloud
        .control("POST", &path, json!({ "user_id": "77", "name": "A" }))
        .await;
    assert_eq!(
        (&new["user_id"], &new["email"]),
        (&json!("77"), &json!("a@example.com"))
    );
    let outsider = cloud
        .handle()
        .with(|core| core.world.people[0].user_id.clone());
    let path = "invitations/ines.contractor%40example.net/accept";
    assert_eq!(
        cloud.control("POST", path, json!({})).await["user_id"],
        outsider.as_str()
    );
    assert_eq!(cloud.shown(&cloud.key, &outsider).await, Value::Null);

    cloud.control("DELETE", "members/77", Value::Null).await;
    cloud.advance(60);
    cloud.control("PUT", "members/77", json!({})).await;
    let back = cloud
        .handle()
        .with(|core| core.world.membership("77").unwrap().1.clone());
    assert_eq!(
        (back.email.as_str(), back.member_since),
        ("a@example.com", cloud.handle().now())
    );
}

#[tokio::test]
async fn keys_are_made_reduced_expired_and_revoked() {
    let cloud = Cloud::start().await;
    let made = cloud
        .control("POST", "keys", json!({ "expires_in": "1h" }))
        .await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(made["expiration_date"], "2026-03-02T13:00:00Z");
    let members = format!("/organizations/{}/members", cloud.org);
    let status = async |key: &str| {
        cloud
            .call_as(key, "GET", &members, Value::Null)
            .await
            .status
    };
    assert_ne!(cloud.shown(key, &cloud.user(0)).await, Value::Null);
    cloud
        .control("POST", &format!("keys/{id}/reduce"), json!({}))
        .await;
    assert_eq!(
        cloud.shown(key, &cloud.user(0)).await,
        Value::Null,
        "filtered, with 200"
    );
    cloud
        .control("POST", &format!("keys/{id}/expire"), Value::Null)
        .await;
    assert_eq!(status(key).await, 401);
    let other = cloud.control("POST", "keys", json!({})).await;
    let key = other["key"].as_str().unwrap();
    assert_eq!(status(key).await, 200);
    cloud
        .control(
            "DELETE",
            &format!("keys/{}", other["id"].as_str().unwrap()),
            Value::Null,
        )
        .await;
    assert_eq!(status(key).await, 401);
}

#[tokio::test]
async fn the_clock_moves_by_hand() {
    let cloud = Cloud::start().await;
    let now = cloud
        .control("POST", "clock", json!({ "advance_seconds": 1.5 }))
        .await;
    assert_eq!(
        now,
        json!({ "now": "2026-03-02T12:00:01.500Z", "frozen": true })
    );
    let now = cloud
        .control("POST", "clock", json!({ "now": "2027-01-01T00:00:00Z" }))
        .await;
    assert_eq!(now["now"], "2027-01-01T00:00:00.000Z");
    let runs = cloud
        .control("POST", "clock", json!({ "freeze": false }))
        .await;
    assert_eq!(runs["frozen"], false);
}

#[tokio::test]
async fn calls_are_counted_by_kind_and_logged() {
    let cloud = Cloud::start().await;
    let (user, a) = (cloud.user(6), cloud.deployment(0));
    cloud
        .add(&user, cloud.on_deployments("deployment-viewer", &[&a]))
        .await;
    cloud.shown(&cloud.key, &user).await;
    cloud
        .add("1", cloud.on_all_deployments("deployment-viewer"))
        .await;
    let report = cloud.control("GET", "calls", Value::Null).await;
    assert_eq!(report["total"], 3);
    assert_eq!(
        report["by_kind"],
        json!({ "members.list": 1, "role_assignments.add": 2 })
    );
    assert_eq!(report["by_status"], json!({ "200": 2, "400": 1 }));
    let first = &report["log"][0];
    assert_eq!(first["user"], user.as_str());
    assert_eq!(
        first["pairs"],
        json!([format!("deployment/deployment-viewer/{a}")])
    );
    assert_eq!(first["at"], "2026-03-02T12:00:00Z");
    cloud.control("DELETE", "calls", Value::Null).await;
    assert_eq!(cloud.handle().calls().total, 0);
}

#[tokio::test]
async fn settings_change_while_it_runs() {
    let cloud = Cloud::start().await;
    cloud
        .control("PATCH", "settings", json!({ "add_held": "bad_request" }))
        .await;
    assert_eq!(
        cloud.control("GET", "settings", Value::Null).await["add_held"],
        "bad_request"
    );
    let wrong = cloud
        .call_as("", "PATCH", "/_sim/settings", json!({ "nothing": 1 }))
        .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn the_ready_line_tells_all_a_script_needs() {
    let cloud = Cloud::start().await;
    let ready = cloud.control("GET", "ready", Value::Null).await;
    assert_eq!(ready["base_url"], cloud.base());
    assert_eq!(ready["organization_id"], cloud.org.as_str());
    assert_eq!(ready["api_key"], cloud.key.as_str());
    assert_eq!(ready["projects"].as_array().unwrap().len(), 7);
    for project in ready["projects"].as_array().unwrap() {
        let url = project["elasticsearch_url"].as_str().unwrap();
        let key = project["elasticsearch_key"].as_str().unwrap();
        let request = cloud
            .http
            .get(url)
            .header("authorization", format!("ApiKey {key}"));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let mut options = Options::new(World::sample(1));
    options.listen = "0.0.0.0:0".parse().unwrap();
    let refused = Simulator::start(options).await.map(|_| ());
    assert!(matches!(refused, Err(StartError::NotLoopback(_))));
}

#[tokio::test]
async fn dropping_it_ends_it() {
    let running = Simulator::start(Options::new(World::sample(1)))
        .await
        .unwrap();
    let address = running.address();
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    drop(running);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn runs_with_one_seed_are_equal_and_with_two_are_not() {
    let run = async |seed: u64| {
        let cloud = Cloud::with(|options| {
            options.world = World::sample(seed);
            options.seed = seed;
        })
        .await;
        let user = cloud.user(6);
        let mut texts = Vec::new();
        for at in 0..4 {
            let body = cloud.on_deployments("deployment-viewer", &[&cloud.deployment(at)]);
            cloud.add(&user, body).await.is_empty_success();
            texts.push(cloud.shown(&cloud.key, &user).await.to_string());
        }
        let path = format!("/organizations/{}/invitations", cloud.org);
        texts.push(
            cloud
                .call("POST", &path, json!({ "emails": ["x@example.com"] }))
                .await
                .text,
        );
        let path = "/users/auth/keys";
        texts.push(
            cloud
                .call("POST", path, json!({ "description": "x" }))
                .await
                .text,
        );
        texts
    };
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}

#[test]
fn every_setting_is_documented_with_its_default_and_no_other_is() {
    let manual = include_str!("../../docs/simulator.md");
    let table = manual
        .split("## ")
        .find(|part| part.starts_with("Settings"))
        .unwrap();
    let documented: std::collections::BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let default = line.rsplit(" | ").next().unwrap().trim_end_matches(" |");
            (line.split('`').next().unwrap(), default.trim_matches('`'))
        })
        .collect();
    let settings = serde_json::to_value(Settings::default()).unwrap();
    let real = settings.as_object().unwrap();
    assert!(
        documented
            .keys()
            .eq(real.keys().collect::<std::collections::BTreeSet<_>>())
    );
    for (name, value) in real {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(documented[name.as_str()], text, "{name}");
    }
}

#[test]
fn the_documented_world_loads() {
    let manual = include_str!("../../docs/simulator.md");
    let yaml = manual
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let world = World::from_text(yaml).unwrap();
    assert_eq!(world.organizations[0].owners(), 1);
    assert_eq!(world.organizations[0].projects.len(), 1);
}
