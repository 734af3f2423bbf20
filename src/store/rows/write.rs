//! All rows of one write, ready before its transaction begins.
//!
//! Owns what belongs together. Never does I/O.

use super::{EventRow, GrantRow, MemberRow, ReceiptRow, RequestRow, bind_grants};
use crate::domain::member::{MemberKey, MemberRecord};
use crate::domain::request::Fingerprint;
use crate::ports::ledger::{Accept, MemberCommit, RequestRecord};
use crate::store::once::{ReviewRow, TokenRow};

/// Everything that one accept writes.
#[derive(Debug)]
pub(crate) struct AcceptRows {
    pub(crate) request: RequestRow,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) grant: GrantRow,
    /// The row of a member that was not known before.
    pub(crate) member: MemberRow,
    pub(crate) events: Vec<EventRow>,
    /// Signed texts that it uses up.
    pub(crate) tokens: Vec<TokenRow>,
    pub(crate) review: Option<ReviewRow>,
}

impl AcceptRows {
    pub(crate) fn new(accept: Accept) -> Self {
        let Accept {
            grant,
            fingerprint,
            remember_until,
            due,
            audit,
        } = accept;
        let record = RequestRecord::Grant {
            id: grant.id,
            fingerprint,
        };
        let mut member = MemberRecord::new(MemberKey {
            integration: grant.integration.clone(),
            subject: grant.subject.clone(),
        });
        member.due = Some(due);
        Self {
            request: RequestRow::new(&grant.caller, &grant.request_id, &record, remember_until),
            fingerprint,
            grant: GrantRow::new(&grant),
            member: MemberRow::split(member).0,
            events: EventRow::all(&audit),
            tokens: TokenRow::all(&grant),
            review: ReviewRow::owed(&grant),
        }
    }
}

/// Everything that one compare-and-swap writes.
#[derive(Debug)]
pub(crate) struct CommitRows {
    pub(crate) member: MemberRow,
    pub(crate) grants: Vec<GrantRow>,
    pub(crate) events: Vec<EventRow>,
    pub(crate) request: Option<RequestRow>,
    pub(crate) receipts: Vec<ReceiptRow>,
}

impl CommitRows {
    pub(crate) fn new(commit: MemberCommit) -> Self {
        let MemberCommit {
            mut record,
            audit,
            request,
        } = commit;
        bind_grants(&mut record);
        let receipts = std::mem::take(&mut record.evidence.outbox);
        let (member, grants) = MemberRow::split(record);
        Self {
            receipts: receipts.iter().map(ReceiptRow::new).collect(),
            member,
            grants: grants.iter().map(GrantRow::new).collect(),
            events: EventRow::all(&audit),
            request: request.map(|(caller, request_id, record, until)| {
                RequestRow::new(&caller, &request_id, &record, until)
            }),
        }
    }
}
