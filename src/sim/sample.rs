//! Worlds made from a seed: a believable organization, and one as large as wanted.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, json};

use super::assignments::{Assignment, Assignments};
use super::text;
use super::world::{
    ApiKey, Deployment, Member, Organization, Person, Project, ProjectType, Region, Resource, Tag,
    World,
};

const PEOPLE: [(&str, &str); 8] = [
    ("Ada Fischer", "ada.fischer"),
    ("Bruno Costa", "bruno.costa"),
    ("Chiara Rossi", "chiara.rossi"),
    ("Dmitri Novak", "dmitri.novak"),
    ("Elif Demir", "elif.demir"),
    ("Farah Haddad", "farah.haddad"),
    ("Goran Petrov", "goran.petrov"),
    ("Hana Suzuki", "hana.suzuki"),
];

const DEPLOYMENTS: [(&str, &str); 4] = [
    ("production-logging", "sre"),
    ("production-search", "search"),
    ("staging", "platform"),
    ("security-analytics", "secops"),
];

const PROJECTS: [(ProjectType, &str); 7] = [
    (ProjectType::Elasticsearch, "catalogue-search"),
    (ProjectType::Elasticsearch, "support-knowledge"),
    (ProjectType::Observability, "checkout-observability"),
    (ProjectType::Observability, "platform-metrics"),
    (ProjectType::Security, "corporate-siem"),
    (ProjectType::Security, "cloud-detections"),
    (ProjectType::Security, "red-team-lab"),
];

/// The sample's epoch: everything in it was made at or after this time.
fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_735_689_600, 0).expect("the first of January 2025 is a time")
}

fn days(count: usize) -> TimeDelta {
    TimeDelta::days(i64::try_from(count).unwrap_or(0))
}

struct Maker {
    rng: ChaCha8Rng,
    organization_id: String,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x3a3e_0003);
        let organization_id = text::digits(&mut rng, 12);
        Self {
            rng,
            organization_id,
        }
    }

    fn user_id(&mut self) -> String {
        text::digits(&mut self.rng, 16)
    }

    fn member(&mut self, at: usize, name: &str, mailbox: &str, held: Vec<Assignment>) -> Member {
        Member {
            user_id: self.user_id(),
            email: format!("{mailbox}@example.com"),
            name: name.to_owned(),
            member_since: epoch() + days(at % 365),
            role_assignments: Assignments::new(held),
        }
    }

    fn deployment(&mut self, at: usize, name: &str, team: &str) -> Deployment {
        let region = if at.is_multiple_of(2) {
            "aws-eu-central-1"
        } else {
            "gcp-us-central1"
        };
        let mut resource = |kind: &str| {
            let id = text::hex(&mut self.rng, 32);
            let is_cluster = kind == "elasticsearch";
            Resource {
                kind: kind.to_owned(),
                ref_id: format!("main-{kind}"),
                region: region.to_owned(),
                cloud_id: is_cluster.then(|| format!("{name}:{id}")),
                id,
            }
        };
        let resources = ["elasticsearch", "kibana", "integrations_server"].map(&mut resource);
        Deployment {
            id: text::hex(&mut self.rng, 32),
            name: name.to_owned(),
            alias: Some(name.to_owned()),
            healthy: true,
            hidden: false,
            tags: vec![Tag {
                key: "owner".to_owned(),
                value: team.to_owned(),
            }],
            resources: resources.into(),
        }
    }

    fn project(&mut self, at: usize, kind: ProjectType, name: &str, owner: &str) -> Project {
        let id = text::hex(&mut self.rng, 32);
        let mut details = Map::new();
        let mut roles = BTreeMap::new();
        match kind {
            ProjectType::Elasticsearch => {
                details.insert("optimized_for".to_owned(), json!("general_purpose"));
            }
            ProjectType::Observability => {
                details.insert("product_tier".to_owned(), json!("complete"));
            }
            ProjectType::Security => {
                details.insert(
                    "product_types".to_owned(),
                    json!([{ "product_line": "security", "product_tier": "complete" }]),
                );
                roles.insert(
                    "case-reader".to_owned(),
                    json!({
                        "cluster": [],
                        "indices": [{ "names": ["cases-*"], "privileges": ["read"] }],
                        "applications": [],
                        "metadata": {},
                        "description": "Reads cases",
                    }),
                );
            }
        }
        let key_id = text::token(&mut self.rng, 20);
        let secret = text::token(&mut self.rng, 22);
        Project {
            alias: format!("{name}-{}", &id[..6]),
            id,
            kind,
            name: name.to_owned(),
            region_id: "aws-us-east-1".to_owned(),
            created_at: epoch() + days(30 + at),
            created_by: owner.to_owned(),
            phase: "initialized".to_owned(),
            tags: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            details,
            elasticsearch_key: Some(text::elasticsearch_key(&key_id, &secret)),
            roles,
        }
    }

    fn owner_key(&mut self, owner: &str) -> ApiKey {
        let id = text::token(&mut self.rng, 20);
        let secret = text::token(&mut self.rng, 22);
        ApiKey {
            key: text::cloud_key(&id, &secret),
            id,
            description: "connector".to_owned(),
            creation_date: epoch() + days(60),
            expiration_date: DateTime::from_timestamp(4_070_908_800, 0),
            user_id: owner.to_owned(),
            role_assignments: Assignments::new(vec![Assignment::organization(
                &self.organization_id,
                "organization-admin",
            )]),
        }
    }
}

