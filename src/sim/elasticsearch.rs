//! Each project's Elasticsearch, as far as roles go: the root, who am I, `_security/role`.
//!
//! Errors here have Elasticsearch's shape, never the Cloud's.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::assignments::Scope;
use super::core::Core;
use super::es_roles;
use super::reply::Reply;
use super::request::Request;
use super::route::Route;
use super::world::{Organization, Project};

/// Who calls a project's Elasticsearch.
struct Visitor {
    name: String,
    roles: BTreeSet<String>,
    is_manager: bool,
}

/// An error in Elasticsearch's shape.
pub(crate) fn error(status: u16, kind: &str, reason: &str) -> Reply {
    let cause = json!({ "type": kind, "reason": reason });
    let mut body = cause.clone();
    body["root_cause"] = json!([cause]);
    Reply::json(status, json!({ "error": body, "status": status }))
}

impl Core {
    pub(crate) fn elasticsearch(
        &mut self,
        route: &Route,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Reply {
        let reply = self.elasticsearch_answer(route, request, now);
        let accept = request.header("accept").unwrap_or_default();
        let mut reply = reply.with("x-elastic-product", "Elasticsearch");
        for version in ["9", "8"] {
            if accept.contains(&format!("compatible-with={version}")) {
                reply.content_type = match version {
                    "9" => "application/vnd.elasticsearch+json;compatible-with=9",
                    _ => "application/vnd.elasticsearch+json;compatible-with=8",
                };
                break;
            }
        }
        reply
    }

    fn elasticsearch_answer(
        &mut self,
        route: &Route,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Reply {
        let id = route.project().unwrap_or_default().to_owned();
        let Some((organization, project)) = self.world.project(&id) else {
            return error(
                404,
                "resource_not_found_exception",
                &format!("unknown project [{id}]"),
            );
        };
        let Some(visitor) = visitor(organization, project, request, now) else {
            let reason = format!("unable to authenticate for REST request [{}]", request.path);
            return error(401, "security_exception", &reason).with("www-authenticate", "ApiKey");
        };
        let is_forbidden = !visitor.is_manager
            && !matches!(route, Route::EsAuthenticate(_))
            && (visitor.roles.is_empty() || !matches!(route, Route::EsInfo(_)));
        if is_forbidden {
            let reason = format!(
                "action [{}] is unauthorized for API key id [{}], this action is granted by the cluster privileges [manage_security,all]",
                action(route),
                visitor.name
            );
            return error(403, "security_exception", &reason);
        }
        if let Route::EsInfo(_) = route {
            return Reply::ok(info(project));
        }
        if let Route::EsAuthenticate(_) = route {
            return Reply::ok(json!({
                "username": visitor.name,
                "roles": visitor.roles,
                "metadata": {},
                "enabled": true,
                "authentication_type": "api_key",
            }));
        }
        if let Route::EsRolesGet(_, names) = route {
            return roles_get(project, names);
        }
        if let Route::EsRolePut(_, name) = route {
            return self.role_put(&id, name, request);
        }
        if let Route::EsRoleDelete(_, name) = route {
            return self.role_delete(&id, name);
        }
        let reason = format!(
            "no handler found for uri [{}] and method [{}]",
            request.path, request.method
        );
        error(400, "illegal_argument_exception", &reason)
    }

    fn role_put(&mut self, project_id: &str, name: &str, request: &Request) -> Reply {
        if let Some(refresh) = request.query("refresh")
            && !matches!(refresh, "true" | "false" | "wait_for" | "")
        {
            let reason = format!("Unknown value for refresh: [{refresh}].");
            return error(400, "illegal_argument_exception", &reason);
        }
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(_) => return error(400, "parse_exception", "request body is required"),
        };
        match es_roles::descriptor(name, &body) {
            Err(refusal) => error(400, refusal.kind, &refusal.reason),
            Ok(descriptor) => {
                let created = self
                    .world
                    .project_mut(project_id)
                    .is_some_and(|p| p.roles.insert(name.to_owned(), descriptor).is_none());
                Reply::ok(json!({ "role": { "created": created } }))
            }
        }
    }

    fn role_delete(&mut self, project_id: &str, name: &str) -> Reply {
        let found = self
            .world
            .project_mut(project_id)
            .is_some_and(|project| project.roles.remove(name).is_some());
        Reply::json(if found { 200 } else { 404 }, json!({ "found": found }))
    }
}

fn action(route: &Route) -> String {
    let verb = route.kind().strip_prefix("es.roles.");
    verb.map_or_else(
        || "cluster:monitor/main".to_owned(),
        |verb| format!("cluster:admin/xpack/security/role/{verb}"),
    )
}

fn roles_get(project: &Project, names: &[String]) -> Reply {
    let found: Map<String, Value> = project
        .roles
        .iter()
        .filter(|(name, _)| names.is_empty() || names.contains(*name))
        .map(|(name, role)| (name.clone(), es_roles::shown(role)))
        .collect();
    let status = if found.is_empty() && !names.is_empty() {
        404
    } else {
        200
    };
    Reply::json(status, Value::Object(found))
}

fn info(project: &Project) -> Value {
    json!({
        "name": "serverless",
        "cluster_name": project.id,
        "cluster_uuid": project.id,
        "version": {
            "number": "8.11.0",
            "build_flavor": "serverless",
            "build_type": "docker",
            "build_hash": "00000000",
            "build_date": "2023-10-31",
            "build_snapshot": false,
            "lucene_version": "9.7.0",
            "minimum_wire_compatibility_version": "8.11.0",
            "minimum_index_compatibility_version": "8.11.0",
        },
        "tagline": "You Know, for Search",
    })
}

/// Reads the key: the project's own, or a Cloud key whose stack roles reach this project.
fn visitor(
    organization: &Organization,
    project: &Project,
    request: &Request,
    now: DateTime<Utc>,
) -> Option<Visitor> {
    let value = request.api_key()?;
    if project.elasticsearch_key.as_deref() == Some(value) {
        return Some(Visitor {
            name: "elasticsearch-key".to_owned(),
            roles: BTreeSet::new(),
            is_manager: true,
        });
    }
    let key = organization
        .api_keys
        .iter()
        .find(|key| key.key == value && !key.is_expired(now))?;
    let roles: BTreeSet<String> = key
        .role_assignments
        .entries
        .iter()
        .filter(|entry| match &entry.scope {
            Scope::Organization => true,
            Scope::Project(kind) => {
                kind == project.kind.name()
                    && (entry.all == Some(true)
                        || entry.ids.iter().flatten().any(|id| *id == project.id))
            }
            Scope::Platform | Scope::Deployment | Scope::Other(_) => false,
        })
        .flat_map(|entry| entry.application_roles.iter().flatten().cloned())
        .collect();
    let is_manager = roles.iter().any(|role| {
        role == "admin"
            || role == "superuser"
            || project
                .roles
                .get(role)
                .is_some_and(es_roles::manages_security)
    });
    Some(Visitor {
        name: key.id.clone(),
        roles,
        is_manager,
    })
}
