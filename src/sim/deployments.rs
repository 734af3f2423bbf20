//! Hosted deployments: list, search, get. Hidden ones are left out of lists only.

use serde_json::{Map, Value, json};

use super::access::Caller;
use super::assignments::Scope;
use super::core::Core;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::world::{Deployment, Resource};

const KINDS: [&str; 6] = [
    "elasticsearch",
    "kibana",
    "apm",
    "appsearch",
    "enterprise_search",
    "integrations_server",
];

impl Core {
    fn listed_deployments(&self, caller: &Caller) -> Result<Vec<&Deployment>, Failure> {
        Ok(self
            .own(caller)?
            .deployments
            .iter()
            .filter(|deployment| !deployment.hidden)
            .filter(|deployment| caller.reaches_id(Scope::Deployment, &deployment.id))
            .collect())
    }

    pub(crate) fn list_deployments(&self, caller: &Caller) -> Outcome {
        let bodies: Vec<Value> = self
            .listed_deployments(caller)?
            .into_iter()
            .map(|deployment| {
                let resources: Vec<Value> = deployment
                    .resources
                    .iter()
                    .map(|r| flat(deployment, r))
                    .collect();
                json!({ "id": deployment.id, "name": deployment.name, "resources": resources })
            })
            .collect();
        Ok(Reply::ok(json!({ "deployments": bodies })))
    }

    pub(crate) fn search_deployments(&self, caller: &Caller, request: &Request) -> Outcome {
        let body = request.json()?;
        let query = body
            .get("query")
            .cloned()
            .unwrap_or_else(|| json!({ "match_all": {} }));
        let size = body.get("size").and_then(Value::as_u64).unwrap_or(100);
        let start = match body.get("cursor").and_then(Value::as_str) {
            Some(cursor) => cursor.parse().map_err(|_| {
                Failure::new(400, "root.invalid_data", "The cursor is not valid").field("cursor")
            })?,
            None => body.get("from").and_then(Value::as_u64).unwrap_or(0),
        };
        let mut found = Vec::new();
        for deployment in self.listed_deployments(caller)? {
            if matches(&query, deployment)? {
                found.push(deployment);
            }
        }
        let total = found.len();
        let first = usize::try_from(start).unwrap_or(usize::MAX).min(total);
        let last = first
            .saturating_add(usize::try_from(size).unwrap_or(usize::MAX))
            .min(total);
        let page: Vec<Value> = found[first..last].iter().map(|d| whole(d)).collect();
        let cursor = (last < total).then(|| last.to_string());
        Ok(Reply::ok(json!({
            "return_count": page.len(),
            "match_count": total,
            "deployments": page,
            "cursor": cursor,
        })))
    }

    pub(crate) fn get_deployment(&self, caller: &Caller, id: &str) -> Outcome {
        let found = self
            .own(caller)?
            .deployments
            .iter()
            .find(|deployment| deployment.id == id);
        let Some(deployment) = found else {
            let message = format!("Deployment [{id}] was not found");
            return Err(Failure::new(
                404,
                "deployments.deployment_not_found",
                message,
            ));
        };
        if !caller.reaches_id(Scope::Deployment, id) {
            let message = format!(
                "To access the resource [r:/deployments/{id}], the user must have the required authorization"
            );
            return Err(Failure::new(403, "root.permission_denied", message));
        }
        Ok(Reply::ok(whole(deployment)))
    }
}

fn elasticsearch_ref(deployment: &Deployment) -> Option<&str> {
    deployment
        .resources
        .iter()
        .find(|resource| resource.kind == "elasticsearch")
        .map(|resource| resource.ref_id.as_str())
}

fn flat(deployment: &Deployment, resource: &Resource) -> Value {
    let of = elasticsearch_ref(deployment).filter(|_| resource.kind != "elasticsearch");
    json!({
        "ref_id": resource.ref_id,
        "id": resource.id,
        "kind": resource.kind,
        "region": resource.region,
        "cloud_id": resource.cloud_id,
        "elasticsearch_cluster_ref_id": of,
    })
}

fn whole(deployment: &Deployment) -> Value {
    let mut resources = Map::new();
    for kind in KINDS {
        let of_kind: Vec<Value> = deployment
            .resources
            .iter()
            .filter(|resource| resource.kind == kind)
            .map(|resource| detailed(deployment, resource))
            .collect();
        resources.insert(kind.to_owned(), Value::Array(of_kind));
    }
    let mut metadata = json!({ "tags": deployment.tags });
    if deployment.hidden {
        metadata["hidden"] = json!(true);
    }
    json!({
        "id": deployment.id,
        "name": deployment.name,
        "alias": deployment.alias,
        "healthy": deployment.healthy,
        "resources": resources,
        "settings": { "auto_ops": {} },
        "metadata": metadata,
    })
}

