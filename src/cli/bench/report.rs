//! The table of a run: goals, what was measured, and whether they fit.
//!
//! Owns medians, worst pairs, verdicts and their words. Never measures.

use serde_json::{Value, json};

/// What a measurement should come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// The median of the pairs is not below this.
    AtLeast(f64),
    /// The median of the pairs is not above this.
    AtMost(f64),
    /// Shown, without a goal.
    Shown,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// So many times the baseline.
    Times,
    /// Milliseconds.
    Millis,
    /// Mebibytes.
    Mebibytes,
    /// Something counted.
    Count,
}

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// What was measured.
    pub(super) what: &'static str,
    /// How its numbers are written.
    pub(super) unit: Unit,
    /// One number for each pair of subject and baseline.
    pub(super) pairs: Vec<f64>,
    /// What they should come to.
    pub(super) goal: Goal,
    /// The two sides, in words.
    pub(super) sides: String,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Times => format!("{value:.2} x"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Count => format!("{value:.2}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Times => "ratio",
            Self::Millis => "ms",
            Self::Mebibytes => "MiB",
            Self::Count => "count",
        }
    }
}

impl Line {
    /// Median of the pairs.
    pub(super) fn median(&self) -> f64 {
        median(&self.pairs)
    }

    /// The pair farthest from the goal.
    pub(super) fn worst(&self) -> f64 {
        let values = self.pairs.iter().copied();
        match self.goal {
            Goal::AtLeast(_) => values.fold(f64::NAN, f64::min),
            Goal::AtMost(_) | Goal::Shown => values.fold(f64::NAN, f64::max),
        }
    }

    /// Whether the median fits the goal; a measurement without numbers fits none.
    pub(super) fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtLeast(bound) => self.median() >= bound,
            Goal::AtMost(bound) => self.median() <= bound,
            Goal::Shown => true,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.goal {
            Goal::Shown => "",
            Goal::AtLeast(_) | Goal::AtMost(_) if self.is_met() => "met",
            Goal::AtLeast(_) | Goal::AtMost(_) => "MISSED",
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(bound) => format!(">= {}", self.unit.write(bound)),
            Goal::AtMost(bound) => format!("<= {}", self.unit.write(bound)),
            Goal::Shown => String::new(),
        }
    }

    /// The line for people: four columns and the two sides below them.
    pub(super) fn text(&self) -> String {
        format!(
            "  {:<58} {:>12} {:>12} {:>12}  {}\n      {}\n",
            self.what,
            self.goal(),
            self.unit.write(self.median()),
            self.unit.write(self.worst()),
            self.verdict(),
            self.sides,
        )
    }

    /// The line for a page: one row.
    pub(super) fn markdown(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            self.what,
            self.goal(),
            self.unit.write(self.median()),
            self.unit.write(self.worst()),
            self.verdict(),
            self.sides,
        )
    }

    /// The line for programs.
    pub(super) fn json(&self, section: &str) -> Value {
        let (at_least, at_most) = match self.goal {
            Goal::AtLeast(bound) => (Some(bound), None),
            Goal::AtMost(bound) => (None, Some(bound)),
            Goal::Shown => (None, None),
        };
        json!({
            "section": section,
            "what": self.what,
            "unit": self.unit.name(),
            "at_least": at_least,
            "at_most": at_most,
            "median": self.median(),
            "worst": self.worst(),
            "met": self.is_met(),
            "pairs": self.pairs,
            "sides": self.sides,
        })
    }
}

/// The head of a section's table.
pub(super) fn head(title: &str) -> String {
    format!(
        "{title}\n  {:<58} {:>12} {:>12} {:>12}\n",
        "", "goal", "median", "worst pair"
    )
}

/// The head of a section's table on a page.
pub(super) fn markdown_head(title: &str) -> String {
    format!(
        "### {title}\n\n| measurement | goal | median | worst pair | | what against what |\n\
         |---|---|---|---|---|---|\n"
    )
}

/// The middle one of the values; not a number where there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value that a share of the values does not exceed (nearest rank).
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a list that is in memory"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Ratios of pairs.
pub(super) fn ratios(subject: &[f64], baseline: &[f64]) -> Vec<f64> {
    subject.iter().zip(baseline).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(goal: Goal, pairs: &[f64]) -> Line {
        Line {
            what: "a measurement",
            unit: Unit::Times,
            pairs: pairs.to_vec(),
            goal,
            sides: "1 and 2".to_owned(),
        }
    }

    #[test]
    fn the_median_decides_and_the_worst_pair_is_told() {
        let least = line(Goal::AtLeast(0.6), &[0.9, 0.1, 0.7]);
        assert!(least.is_met());
        assert_eq!((least.median(), least.worst()), (0.7, 0.1));
        let most = line(Goal::AtMost(1.5), &[1.0, 9.0, 2.0]);
        assert!(!most.is_met());
        assert_eq!((most.median(), most.worst()), (2.0, 9.0));
        assert!(most.text().contains("MISSED"), "{}", most.text());
        assert_eq!(
            most.markdown(),
            "| a measurement | <= 1.50 x | 2.00 x | 9.00 x | MISSED | 1 and 2 |\n"
        );
    }

    #[test]
    fn nothing_measured_meets_no_goal() {
        assert!(!line(Goal::AtLeast(0.0), &[]).is_met());
        assert!(!line(Goal::AtMost(1e9), &[]).is_met());
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
