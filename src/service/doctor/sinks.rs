//! What an operator should know about the sinks of the audit.

use super::{Finding, Level};

/// Events that may wait while everything is well: those of the last moment.
const USUAL: u64 = 1_000;

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkProbe {
    /// Its name.
    pub name: String,
    /// Events that it has not acknowledged; `None` when the ledger cannot be read beside a connector.
    pub behind: Option<u64>,
}

/// Looks at every sink. None of them keeps anything from working, so nothing here is a problem.
#[must_use]
pub fn examine_sinks(sinks: &[SinkProbe]) -> Vec<Finding> {
    let examine = |sink: &SinkProbe| {
        let subject = format!("audit sink {}", sink.name);
        match sink.behind {
            None => Finding::ok(
                subject,
                "sink_lag",
                "how far it is stands in the ledger, which cannot be read here",
            ),
            Some(behind) if behind <= USUAL => {
                Finding::ok(subject, "sink_lag", format!("{behind} events wait for it"))
            }
            Some(behind) => Finding::new(
                subject,
                "sink_lag",
                Level::Warning,
                format!("{behind} events wait for it"),
                "look for \"Sink of the audit did not take events\" in the log: it says why; nothing is lost meanwhile",
            ),
        }
    };
    sinks.iter().map(examine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_is_far_behind_is_a_warning_and_never_a_problem() {
        let probe = |behind| SinkProbe {
            name: "siem".to_owned(),
            behind,
        };
        let found = examine_sinks(&[probe(None), probe(Some(USUAL)), probe(Some(USUAL + 1))]);
        let levels: Vec<Level> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Ok, Level::Warning]);
        assert!(found[2].message.contains("1001 events") && !found[2].remedy.is_empty());
    }
}
