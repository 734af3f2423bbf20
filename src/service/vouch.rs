//! Approvals and emergency tokens of a request.
//!
//! Owns that each of them is of this very request, by somebody who may vouch for it, and in time; what is wrong with
//! one is told and never passed over. Never checks a signature itself, and never lets a token give what it does not
//! name.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::asked::{Asked, stack_roles};
use crate::domain::authority::{Approval, Authority, BreakGlass};
use crate::domain::caller::{Caller, CallerRole};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::Grant;
use crate::domain::ids::CallerName;
use crate::domain::law;
use crate::domain::member::Subject;
use crate::domain::request::GrantRequest;
use crate::ports::Seals;
use crate::ports::seals::{EmergencyToken, SealRefused};

use super::Service;
use super::error::{Result, ServiceError};
use super::law::ROLES;

/// Most approvals of one request.
pub const MAX_APPROVALS: usize = 20;

const USED: &str = "latchkey_break_glass_grants_total";
const REFUSED: &str = "latchkey_break_glass_refused_total";
const APPROVALS: &str = "latchkey_approvals_total";

const TOKEN_FIELD: &str = "break_glass_token";

/// What a request brings along beside what it asks for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vouchers {
    /// Signed approvals.
    pub approvals: Vec<String>,
    /// An emergency token.
    pub break_glass: Option<String>,
}

// A token opens access to whoever holds it: it never reaches a log.
impl std::fmt::Debug for Vouchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vouchers")
            .field("approvals", &self.approvals.len())
            .field("break_glass", &self.break_glass.is_some())
            .finish()
    }
}

/// What was found to be behind a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Vouched {
    pub(super) authority: Authority,
    /// Every name of each approver.
    names: Vec<Vec<String>>,
    request: String,
}

impl Vouched {
    /// The people who approved.
    pub(super) fn approvers(&self) -> BTreeSet<String> {
        let people = self.authority.approvals.iter();
        people.map(|one| one.person.clone()).collect()
    }

    /// Whether an emergency token opens it.
    pub(super) fn is_emergency(&self) -> bool {
        self.authority.break_glass.is_some()
    }

    /// As it stands on a grant.
    pub(super) fn boxed(self) -> Option<Box<Authority>> {
        (!self.authority.is_empty()).then(|| Box::new(self.authority))
    }

    /// What the audit says of it.
    pub(super) fn events(&self) -> Vec<EventKind> {
        let mut events = Vec::new();
        if !self.authority.approvals.is_empty() {
            events.push(EventKind::Approved {
                approvers: self
                    .authority
                    .approvals
                    .iter()
                    .map(|one| format!("{} ({})", one.approver, one.person))
                    .collect(),
                ids: self
                    .authority
                    .approvals
                    .iter()
                    .map(|one| one.id.clone())
                    .collect(),
                request: self.request.clone(),
            });
        }
        if let Some(BreakGlass {
            key,
            id,
            token,
            reason,
            until,
        }) = &self.authority.break_glass
        {
            events.push(EventKind::BreakGlassUsed {
                key: key.clone(),
                id: id.clone(),
                reason: reason.clone(),
                token: token.clone(),
                until: Some(*until),
            });
        }
        events
    }

    /// Refuses approvals of whoever receives the access, once it is known who that is.
    pub(super) fn check_subject(&self, subject: &Subject) -> Result<()> {
        let receives = match subject {
            Subject::Member(user) => user.to_string(),
            Subject::Invitee(email) => email.to_string(),
        };
        for (index, names) in self.names.iter().enumerate() {
            refuse_interested(index, names, &[&receives])?;
        }
        Ok(())
    }
}

impl Service {
    /// The same with people whose signatures are taken. Without them no approval and no token is.
    #[must_use]
    pub fn with_seals(mut self, seals: Arc<dyn Seals>) -> Self {
        for integration in self.integrations.keys() {
            metrics::counter!(USED, "integration" => integration.to_string()).increment(0);
        }
        for why in SealRefused::ALL {
            metrics::counter!(REFUSED, "why" => why.code()).increment(0);
        }
        for why in ["role", "scope", "used"] {
            metrics::counter!(REFUSED, "why" => why).increment(0);
        }
        for outcome in ["verified", "refused"] {
            metrics::counter!(APPROVALS, "outcome" => outcome).increment(0);
        }
        self.seals = Some(seals);
        self
    }

    /// Checks everything that a request for a new grant brings along.
    pub(super) fn vouch(
        &self,
        caller: &Caller,
        request: &GrantRequest,
        vouchers: &Vouchers,
    ) -> Result<Vouched> {
        let interested = [request.requester.as_str(), &request.beneficiary.to_string()];
        let mut vouched =
            self.verify_approvals(&Asked::create(request), &interested, &vouchers.approvals)?;
        match &vouchers.break_glass {
            Some(text) => {
                vouched.authority.break_glass = Some(self.open(caller, request, text)?);
            }
            None if !caller.is(CallerRole::ControlPlane) => {
                return Err(for_roles(
                    "this caller may ask for a grant only with an emergency token (`break_glass_token`)",
                ));
            }
            None => {}
        }
        Ok(vouched)
    }

