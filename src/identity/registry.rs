//! The configured callers and what proves that somebody is one.
//!
//! Owns that a proof fits one caller or none. Never takes the first of several.

use crate::domain::caller::{Caller, CallerRole};
use crate::domain::ids::CallerName;

use super::Refused;
use super::certificate::Leaf;
use super::token::Verified;

/// What a certificate must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateRule {
    /// This SPIFFE id, as the only URI among its names.
    Spiffe(String),
    /// This DNS name among its names.
    Dns(String),
    /// This common name, where neither of the others can be had.
    CommonName(String),
}

impl CertificateRule {
    fn fits(&self, leaf: &Leaf) -> bool {
        match self {
            Self::Spiffe(id) => leaf.spiffe_id.as_ref() == Some(id),
            Self::Dns(name) => leaf
                .dns
                .iter()
                .any(|other| other.eq_ignore_ascii_case(name)),
            Self::CommonName(name) => leaf.common_name.as_ref() == Some(name),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Spiffe(id) => format!("certificate {id}"),
            Self::Dns(name) => format!("certificate dns:{}", name.to_ascii_lowercase()),
            Self::CommonName(name) => format!("certificate cn:{name}"),
        }
    }
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRule {
    /// Whose token.
    pub issuer: String,
    /// Which claim: its name, or a JSON pointer where it begins with a slash.
    pub claim: String,
    /// The text that the claim is, or that is one of its items.
    pub value: String,
}

impl TokenRule {
    fn fits(&self, token: &Verified) -> bool {
        let Self {
            issuer,
            claim,
            value,
        } = self;
        if token.issuer != *issuer {
            return false;
        }
        let found = if claim.starts_with('/') {
            token.claims.pointer(claim)
        } else {
            token.claims.get(claim)
        };
        match found {
            Some(serde_json::Value::String(text)) => text == value,
            Some(serde_json::Value::Array(items)) => {
                items.iter().any(|item| item.as_str() == Some(value))
            }
            _ => false,
        }
    }

    fn words(&self) -> String {
        let Self {
            issuer,
            claim,
            value,
        } = self;
        format!("token of {issuer} with {claim} {value}")
    }
}

/// One configured caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: CallerName,
    /// What it may do.
    pub role: CallerRole,
    /// The certificate that proves it.
    pub certificate: Option<CertificateRule>,
    /// The token that proves it.
    pub token: Option<TokenRule>,
}

/// Two configured callers with one proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("callers {one} and {other} are proven by the same {proof}")]
pub struct Clash {
    /// The one.
    pub one: CallerName,
    /// The other.
    pub other: CallerName,
    /// What proves both.
    pub proof: String,
}

/// Every configured caller.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    rules: Vec<Rule>,
}

impl Registry {
    /// Of these callers.
    ///
    /// # Errors
    /// [`Clash`] when one proof would fit two of them.
    pub fn new(rules: Vec<Rule>) -> Result<Self, Clash> {
        for (index, rule) in rules.iter().enumerate() {
            let proofs = |rule: &Rule| -> Vec<String> {
                let certificate = rule.certificate.iter().map(CertificateRule::words);
                certificate
                    .chain(rule.token.iter().map(TokenRule::words))
                    .collect()
            };
            let own = proofs(rule);
            for other in &rules[..index] {
                if let Some(proof) = proofs(other).into_iter().find(|one| own.contains(one)) {
                    return Err(Clash {
                        one: other.name.clone(),
                        other: rule.name.clone(),
                        proof,
                    });
                }
            }
        }
        Ok(Self { rules })
    }

    /// The caller of a certificate that was verified.
    ///
    /// # Errors
    /// [`Refused::Unmapped`] or [`Refused::Ambiguous`].
    pub fn by_certificate(&self, leaf: &Leaf) -> Result<Caller, Refused> {
        self.one(|rule| {
            let found = rule.certificate.as_ref().filter(|rule| rule.fits(leaf));
            found.map(CertificateRule::words)
        })
    }

    /// The caller of a token that was verified.
    ///
    /// # Errors
    /// [`Refused::Unmapped`] or [`Refused::Ambiguous`].
    pub fn by_token(&self, token: &Verified) -> Result<Caller, Refused> {
        self.one(|rule| {
            rule.token.as_ref().filter(|rule| rule.fits(token))?;
            Some(format!("token {}#{}", token.issuer, token.subject))
        })
    }

    fn one(&self, fits: impl Fn(&Rule) -> Option<String>) -> Result<Caller, Refused> {
        let mut found = self.rules.iter().filter_map(|rule| {
            let identity = fits(rule)?;
            Some(Caller {
                name: rule.name.clone(),
                roles: [rule.role].into(),
                identity: Some(identity),
            })
        });
        match (found.next(), found.next()) {
            (None, _) => Err(Refused::Unmapped),
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(Refused::Ambiguous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(name: &str, certificate: Option<CertificateRule>, token: Option<TokenRule>) -> Rule {
        Rule {
            name: CallerName::parse(name).expect("valid"),
            role: CallerRole::ControlPlane,
            certificate,
            token,
        }
    }

    fn group(value: &str) -> Option<TokenRule> {
        Some(TokenRule {
            issuer: "https://idp".to_owned(),
            claim: "/realm/groups".to_owned(),
            value: value.to_owned(),
        })
    }

    #[test]
    fn a_proof_that_fits_two_callers_is_refused_and_not_the_first_taken() {
        let dns = CertificateRule::Dns("a.example".to_owned());
        let name = CertificateRule::CommonName("a".to_owned());
        let registry = Registry::new(vec![
            rule("one", Some(dns.clone()), group("x")),
            rule("two", Some(name), group("y")),
        ])
        .expect("no clash");
        let mut leaf = Leaf {
            spiffe_id: None,
            dns: vec!["a.example".to_owned()],
            common_name: None,
            not_after: crate::domain::Timestamp::UNIX_EPOCH,
        };
        let name = |found: Result<Caller, Refused>| found.map(|caller| caller.name.to_string());
        assert_eq!(name(registry.by_certificate(&leaf)), Ok("one".to_owned()));
        leaf.common_name = Some("a".to_owned());
        assert_eq!(
            name(registry.by_certificate(&leaf)),
            Err(Refused::Ambiguous)
        );
        leaf.dns.clear();
        leaf.common_name = Some("b".to_owned());
        assert_eq!(name(registry.by_certificate(&leaf)), Err(Refused::Unmapped));
        let token = |groups: serde_json::Value, issuer: &str| Verified {
            issuer: issuer.to_owned(),
            subject: "ada".to_owned(),
            claims: json!({"realm": {"groups": groups}}),
        };
        assert_eq!(
            name(registry.by_token(&token(json!(["z", "x"]), "https://idp"))),
            Ok("one".to_owned())
        );
        assert_eq!(
            name(registry.by_token(&token(json!(["x", "y"]), "https://idp"))),
            Err(Refused::Ambiguous)
        );
        assert_eq!(
            name(registry.by_token(&token(json!("x"), "https://other"))),
            Err(Refused::Unmapped)
        );
        let clash = Registry::new(vec![
            rule("one", Some(dns), None),
            rule(
                "two",
                Some(CertificateRule::Dns("A.example".to_owned())),
                None,
            ),
        ]);
        assert!(clash.is_err(), "one name in two spellings");
    }
}
