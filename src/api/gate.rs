//! Which calls are for which callers.
//!
//! Owns one table over the methods of the surface. Never looks at what a call is about: whose rows it reaches and what
//! the law says is decided behind it.

use crate::domain::caller::{Caller, CallerRole};

use CallerRole::{Auditor, BreakGlass, ControlPlane, Operator};

/// Whoever is known.
const ANYBODY: &[CallerRole] = &CallerRole::ALL;
/// Those who see rows, if only their own.
const READERS: &[CallerRole] = &[ControlPlane, Operator, Auditor, BreakGlass];
/// Those who look at the connector itself.
const WATCHERS: &[CallerRole] = &[Operator, Auditor];

/// The methods and who may call them. What does not stand here is for nobody but whoever is on this machine.
const TABLE: [(&str, &[CallerRole]); 32] = [
    // Whoever has the role break-glass needs a token besides: the service sees to that.
    ("CreateGrant", &[ControlPlane, BreakGlass]),
    ("ExtendGrant", &[ControlPlane]),
    ("PlanGrant", &[ControlPlane, BreakGlass]),
    ("RevokeGrant", &[ControlPlane, Operator]),
    ("RevokeAccess", &[ControlPlane, Operator]),
    ("GetGrant", READERS),
    ("ListGrants", READERS),
    ("WatchGrants", READERS),
    ("ExplainAccess", &[ControlPlane, Operator, Auditor]),
    ("GetReceipt", READERS),
    ("ListReceipts", READERS),
    ("ListOrganizations", &[ControlPlane, Operator, Auditor]),
    ("ListMembers", &[ControlPlane, Operator, Auditor]),
    ("ListInvitations", &[ControlPlane, Operator, Auditor]),
    ("ListRoles", &[ControlPlane, Operator, Auditor]),
    ("ListDeployments", &[ControlPlane, Operator, Auditor]),
    ("ListProjects", &[ControlPlane, Operator, Auditor]),
    ("ListProjectRoles", &[ControlPlane, Operator, Auditor]),
    ("GetVersion", ANYBODY),
    ("ListIntegrations", ANYBODY),
    ("GetLimits", ANYBODY),
    ("ListDrift", WATCHERS),
    ("ListOverdue", WATCHERS),
    ("ListReviews", WATCHERS),
    ("GetHold", WATCHERS),
    ("Drain", &[Operator]),
    ("ConfirmReapply", &[Operator]),
    ("CloseReview", &[Operator]),
    ("ReleaseHold", &[Operator]),
    ("GetKey", WATCHERS),
    ("RotateKey", &[Operator]),
    ("ServerReflectionInfo", ANYBODY),
];

/// Calls that give up what is ours; two people decide where that cannot be undone.
const GIVING_UP: [(&str, &[CallerRole]); 2] =
    [("ForgetAccess", &[Operator]), ("AdoptAccess", &[Operator])];

fn allowed(method: &str) -> &'static [CallerRole] {
    TABLE
        .iter()
        .chain(&GIVING_UP)
        .find(|(name, _)| *name == method)
        .map_or(&[], |(_, roles)| roles)
}

/// Whether a caller may make a call at all.
pub(super) fn allows(method: &str, caller: &Caller) -> bool {
    // On this machine without proof: as before there were callers. Nobody else is let in that way.
    caller.identity.is_none() || allowed(method).iter().any(|role| caller.is(*role))
}

/// The roles that may make a call, for people.
pub(super) fn words(method: &str) -> String {
    let names: Vec<&str> = allowed(method).iter().map(|role| role.as_str()).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::CallerName;

    fn caller(role: CallerRole) -> Caller {
        Caller {
            name: CallerName::parse("someone").expect("valid"),
            roles: [role].into(),
            identity: Some("certificate dns:someone".to_owned()),
        }
    }

    #[test]
    fn an_auditor_and_a_break_glass_caller_can_change_nothing() {
        let changing = [
            "CreateGrant",
            "ExtendGrant",
            "RevokeGrant",
            "RevokeAccess",
            "Drain",
            "ConfirmReapply",
            "ReleaseHold",
            "ForgetAccess",
            "AdoptAccess",
            "RotateKey",
        ];
        for method in changing {
            assert!(!allows(method, &caller(Auditor)), "{method}");
            // It asks for a grant by a token, and for nothing else.
            assert_eq!(
                allows(method, &caller(BreakGlass)),
                method == "CreateGrant",
                "{method}"
            );
        }
        assert!(!allows("CloseReview", &caller(BreakGlass)));
        assert!(!allows("CloseReview", &caller(Auditor)));
        for method in [
            "ReleaseHold",
            "ForgetAccess",
            "AdoptAccess",
            "Drain",
            "RotateKey",
        ] {
            assert!(!allows(method, &caller(ControlPlane)), "{method}");
            assert!(allows(method, &caller(Operator)), "{method}");
        }
        assert!(!allows("CreateGrant", &caller(Operator)));
    }

    #[test]
    fn a_method_that_is_not_in_the_table_is_for_nobody_who_comes_from_elsewhere() {
        for role in CallerRole::ALL {
            assert!(!allows("other", &caller(role)));
        }
    }

    #[test]
    fn every_method_of_the_surface_is_in_the_table() {
        for service in super::super::guard::METHODS {
            assert!(!allowed(service).is_empty(), "{service}");
        }
    }
}
