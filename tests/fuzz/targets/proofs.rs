//! What vouches for somebody: seals, tokens, keys of issuers, certificates.

use std::sync::LazyLock;
use std::time::Duration;

use latchkey::identity;
use latchkey::identity::{Issuer, IssuerOptions, Leaf};
use latchkey::ports::Seals as _;
use latchkey::runtime::clock::SystemClock;
use serde_json::Value;

use super::super::seeds::{self, NOW};
use super::{Verdict, verdict};

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let options = IssuerOptions {
        issuer: "https://issuer.example".to_owned(),
        audience: "latchkey".to_owned(),
        jwks_url: None,
        clock_skew: Duration::from_secs(30),
        ca_file: None,
    };
    Issuer::new(options, std::sync::Arc::new(SystemClock)).expect("an issuer")
});

/// Tokens as whole texts: whatever is taken was signed, and is used up as the one that was signed.
pub(super) fn sealed(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let ring = &seeds::RING.ring;
    let now = seeds::at(NOW);
    let approval = ring.approval(text, now);
    if let Ok(taken) = &approval {
        assert!(
            seeds::RING.tokens.contains(&taken.token),
            "nobody signed this: {text:?}"
        );
    }
    let emergency = ring.emergency(text, now);
    if let Ok(taken) = &emergency {
        assert!(
            seeds::RING.tokens.contains(&taken.token),
            "nobody sealed this: {text:?}"
        );
    }
    assert!(approval.is_err() || emergency.is_err(), "one text is both");
    drop(latchkey::identity::seal::claims_of(text));
    let words = format!(
        "{:?} {:?}",
        approval.as_ref().err(),
        emergency.as_ref().err()
    );
    verdict(approval.is_ok() || emergency.is_ok(), &words)
}

/// Claims of any kind, properly signed by the key that is configured: what an approver could do on purpose.
pub(super) fn sealed_claims(input: &[u8]) -> Verdict {
    let Ok(claims) = serde_json::from_slice::<Value>(input) else {
        return verdict(false, "no claims");
    };
    let now = seeds::at(NOW);
    let approval = seeds::signed("latchkey-approval+jwt", &claims);
    let emergency = seeds::signed("latchkey-break-glass+jwt", &claims);
    let ring = &seeds::RING.ring;
    let (approval, emergency) = (
        ring.approval(&approval, now),
        ring.emergency(&emergency, now),
    );
    if let Ok(taken) = &approval {
        assert!(taken.until > now && taken.request.len() == 64);
    }
    if let Ok(taken) = &emergency {
        assert!(taken.until > now && taken.max_duration_s > 0);
        assert!(
            (1..=100).contains(&taken.beneficiaries.len())
                && (1..=100).contains(&taken.targets.len())
        );
    }
    let words = format!(
        "{:?} {:?}",
        approval.as_ref().err(),
        emergency.as_ref().err()
    );
    verdict(approval.is_ok() || emergency.is_ok(), &words)
}

pub(super) fn bearer_claims(input: &[u8]) -> Verdict {
    match identity::fuzz::claims(input, &ISSUER, seeds::at(NOW)) {
        Ok(subject) => verdict(true, &format!("{}", subject.len())),
        Err(code) => verdict(false, code),
    }
}

pub(super) fn issuer_keys(input: &[u8]) -> Verdict {
    let found = identity::fuzz::keys(input);
    verdict(
        found.as_deref().is_some_and(|found| found.contains("true")),
        &found.unwrap_or_default(),
    )
}

pub(super) fn certificates(input: &[u8]) -> Verdict {
    match Leaf::parse(input) {
        Some(leaf) => verdict(
            true,
            &format!(
                "{:?} {} {:?}",
                leaf.spiffe_id.is_some(),
                leaf.dns.len(),
                leaf.common_name.is_some()
            ),
        ),
        None => verdict(false, ""),
    }
}
