//! People who are not members yet: one invitation per address, shared by all grants waiting for it.
//!
//! Owns sending, adopting and cancelling invitations, and handing waiting grants over to the member who joins.
//! Never cancels an administrator's own invitation, and never puts roles into one: roles follow through the one
//! path that also removes them.

use chrono::TimeDelta;

use super::pass::{Reconciler, Report};
use super::settle::Draft;
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::{EndCause, LastError};
use crate::domain::ids::{Email, InvitationToken};
use crate::domain::member::{
    Due, DueKind, Invitation, MemberKey, MemberRecord, Subject, WriteOutcome,
};
use crate::domain::observation::{Interest, ObservedMember};
use crate::ports::ledger::{LedgerError, MemberCommit};
use crate::ports::provider::{ObservedInvitation, Outcome, Priority};

/// What to do about an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Nothing but waiting.
    Wait,
    /// Look whether one exists, adopt it, or else send one.
    Invite,
    /// Find out what became of an invitation whose sending was not answered.
    Settle,
    /// Nobody waits for it any more.
    Cancel(InvitationToken),
    /// Nobody waits, and there is nothing of ours to cancel.
    Forget,
}

impl Reconciler {
    pub(super) async fn invitee_pass(
        &self,
        key: &MemberKey,
        email: &Email,
    ) -> Result<Report, LedgerError> {
        let mut report = Report::default();
        let record = self.ledger.member(key).await?;
        if record.version == 0 {
            return Ok(report);
        }
        if record.is_quiet() {
            // Whoever made it quiet may have died before it was written that nothing is due any more.
            if record.due.is_some() {
                self.update(key, |draft, _| {
                    if draft.record.is_quiet() {
                        draft.changed |= draft.record.due.take().is_some();
                    } else {
                        report.next = draft.record.due;
                    }
                })
                .await?;
            }
            return Ok(report);
        }
        self.update(key, |draft, now| {
            draft.advance(now, &self.settings);
            // Grants that came later share the invitation, and the knowledge of who sent it.
            let ours = draft
                .record
                .invitation
                .as_ref()
                .is_some_and(|invitation| invitation.ours && invitation.token.is_some());
            draft.each_grant(now, |grant| {
                let news = ours && !grant.invited;
                grant.invited |= ours;
                news
            });
        })
        .await?;
        report.reads += 1;
        match self
            .observer
            .observe(Interest::email(email.clone()), Priority::Verify)
            .await
        {
            Ok(read) => {
                let found: Vec<&ObservedMember> = read.by_email(email).collect();
                match found.as_slice() {
                    // Without grants there is nothing to hand over, only an invitation to be done with.
                    [member] if self.hand_over(key, member).await? => return Ok(report),
                    [] | [_] => {}
                    _ => report.failure = Some("ambiguous_members".to_owned()),
                }
                if !read.is_complete() {
                    report.failure = Some("incomplete_read".to_owned());
                }
            }
            Err(error) => report.failure = Some(error.code().to_owned()),
        }
        if report.failure.is_none() {
            report.failure = self.invitation_step(key, email).await?;
        }
        self.update(key, |draft, now| {
            match &report.failure {
                Some(code) => self.back_off(draft, code, now),
                None => draft.record.backoff = None,
            }
            report.next = self.next_invitee_due(&draft.record, now);
            draft.record.due = report.next;
            draft.changed = true;
        })
        .await?;
        Ok(report)
    }

    fn step(&self, record: &MemberRecord, now: Timestamp) -> Step {
        let waiting = !record.grants.is_empty();
        match &record.invitation {
            None if waiting => Step::Invite,
            None => Step::Wait,
            Some(Invitation { ours: false, .. }) if !waiting => Step::Forget,
            Some(Invitation { token: None, .. }) => Step::Settle,
            Some(Invitation {
                expires_at: Some(at),
                ..
            }) if waiting && *at <= now => Step::Invite,
            Some(Invitation {
                token: Some(token), ..
            }) if !waiting => Step::Cancel(token.clone()),
            Some(_) => Step::Wait,
        }
    }

    /// Does what the invitation needs. Answers the code of a failure.
    async fn invitation_step(
        &self,
        key: &MemberKey,
        email: &Email,
    ) -> Result<Option<String>, LedgerError> {
        let now = self.clock.now();
        let record = self.ledger.member(key).await?;
        match self.step(&record, now) {
            // An invitation adds something.
            Step::Invite | Step::Settle if self.is_held() => Ok(None),
            Step::Wait => Ok(None),
            Step::Forget => self.forget(key).await,
            Step::Invite => self.invite(key, email).await,
            Step::Settle => self.settle_invitation(key, email).await,
            Step::Cancel(token) => self.cancel(key, email, &token).await,
        }
    }

