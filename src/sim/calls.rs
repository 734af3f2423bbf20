//! Counting calls, and a bounded log of the last ones.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How many calls the log keeps.
const KEPT: usize = 2_000;

/// One call, or one effect that came late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up from 1
    pub seq: u64,
    /// Simulated time of arrival
    pub at: DateTime<Utc>,
    /// The kind it is counted under
    pub kind: String,
    /// The HTTP method
    pub method: String,
    /// The path as it came
    pub path: String,
    /// The user it is about
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The role assignment pairs in the body, such as `deployment/deployment-admin/<id>`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<String>,
    /// The fault that hit it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The status that was answered; absent while unanswered
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether this is an effect that came after its answer, not a call
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// What was called since the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
    /// All calls
    pub total: u64,
    /// By kind
    pub by_kind: BTreeMap<String, u64>,
    /// By answered status
    pub by_status: BTreeMap<u16, u64>,
    /// Most calls under way at one time
    pub most_in_flight: u64,
    /// The last calls, oldest first
    pub log: Vec<Call>,
}

/// The running count.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    seq: u64,
    in_flight: u64,
    report: CallReport,
    log: VecDeque<Call>,
}

impl Calls {
    /// Counts a call; returns its number.
    pub(crate) fn arrive(&mut self, mut call: Call) -> u64 {
        self.seq += 1;
        call.seq = self.seq;
        if !call.late {
            self.in_flight += 1;
            self.report.most_in_flight = self.report.most_in_flight.max(self.in_flight);
            self.report.total += 1;
            *self.report.by_kind.entry(call.kind.clone()).or_default() += 1;
        }
        self.log.push_back(call);
        if self.log.len() > KEPT {
            self.log.pop_front();
        }
        self.seq
    }

    pub(crate) fn hit(&mut self, seq: u64, fault: &str) {
        if let Some(call) = self.find(seq) {
            call.fault = Some(fault.to_owned());
        }
    }

    /// Notes the answer.
    pub(crate) fn answer(&mut self, seq: u64, status: u16) {
        let known = self.find(seq).map(|call| {
            call.status = Some(status);
            call.late
        });
        if known != Some(true) {
            *self.report.by_status.entry(status).or_default() += 1;
        }
    }

    /// The call is over, answered or not.
    pub(crate) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn find(&mut self, seq: u64) -> Option<&mut Call> {
        self.log.iter_mut().rev().find(|call| call.seq == seq)
    }

    pub(crate) fn reset(&mut self) {
        self.report = CallReport::default();
        self.log.clear();
    }

    pub(crate) fn report(&self) -> CallReport {
        CallReport {
            log: self.log.iter().cloned().collect(),
            ..self.report.clone()
        }
    }
}