    /// Checks the approvals of an extension.
    pub(super) fn vouch_extension(
        &self,
        grant: &Grant,
        asked: &Asked,
        requester: &str,
        approvals: &[String],
    ) -> Result<Vouched> {
        if grant.break_glass().is_some() {
            return Err(ServiceError::Unfit {
                code: "break_glass_not_extendable",
                problem: "this grant was opened by an emergency token and cannot be extended; ask for a new one in the usual way",
            });
        }
        let interested = [requester, &grant.requester, &grant.beneficiary];
        let vouched = self.verify_approvals(asked, &interested, approvals)?;
        vouched.check_subject(&grant.subject)?;
        Ok(vouched)
    }

    fn verify_approvals(
        &self,
        asked: &Asked,
        interested: &[&str],
        texts: &[String],
    ) -> Result<Vouched> {
        if texts.is_empty() {
            return Ok(Vouched::default());
        }
        let verified = self.try_approvals(asked, interested, texts);
        let outcome = if verified.is_ok() {
            "verified"
        } else {
            "refused"
        };
        metrics::counter!(APPROVALS, "outcome" => outcome).increment(1);
        verified
    }

    fn try_approvals(
        &self,
        asked: &Asked,
        interested: &[&str],
        texts: &[String],
    ) -> Result<Vouched> {
        if texts.len() > MAX_APPROVALS {
            return Err(ServiceError::invalid(
                "approvals",
                format!(
                    "holds {} approvals; at most {MAX_APPROVALS} are allowed",
                    texts.len()
                ),
            ));
        }
        let request = asked.digest();
        let mut vouched = Vouched {
            request,
            ..Vouched::default()
        };
        let now = self.clock.now();
        for (index, text) in texts.iter().enumerate() {
            let seals = self.seals.as_ref().ok_or(SealRefused::NotConfigured);
            let signed = seals
                .and_then(|seals| seals.approval(text, now))
                .map_err(|why| refused_approval(index, why.code(), why.to_string()))?;
            if signed.request != vouched.request {
                return Err(refused_approval(
                    index,
                    "other_request",
                    format!(
                        "is of another request: `latchkey approval digest` gives {} for this one",
                        vouched.request
                    ),
                ));
            }
            refuse_interested(index, &signed.names, interested)?;
            let is_same = |names: &Vec<String>| names.iter().any(|name| has(&signed.names, name));
            if vouched.names.iter().any(is_same) {
                return Err(refused_approval(
                    index,
                    "duplicate",
                    "is of somebody who approved already; have somebody else approve".to_owned(),
                ));
            }
            vouched.authority.approvals.push(Approval {
                approver: signed.approver,
                person: signed.names.first().cloned().unwrap_or_default(),
                id: signed.id,
                token: signed.token,
                until: signed.until,
            });
            vouched.names.push(signed.names);
        }
        Ok(vouched)
    }

    /// What an emergency token gives to this very request.
    fn open(&self, caller: &Caller, request: &GrantRequest, text: &str) -> Result<BreakGlass> {
        let opened = self.try_open(caller, request, text);
        if let Err((why, _)) = &opened {
            metrics::counter!(REFUSED, "why" => *why).increment(1);
            tracing::error!(
                caller = %caller.name,
                why,
                "An emergency token was refused; find out who tries to use it"
            );
        }
        opened.map_err(|(_, error)| error)
    }

    fn try_open(
        &self,
        caller: &Caller,
        request: &GrantRequest,
        text: &str,
    ) -> std::result::Result<BreakGlass, (&'static str, ServiceError)> {
        if !caller.is(CallerRole::BreakGlass) {
            return Err((
                "role",
                for_roles("an emergency token is for callers with the role break-glass"),
            ));
        }
        let seals = self.seals.as_ref().ok_or(SealRefused::NotConfigured);
        let token = seals
            .and_then(|seals| seals.emergency(text, self.clock.now()))
            .map_err(|why| (why.code(), refused_token(why.code(), why.to_string())))?;
        if let Some(problem) = beyond(&token, request, self.clock.now()) {
            return Err(("scope", refused_token("scope", problem)));
        }
        Ok(BreakGlass {
            key: token.key,
            id: token.id,
            token: token.token,
            reason: token.reason,
            until: token.until,
        })
    }

    /// Refuses texts that were used before, where nothing is about to be accepted with them.
    pub(super) async fn check_unused(&self, caller: &Caller, vouched: &Vouched) -> Result<()> {
        let uses = vouched.authority.uses();
        if uses.is_empty() {
            return Ok(());
        }
        let tokens: Vec<String> = uses.into_iter().map(|one| one.token).collect();
        match self.ledger.used(&tokens).await? {
            None => Ok(()),
            Some(token) => Err(refused_as_used(&caller.name, &vouched.authority, &token)),
        }
    }