fn regions() -> Vec<Region> {
    let region = |id: &str, name: &str, csp: &str, csp_region: &str, country: &str| Region {
        id: id.to_owned(),
        name: name.to_owned(),
        csp: csp.to_owned(),
        csp_region: csp_region.to_owned(),
        country_code: country.to_owned(),
        project_creation_enabled: true,
    };
    vec![
        region("aws-us-east-1", "N. Virginia", "aws", "us-east-1", "US"),
        region("aws-eu-west-1", "Ireland", "aws", "eu-west-1", "IE"),
        region("gcp-us-central1", "Iowa", "gcp", "us-central1", "US"),
    ]
}

impl World {
    /// A believable organization: one owner, eight further members, four deployments, two or three
    /// projects of each type, one key with all rights that ends in 2099, and one person outside.
    #[must_use]
    pub fn sample(seed: u64) -> Self {
        let mut maker = Maker::new(seed);
        let id = maker.organization_id.clone();
        let owner_held = vec![Assignment::organization(&id, "organization-admin")];
        let owner = maker.member(0, "Olga Owner", "olga.owner", owner_held);
        let deployments: Vec<Deployment> = DEPLOYMENTS
            .iter()
            .enumerate()
            .map(|(at, (name, team))| maker.deployment(at, name, team))
            .collect();
        let projects: Vec<Project> = PROJECTS
            .iter()
            .enumerate()
            .map(|(at, (kind, name))| maker.project(at, *kind, name, &owner.user_id))
            .collect();
        let first = deployments[0].id.as_str();
        let (search, siem) = (projects[0].id.as_str(), projects[4].id.as_str());
        let held = [
            vec![Assignment::organization(&id, "billing-admin")],
            vec![Assignment::deployments(&id, "deployment-viewer", &[]).on_all()],
            vec![Assignment::deployments(&id, "deployment-editor", &[first])],
            vec![Assignment::projects(
                &id,
                "elasticsearch",
                "elasticsearch-viewer",
                &[search],
            )],
            vec![
                Assignment::projects(&id, "security", "security-viewer", &[siem])
                    .with_application_roles(&["case-reader"]),
            ],
            vec![],
            vec![],
            vec![],
        ];
        let mut members = vec![owner];
        for (at, ((name, mailbox), held)) in PEOPLE.iter().zip(held).enumerate() {
            members.push(maker.member(at + 1, name, mailbox, held));
        }
        let key = maker.owner_key(&members[0].user_id);
        let outsider = Person {
            user_id: maker.user_id(),
            email: "ines.contractor@example.net".to_owned(),
            name: "Ines Contractor".to_owned(),
        };
        Self {
            organizations: vec![Organization {
                id,
                name: "Example Corp".to_owned(),
                details: Map::new(),
                trust_all: true,
                members,
                invitations: Vec::new(),
                api_keys: vec![key],
                deployments,
                projects,
            }],
            people: vec![outsider],
            regions: regions(),
        }
    }

    /// The sample with this many members in all, each further one with several assignments, and
    /// this many deployments in all; never fewer than the sample has.
    #[must_use]
    pub fn large(seed: u64, members: usize, deployments: usize) -> Self {
        let mut world = Self::sample(seed);
        let mut maker = Maker::new(seed.wrapping_add(1));
        let organization = &mut world.organizations[0];
        maker.organization_id.clone_from(&organization.id);
        let id = organization.id.clone();
        for at in organization.deployments.len()..deployments {
            let made = maker.deployment(at, &format!("deployment-{at:05}"), "platform");
            organization.deployments.push(made);
        }
        for at in organization.members.len()..members {
            let mut some = |count: usize| -> Vec<&str> {
                let start = text::below(&mut maker.rng, organization.deployments.len());
                (0..count)
                    .map(|step| (start + step) % organization.deployments.len())
                    .map(|at| organization.deployments[at].id.as_str())
                    .collect()
            };
            let viewers = some(3);
            let editors = some(1);
            let project = &organization.projects[at % organization.projects.len()];
            let kind = project.kind.name();
            let held = vec![
                Assignment::deployments(&id, "deployment-viewer", &viewers),
                Assignment::deployments(&id, "deployment-editor", &editors),
                Assignment::projects(&id, kind, &format!("{kind}-viewer"), &[&project.id]),
            ];
            let member = maker.member(
                at,
                &format!("Member {at:06}"),
                &format!("member.{at:06}"),
                held,
            );
            organization.members.push(member);
        }
        world
    }
}
