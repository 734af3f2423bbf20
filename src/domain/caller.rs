//! Who calls, and what such a caller may do at all.
//!
//! Owns the roles of callers and whose rows they reach. Never decides who somebody is: that is `identity`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::CallerName;

/// What a caller is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerRole {
    /// Asks for access, extends and revokes it, and sees its own grants.
    ControlPlane,
    /// Runs the connector: revokes everything, decides about holds and drift, sees every row.
    Operator,
    /// Reads everything and changes nothing.
    Auditor,
    /// Opens an emergency grant by a sealed token; reads its own.
    BreakGlass,
}

impl CallerRole {
    /// Every role.
    pub const ALL: [Self; 4] = [
        Self::ControlPlane,
        Self::Operator,
        Self::Auditor,
        Self::BreakGlass,
    ];

    /// The name, as configured and audited.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::BreakGlass => "break-glass",
        }
    }
}

impl fmt::Display for CallerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its configured name: rows are bound to it.
    pub name: CallerName,
    /// What it may do.
    pub roles: BTreeSet<CallerRole>,
    /// What it proved to be: the name in its certificate, or issuer and subject of its token. Finer than the name,
    /// since several people may be one caller; `None` for who is known by nothing but standing on this machine.
    pub identity: Option<String>,
}

impl Caller {
    /// Name of whoever calls over loopback while nobody has to authenticate.
    pub const LOCAL: &'static str = "local";

    /// Names that no caller can be configured with: those of loopback and of the last resort.
    pub const RESERVED: [&'static str; 2] = [Self::LOCAL, "sweep"];

    /// Somebody on this machine who did not have to prove anything: every role, and rows of its own name only.
    #[must_use]
    pub fn implicit(name: CallerName) -> Self {
        Self {
            name,
            roles: CallerRole::ALL.into(),
            identity: None,
        }
    }

    /// Whether it has a role.
    #[must_use]
    pub fn is(&self, role: CallerRole) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it sees rows of every caller.
    #[must_use]
    pub fn reads_all(&self) -> bool {
        self.identity.is_some() && (self.is(CallerRole::Operator) || self.is(CallerRole::Auditor))
    }

    /// Whether it may end grants of every caller.
    #[must_use]
    pub fn revokes_all(&self) -> bool {
        self.identity.is_some() && self.is(CallerRole::Operator)
    }

    /// Whether it may see a row of that caller.
    #[must_use]
    pub fn may_read(&self, owner: &CallerName) -> bool {
        self.name == *owner || self.reads_all()
    }

    /// Whether it may end a grant of that caller.
    #[must_use]
    pub fn may_revoke(&self, owner: &CallerName) -> bool {
        self.name == *owner || self.revokes_all()
    }
}

impl From<&CallerName> for Caller {
    fn from(name: &CallerName) -> Self {
        Self::implicit(name.clone())
    }
}

impl From<&Self> for Caller {
    fn from(caller: &Self) -> Self {
        caller.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proven_operator_or_auditor_reaches_rows_of_others() {
        let (own, other) = (
            CallerName::parse("a").expect("valid"),
            CallerName::parse("b").expect("valid"),
        );
        let reach = |roles: &[CallerRole], identity: Option<&str>| {
            let caller = Caller {
                name: own.clone(),
                roles: roles.iter().copied().collect(),
                identity: identity.map(str::to_owned),
            };
            assert!(caller.may_read(&own) && caller.may_revoke(&own));
            (caller.may_read(&other), caller.may_revoke(&other))
        };
        assert_eq!(reach(&CallerRole::ALL, None), (false, false));
        assert_eq!(reach(&[CallerRole::Operator], Some("x")), (true, true));
        assert_eq!(reach(&[CallerRole::Auditor], Some("x")), (true, false));
        assert_eq!(
            reach(&[CallerRole::ControlPlane], Some("x")),
            (false, false)
        );
        assert_eq!(reach(&[CallerRole::BreakGlass], Some("x")), (false, false));
    }
}
