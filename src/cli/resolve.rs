//! Names to ids.
//!
//! Owns the rule of every look-up: an id wins, then a name as written, then a name in other case; several are an
//! error that lists them, none an error that suggests. Pure: candidates come as arguments. Never guesses.

use clap::ValueEnum as _;

use super::args::ResourceKind;
use super::exit::{Exit, Failure};
use super::text;
use crate::api::pb;
use crate::domain::assignment::{ProjectType, Scope};
use crate::domain::catalogue;

/// Most names shown in an error.
const SHOWN: usize = 8;

/// Something that a name can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its id.
    pub(super) id: String,
    /// Its names; empty ones do not count.
    pub(super) names: Vec<String>,
    /// How to write it without doubt.
    pub(super) shown: String,
}

/// Finds what a name stands for and gives its position.
///
/// `what` names the kind ("member"), `list` the command that shows all of them.
pub(super) fn pick(
    what: &str,
    list: &str,
    written: &str,
    candidates: &[Candidate],
) -> Result<usize, Failure> {
    let matching = |test: &dyn Fn(&Candidate) -> bool| -> Vec<usize> {
        candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| test(candidate))
            .map(|(index, _)| index)
            .collect()
    };
    let lower = written.to_lowercase();
    let named = |candidate: &Candidate, test: &dyn Fn(&str) -> bool| {
        candidate
            .names
            .iter()
            .any(|name| !name.is_empty() && test(name))
    };
    for found in [
        matching(&|candidate| candidate.id == written),
        matching(&|candidate| named(candidate, &|name| name == written)),
        matching(&|candidate| named(candidate, &|name| name.to_lowercase() == lower)),
    ] {
        match found.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            several => {
                return Err(Failure::usage(
                    format!(
                        "{what} {written:?} is ambiguous: {}",
                        shown(several.iter().map(|index| &candidates[*index]))
                    ),
                    "use the id of the one you mean",
                ));
            }
        }
    }
    let similar = matching(&|candidate| {
        candidate.id.contains(&lower)
            || named(candidate, &|name| name.to_lowercase().contains(&lower))
    });
    let advice = if similar.is_empty() || lower.is_empty() {
        format!("`{list}` shows what there is")
    } else {
        format!(
            "did you mean {}? `{list}` shows all",
            shown(similar.iter().map(|index| &candidates[*index]))
        )
    };
    Err(Failure::new(
        Exit::NotFound,
        format!("no {what} is called {written:?}"),
        advice,
    ))
}

fn shown<'a>(candidates: impl ExactSizeIterator<Item = &'a Candidate>) -> String {
    let more = candidates.len().saturating_sub(SHOWN);
    let mut names: Vec<String> = candidates
        .take(SHOWN)
        .map(|candidate| candidate.shown.clone())
        .collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// A member as a candidate: by id, address or display name.
pub(super) fn member(member: &pb::Member) -> Candidate {
    let shown = match (member.email.as_str(), member.name.as_str()) {
        ("", "") => member.user_id.clone(),
        ("", name) => format!("{name} ({})", member.user_id),
        (email, _) => format!("{email} ({})", member.user_id),
    };
    Candidate {
        id: member.user_id.clone(),
        names: vec![member.email.clone(), member.name.clone()],
        shown,
    }
}

/// A deployment or project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// Its kind.
    pub(super) kind: ResourceKind,
    /// Its id.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// Its alias; may be empty.
    pub(super) alias: String,
    /// Its region; may be empty.
    pub(super) region: String,
    /// Its tags.
    pub(super) tags: Vec<(String, String)>,
}

impl Resource {
    /// As a candidate: by id, name or alias.
    fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id.clone(),
            names: vec![self.name.clone(), self.alias.clone()],
            shown: format!("{}/{} ({})", kind_name(self.kind), self.id, self.name),
        }
    }
}

/// The word for a kind of resource in targets.
pub(super) fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Deployment => "deployment",
        ResourceKind::Elasticsearch => "elasticsearch",
        ResourceKind::Observability => "observability",
        ResourceKind::Security => "security",
    }
}

/// The project type of a kind; `None` for deployments.
pub(super) fn project_type(kind: ResourceKind) -> Option<pb::ProjectType> {
    match kind {
        ResourceKind::Deployment => None,
        ResourceKind::Elasticsearch => Some(pb::ProjectType::Elasticsearch),
        ResourceKind::Observability => Some(pb::ProjectType::Observability),
        ResourceKind::Security => Some(pb::ProjectType::Security),
    }
}