    /// A signed text was used before, by another request.
    pub(super) fn used_before(&self, grant: &Grant, token: &str) -> ServiceError {
        match &grant.authority {
            Some(authority) => refused_as_used(&grant.caller, authority, token),
            None => ServiceError::Contended,
        }
    }
    /// Raises the alarm over an emergency grant that is durable.
    pub(super) fn alarm(&self, grant: &Grant) {
        let Some(used) = grant.break_glass() else {
            return;
        };
        metrics::counter!(USED, "integration" => grant.integration.to_string()).increment(1);
        tracing::error!(
            grant.id = %grant.id,
            integration = %grant.integration,
            key = used.key,
            token = used.id,
            "An emergency token opened a grant; a review of it is open: `latchkey review list`"
        );
    }
}

/// The events of what a grant rests on.
pub(super) fn events(grant: &Grant, kinds: Vec<EventKind>) -> impl Iterator<Item = AuditEvent> {
    kinds
        .into_iter()
        .map(|kind| AuditEvent::grant(grant.created_at, grant, kind))
}

/// Where a request asks for something that the token does not give. Pure.
fn beyond(
    token: &EmergencyToken,
    request: &GrantRequest,
    now: crate::domain::Timestamp,
) -> Option<String> {
    let beneficiary = request.beneficiary.to_string();
    let mut targets = request.targets.iter().map(ToString::to_string);
    if request.integration.as_str() != token.integration {
        return Some(format!("is for the integration {}", token.integration));
    }
    if !has_any(&token.beneficiaries, &beneficiary) {
        return Some("is for other beneficiaries".to_owned());
    }
    if request.role != token.role {
        return Some(format!("is for the role {}", token.role));
    }
    if let Some(other) = targets.find(|target| !token.targets.contains(target)) {
        return Some(format!("is not for {other}"));
    }
    if stack_roles(&request.application_roles) != token.application_roles {
        return Some("is for other stack roles".to_owned());
    }
    if request.duration.seconds() > token.max_duration_s {
        return Some(format!("gives {} s at most", token.max_duration_s));
    }
    if request.starts_at.is_some_and(|start| start > now) {
        return Some("opens a grant that begins at once, and none for later".to_owned());
    }
    if request.invite {
        return Some("invites nobody".to_owned());
    }
    None
}

fn has(names: &[String], name: &str) -> bool {
    !name.is_empty() && names.iter().any(|one| one.eq_ignore_ascii_case(name))
}

fn has_any(names: &BTreeSet<String>, name: &str) -> bool {
    names.iter().any(|one| one.eq_ignore_ascii_case(name))
}

fn refuse_interested(index: usize, names: &[String], interested: &[&str]) -> Result<()> {
    if interested.iter().any(|name| has(names, name)) {
        return Err(refused_approval(
            index,
            "own",
            "is of whoever asks for the access or receives it; have somebody else approve"
                .to_owned(),
        ));
    }
    Ok(())
}

fn refused_approval(index: usize, why: &'static str, problem: String) -> ServiceError {
    ServiceError::Voucher {
        field: format!("approvals[{index}]"),
        code: "approval_refused",
        why,
        problem,
    }
}

fn refused_token(why: &'static str, problem: String) -> ServiceError {
    ServiceError::Voucher {
        field: TOKEN_FIELD.to_owned(),
        code: "break_glass_refused",
        why,
        problem,
    }
}

fn refused_as_used(caller: &CallerName, authority: &Authority, token: &str) -> ServiceError {
    let mut approvals = authority.approvals.iter();
    if let Some(index) = approvals.position(|one| one.token == token) {
        return refused_approval(
            index,
            "used",
            "was used by another request; have the approver sign this one".to_owned(),
        );
    }
    let why = "used";
    metrics::counter!(REFUSED, "why" => why).increment(1);
    tracing::error!(
        caller = %caller,
        "An emergency token was refused because it was used before; find out who tries to use it"
    );
    refused_token(why, "was used before; each opens one grant".to_owned())
}

fn for_roles(remedy: &str) -> ServiceError {
    ServiceError::Law(Box::new(law::Refusal {
        policies: vec![ROLES.to_owned()],
        code: "role_not_allowed",
        field: None,
        remedy: remedy.to_owned(),
    }))
}

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_counter!(
        USED,
        "Grants that an emergency token opened, by integration; each of them owes a review"
    );
    metrics::describe_counter!(
        REFUSED,
        "Emergency tokens that were refused, by what was wrong"
    );
    metrics::describe_counter!(
        APPROVALS,
        "Requests that came with approvals, by whether all of them were verified or one was refused"
    );
}
