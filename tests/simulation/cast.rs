//! Who and what a run is about: people, deployments, and the assignments that can be given.
//!
//! Owns the names. Persons and assignments are numbers everywhere else, so that sets of them are small.

use std::collections::BTreeSet;

use latchkey::domain::assignment::{ApplicationRoles, Assignment, ProjectType, Target};
use latchkey::domain::ids::{
    ApplicationRole, DeploymentId, Email, IntegrationName, ProjectId, UserId,
};
use latchkey::domain::member::{MemberKey, Subject};

/// A set of assignments, one bit each.
pub(crate) type Set = u64;

/// The owner of the organization, who is never asked for.
pub(crate) const BOSS: usize = 0;
/// The person behind the connector's key.
pub(crate) const ROBOT: usize = 1;
/// People who are members when a run begins, the two above excepted.
pub(crate) const MEMBERS: std::ops::Range<usize> = 2..5;
/// People who may be invited.
pub(crate) const GUESTS: std::ops::Range<usize> = 5..7;

const NAMES: [&str; 7] = ["boss", "robot", "ada", "bob", "cyd", "eve", "fay"];

/// Everybody and everything of a run; the same in every run.
#[derive(Debug)]
pub(crate) struct Cast {
    pub(crate) users: Vec<UserId>,
    pub(crate) emails: Vec<Email>,
    pub(crate) pairs: Vec<Assignment>,
    /// The names of the assignments, as the audit writes them.
    pub(crate) names: Vec<String>,
    /// For each assignment those that cover it, itself included.
    pub(crate) covered_by: Vec<Set>,
    pub(crate) owner: usize,
}

pub(crate) fn integration() -> IntegrationName {
    IntegrationName::parse("main").expect("well formed")
}

fn deployment(id: &str) -> Target {
    Target::Deployment {
        id: DeploymentId::parse(id).expect("well formed"),
    }
}

fn on(role: &str, target: Target) -> Assignment {
    Assignment {
        role: role.to_owned(),
        target,
        application_roles: ApplicationRoles::Mapped,
    }
}

fn named(assignment: Assignment, name: &str) -> Assignment {
    let role = ApplicationRole::parse(name).expect("well formed");
    Assignment {
        application_roles: ApplicationRoles::Exactly(BTreeSet::from([role])),
        ..assignment
    }
}

impl Cast {
    pub(crate) fn new() -> Self {
        let project = Target::Project {
            project_type: ProjectType::Elasticsearch,
            id: ProjectId::parse("p1").expect("well formed"),
        };
        let pairs = vec![
            on("organization-admin", Target::Organization),
            on("deployment-viewer", deployment("a")),
            on("deployment-viewer", deployment("b")),
            named(on("deployment-viewer", deployment("a")), "x"),
            on("deployment-editor", deployment("a")),
            on("deployment-viewer", Target::AllDeployments),
            on("billing-admin", Target::Organization),
            on("deployment-admin", deployment("b")),
            on("elasticsearch-developer", project.clone()),
            named(on("elasticsearch-viewer", project), "custom"),
        ];
        let bits = |holds: &dyn Fn(&Assignment) -> bool| {
            pairs
                .iter()
                .enumerate()
                .filter(|(_, other)| holds(other))
                .map(|(index, _)| bit(index))
                .sum()
        };
        let covered_by = pairs
            .iter()
            .map(|pair| bits(&|other| other.covers(pair)))
            .collect();
        Self {
            users: (0..NAMES.len())
                .map(|index| UserId::parse(format!("100{index}")).expect("well formed"))
                .collect(),
            emails: NAMES
                .iter()
                .map(|name| Email::parse(format!("{name}@example.com")).expect("well formed"))
                .collect(),
            names: pairs.iter().map(ToString::to_string).collect(),
            pairs,
            covered_by,
            owner: 0,
        }
    }

    pub(crate) fn name(&self, who: usize) -> &'static str {
        NAMES[who]
    }

    pub(crate) fn user(&self, id: &UserId) -> Option<usize> {
        self.users.iter().position(|user| user == id)
    }

    pub(crate) fn email(&self, email: &Email) -> Option<usize> {
        self.emails.iter().position(|known| known == email)
    }

    /// The person behind a subject: an address names the same one before and after joining.
    pub(crate) fn subject(&self, subject: &Subject) -> Option<usize> {
        match subject {
            Subject::Member(user) => self.user(user),
            Subject::Invitee(email) => self.email(email),
        }
    }

    pub(crate) fn pair(&self, assignment: &Assignment) -> Option<usize> {
        self.pairs.iter().position(|pair| pair == assignment)
    }

    pub(crate) fn set<'a>(&self, assignments: impl IntoIterator<Item = &'a Assignment>) -> Set {
        assignments
            .into_iter()
            .filter_map(|assignment| self.pair(assignment))
            .fold(0, |set, index| set | bit(index))
    }

    /// The assignments that an audit event names.
    pub(crate) fn named(&self, texts: &[String]) -> Set {
        self.names
            .iter()
            .enumerate()
            .filter(|(_, name)| texts.contains(name))
            .fold(0, |set, (index, _)| set | bit(index))
    }

    pub(crate) fn show(&self, set: Set) -> String {
        let names: Vec<String> = each(set).map(|index| self.names[index].clone()).collect();
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// The records that the ledger may keep of a person.
    pub(crate) fn keys(&self, who: usize) -> [MemberKey; 2] {
        [
            Subject::Member(self.users[who].clone()),
            Subject::Invitee(self.emails[who].clone()),
        ]
        .map(|subject| MemberKey {
            integration: integration(),
            subject,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }
}

pub(crate) fn bit(index: usize) -> Set {
    1 << index
}

/// The members of a set.
pub(crate) fn each(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        lowest
    })
}
