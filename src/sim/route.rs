//! Which call a method and a path mean. Knows nothing about what the call does.

use http::Method;

use super::text::{csv, decode};
use super::world::ProjectType;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    OrganizationsList,
    OrganizationGet(String),
    OrganizationUpdate(String),
    MembersList(String),
    MembersRemove(String, Vec<String>),
    InvitationsList(String),
    InvitationsCreate(String),
    InvitationsCancel(String, Vec<String>),
    InvitationGet(String),
    InvitationAccept(String),
    AssignmentsAdd(String),
    AssignmentsRemove(String),
    KeysCreate,
    KeysList,
    KeysDelete,
    KeyGet(String),
    KeyDelete(String),
    AccountGet,
    AccountPut,
    AccountPatch,
    DeploymentsList,
    DeploymentsSearch,
    DeploymentGet(String),
    ProjectsList(ProjectType),
    ProjectGet(ProjectType, String),
    ProjectRoles(ProjectType, String),
    ProjectStatus(ProjectType, String),
    RegionsList,
    RegionGet(String),
    EsInfo(String),
    EsAuthenticate(String),
    EsRolesGet(String, Vec<String>),
    EsRolePut(String, String),
    EsRoleDelete(String, String),
    EsUnknown(String),
    /// A known path with another method
    WrongMethod,
    Unknown,
}

