//! What stands behind a grant beside its caller: approvals, or an emergency token, and the review that it owes.
//!
//! Owns these records and the ids under which a signed text is remembered as used. Never checks a signature.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Timestamp;
use super::grant::Grant;
use super::ids::{CallerName, GrantId, IntegrationName};

/// What a grant rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Who approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// The emergency token that opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
}

/// One verified approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Configured name of the approver.
    pub approver: String,
    /// The person behind it.
    pub person: String,
    /// Id that the approver gave it.
    pub id: String,
    /// Under which it is remembered as used.
    pub token: String,
    /// When it expires.
    pub until: Timestamp,
}

/// An emergency token that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Configured name of the key that sealed it.
    pub key: String,
    /// Id that it was issued with.
    pub id: String,
    /// Under which it is remembered as used.
    pub token: String,
    /// What it was issued for.
    pub reason: String,
    /// When it expires.
    pub until: Timestamp,
}

/// What a signed text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// An approval of one request.
    Approval,
    /// An emergency token.
    BreakGlass,
}

impl TokenKind {
    /// Stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::BreakGlass => "break_glass",
        }
    }

    /// Under which a text of this kind is remembered: SHA-256 over the kind, the public key and the id that the text
    /// has. Not over the text, since the same signature can be written in several ways.
    #[must_use]
    pub fn token(self, key_fingerprint: &str, id: &str) -> String {
        let mut hash = Sha256::new();
        for part in [self.as_str(), key_fingerprint, id] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// A signed text that may be used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// Under which it is remembered.
    pub token: String,
    /// What it is.
    pub kind: TokenKind,
    /// When it expires by itself: from then on it need not be remembered.
    pub until: Timestamp,
}

impl Authority {
    /// Whether there is nothing but the caller.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.approvals.is_empty() && self.break_glass.is_none()
    }

    /// What is used up by a grant that rests on this.
    #[must_use]
    pub fn uses(&self) -> Vec<TokenUse> {
        let approvals = self.approvals.iter().map(|one| TokenUse {
            token: one.token.clone(),
            kind: TokenKind::Approval,
            until: one.until,
        });
        let emergency = self.break_glass.iter().map(|one| TokenUse {
            token: one.token.clone(),
            kind: TokenKind::BreakGlass,
            until: one.until,
        });
        approvals.chain(emergency).collect()
    }
}

/// A look back at an emergency grant, which somebody owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Which grant.
    pub grant_id: GrantId,
    /// Which organization.
    pub integration: IntegrationName,
    /// Who called.
    pub caller: CallerName,
    /// Who received access.
    pub beneficiary: String,
    /// Who asked, as told by the caller.
    pub requester: String,
    /// Why, as told by the caller.
    pub justification: String,
    /// What was given, in words.
    pub assignments: Vec<String>,
    /// The token.
    pub used: BreakGlass,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// How it was closed.
    pub closed: Option<Closing>,
}

/// The end of a review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// When.
    pub at: Timestamp,
    /// Who looked, as told.
    pub by: String,
    /// The caller that closed it.
    pub caller: CallerName,
    /// What was found.
    pub note: String,
}

impl Review {
    /// The review that a new grant owes; `None` for one that no emergency token opened.
    #[must_use]
    pub fn owed(grant: &Grant) -> Option<Self> {
        let used = grant.authority.as_ref()?.break_glass.clone()?;
        Some(Self {
            grant_id: grant.id,
            integration: grant.integration.clone(),
            caller: grant.caller.clone(),
            beneficiary: grant.beneficiary.clone(),
            requester: grant.requester.clone(),
            justification: grant.justification.clone(),
            assignments: grant
                .assignments
                .iter()
                .map(|held| held.assignment.to_string())
                .collect(),
            used,
            opened_at: grant.created_at,
            closed: None,
        })
    }

