//! Removals that can go as soon as they are due: what made them due and the intent to remove are one transaction.
//!
//! Owns when that may be. Never waits for anything: whatever would have to be waited for is written down first, and
//! decided on afterwards.

use futures::FutureExt as _;

use super::owners::concerns_owners;
use super::pass::{Progress, Reconciler, claim_of_removal};
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::member::{MemberRecord, Subject};

impl Reconciler {
    /// What can be removed now that time alone has made it due: nothing else is to be sent or looked at before, and
    /// there is a place in the rate budget at once. That place is taken then.
    pub(super) fn due_at_once(
        &self,
        record: &MemberRecord,
        progress: &mut Progress,
        now: Timestamp,
    ) -> Option<Vec<Assignment>> {
        let user_is_ours = match &record.key.subject {
            Subject::Member(user) => self.is_own_identity(user),
            Subject::Invitee(_) => true,
        };
        let is_first = progress.snapshot.is_none() && progress.sent.is_empty();
        if user_is_ours || !is_first || progress.must_read || progress.stop.is_some() {
            return None;
        }
        let (plan, _) = self.plan(record, progress, now);
        let is_plain = plan.add.is_empty() && plan.restore.is_empty() && !plan.remove.is_empty();
        if !is_plain || concerns_owners(&plan.remove) {
            return None;
        }
        if progress.turn.is_none() {
            let claim = claim_of_removal(record, &plan.remove);
            progress.turn = self.provider.turn(claim).now_or_never().flatten();
        }
        progress.turn.is_some().then_some(plan.remove)
    }
}