impl Route {
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match segments.as_slice() {
            ["api", "v1", rest @ ..] => Self::cloud(method, rest),
            ["_es", project, rest @ ..] => Self::elasticsearch(method, &decode(project), rest),
            _ => Self::Unknown,
        }
    }

    fn cloud(method: &Method, segments: &[&str]) -> Self {
        let m = method.as_str();
        match segments {
            ["organizations"] => match m {
                "GET" => Self::OrganizationsList,
                _ => Self::WrongMethod,
            },
            ["organizations", "invitations", token] => match m {
                "GET" => Self::InvitationGet(decode(token)),
                _ => Self::WrongMethod,
            },
            ["organizations", "invitations", token, "_accept"] => match m {
                "POST" => Self::InvitationAccept(decode(token)),
                _ => Self::WrongMethod,
            },
            ["organizations", id] => match m {
                "GET" => Self::OrganizationGet(decode(id)),
                "PUT" => Self::OrganizationUpdate(decode(id)),
                _ => Self::WrongMethod,
            },
            ["organizations", id, "members"] => match m {
                "GET" => Self::MembersList(decode(id)),
                _ => Self::WrongMethod,
            },
            ["organizations", id, "members", users] => match m {
                "DELETE" => Self::MembersRemove(decode(id), csv(users)),
                _ => Self::WrongMethod,
            },
            ["organizations", id, "invitations"] => match m {
                "GET" => Self::InvitationsList(decode(id)),
                "POST" => Self::InvitationsCreate(decode(id)),
                _ => Self::WrongMethod,
            },
            ["organizations", id, "invitations", tokens] => match m {
                "DELETE" => Self::InvitationsCancel(decode(id), csv(tokens)),
                _ => Self::WrongMethod,
            },
            ["users", "auth", "keys"] => match m {
                "GET" => Self::KeysList,
                "POST" => Self::KeysCreate,
                "DELETE" => Self::KeysDelete,
                _ => Self::WrongMethod,
            },
            ["users", "auth", "keys", id] => match m {
                "GET" => Self::KeyGet(decode(id)),
                "DELETE" => Self::KeyDelete(decode(id)),
                _ => Self::WrongMethod,
            },
            ["users", user, "role_assignments"] => match m {
                "POST" => Self::AssignmentsAdd(decode(user)),
                "DELETE" => Self::AssignmentsRemove(decode(user)),
                _ => Self::WrongMethod,
            },
            ["account"] => match m {
                "GET" => Self::AccountGet,
                "PUT" => Self::AccountPut,
                "PATCH" => Self::AccountPatch,
                _ => Self::WrongMethod,
            },
            ["deployments"] => match m {
                "GET" => Self::DeploymentsList,
                _ => Self::WrongMethod,
            },
            ["deployments", "_search"] => match m {
                "POST" => Self::DeploymentsSearch,
                _ => Self::WrongMethod,
            },
            ["deployments", id] => match m {
                "GET" => Self::DeploymentGet(decode(id)),
                _ => Self::WrongMethod,
            },
            ["serverless", rest @ ..] => Self::serverless(m, rest),
            _ => Self::Unknown,
        }
    }

    fn serverless(method: &str, segments: &[&str]) -> Self {
        let route = match segments {
            ["regions"] => Self::RegionsList,
            ["regions", id] => Self::RegionGet(decode(id)),
            ["projects", kind, rest @ ..] => match (ProjectType::of(kind), rest) {
                (Some(kind), []) => Self::ProjectsList(kind),
                (Some(kind), [id]) => Self::ProjectGet(kind, decode(id)),
                (Some(kind), [id, "roles"]) => Self::ProjectRoles(kind, decode(id)),
                (Some(kind), [id, "status"]) => Self::ProjectStatus(kind, decode(id)),
                _ => return Self::Unknown,
            },
            _ => return Self::Unknown,
        };
        if method == "GET" {
            route
        } else {
            Self::WrongMethod
        }
    }

    fn elasticsearch(method: &Method, project: &str, segments: &[&str]) -> Self {
        let project = project.to_owned();
        match (method.as_str(), segments) {
            ("GET" | "HEAD", []) => Self::EsInfo(project),
            ("GET", ["_security", "_authenticate"]) => Self::EsAuthenticate(project),
            ("GET", ["_security", "role"]) => Self::EsRolesGet(project, Vec::new()),
            ("GET", ["_security", "role", names]) => Self::EsRolesGet(project, csv(names)),
            ("PUT" | "POST", ["_security", "role", name]) => Self::EsRolePut(project, decode(name)),
            ("DELETE", ["_security", "role", name]) => Self::EsRoleDelete(project, decode(name)),
            _ => Self::EsUnknown(project),
        }
    }

    /// The name calls are counted under, and faults are matched by.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::OrganizationsList => "organizations.list",
            Self::OrganizationGet(_) => "organizations.get",
            Self::OrganizationUpdate(_) => "organizations.update",
            Self::MembersList(_) => "members.list",
            Self::MembersRemove(..) => "members.remove",
            Self::InvitationsList(_) => "invitations.list",
            Self::InvitationsCreate(_) => "invitations.create",
            Self::InvitationsCancel(..) => "invitations.cancel",
            Self::InvitationGet(_) => "invitations.get",
            Self::InvitationAccept(_) => "invitations.accept",
            Self::AssignmentsAdd(_) => "role_assignments.add",
            Self::AssignmentsRemove(_) => "role_assignments.remove",
            Self::KeysCreate => "keys.create",
            Self::KeysList => "keys.list",
            Self::KeysDelete => "keys.delete_many",
            Self::KeyGet(_) => "keys.get",
            Self::KeyDelete(_) => "keys.delete",
            Self::AccountGet => "account.get",
            Self::AccountPut => "account.put",
            Self::AccountPatch => "account.patch",
            Self::DeploymentsList => "deployments.list",
            Self::DeploymentsSearch => "deployments.search",
            Self::DeploymentGet(_) => "deployments.get",
            Self::ProjectsList(_) => "projects.list",
            Self::ProjectGet(..) => "projects.get",
            Self::ProjectRoles(..) => "projects.roles",
            Self::ProjectStatus(..) => "projects.status",
            Self::RegionsList => "regions.list",
            Self::RegionGet(_) => "regions.get",
            Self::EsInfo(_) => "es.info",
            Self::EsAuthenticate(_) => "es.authenticate",
            Self::EsRolesGet(..) => "es.roles.get",
            Self::EsRolePut(..) => "es.roles.put",
            Self::EsRoleDelete(..) => "es.roles.delete",
            Self::EsUnknown(_) => "es.unknown",
            Self::WrongMethod => "wrong_method",
            Self::Unknown => "unknown",
        }
    }

    /// The user a call is about, if it is about one.
    pub(crate) fn user(&self) -> Option<&str> {
        if let Self::AssignmentsAdd(user) | Self::AssignmentsRemove(user) = self {
            return Some(user);
        }
        if let Self::MembersRemove(_, users) = self {
            return users.first().map(String::as_str);
        }
        None
    }

    /// Whether the call only exists where there are organizations.
    pub(crate) fn needs_organizations(&self) -> bool {
        let kind = self.kind();
        [
            "organizations.",
            "members.",
            "invitations.",
            "role_assignments.",
        ]
        .iter()
        .any(|prefix| kind.starts_with(prefix))
    }

    /// The Elasticsearch project a call goes to.
    pub(crate) fn project(&self) -> Option<&str> {
        if let Self::EsInfo(project)
        | Self::EsAuthenticate(project)
        | Self::EsRolesGet(project, _)
        | Self::EsRolePut(project, _)
        | Self::EsRoleDelete(project, _)
        | Self::EsUnknown(project) = self
        {
            return Some(project);
        }
        None
    }
}