    async fn forget(&self, key: &MemberKey) -> Result<Option<String>, LedgerError> {
        self.update(key, |draft, _| {
            draft.changed |= draft.record.invitation.take().is_some();
        })
        .await?;
        Ok(None)
    }

    /// Open invitations of an address, the newest first. A call that is repeated after no answer can leave several.
    async fn find_open(
        &self,
        email: &Email,
        now: Timestamp,
    ) -> Result<Vec<ObservedInvitation>, String> {
        match self.provider.invitations(Priority::Verify).await {
            Ok((mut open, _)) => {
                open.retain(|invitation| {
                    invitation.email == *email && !invitation.expired && invitation.expires_at > now
                });
                open.sort_by_key(|invitation| std::cmp::Reverse(invitation.created_at));
                Ok(open)
            }
            Err((error, _)) => Err(error.code().to_owned()),
        }
    }

    async fn invite(&self, key: &MemberKey, email: &Email) -> Result<Option<String>, LedgerError> {
        let now = self.clock.now();
        let unsettled = self.ledger.member(key).await?.invitation;
        // What was sent before without an answer may still land, at any moment before this one: the first intent tells
        // which are ours.
        let earlier = unsettled
            .as_ref()
            .filter(|earlier| earlier.ours && earlier.token.is_none());
        match self.find_open(email, now).await {
            Ok(open) => {
                if let Some(open) = open.first() {
                    let ours = earlier.is_some_and(|earlier| is_ours(open, earlier));
                    let action = if ours { "sent" } else { "adopted" };
                    let may_land = earlier.map(|earlier| may_land_until(earlier, &self.settings));
                    return self.keep(key, open, ours, action, may_land).await;
                }
            }
            Err(code) => return Ok(Some(code)),
        }
        let pin = self.provider.pin();
        let first_intent = earlier.map(|earlier| earlier.intended_at);
        let may_land = earlier.and_then(|earlier| earlier.echo_until);
        self.update(key, |draft, now| {
            draft.record.invitation = Some(Invitation {
                token: None,
                intended_at: first_intent.unwrap_or(now),
                expires_at: None,
                ours: true,
                outcome: WriteOutcome::InFlight,
                echo_until: Some(now + self.settings.unknown_look_after),
            });
            note(
                draft,
                now,
                EventKind::InvitationIntended {
                    action: "send".to_owned(),
                },
            );
        })
        .await?;
        let outcome = self
            .provider
            .invite(pin, email, self.settings.invitation_ttl)
            .await;
        match &outcome {
            Outcome::Done(invitation, _) => {
                self.keep(key, invitation, true, "sent", may_land).await
            }
            Outcome::Unknown(evidence) => {
                self.update(key, |draft, now| {
                    if let Some(invitation) = &mut draft.record.invitation {
                        invitation.outcome = WriteOutcome::Unknown;
                        invitation.echo_until = Some(now + self.settings.unknown_look_after);
                    }
                    note(draft, now, made("unknown", evidence.clone()));
                })
                .await?;
                Ok(Some("no_answer".to_owned()))
            }
            Outcome::Refused(refusal, evidence) => {
                let code = refusal.code().to_owned();
                let exists = code.ends_with("invitation_already_exists");
                let joined = code.ends_with("already_belongs");
                let error = LastError {
                    code: code.clone(),
                    message: format!("{refusal}: the invitation could not be sent"),
                    at: now,
                };
                self.update(key, |draft, now| {
                    // The earlier one that was not answered may exist after all, or still appear.
                    draft.record.invitation =
                        unsettled.clone().filter(|earlier| earlier.token.is_none());
                    note(draft, now, made("refused", evidence.clone()));
                    draft.each_grant(now, |grant| {
                        grant.last_error = Some(error.clone());
                        let hopeless = !refusal.is_transient() && !exists && !joined;
                        if hopeless {
                            grant.begin_revoke(
                                EndCause::ActivationFailed { code: code.clone() },
                                now,
                            );
                        }
                        true
                    });
                })
                .await?;
                Ok(Some(code))
            }
        }
    }

