//! Assignments as the audit writes them, read back.
//!
//! Owns the inverse of `Display`. Never guesses: what was not written by it is refused.

use std::collections::BTreeSet;

use super::{ApplicationRoles, Assignment, ProjectType, Target};
use crate::domain::ids::{ApplicationRole, DeploymentId, InvalidId, ProjectId};

fn invalid(problem: &str) -> InvalidId {
    InvalidId {
        what: "assignment",
        problem: problem.to_owned(),
    }
}

impl Assignment {
    /// Reads what `Display` writes: `ROLE on TARGET`, with ` as [ROLE, …]` where stack roles were given.
    ///
    /// # Errors
    /// [`InvalidId`] when the text has another form, or an id in it is not well formed.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let (role, rest) = text
            .split_once(" on ")
            .ok_or_else(|| invalid("has no target"))?;
        if role.is_empty() || role.contains(char::is_whitespace) {
            return Err(invalid("has no role"));
        }
        let (target, application_roles) = match rest.split_once(" as [") {
            None => (rest, ApplicationRoles::Mapped),
            Some((target, roles)) => {
                let roles = roles
                    .strip_suffix(']')
                    .ok_or_else(|| invalid("has an open list of stack roles"))?;
                let names: Result<BTreeSet<_>, _> = roles
                    .split(", ")
                    .filter(|name| !name.is_empty())
                    .map(ApplicationRole::parse)
                    .collect();
                (target, ApplicationRoles::Exactly(names?))
            }
        };
        Ok(Self {
            role: role.to_owned(),
            target: parse_target(target)?,
            application_roles,
        })
    }
}

fn parse_target(text: &str) -> Result<Target, InvalidId> {
    if text == "organization" {
        return Ok(Target::Organization);
    }
    let (kind, id) = text
        .split_once('/')
        .ok_or_else(|| invalid("has a target of no known kind"))?;
    if kind == "deployment" {
        return Ok(if id == "all" {
            Target::AllDeployments
        } else {
            Target::Deployment {
                id: DeploymentId::parse(id)?,
            }
        });
    }
    let project_type = ProjectType::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)
        .ok_or_else(|| invalid("has a target of no known kind"))?;
    Ok(if id == "all" {
        Target::AllProjects { project_type }
    } else {
        Target::Project {
            project_type,
            id: ProjectId::parse(id)?,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_display_writes_is_read_back() {
        let exactly = |names: &[&str]| {
            ApplicationRoles::Exactly(
                names
                    .iter()
                    .map(|name| ApplicationRole::parse(*name).expect("valid"))
                    .collect(),
            )
        };
        let targets = [
            Target::Organization,
            Target::AllDeployments,
            Target::Deployment {
                id: DeploymentId::parse("abc1").expect("valid"),
            },
            Target::AllProjects {
                project_type: ProjectType::Security,
            },
            Target::Project {
                project_type: ProjectType::Elasticsearch,
                id: ProjectId::parse("def2").expect("valid"),
            },
        ];
        for target in targets {
            for application_roles in [
                ApplicationRoles::Mapped,
                exactly(&[]),
                exactly(&["t1_analyst", "viewer"]),
            ] {
                let assignment = Assignment {
                    role: "deployment-viewer".to_owned(),
                    target: target.clone(),
                    application_roles,
                };
                assert_eq!(Assignment::parse(&assignment.to_string()), Ok(assignment));
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "deployment-viewer",
            " on organization",
            "viewer on ",
            "viewer on planet/earth",
            "viewer on deployment/",
            "viewer on deployment/a as [b",
            "a viewer on organization",
        ] {
            assert!(Assignment::parse(text).is_err(), "{text:?}");
        }
    }
}