fn scope(kind: ResourceKind) -> Scope {
    match kind {
        ResourceKind::Deployment => Scope::Deployment,
        ResourceKind::Elasticsearch => Scope::Project(ProjectType::Elasticsearch),
        ResourceKind::Observability => Scope::Project(ProjectType::Observability),
        ResourceKind::Security => Scope::Project(ProjectType::Security),
    }
}

/// A target as a person wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WrittenTarget {
    /// `organization`
    Organization,
    /// `deployment/all`
    All(ResourceKind),
    /// `deployment/prod`
    Named(ResourceKind, String),
    /// `prod`
    Bare(String),
}

impl WrittenTarget {
    /// Reads the form; nothing is looked up.
    pub(super) fn parse(written: &str) -> Result<Self, Failure> {
        const FORMS: &str = "write deployment/NAME, elasticsearch/NAME, observability/NAME, security/NAME, \
                             KIND/all, organization, or a bare name";
        match written.split_once('/') {
            None if written.is_empty() => Err(Failure::usage("--on is empty", FORMS)),
            None if written == "organization" => Ok(Self::Organization),
            None if written == "all" => Err(Failure::usage(
                "--on all does not say all of what",
                "write deployment/all, elasticsearch/all, observability/all or security/all",
            )),
            None => Ok(Self::Bare(written.to_owned())),
            Some((_, "")) => Err(Failure::usage(
                format!("target {written:?} has no name after the slash"),
                FORMS,
            )),
            Some((kind, name)) => {
                let kind = ResourceKind::from_str(kind, false).map_err(|_| {
                    Failure::usage(format!("{kind:?} is not a kind of target"), FORMS)
                })?;
                Ok(if name == "all" {
                    Self::All(kind)
                } else {
                    Self::Named(kind, name.to_owned())
                })
            }
        }
    }

    /// Which kinds must be listed to resolve it. A full id needs no look-up, so that resources younger than the
    /// connector's list can be named.
    pub(super) fn kinds_to_list(&self) -> Vec<ResourceKind> {
        match self {
            Self::Organization | Self::All(_) => Vec::new(),
            Self::Named(_, name) if is_full_id(name) => Vec::new(),
            Self::Named(kind, _) => vec![*kind],
            Self::Bare(_) => ResourceKind::value_variants().to_vec(),
        }
    }

    /// Resolves it among the resources of [`Self::kinds_to_list`].
    pub(super) fn resolve(&self, resources: &[Resource]) -> Result<Target, Failure> {
        match self {
            Self::Organization => Ok(Target::Organization),
            Self::All(kind) => Ok(Target::All(*kind)),
            Self::Named(kind, name) if is_full_id(name) => Ok(Target::One(*kind, name.clone())),
            Self::Named(kind, name) => {
                let of_kind: Vec<&Resource> = resources
                    .iter()
                    .filter(|resource| resource.kind == *kind)
                    .collect();
                pick_resource(kind_name(*kind), name, &of_kind)
            }
            Self::Bare(name) => {
                let all: Vec<&Resource> = resources.iter().collect();
                pick_resource("deployment or project", name, &all)
            }
        }
    }
}

/// 32 lower-case letters and digits: what Elastic Cloud uses as id, and nobody as a name.
fn is_full_id(name: &str) -> bool {
    name.len() == 32
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn pick_resource(what: &str, name: &str, resources: &[&Resource]) -> Result<Target, Failure> {
    let candidates: Vec<Candidate> = resources.iter().map(|one| one.candidate()).collect();
    let index = pick(what, "latchkey resources", name, &candidates)?;
    Ok(Target::One(
        resources[index].kind,
        resources[index].id.clone(),
    ))
}

/// A target with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The organization.
    Organization,
    /// Everything of a kind.
    All(ResourceKind),
    /// One deployment or project.
    One(ResourceKind, String),
}

