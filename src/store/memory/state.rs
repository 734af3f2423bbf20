//! What the ledger in memory holds, and the changes that keep its indexes true.
//!
//! Owns the indexes by member, by due instant and by end. Never decides whether a write is wanted.

use super::{State, key_of, last_sequence, precise, unavailable};
use crate::domain::Timestamp;
use crate::domain::event::AuditEvent;
use crate::domain::grant::Grant;
use crate::domain::member::{MemberKey, MemberRecord};
use crate::ports::ledger::{LedgerError, MemberCommit, Result, StoredEvent};
use crate::store::rows;

impl State {
    pub(super) fn append(&mut self, events: Vec<AuditEvent>) {
        for event in events {
            let sequence = last_sequence(self) + 1;
            self.events.push(StoredEvent { sequence, event });
        }
    }

    pub(super) fn version(&self, key: &MemberKey) -> u64 {
        self.members.get(key).map_or(0, |record| record.version)
    }

    pub(super) fn assembled(&self, key: &MemberKey) -> MemberRecord {
        let mut record = self
            .members
            .get(key)
            .cloned()
            .unwrap_or_else(|| MemberRecord::new(key.clone()));
        let open = self.open.get(key).into_iter().flatten();
        record.grants = open.filter_map(|id| self.grants.get(id)).cloned().collect();
        record
    }

    pub(super) fn store_grant(&mut self, grant: Grant) {
        if let Some(stored) = self.grants.get(&grant.id) {
            self.endings.remove(stored);
            let key = key_of(stored);
            if let Some(open) = self.open.get_mut(&key) {
                open.remove(&grant.id);
                if open.is_empty() {
                    self.open.remove(&key);
                }
            }
        }
        if !grant.state.is_ended() {
            self.open
                .entry(key_of(&grant))
                .or_default()
                .insert(grant.id);
        }
        self.endings.insert(&grant);
        self.grants.insert(grant.id, grant);
    }

    pub(super) fn store_member(&mut self, record: MemberRecord) {
        let subject = record.key.subject.to_string();
        let dues = self.dues.entry(record.key.integration.clone()).or_default();
        if let Some(old) = self.members.get(&record.key).and_then(|old| old.due) {
            let rank = rows::rank(&old);
            if let Some(bucket) = dues.get_mut(&rank) {
                bucket.remove(&(rows::micros(old.at), subject.clone()));
                if bucket.is_empty() {
                    dues.remove(&rank);
                }
            }
        }
        if let Some(due) = &record.due {
            let bucket = dues.entry(rows::rank(due)).or_default();
            bucket.insert((rows::micros(due.at), subject));
        }
        self.members.insert(record.key.clone(), record);
    }

    /// Everything that a commit needs to be allowed, before anything is changed.
    pub(super) fn admit(&self, commit: &MemberCommit, action: &'static str) -> Result<()> {
        let key = &commit.record.key;
        let taken = commit.request.as_ref().is_some_and(|(caller, id, _, _)| {
            self.requests.contains_key(&(caller.clone(), id.clone()))
        });
        if self.version(key) != commit.record.version || taken {
            return Err(LedgerError::Conflict { key: key.clone() });
        }
        for grant in &commit.record.grants {
            let illegal = self
                .grants
                .get(&grant.id)
                .and_then(|stored| rows::refused_transition(&stored.state, &grant.state));
            if let Some(illegal) = illegal {
                return Err(unavailable(action, illegal));
            }
        }
        Ok(())
    }

    /// Stores an admitted commit.
    pub(super) fn commit(&mut self, commit: MemberCommit) -> u64 {
        let MemberCommit {
            mut record,
            audit,
            request,
        } = commit;
        rows::bind_grants(&mut record);
        for receipt in std::mem::take(&mut record.evidence.outbox) {
            self.receipts.insert(receipt.grant_id, receipt);
        }
        record.version += 1;
        record.due = record.due.map(precise);
        let version = record.version;
        for mut grant in std::mem::take(&mut record.grants) {
            match self.grants.get(&grant.id) {
                Some(stored) => {
                    let same = Grant {
                        version: stored.version,
                        ..grant.clone()
                    } == *stored;
                    if same && grant.version <= stored.version {
                        continue;
                    }
                    grant.version = grant.version.max(stored.version + 1);
                }
                None => grant.version = grant.version.max(1),
            }
            self.store_grant(grant);
        }
        self.store_member(record);
        if let Some((caller, id, record, until)) = request {
            self.requests.insert((caller, id), (record, until));
        }
        self.append(audit);
        version
    }

    pub(super) fn is_overdue(at: i64, now: Timestamp) -> bool {
        at <= rows::micros(now)
    }
}
