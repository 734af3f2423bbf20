//! What doctor says about the witness, about holds and about reviews.
//!
//! Owns these findings. Never reads any of them itself.

use std::io;

use crate::domain::ids::IntegrationName;
use crate::ports::ledger::HoldRecord;
use crate::ports::witness::Condition;

use super::{Finding, Level};

/// What was found out about the witness before this module was asked.
#[derive(Debug)]
pub struct WitnessProbe {
    /// Where it is, for people.
    pub place: String,
    /// Its condition and how many intents are open, or why it could not be read.
    pub found: io::Result<(Condition, usize)>,
    /// Whether it lies on the ledger's volume.
    pub with_ledger: bool,
}

/// Judges the witness; `None` when none is configured.
#[must_use]
pub fn examine_witness(probe: Option<&WitnessProbe>) -> Vec<Finding> {
    const SUBJECT: &str = "witness";
    const DAMAGED: &str =
        "move the file away; the connector starts in hold then, which docs/recovery.md explains";
    let Some(probe) = probe else {
        return vec![Finding::new(
            SUBJECT,
            "configured",
            Level::Warning,
            "there is no witness: a ledger that was restored or lost is not noticed, and access it does not know stays",
            "write `witness: {path: …}` with a file on another volume than the ledger",
        )];
    };
    let WitnessProbe {
        place,
        found,
        with_ledger,
    } = probe;
    let mut findings = vec![match found {
        Ok((Condition::Whole, open)) => Finding::ok(
            SUBJECT,
            "whole",
            format!("{place} can be read and holds {open} open intents"),
        ),
        Ok((Condition::Missing, _)) => Finding::new(
            SUBJECT,
            "whole",
            Level::Warning,
            format!("{place} is not there yet"),
            "nothing to do before the first start; after it, the connector starts in hold",
        ),
        Ok((Condition::Damaged { detail }, _)) => Finding::new(
            SUBJECT,
            "whole",
            Level::Problem,
            format!("{place}: {detail}"),
            DAMAGED,
        ),
        Err(error) => Finding::new(
            SUBJECT,
            "whole",
            Level::Problem,
            format!("{place} cannot be read ({})", error.kind()),
            DAMAGED,
        ),
    }];
    if *with_ledger {
        findings.push(Finding::new(
            SUBJECT,
            "volume",
            Level::Warning,
            format!("{place} lies on the volume of the ledger, and gets lost or restored with it"),
            "put it on another volume",
        ));
    }
    findings
}

/// Says of every integration in hold that it is.
#[must_use]
pub fn examine_holds(holds: &[HoldRecord]) -> Vec<Finding> {
    holds
        .iter()
        .map(|hold| {
            let details: Vec<&str> = hold.reasons.iter().map(|one| one.detail.as_str()).collect();
            Finding::new(
                format!("integration {}", hold.integration),
                "hold",
                Level::Problem,
                format!(
                    "in hold since {}: {}",
                    hold.since.format("%Y-%m-%d %H:%M UTC"),
                    details.join("; ")
                ),
                "look at `latchkey hold`, follow docs/recovery.md, then `latchkey hold release --reason …`",
            )
        })
        .collect()
}

/// Looks at the reviews that emergency grants owe; nothing is said where there are none.
#[must_use]
pub fn examine_reviews(open: &[(IntegrationName, u64)]) -> Vec<Finding> {
    open.iter()
        .map(|(integration, count)| {
            let what = if *count == 1 {
                "1 review of an emergency grant is open".to_owned()
            } else {
                format!("{count} reviews of emergency grants are open")
            };
            Finding::new(
                format!("integration {integration}"),
                "reviews",
                Level::Warning,
                what,
                "find out who used the token and why: `latchkey review list`, then `latchkey review close GRANT --note …`",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::ports::ledger::{Evidence, HoldReason};

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn no_witness_is_a_warning_that_says_what_it_costs() {
        let findings = examine_witness(None);
        assert_eq!(levels(&findings), [Level::Warning]);
        assert!(findings[0].message.contains("restored"));
    }

    #[test]
    fn a_damaged_witness_is_a_problem_and_one_beside_the_ledger_a_warning() {
        let probe = |condition, with_ledger| WitnessProbe {
            place: "/w".to_owned(),
            found: Ok((condition, 3)),
            with_ledger,
        };
        let whole = examine_witness(Some(&probe(Condition::Whole, true)));
        assert_eq!(levels(&whole), [Level::Ok, Level::Warning]);
        let detail = "the record at byte 3".to_owned();
        let damaged = examine_witness(Some(&probe(Condition::Damaged { detail }, false)));
        assert_eq!(levels(&damaged), [Level::Problem]);
    }

    #[test]
    fn an_open_review_is_a_warning_until_it_is_closed() {
        assert_eq!(examine_reviews(&[]), []);
        let main = IntegrationName::parse("main").expect("valid");
        let findings = examine_reviews(&[(main, 2)]);
        assert_eq!(levels(&findings), [Level::Warning]);
        assert!(findings[0].message.starts_with("2 reviews"));
    }

    #[test]
    fn a_hold_is_a_problem_with_its_reason() {
        let hold = HoldRecord {
            integration: IntegrationName::parse("main").expect("valid"),
            since: Timestamp::UNIX_EPOCH,
            reasons: vec![HoldReason {
                code: "ledger_behind".to_owned(),
                detail: "it was restored".to_owned(),
            }],
            evidence: Evidence::Witness,
        };
        let findings = examine_holds(&[hold]);
        assert_eq!(levels(&findings), [Level::Problem]);
        assert!(findings[0].message.contains("it was restored"));
    }
}