    async fn keep(
        &self,
        key: &MemberKey,
        observed: &ObservedInvitation,
        ours: bool,
        action: &str,
        echo_until: Option<Timestamp>,
    ) -> Result<Option<String>, LedgerError> {
        self.update(key, |draft, now| {
            let intended_at = draft
                .record
                .invitation
                .as_ref()
                .map_or(now, |invitation| invitation.intended_at);
            draft.record.invitation = Some(Invitation {
                token: Some(observed.token.clone()),
                intended_at,
                expires_at: Some(observed.expires_at),
                ours,
                outcome: WriteOutcome::Done,
                echo_until: echo_until.filter(|until| *until > now),
            });
            draft.each_grant(now, |grant| {
                grant.invited = ours;
                grant.last_error = None;
                true
            });
            let expires_at = Some(observed.expires_at);
            note(
                draft,
                now,
                EventKind::InvitationChanged {
                    action: action.to_owned(),
                    expires_at,
                },
            );
        })
        .await?;
        Ok(None)
    }

    /// Sending was not answered: an open invitation younger than the intent is ours.
    async fn settle_invitation(
        &self,
        key: &MemberKey,
        email: &Email,
    ) -> Result<Option<String>, LedgerError> {
        let now = self.clock.now();
        let record = self.ledger.member(key).await?;
        let Some(invitation) = record.invitation else {
            return Ok(None);
        };
        match self.find_open(email, now).await {
            Err(code) => Ok(Some(code)),
            Ok(open) if !open.is_empty() => {
                let newest = &open[0];
                let ours = is_ours(newest, &invitation);
                let action = if ours { "sent" } else { "adopted" };
                let may_land = may_land_until(&invitation, &self.settings);
                self.keep(key, newest, ours, action, Some(may_land)).await
            }
            // A late invitation can still appear; once it cannot, there is nothing left to cancel.
            Ok(_) if record.grants.is_empty() => {
                if may_land_until(&invitation, &self.settings) <= now {
                    return self.forget(key).await;
                }
                Ok(Some("invitation_unsettled".to_owned()))
            }
            Ok(_) if now < invitation.intended_at + self.settings.bounds.read_staleness => {
                Ok(Some("invitation_unsettled".to_owned()))
            }
            Ok(_) => self.invite(key, email).await,
        }
    }

    /// Cancels every invitation of ours for the address, not only the one that is known.
    async fn cancel(
        &self,
        key: &MemberKey,
        email: &Email,
        token: &InvitationToken,
    ) -> Result<Option<String>, LedgerError> {
        let now = self.clock.now();
        let Some(known) = self.ledger.member(key).await?.invitation else {
            return Ok(None);
        };
        let listed = self.find_open(email, now).await;
        let mut tokens = vec![token.clone()];
        // Without a call of ours that was not answered, every other one is an administrator's.
        for open in listed.iter().flatten() {
            if known.echo_until.is_some() && is_ours(open, &known) && open.token != *token {
                tokens.push(open.token.clone());
            }
        }
        for token in &tokens {
            if let Some(code) = self.cancel_one(key, token).await? {
                return Ok(Some(code));
            }
        }
        if let Err(code) = listed {
            return Ok(Some(code));
        }
        self.update(key, |draft, now| {
            draft.record.invitation = unanswered(known.clone(), now, &self.settings);
            draft.changed = true;
        })
        .await?;
        Ok(None)
    }

    async fn cancel_one(
        &self,
        key: &MemberKey,
        token: &InvitationToken,
    ) -> Result<Option<String>, LedgerError> {
        let pin = self.provider.pin();
        self.update(key, |draft, now| {
            note(
                draft,
                now,
                EventKind::InvitationIntended {
                    action: "cancel".to_owned(),
                },
            );
        })
        .await?;
        let outcome = self.provider.cancel_invitation(pin, token).await;
        let gone = match &outcome {
            Outcome::Done(..) => true,
            // Accepted, expired or cancelled by somebody else: in any case it cannot be accepted any more.
            Outcome::Refused(refusal, _) => refusal.code().ends_with("invitation_not_found"),
            Outcome::Unknown(_) => false,
        };
        self.update(key, |draft, now| {
            note(draft, now, made(outcome.name(), outcome.evidence().clone()));
            if gone {
                note(
                    draft,
                    now,
                    EventKind::InvitationChanged {
                        action: "cancelled".to_owned(),
                        expires_at: None,
                    },
                );
            }
        })
        .await?;
        Ok((!gone).then(|| "invitation_not_cancelled".to_owned()))
    }

