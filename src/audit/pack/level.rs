//! How punctual the revocations of a period were, from its receipts.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::receipt::{Assurance, Receipt};

/// Bounds of the distribution, in milliseconds; beyond the last one is the rest.
const BOUNDS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000,
    86_400_000,
];

/// From due to seen gone, over all receipts of a period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLevel {
    /// Milliseconds from due to seen gone that were promised.
    pub within_ms: u64,
    /// Grants that ended.
    pub ended: u64,
    /// Of these, those with access that was due to go and seen gone.
    pub measured: u64,
    /// Of these, those seen gone within what was promised.
    pub on_time: u64,
    /// The others of these.
    pub late: u64,
    /// Those whose second look is still owed.
    pub open: u64,
    /// Those with access that was given up instead of seen gone.
    pub given_up: u64,
    /// Half of those measured took at most so many milliseconds; `None` when nothing was measured.
    pub p50_ms: Option<u64>,
    /// Nine of ten did.
    pub p90_ms: Option<u64>,
    /// Ninety-nine of a hundred did.
    pub p99_ms: Option<u64>,
    /// The longest.
    pub max_ms: Option<u64>,
    /// How many took how long; each is counted once.
    pub distribution: Vec<UpTo>,
    /// Every late one, in the order of the receipts.
    pub late_revocations: Vec<LateRevocation>,
}

/// One step of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpTo {
    /// Milliseconds that these took at most; `None` for all that took longer than the step before.
    pub up_to_ms: Option<u64>,
    /// How many.
    pub count: u64,
}

/// A revocation that took longer than promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateRevocation {
    /// Which grant.
    pub grant_id: String,
    /// In which organization.
    pub integration: String,
    /// When it was due.
    pub due_at: Option<Timestamp>,
    /// Milliseconds from then to seen gone.
    pub took_ms: u64,
}

/// Takes receipts one by one.
#[derive(Debug)]
pub(super) struct Tally {
    level: ServiceLevel,
    took: Vec<u64>,
}

impl Tally {
    pub(super) fn new(within_ms: u64) -> Self {
        let level = ServiceLevel {
            within_ms,
            ..ServiceLevel::default()
        };
        Self {
            level,
            took: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, receipt: &Receipt) {
        let level = &mut self.level;
        level.ended += 1;
        level.open += u64::from(receipt.is_open());
        level.given_up += u64::from(receipt.assurance() == Assurance::GivenUp);
        let Some(took) = receipt.due_to_gone() else {
            return;
        };
        let took = u64::try_from(took.num_milliseconds()).unwrap_or(0);
        self.took.push(took);
        if took <= level.within_ms {
            level.on_time += 1;
        } else {
            level.late += 1;
            level.late_revocations.push(LateRevocation {
                grant_id: receipt.grant_id.to_string(),
                integration: receipt.integration.to_string(),
                due_at: receipt.due_at,
                took_ms: took,
            });
        }
    }

    pub(super) fn end(mut self) -> ServiceLevel {
        self.took.sort_unstable();
        let took = &self.took;
        // The smallest value that at least so many of a hundred do not exceed.
        let at = |percent: usize| {
            let place = (took.len() * percent).div_ceil(100).checked_sub(1)?;
            took.get(place).copied()
        };
        let mut distribution = Vec::new();
        let mut below = 0;
        for bound in BOUNDS {
            let count = took.partition_point(|took| *took <= bound) as u64;
            distribution.push(UpTo {
                up_to_ms: Some(bound),
                count: count - below,
            });
            below = count;
        }
        distribution.push(UpTo {
            up_to_ms: None,
            count: took.len() as u64 - below,
        });
        ServiceLevel {
            measured: took.len() as u64,
            p50_ms: at(50),
            p90_ms: at(90),
            p99_ms: at(99),
            max_ms: at(100),
            distribution,
            ..self.level
        }
    }
}
