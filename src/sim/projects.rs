//! Serverless projects of the three types, their roles and status, and the regions.

use serde_json::{Value, json};

use super::access::Caller;
use super::assignments::Scope;
use super::core::Core;
use super::reply::{Failure, Outcome, Reply};
use super::request::Request;
use super::text::rfc3339;
use super::world::{Project, ProjectType, Region};

impl Core {
    /// Where a project's Elasticsearch answers.
    #[must_use]
    pub fn elasticsearch_url(&self, project_id: &str) -> String {
        format!("{}/_es/{project_id}", self.base_url)
    }

    fn project_body(&self, organization_id: &str, project: &Project) -> Value {
        let mut fields = project.details.clone();
        let host = format!("{}.{}.example.test", project.alias, project.region_id);
        let mut endpoints = json!({
            "elasticsearch": self.elasticsearch_url(&project.id),
            "kibana": format!("https://{host}/kibana"),
        });
        match project.kind {
            ProjectType::Elasticsearch => {
                fields
                    .entry("optimized_for")
                    .or_insert_with(|| json!("general_purpose"));
            }
            ProjectType::Observability => {
                endpoints["apm"] = json!(format!("https://{host}/apm"));
                endpoints["ingest"] = json!(format!("https://{host}/ingest"));
            }
            ProjectType::Security => endpoints["ingest"] = json!(format!("https://{host}/ingest")),
        }
        let core = json!({
            "id": project.id,
            "name": project.name,
            "alias": project.alias,
            "region_id": project.region_id,
            "type": project.kind.name(),
            "cloud_id": format!("{}:{}", project.alias, project.id),
            "endpoints": endpoints,
            "metadata": {
                "created_at": rfc3339(project.created_at),
                "created_by": project.created_by,
                "organization_id": organization_id,
                "tags": project.tags,
            },
        });
        if let Value::Object(core) = core {
            fields.extend(core);
        }
        Value::Object(fields)
    }

    pub(crate) fn list_projects(
        &self,
        caller: &Caller,
        kind: ProjectType,
        request: &Request,
    ) -> Outcome {
        let scope = || Scope::Project(kind.name().to_owned());
        let wanted: Vec<(&str, &str)> = request
            .query
            .iter()
            .filter_map(|(name, value)| {
                Some((
                    name.strip_prefix("tags[")?.strip_suffix(']')?,
                    value.as_str(),
                ))
            })
            .collect();
        let narrows =
            request.query("linked").is_some() || request.query("traffic_filter").is_some();
        let items: Vec<Value> = self
            .own(caller)?
            .projects
            .iter()
            .filter(|project| project.kind == kind && !narrows)
            .filter(|project| caller.reaches_id(scope(), &project.id))
            .filter(|project| {
                wanted
                    .iter()
                    .all(|(name, value)| project.tags.get(*name).is_some_and(|have| have == value))
            })
            .map(|project| self.project_body(&caller.organization_id, project))
            .collect();
        Ok(Reply::ok(json!({ "items": items })))
    }

    fn visible_project(
        &self,
        caller: &Caller,
        kind: ProjectType,
        id: &str,
    ) -> Result<&Project, Failure> {
        self.own(caller)?
            .projects
            .iter()
            .find(|project| project.kind == kind && project.id == id)
            .filter(|_| caller.reaches_id(Scope::Project(kind.name().to_owned()), id))
            .ok_or_else(|| {
                Failure::new(
                    404,
                    "project.not_found",
                    format!("Project [{id}] was not found"),
                )
            })
    }

    pub(crate) fn get_project(&self, caller: &Caller, kind: ProjectType, id: &str) -> Outcome {
        let project = self.visible_project(caller, kind, id)?;
        let body = self.project_body(&caller.organization_id, project);
        Ok(Reply::ok(body).with("etag", self.etag()))
    }

    pub(crate) fn project_roles(&self, caller: &Caller, kind: ProjectType, id: &str) -> Outcome {
        let project = self.visible_project(caller, kind, id)?;
        let roles: Vec<Value> = project
            .roles
            .iter()
            .map(|(name, role)| {
                let description = role.get("description").and_then(Value::as_str);
                json!({ "name": name, "description": description.unwrap_or_default() })
            })
            .collect();
        let mut body = serde_json::Map::new();
        body.insert(id.to_owned(), json!({ "roles": roles }));
        Ok(Reply::ok(Value::Object(body)).with("etag", self.etag()))
    }

    pub(crate) fn project_status(&self, caller: &Caller, kind: ProjectType, id: &str) -> Outcome {
        let project = self.visible_project(caller, kind, id)?;
        Ok(Reply::ok(json!({
            "phase": project.phase,
            "phase_change_timestamp": rfc3339(project.created_at),
        })))
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    pub(crate) fn list_regions(&self) -> Outcome {
        Ok(Reply::ok(
            self.world.regions.iter().map(region_body).collect(),
        ))
    }

    pub(crate) fn get_region(&self, id: &str) -> Outcome {
        self.world
            .regions
            .iter()
            .find(|region| region.id == id)
            .map(|region| Reply::ok(region_body(region)))
            .ok_or_else(|| {
                Failure::new(
                    404,
                    "region.not_found",
                    format!("Region [{id}] was not found"),
                )
            })
    }
}

fn region_body(region: &Region) -> Value {
    json!({
        "id": region.id,
        "name": region.name,
        "csp": region.csp,
        "csp_region": region.csp_region,
        "country_code": region.country_code,
        "project_creation_enabled": region.project_creation_enabled,
    })
}