    /// The person joined: waiting grants move to the member in one transaction. An invitation that was not answered can
    /// still appear, once the person left again, and stays with the address until it cannot. Answers whether there was
    /// anything to move.
    async fn hand_over(
        &self,
        key: &MemberKey,
        member: &ObservedMember,
    ) -> Result<bool, LedgerError> {
        let into_key = MemberKey {
            integration: key.integration.clone(),
            subject: Subject::Member(member.user_id.clone()),
        };
        loop {
            let now = self.clock.now();
            let mut from = self.ledger.member(key).await?;
            if from.grants.is_empty() {
                return Ok(false);
            }
            from.invitation = from
                .invitation
                .filter(|invitation| invitation.ours)
                .and_then(|invitation| unanswered(invitation, now, &self.settings));
            let mut into = Draft::new(self.ledger.member(&into_key).await?);
            match into.record.member_since {
                // What is known of an earlier membership ends before the waiting grants join it.
                Some(known) if known < member.member_since => {
                    into.member_rejoined(now, member.member_since, now, &self.settings);
                }
                Some(_) => {}
                None => into.record.member_since = Some(member.member_since),
            }
            into.record.grants.extend(from.grants.iter().cloned());
            into.each_grant(now, |grant| {
                if grant.subject == into_key.subject {
                    return false;
                }
                grant.subject = into_key.subject.clone();
                grant.member_joined(now);
                true
            });
            let event = EventKind::MemberJoined {
                email: member
                    .email
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                user_id: member.user_id.to_string(),
            };
            into.audit.push(AuditEvent::member(now, &into_key, event));
            let due = Due {
                at: now,
                kind: DueKind::Grant,
                weight: 0,
            };
            into.record.due = Some(into.record.due.map_or(due, |earlier| earlier.min(due)));
            super::receipt::keep(&mut into.record, &into.audit);
            let _ending = self.witness_ends(&into_key, &into.audit);
            let commit = MemberCommit {
                record: into.record,
                audit: into.audit,
                request: None,
            };
            match self.ledger.rekey(from, commit).await {
                Ok(_) => {
                    self.wake.wake(&into_key, due);
                    return Ok(true);
                }
                Err(LedgerError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn next_invitee_due(&self, record: &MemberRecord, now: Timestamp) -> Option<Due> {
        if record.grants.is_empty() && record.invitation.is_none() {
            return None;
        }
        let soonest = record
            .backoff
            .as_ref()
            .map_or(now, |backoff| backoff.until.max(now));
        let mut at = if record.backoff.is_some()
            || (!self.is_held() && self.step(record, now) != Step::Wait)
        {
            soonest.max(now + self.settings.retry_floor)
        } else {
            self.next_poll(now)
        };
        for deadline in record
            .grants
            .iter()
            .filter_map(crate::domain::grant::Grant::next_deadline)
        {
            at = at.min(deadline);
        }
        Some(Due {
            at,
            kind: DueKind::Look,
            weight: 0,
        })
    }

    /// Polls fall on common instants, so that everybody who waits shares one read.
    fn next_poll(&self, now: Timestamp) -> Timestamp {
        let every = self.settings.member_poll.num_milliseconds().max(1);
        let into = now.timestamp_millis().rem_euclid(every);
        now + TimeDelta::milliseconds(every - into)
    }
}

/// An invitation younger than our intent is ours; clocks differ, so a minute is allowed for. An administrator's own
/// is taken for ours only if it came with our call.
fn is_ours(open: &ObservedInvitation, invitation: &Invitation) -> bool {
    invitation.ours && open.created_at + TimeDelta::seconds(60) >= invitation.intended_at
}

/// What was sent without an answer can still land: what is left of an invitation is looked for until it cannot any more.
fn unanswered(known: Invitation, now: Timestamp, settings: &super::Settings) -> Option<Invitation> {
    let until = match known.token {
        Some(_) => known.echo_until?,
        None => may_land_until(&known, settings),
    };
    (until > now).then_some(Invitation {
        token: None,
        expires_at: None,
        outcome: WriteOutcome::Unknown,
        echo_until: Some(until),
        ..known
    })
}

fn may_land_until(invitation: &Invitation, settings: &super::Settings) -> Timestamp {
    invitation
        .echo_until
        .unwrap_or(invitation.intended_at + settings.unknown_look_after)
}

fn note(draft: &mut Draft, now: Timestamp, kind: EventKind) {
    draft
        .audit
        .push(AuditEvent::member(now, &draft.record.key, kind));
    draft.changed = true;
}

fn made(outcome: &str, evidence: crate::domain::event::CallEvidence) -> EventKind {
    EventKind::CallMade {
        outcome: outcome.to_owned(),
        evidence,
    }
}

#[cfg(test)]
mod tests;
