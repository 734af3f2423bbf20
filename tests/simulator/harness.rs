//! A running simulator and a client of it. Every answer is checked for JSON nulls.

use chrono::{DateTime, TimeDelta, Utc};
use latchkey::sim::{Handle, Options, Running, SimClock, Simulator, World};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

pub(crate) struct Cloud {
    running: Running,
    pub(crate) http: reqwest::Client,
    pub(crate) key: String,
    pub(crate) org: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    /// The first error code, from the body; the header must say the same.
    pub(crate) fn code(&self) -> &str {
        let code = self.body["errors"][0]["code"].as_str().unwrap_or_default();
        assert_eq!(self.header("x-cloud-error-codes"), Some(code), "{self:?}");
        code
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
    }

    pub(crate) fn is_empty_success(&self) {
        assert_eq!(
            (self.status, &self.body),
            (200, &json!({})),
            "{}",
            self.text
        );
    }
}

pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-03-02T12:00:00Z")
        .unwrap()
        .to_utc()
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts with settings such as `["add_held=bad_request"]`.
    pub(crate) async fn set(pairs: &[&str]) -> Self {
        Self::with(|options| {
            for pair in pairs {
                options.settings.set_pair(pair).unwrap();
            }
        })
        .await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(World::sample(7));
        options.clock = SimClock::frozen(noon());
        change(&mut options);
        let running = Simulator::start(options).await.unwrap();
        Self {
            key: running.api_key(),
            org: running.organization_id(),
            running,
            http: client(),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.running.handle()
    }

    pub(crate) fn base(&self) -> String {
        self.running.base_url()
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.handle().advance(TimeDelta::seconds(seconds));
    }

    pub(crate) async fn stop(self) {
        self.running.shutdown().await;
    }

    /// The user id of the nth member of the sample; 0 is the owner, 6 to 8 hold nothing.
    pub(crate) fn user(&self, at: usize) -> String {
        self.handle()
            .with(|core| core.world.organizations[0].members[at].user_id.clone())
    }

    pub(crate) fn deployment(&self, at: usize) -> String {
        self.handle()
            .with(|core| core.world.organizations[0].deployments[at].id.clone())
    }

    pub(crate) fn project(&self, at: usize) -> String {
        self.handle()
            .with(|core| core.world.organizations[0].projects[at].id.clone())
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    pub(crate) async fn call_as(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        self.send(key, method, path, body).await.unwrap()
    }

    /// `path` is below `/api/v1` unless it starts with `/_`.
    pub(crate) async fn send(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> reqwest::Result<Answer> {
        let prefix = if path.starts_with("/_") {
            ""
        } else {
            "/api/v1"
        };
        let url = format!("{}{prefix}{path}", self.base());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, url);
        if !key.is_empty() {
            request = request.header("authorization", format!("ApiKey {key}"));
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        read(request).await
    }

    /// A control call that must succeed.
    pub(crate) async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self
            .call_as("", method, &format!("/_sim/{path}"), body)
            .await;
        assert!(answer.status < 300, "{} {}", answer.status, answer.text);
        answer.body
    }

    pub(crate) async fn add(&self, user: &str, body: Value) -> Answer {
        self.call("POST", &format!("/users/{user}/role_assignments"), body)
            .await
    }

    pub(crate) async fn remove(&self, user: &str, body: Value) -> Answer {
        self.call("DELETE", &format!("/users/{user}/role_assignments"), body)
            .await
    }

    /// The assignments of one member as `GET members` shows them; null when absent.
    pub(crate) async fn shown(&self, key: &str, user: &str) -> Value {
        let path = format!("/organizations/{}/members", self.org);
        let answer = self.call_as(key, "GET", &path, Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body["members"]
            .as_array()
            .unwrap()
            .iter()
            .find(|member| member["user_id"] == user)
            .unwrap_or_else(|| panic!("{user} is not listed"))["role_assignments"]
            .clone()
    }

    pub(crate) fn on_deployments(&self, role: &str, ids: &[&str]) -> Value {
        json!({ "deployment": [
            { "role_id": role, "organization_id": self.org, "deployment_ids": ids },
        ]})
    }

    pub(crate) fn on_all_deployments(&self, role: &str) -> Value {
        json!({ "deployment": [
            { "role_id": role, "organization_id": self.org, "all": true },
        ]})
    }

    pub(crate) fn on_projects(
        &self,
        kind: &str,
        role: &str,
        ids: &[&str],
        roles: &[&str],
    ) -> Value {
        json!({ "project": { kind: [{
            "role_id": role,
            "organization_id": self.org,
            "project_ids": ids,
            "application_roles": roles,
        }]}})
    }

    pub(crate) fn organization_role(&self, role: &str) -> Value {
        json!({ "organization": [{ "role_id": role, "organization_id": self.org }] })
    }

    /// A key with these roles.
    pub(crate) async fn key_with(&self, role_assignments: Value) -> String {
        let body = json!({ "description": "limited", "role_assignments": role_assignments });
        let made = self.control("POST", "keys", body).await;
        made["key"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

pub(crate) async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text.clone()));
    no_nulls(&body, &text);
    Ok(Answer {
        status,
        headers,
        text,
        body,
    })
}

fn no_nulls(value: &Value, text: &str) {
    match value {
        Value::Null => panic!("a null in {text}"),
        Value::Array(items) => items.iter().for_each(|item| no_nulls(item, text)),
        Value::Object(fields) => fields.values().for_each(|item| no_nulls(item, text)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The ids in `deployment` entries of a role, sorted.
pub(crate) fn deployment_ids(shown: &Value, role: &str) -> Vec<String> {
    let mut ids: Vec<String> = shown["deployment"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["role_id"] == role)
        .flat_map(|entry| {
            entry["deployment_ids"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

pub(crate) fn sorted(ids: &[&str]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    ids.sort();
    ids
}
