//! Receipts as documents: the stable field names of `--output json` and `yaml`.
//!
//! Owns what scripts rely on, like [`super::view`]. Never holds generated types.

use serde::Serialize;

use super::view::{Assignment, End, instant, present, word};
use crate::api::pb;
use crate::domain::Timestamp;

/// Calls of one direction, summed up.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Calls {
    pub(super) intended_at: Option<Timestamp>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) last_sent_at: Option<Timestamp>,
    pub(super) done_at: Option<Timestamp>,
    pub(super) intents: u32,
    pub(super) sent: u32,
    pub(super) refused: u32,
    pub(super) unanswered: u32,
    pub(super) last_code: Option<String>,
    pub(super) request_ids: Vec<String>,
}

impl From<&pb::CallSummary> for Calls {
    fn from(wire: &pb::CallSummary) -> Self {
        let pb::CallSummary {
            intended_at,
            sent_at,
            last_sent_at,
            done_at,
            intents,
            sent,
            refused,
            unanswered,
            last_code,
            request_ids,
        } = wire;
        Self {
            intended_at: instant(intended_at.as_ref()),
            sent_at: instant(sent_at.as_ref()),
            last_sent_at: instant(last_sent_at.as_ref()),
            done_at: instant(done_at.as_ref()),
            intents: *intents,
            sent: *sent,
            refused: *refused,
            unanswered: *unanswered,
            last_code: present(last_code),
            request_ids: request_ids.clone(),
        }
    }
}

/// Who gave an assignment up, and why.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GivenUp {
    pub(super) at: Option<Timestamp>,
    pub(super) by: String,
    pub(super) confirmed_by: Option<String>,
    pub(super) reason: String,
}

/// One assignment on a receipt.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) assignment: Assignment,
    /// `not_given`, `standing`, `removed`, `taken_away`, `member_left`, `kept`, `forgotten` or `adopted`.
    pub(super) fate: String,
    pub(super) added: Option<Calls>,
    pub(super) seen_at: Option<Timestamp>,
    pub(super) missing_at: Option<Timestamp>,
    pub(super) removed: Option<Calls>,
    pub(super) gone_at: Option<Timestamp>,
    pub(super) gone_read_started_at: Option<Timestamp>,
    /// `owed`, `reopened`, `done` or `taken_over`; null when none is owed.
    pub(super) second_look: Option<String>,
    pub(super) second_look_at: Option<Timestamp>,
    pub(super) resurrections: u32,
    pub(super) resurrected_at: Option<Timestamp>,
    pub(super) blocked_code: Option<String>,
    pub(super) restored: Vec<Assignment>,
    pub(super) given_up: Option<GivenUp>,
}

impl From<&pb::ReceiptLine> for Line {
    fn from(wire: &pb::ReceiptLine) -> Self {
        let fate = word(wire.fate().as_str_name(), "RECEIPT_FATE_");
        let look = match wire.second_look() {
            pb::SecondLookState::Unspecified => None,
            look @ (pb::SecondLookState::Owed
            | pb::SecondLookState::Reopened
            | pb::SecondLookState::Done
            | pb::SecondLookState::TakenOver) => {
                Some(word(look.as_str_name(), "SECOND_LOOK_STATE_"))
            }
        };
        let pb::ReceiptLine {
            assignment,
            fate: _,
            added,
            seen_at,
            missing_at,
            removed,
            gone_at,
            gone_read_started_at,
            second_look: _,
            second_look_at,
            resurrections,
            resurrected_at,
            blocked_code,
            restored,
            given_up,
        } = wire;
        Self {
            assignment: Assignment::from(assignment.as_ref()),
            fate,
            added: added.as_ref().map(Calls::from),
            seen_at: instant(seen_at.as_ref()),
            missing_at: instant(missing_at.as_ref()),
            removed: removed.as_ref().map(Calls::from),
            gone_at: instant(gone_at.as_ref()),
            gone_read_started_at: instant(gone_read_started_at.as_ref()),
            second_look: look,
            second_look_at: instant(second_look_at.as_ref()),
            resurrections: *resurrections,
            resurrected_at: instant(resurrected_at.as_ref()),
            blocked_code: present(blocked_code),
            restored: restored.iter().map(Assignment::from).collect(),
            given_up: given_up.as_ref().map(|how| GivenUp {
                at: instant(how.at.as_ref()),
                by: how.by.clone(),
                confirmed_by: present(&how.confirmed_by),
                reason: how.reason.clone(),
            }),
        }
    }
}