    /// Whether somebody may close it: not whoever used the token, and not whoever received the access.
    #[must_use]
    pub fn may_be_closed_by(&self, caller: &CallerName, who: &str) -> bool {
        let is = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(who);
        (*caller != self.caller || caller.as_str() == super::caller::Caller::LOCAL)
            && !is(&self.beneficiary)
            && !is(&self.requester)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn caller(name: &str) -> CallerName {
        CallerName::parse(name).expect("well formed")
    }

    fn emergency() -> BreakGlass {
        BreakGlass {
            key: "safe".to_owned(),
            id: "bg-1".to_owned(),
            token: "t-1".to_owned(),
            reason: "outage".to_owned(),
            until: at(60),
        }
    }

    fn review(by: &str) -> Review {
        Review {
            grant_id: GrantId::new(at(0), [0; 10]),
            integration: IntegrationName::parse("main").expect("well formed"),
            caller: caller(by),
            beneficiary: "ada@example.com".to_owned(),
            requester: "bob".to_owned(),
            justification: String::new(),
            assignments: Vec::new(),
            used: emergency(),
            opened_at: at(0),
            closed: None,
        }
    }

    #[test]
    fn nobody_who_had_a_part_in_it_closes_a_review() {
        let desk = review("desk");
        let eve = caller("eve");
        assert!(desk.may_be_closed_by(&eve, "eve"));
        assert!(
            desk.may_be_closed_by(&eve, ""),
            "told by nobody is nobody's name"
        );
        for who in ["ada@example.com", "ADA@example.com", "bob", "Bob"] {
            assert!(!desk.may_be_closed_by(&eve, who), "{who}");
        }
        assert!(
            !desk.may_be_closed_by(&caller("desk"), "eve"),
            "whoever used the token"
        );
        // Where everybody is the same local caller, only names tell them apart.
        let local = review(super::super::caller::Caller::LOCAL);
        let same = caller(super::super::caller::Caller::LOCAL);
        assert!(local.may_be_closed_by(&same, "eve"));
        assert!(!local.may_be_closed_by(&same, "bob"));
        let mut unnamed = review("desk");
        unnamed.requester.clear();
        assert!(unnamed.may_be_closed_by(&eve, ""));
    }

    #[test]
    fn what_a_grant_rests_on_is_used_up_with_it() {
        let approval = Approval {
            approver: "lead".to_owned(),
            person: "carol".to_owned(),
            id: "ap-1".to_owned(),
            token: "t-2".to_owned(),
            until: at(30),
        };
        assert!(Authority::default().is_empty());
        assert!(Authority::default().uses().is_empty());
        let approved = Authority {
            approvals: vec![approval.clone()],
            break_glass: None,
        };
        let opened = Authority {
            approvals: Vec::new(),
            break_glass: Some(emergency()),
        };
        assert!(!approved.is_empty() && !opened.is_empty());
        let both = Authority {
            approvals: vec![approval],
            break_glass: Some(emergency()),
        };
        let uses = both.uses();
        let told: Vec<_> = uses
            .iter()
            .map(|one| (one.token.as_str(), one.kind, one.until))
            .collect();
        assert_eq!(
            told,
            [
                ("t-2", TokenKind::Approval, at(30)),
                ("t-1", TokenKind::BreakGlass, at(60))
            ]
        );
    }

    #[test]
    fn a_text_is_remembered_by_kind_key_and_id_together() {
        let approval = TokenKind::Approval.token("key", "id");
        assert_eq!(approval.len(), 64);
        assert_eq!(approval, TokenKind::Approval.token("key", "id"));
        for other in [
            TokenKind::BreakGlass.token("key", "id"),
            TokenKind::Approval.token("keyi", "d"),
            TokenKind::Approval.token("key2", "id"),
        ] {
            assert_ne!(approval, other);
        }
        let names = [TokenKind::Approval, TokenKind::BreakGlass].map(TokenKind::as_str);
        assert_eq!(names, ["approval", "break_glass"]);
    }
}