fn detailed(deployment: &Deployment, resource: &Resource) -> Value {
    let status = if deployment.hidden {
        "stopped"
    } else {
        "started"
    };
    let info = if resource.kind == "elasticsearch" {
        json!({
            "cluster_id": resource.id,
            "cluster_name": deployment.name,
            "deployment_id": deployment.id,
            "healthy": deployment.healthy,
            "status": status,
            "region": resource.region,
            "plan_info": { "healthy": true, "history": [] },
            "elasticsearch": { "healthy": true },
            "metadata": { "cloud_id": resource.cloud_id },
            "topology": { "healthy": true, "instances": [] },
            "snapshots": { "healthy": true, "count": 0 },
            "external_links": [],
            "associated_kibana_clusters": [],
            "associated_apm_clusters": [],
            "associated_appsearch_clusters": [],
            "associated_enterprise_search_clusters": [],
        })
    } else {
        json!({ "healthy": deployment.healthy, "status": status })
    };
    let of = elasticsearch_ref(deployment).filter(|_| resource.kind != "elasticsearch");
    json!({
        "ref_id": resource.ref_id,
        "id": resource.id,
        "region": resource.region,
        "elasticsearch_cluster_ref_id": of,
        "info": info,
    })
}

/// A useful part of the query language; what is not understood is refused, not ignored.
fn matches(query: &Value, deployment: &Deployment) -> Result<bool, Failure> {
    let Some((kind, argument)) = query.as_object().and_then(|fields| fields.iter().next()) else {
        return Ok(true);
    };
    match kind.as_str() {
        "match_all" => Ok(true),
        "match_none" => Ok(false),
        "term" => Ok(by_field(
            argument,
            "value",
            |have, want| have == want,
            deployment,
        )),
        "match" => Ok(by_field(
            argument,
            "query",
            |have, want| {
                let have = have.to_lowercase();
                want.to_lowercase().split_whitespace().any(|word| {
                    have.split(|c: char| !c.is_alphanumeric())
                        .any(|h| h == word)
                })
            },
            deployment,
        )),
        "prefix" => Ok(by_field(
            argument,
            "value",
            |have, want| have.starts_with(want),
            deployment,
        )),
        "exists" => {
            let field = argument
                .get("field")
                .and_then(Value::as_str)
                .unwrap_or_default();
            Ok(!values(field, deployment).is_empty())
        }
        "nested" => argument
            .get("query")
            .map_or(Ok(true), |inner| matches(inner, deployment)),
        "bool" => matches_bool(argument, deployment),
        _ => Err(Failure::new(
            400,
            "root.invalid_data",
            format!("The simulator does not know the query [{kind}]"),
        )
        .field("query")),
    }
}

fn matches_bool(clauses: &Value, deployment: &Deployment) -> Result<bool, Failure> {
    let list = |name: &str| -> Vec<Value> {
        clauses
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    for clause in list("must").iter().chain(&list("filter")) {
        if !matches(clause, deployment)? {
            return Ok(false);
        }
    }
    for clause in &list("must_not") {
        if matches(clause, deployment)? {
            return Ok(false);
        }
    }
    let should = list("should");
    for clause in &should {
        if matches(clause, deployment)? {
            return Ok(true);
        }
    }
    Ok(should.is_empty())
}

fn by_field(
    argument: &Value,
    inner: &str,
    test: impl Fn(&str, &str) -> bool,
    deployment: &Deployment,
) -> bool {
    let Some((field, wanted)) = argument.as_object().and_then(|fields| fields.iter().next()) else {
        return false;
    };
    let wanted = wanted.get(inner).unwrap_or(wanted);
    let wanted = wanted
        .as_str()
        .map_or_else(|| wanted.to_string(), str::to_owned);
    values(field, deployment)
        .iter()
        .any(|have| test(have, &wanted))
}

fn values(field: &str, deployment: &Deployment) -> Vec<String> {
    match field.trim_end_matches(".keyword") {
        "id" => vec![deployment.id.clone()],
        "name" => vec![deployment.name.clone()],
        "alias" => deployment.alias.iter().cloned().collect(),
        "healthy" => vec![deployment.healthy.to_string()],
        "metadata.tags.key" => deployment.tags.iter().map(|tag| tag.key.clone()).collect(),
        "metadata.tags.value" => deployment
            .tags
            .iter()
            .map(|tag| tag.value.clone())
            .collect(),
        _ => Vec::new(),
    }
}