/// What a read showed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sighting {
    pub(super) read_started_at: Option<Timestamp>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) more: u32,
}

impl From<&pb::Sighting> for Sighting {
    fn from(wire: &pb::Sighting) -> Self {
        let pb::Sighting {
            read_started_at,
            assignments,
            more,
        } = wire;
        Self {
            read_started_at: instant(read_started_at.as_ref()),
            assignments: assignments.iter().map(Assignment::from).collect(),
            more: *more,
        }
    }
}

/// Something to know.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Warning {
    pub(super) code: String,
    pub(super) message: String,
}

/// The proof of how a grant ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Receipt {
    pub(super) grant_id: String,
    /// `reopened`, `given_up`, `seen_gone_once`, `seen_gone_twice` or `nothing_to_remove`.
    pub(super) assurance: String,
    pub(super) is_open: bool,
    pub(super) integration: String,
    pub(super) beneficiary: String,
    pub(super) user_id: Option<String>,
    pub(super) requester: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) caller: String,
    pub(super) request_id: String,
    pub(super) duration_seconds: i64,
    pub(super) extensions: u32,
    pub(super) created_at: Option<Timestamp>,
    pub(super) starts_at: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) verified_at: Option<Timestamp>,
    pub(super) due_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) due_to_gone_milliseconds: Option<i64>,
    pub(super) end: Option<End>,
    pub(super) lines: Vec<Line>,
    pub(super) before: Option<Sighting>,
    pub(super) after: Option<Sighting>,
    pub(super) warnings: Vec<Warning>,
    pub(super) notes: Vec<String>,
}

impl From<&pb::Receipt> for Receipt {
    fn from(wire: &pb::Receipt) -> Self {
        let assurance = word(wire.assurance().as_str_name(), "RECEIPT_ASSURANCE_");
        let pb::Receipt {
            grant_id,
            integration,
            caller,
            request_id,
            beneficiary,
            user_id,
            requester,
            justification,
            duration,
            starts_at,
            not_after,
            created_at,
            verified_at,
            extensions,
            due_at,
            ended_at,
            end_cause,
            due_to_gone,
            assurance: _,
            is_open,
            lines,
            before,
            after,
            warnings,
            notes,
        } = wire;
        Self {
            grant_id: grant_id.clone(),
            assurance,
            is_open: *is_open,
            integration: integration.clone(),
            beneficiary: beneficiary.clone(),
            user_id: present(user_id),
            requester: present(requester),
            reason: present(justification),
            caller: caller.clone(),
            request_id: request_id.clone(),
            duration_seconds: duration.as_ref().map_or(0, |length| length.seconds),
            extensions: *extensions,
            created_at: instant(created_at.as_ref()),
            starts_at: instant(starts_at.as_ref()),
            not_after: instant(not_after.as_ref()),
            verified_at: instant(verified_at.as_ref()),
            due_at: instant(due_at.as_ref()),
            ended_at: instant(ended_at.as_ref()),
            due_to_gone_milliseconds: due_to_gone
                .as_ref()
                .map(|length| length.seconds * 1000 + i64::from(length.nanos) / 1_000_000),
            end: end_cause.as_ref().map(|cause| End {
                reason: word(cause.reason().as_str_name(), "END_REASON_"),
                by: present(&cause.by),
                comment: present(&cause.comment),
                code: present(&cause.code),
            }),
            lines: lines.iter().map(Line::from).collect(),
            before: before.as_ref().map(Sighting::from),
            after: after.as_ref().map(Sighting::from),
            warnings: warnings
                .iter()
                .map(|warning| Warning {
                    code: warning.code.clone(),
                    message: warning.message.clone(),
                })
                .collect(),
            notes: notes.clone(),
        }
    }
}