impl Target {
    /// The scope a role must have to be held here.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Organization => Scope::Organization,
            Self::All(kind) | Self::One(kind, _) => scope(*kind),
        }
    }

    /// As the connector understands it.
    pub(super) fn to_pb(&self) -> pb::Target {
        use pb::target::Kind;
        let kind = match self {
            Self::Organization => Kind::Organization(pb::OrganizationTarget {}),
            Self::All(kind) => match project_type(*kind) {
                None => Kind::AllDeployments(pb::AllDeploymentsTarget {}),
                Some(of) => Kind::AllProjects(pb::AllProjectsTarget {
                    project_type: of.into(),
                }),
            },
            Self::One(kind, id) => match project_type(*kind) {
                None => Kind::Deployment(pb::DeploymentTarget {
                    deployment_id: id.clone(),
                }),
                Some(of) => Kind::Project(pb::ProjectTarget {
                    project_type: of.into(),
                    project_id: id.clone(),
                }),
            },
        };
        pb::Target { kind: Some(kind) }
    }
}

/// The canonical role for what a person wrote, on targets of one scope.
pub(super) fn role(written: &str, targets: &[Target]) -> Result<&'static str, Failure> {
    let scope = match targets {
        [] => {
            // Only roles of the organization say by themselves what they are held on.
            return catalogue::resolve(written, Scope::Organization)
                .map(|role| role.id)
                .map_err(|_| {
                    Failure::usage(
                        format!("what should {written:?} be held on?"),
                        "add --on, such as --on deployment/prod-logs; `latchkey resources` shows what there is",
                    )
                });
        }
        [first, rest @ ..] => {
            if let Some(other) = rest.iter().find(|target| target.scope() != first.scope()) {
                return Err(Failure::usage(
                    format!(
                        "one grant cannot span {} and {}",
                        first.scope(),
                        other.scope()
                    ),
                    "ask for one grant for each kind of target",
                ));
            }
            first.scope()
        }
    };
    catalogue::resolve(written, scope)
        .map(|role| role.id)
        .map_err(|error| {
            Failure::new(
                Exit::NotFound,
                format!("no role {written:?} can be held on {}", article(scope)),
                match error {
                    catalogue::UnknownRole::NotHere { known, .. } => {
                        format!("choose one of {known}")
                    }
                },
            )
        })
}

fn article(scope: Scope) -> String {
    match scope {
        Scope::Organization => "the organization".to_owned(),
        Scope::Deployment => "a deployment".to_owned(),
        Scope::Project(_) => format!("an {scope}").replace("an security", "a security"),
    }
}

/// A grant id as a person wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WrittenGrant {
    /// A full id, in canonical form.
    Id(String),
    /// The beginning of one, in canonical form.
    Prefix(String),
}

/// Reads a grant id or the beginning of one.
pub(super) fn written_grant(written: &str) -> Result<WrittenGrant, Failure> {
    let lower = written.trim().to_ascii_lowercase();
    if let Ok(id) = uuid::Uuid::try_parse(&lower) {
        return Ok(WrittenGrant::Id(id.hyphenated().to_string()));
    }
    let fits = lower.chars().enumerate().all(|(index, c)| match index {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    });
    if !fits || lower.len() >= 36 {
        return Err(Failure::usage(
            format!("{written:?} is not a grant id"),
            "`latchkey list` shows the ids; the beginning of one is enough",
        ));
    }
    if lower.len() < 4 {
        return Err(Failure::usage(
            format!("{written:?} is too short for a grant id"),
            "give at least 4 characters; `latchkey list` shows the ids",
        ));
    }
    Ok(WrittenGrant::Prefix(lower))
}

/// Picks the one grant among those whose id begins with `prefix`.
pub(super) fn by_prefix<'a>(
    prefix: &str,
    matching: &'a [pb::Grant],
) -> Result<&'a pb::Grant, Failure> {
    match matching {
        [one] => Ok(one),
        [] => Err(Failure::new(
            Exit::NotFound,
            format!("no grant of yours has an id that begins with {prefix:?}"),
            "`latchkey list --all` shows your grants",
        )),
        several => {
            let ids: Vec<String> = several
                .iter()
                .take(SHOWN)
                .map(|grant| format!("{} ({})", grant.id, text::safe(&grant.beneficiary)))
                .collect();
            Err(Failure::usage(
                format!(
                    "{prefix:?} is the beginning of {} grant ids: {}",
                    several.len(),
                    ids.join(", ")
                ),
                "give more characters of the one you mean",
            ))
        }
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
