//! What another key changes at once: members that wait because the last one failed.
//!
//! Owns noticing that the key is another one, and ending the pauses it explains. Never ends a pause that has nothing to
//! do with what a key may do.

use super::pass::Reconciler;
use crate::domain::member::MemberKey;
use crate::ports::ledger::LedgerError;

/// Members whose pause ends at once when the key changes; the others follow by themselves within a pause.
const WAKE_PAGE: usize = 1_000;

impl Reconciler {
    /// What failed with one key need not wait for its pause once there is another.
    pub async fn notice_key(&self) {
        let pin = self.provider.pin();
        let before = {
            let mut known = self
                .known_key
                .lock()
                .expect("no code panics while it holds this lock");
            known.replace(pin)
        };
        if before.is_none_or(|before| before == pin) {
            return;
        }
        let horizon = self.settings.backoff_cap.max(self.settings.blocked_retry);
        let until = self.clock.now() + horizon;
        let waiting = match self.ledger.due(&self.integration, until, WAKE_PAGE).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(integration = %self.integration, code = error.code(), "Members in backoff were not woken for the new key");
                return;
            }
        };
        for member in waiting {
            if let Err(error) = self.end_pause(&member.key).await {
                tracing::warn!(member = %member.key, code = error.code(), "Member was not woken for the new key");
            }
        }
    }

    async fn end_pause(&self, key: &MemberKey) -> Result<(), LedgerError> {
        let mut woken = None;
        self.update(key, |draft, now| {
            let record = &mut draft.record;
            let mut paused = false;
            if let Some(backoff) = record
                .backoff
                .as_mut()
                .filter(|backoff| backoff.until > now)
            {
                backoff.until = now;
                paused = true;
            }
            for blocked in record
                .owned
                .iter_mut()
                .filter_map(|row| row.blocked.as_mut())
            {
                // Those two have nothing to do with what the key may do.
                let other = matches!(blocked.code.as_str(), "last_owner" | "own_identity");
                if !other && blocked.retry_at > now {
                    blocked.retry_at = now;
                    paused = true;
                }
            }
            if paused {
                let due = self.due_now(record, now);
                record.due = Some(record.due.map_or(due, |earlier| earlier.min(due)));
                draft.changed = true;
                woken = record.due;
            }
        })
        .await?;
        if let Some(due) = woken {
            self.wake.wake(key, due);
        }
        Ok(())
    }
}
