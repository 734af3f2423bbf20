//! Writes of the ledger in memory that look at more than one record before they change any.
//!
//! Owns accepting a grant, moving an invitee to a member and claiming an organization. Never changes anything unless
//! the whole of it is allowed.

use super::{State, key_of, precise, unavailable};
use crate::domain::ids::{IntegrationName, OrganizationId};
use crate::domain::member::MemberRecord;
use crate::ports::ledger::{Accept, Accepted, LedgerError, MemberCommit, RequestRecord, Result};
use crate::store::rows::{self, IllegalWrite};

impl State {
    pub(super) fn accept(&mut self, accept: Accept, action: &'static str) -> Result<Accepted> {
        let Accept {
            grant,
            fingerprint,
            remember_until,
            due,
            audit,
        } = accept;
        let request = (grant.caller.clone(), grant.request_id.clone());
        match self.requests.get(&request) {
            Some((RequestRecord::Tombstone, _)) => return Ok(Accepted::Tombstoned),
            Some((
                RequestRecord::Grant {
                    id,
                    fingerprint: known,
                },
                _,
            )) if *known == fingerprint => {
                return match self.grants.get(id) {
                    Some(grant) => Ok(Accepted::Replayed(grant.clone())),
                    None => Err(LedgerError::Corrupt {
                        action,
                        source: IllegalWrite(format!("the grant {id} of a request id is missing"))
                            .into(),
                    }),
                };
            }
            Some((RequestRecord::Grant { .. } | RequestRecord::Done { .. }, _)) => {
                return Ok(Accepted::Mismatch);
            }
            None => {}
        }
        if let Some(token) = self.used_before(&grant) {
            return Ok(Accepted::TokenUsed(token));
        }
        if self.grants.contains_key(&grant.id) {
            let taken = IllegalWrite(format!("the grant id {} is taken", grant.id));
            return Err(unavailable(action, taken));
        }
        let record = RequestRecord::Grant {
            id: grant.id,
            fingerprint,
        };
        self.requests.insert(request, (record, remember_until));
        let key = key_of(&grant);
        let mut member = self
            .members
            .get(&key)
            .cloned()
            .unwrap_or_else(|| MemberRecord::new(key));
        member.version += 1;
        member.due = Some(precise(rows::earlier(member.due, due)));
        self.store_member(member);
        self.store_grant(grant.clone());
        self.use_up(&grant);
        self.append(audit);
        Ok(Accepted::Created(grant))
    }

    pub(super) fn rekey(
        &mut self,
        from: MemberRecord,
        mut into: MemberCommit,
        action: &'static str,
    ) -> Result<u64> {
        let quiet =
            rows::rekeyed(&from, &mut into).map_err(|illegal| unavailable(action, illegal))?;
        if self.version(&from.key) != from.version {
            return Err(LedgerError::Conflict { key: from.key });
        }
        self.admit(&into, action)?;
        let left = self.open.get(&from.key).into_iter().flatten();
        let left = left
            .filter(|id| into.record.grants.iter().all(|grant| grant.id != **id))
            .count();
        if left > 0 {
            let left = IllegalWrite(format!(
                "{left} grants of {} would be left behind",
                from.key
            ));
            return Err(unavailable(action, left));
        }
        if from.version > 0 {
            self.commit(MemberCommit {
                record: quiet,
                audit: Vec::new(),
                request: None,
            });
        }
        Ok(self.commit(into))
    }

    pub(super) fn claim(
        &mut self,
        integration: &IntegrationName,
        organization: &OrganizationId,
    ) -> Result<()> {
        let mut taken = self
            .organizations
            .get_key_value(organization)
            .filter(|(_, owner)| *owner != integration);
        if taken.is_none() {
            taken = self
                .organizations
                .iter()
                .find(|(held, owner)| *owner == integration && *held != organization);
        }
        if let Some((organization, owner)) = taken {
            return Err(LedgerError::OrganizationTaken {
                organization: organization.clone(),
                owner: owner.clone(),
            });
        }
        self.organizations
            .insert(organization.clone(), integration.clone());
        Ok(())
    }
}
