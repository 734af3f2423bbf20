//! The layers around one request, outer to inner: total budget, repetition, rate, concurrency, one attempt.
//!
//! Owns what may be repeated and what an ending means: done, refused or unknown for a mutation, an answer or none
//! for a read. Never repeats a mutation of which a byte may have had an effect.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::Method;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::answer::Head;
use super::ended::{Ended, Got, Keyless, Repeat, add_codes, good_bytes, is_object};
use super::key::{Key, Keyring};
use super::limiter::{Feedback, Limiter, Permit};
use super::members;
use super::options::{Error, Options};
use super::transport::{Call, SendError, Transport};
use crate::domain::Timestamp;
use crate::domain::event::CallEvidence;
use crate::domain::ids::{IntegrationName, OrganizationId};
use crate::domain::observation::Interest;
use crate::ports::ownership::Standing;
use crate::ports::provider::{
    Claim, KeyPin, KeyStatus, Outcome, Priority, Rate, ReadError, ReadResult, Turn,
};
use crate::ports::secrets::SecretError;
use crate::ports::{Clock, Ledger, SecretStore};

/// One Elastic Cloud organization, reached over HTTP.
#[derive(Debug)]
pub struct Elastic {
    pub(super) options: Options,
    pub(super) keys: Keyring,
    pub(super) clock: Arc<dyn Clock>,
    /// The organization in use: the pinned one, or the first that was seen alone.
    pub(super) organization: OnceLock<OrganizationId>,
    /// For which key its own record was asked for, when, and whether that was answered.
    pub(super) own_record: Mutex<Option<(KeyPin, Instant, bool)>>,
    /// Where calls that nobody asked for are noted, and the name of this integration in metrics.
    pub(super) notes: Option<Notes>,
    /// The claim under which this process may change anything, where there are several.
    standing: Option<Arc<Standing>>,
    transport: Transport,
    limiter: Limiter,
    urgent: Semaphore,
    routine: Semaphore,
}

/// Whose calls these are, and where they are noted.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) integration: IntegrationName,
    pub(super) ledger: Arc<dyn Ledger>,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Waiting before the first send; `None` when that counts towards the budget.
    pub(super) wait: Option<Duration>,
    pub(super) budget: Duration,
    pub(super) attempt: Duration,
    /// From the first byte of a request to the head of its answer.
    pub(super) head: Duration,
    pub(super) repeat: Repeat,
    /// Since boot: nothing is begun that may not have ended by then.
    pub(super) before: Option<Duration>,
}

/// A turn of the limiter that was taken before the call was known; given back when no call is made.
#[derive(Debug)]
struct Held(Option<Permit>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.unsent();
        }
    }
}

/// What to do with the body of a good answer.
#[derive(Debug, Clone, Copy)]
enum Want<'a> {
    Bytes(usize),
    Members(&'a OrganizationId, &'a Interest),
}

impl Elastic {
    /// Builds a client. Nothing is sent and no key is loaded before [`Self::load_key`].
    ///
    /// # Errors
    /// [`Error`] when the base address or the proxy is not usable, or TLS cannot be set up on this machine.
    pub fn new(
        options: Options,
        secret: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        options.check()?;
        let organization = OnceLock::new();
        if let Some(pinned) = &options.organization {
            organization
                .set(pinned.clone())
                .expect("a new cell is empty");
        }
        Ok(Self {
            transport: Transport::new(&options)?,
            keys: Keyring::new(
                secret,
                Arc::clone(&clock),
                options.key_fetch_timeout,
                options.key_fetch_every,
            ),
            limiter: Limiter::new(options.limiter.clone()),
            urgent: Semaphore::new(options.urgent_concurrency.max(1)),
            routine: Semaphore::new(options.routine_concurrency.max(1)),
            clock,
            organization,
            own_record: Mutex::default(),
            notes: None,
            standing: None,
            options,
        })
    }

    /// Names the integration, for metrics, and where the calls that this client makes of itself leave their audit
    /// events; the askers of all other calls note those themselves.
    #[must_use]
    pub fn with_notes(mut self, integration: IntegrationName, ledger: Arc<dyn Ledger>) -> Self {
        self.notes = Some(Notes {
            integration,
            ledger,
        });
        self
    }

    /// Changes are sent only while this claim stands, and for as long as one may take.
    #[must_use]
    pub fn under(mut self, standing: Arc<Standing>) -> Self {
        self.standing = Some(standing);
        self
    }

    /// Whether this process may begin the call now: a change only if it has ended before anybody else can begin one;
    /// a read unless the claim under which it was asked for is over, as after a pause of the process.
    fn may_begin(&self, limits: &Limits, budget: Duration, was_owner: bool) -> bool {
        let now = self.clock.since_boot();
        if limits.before.is_some_and(|before| now + budget >= before) {
            return false;
        }
        let Some(standing) = &self.standing else {
            return true;
        };
        match limits.repeat {
            Repeat::Unsent => standing.covers(now, budget),
            Repeat::Read => !was_owner || standing.covers(now, Duration::ZERO),
        }
    }

    /// Fetches the key for the first time; answers what is known of it.
    ///
    /// # Errors
    /// [`SecretError`] when the store has no usable key. The client can be used all the same: calls are refused
    /// with `no_key` until a later [`Self::reload_key`] succeeds.
    pub async fn load_key(&self) -> Result<KeyStatus, SecretError> {
        self.keys.reload().await?;
        Ok(self.keys.status())
    }

    /// Fetches the key at once, for example because its file changed or on schedule. Concurrent callers share a
    /// fetch. Answers whether the key is another one now, in which case the pin has changed.
    ///
    /// # Errors
    /// [`SecretError`] when the store has no usable key; the one in use stays.
    pub async fn reload_key(&self) -> Result<bool, SecretError> {
        self.keys.reload().await
    }

    pub(super) fn mutation_limits(&self) -> Limits {
        Limits {
            wait: Some(self.options.mutation_wait),
            budget: self.options.mutation_budget,
            attempt: self.options.mutation_budget,
            head: self.options.mutation_budget,
            repeat: Repeat::Unsent,
            before: None,
        }
    }

    /// Limits of a change that has ended by `before`, counted since boot; it does not wait for a place any longer either.
    pub(super) fn limits_before(&self, before: Duration) -> Limits {
        let left = before.saturating_sub(self.clock.since_boot());
        Limits {
            wait: Some(self.options.mutation_wait.min(left)),
            before: Some(before),
            ..self.mutation_limits()
        }
    }

    pub(super) fn read_limits(&self) -> Limits {
        Limits {
            wait: None,
            budget: self.options.read_budget,
            attempt: self.options.read_attempt,
            head: self.options.read_attempt,
            repeat: Repeat::Read,
            before: None,
        }
    }

    /// Sends a mutation; `decode` makes the result from the body of a good answer.
    pub(super) async fn mutate<T>(
        &self,
        call: Call,
        pin: KeyPin,
        claim: (Claim, Option<Turn>),
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Outcome<T> {
        self.mutate_within(call, pin, claim, self.mutation_limits(), decode)
            .await
    }

    /// The same, with limits of its own.
    pub(super) async fn mutate_within<T>(
        &self,
        call: Call,
        pin: KeyPin,
        (claim, turn): (Claim, Option<Turn>),
        limits: Limits,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Outcome<T> {
        let want = Want::Bytes(self.options.max_body);
        let permit = turn
            .and_then(Turn::take::<Held>)
            .and_then(|mut held| held.0.take());
        let (ended, evidence) = self
            .exchange_noting(&call, Some(pin), (claim, permit), limits, want, |_, _| {})
            .await;
        let outcome = if let Some(refusal) = ended.refusal() {
            Outcome::Refused(refusal, evidence)
        } else {
            match good_bytes(&ended)
                .filter(|bytes| is_object(bytes))
                .and_then(decode)
            {
                Some(result) => Outcome::Done(result, evidence),
                None => Outcome::Unknown(evidence),
            }
        };
        if let Outcome::Refused(refusal, _) = &outcome {
            self.count_refusal(refusal);
        }
        self.count(call.operation, outcome.name(), outcome.evidence());
        outcome
    }

    /// Sends a read whose body is a list, with the usual limits.
    pub(super) async fn read_list<T: DeserializeOwned>(
        &self,
        call: Call,
        priority: Priority,
    ) -> ReadResult<T> {
        let (limits, max) = (self.read_limits(), self.options.max_list_body);
        self.read(call, priority, limits, max).await
    }

    /// Sends a read whose body is one JSON value of bounded size.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        call: Call,
        priority: Priority,
        limits: Limits,
        max: usize,
    ) -> ReadResult<T> {
        let (ended, evidence) = self
            .exchange_noting(
                &call,
                None,
                (Claim::of(priority), None),
                limits,
                Want::Bytes(max),
                |_, _| {},
            )
            .await;
        let result = good_bytes(&ended).and_then(|bytes| serde_json::from_slice(bytes).ok());
        self.finish_read(&call, &ended, result, evidence)
    }

    /// Streams the members of an organization.
    pub(super) async fn stream_members(
        &self,
        call: Call,
        organization: &OrganizationId,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<(members::Shown, Timestamp, KeyPin)> {
        // A removal that waits for its neighbours to be read does not wait for long.
        let budget = match priority {
            Priority::Revoke => self.options.urgent_read.min(self.options.members_budget),
            Priority::Verify | Priority::Retry | Priority::Grant | Priority::Discovery => {
                self.options.members_budget
            }
        };
        let limits = Limits {
            budget,
            attempt: budget,
            // The list may take long to arrive; a line that leads nowhere must not be waited for as long.
            head: budget / 4,
            ..self.read_limits()
        };
        let started = Mutex::new(None);
        let want = Want::Members(organization, interest);
        let (mut ended, evidence) = self
            .exchange_noting(
                &call,
                None,
                (Claim::of(priority), None),
                limits,
                want,
                |at, pin| {
                    *started
                        .lock()
                        .expect("no code panics while it holds this lock") = Some((at, pin));
                },
            )
            .await;
        let started = started
            .into_inner()
            .expect("no code panics while it holds this lock");
        let mut shown = None;
        if let Ended::Answered(head, body) = &mut ended
            && head.status.is_success()
            && !head.is_html
        {
            match std::mem::replace(body, Err("malformed")) {
                Ok(Got::Members(members)) => shown = Some(*members),
                other => *body = other,
            }
        }
        let result = shown
            .zip(started)
            .map(|(shown, (at, pin))| (shown, at, pin));
        self.finish_read(&call, &ended, result, evidence)
    }

    /// Sends until there is an ending that may not be repeated, or no time left for another attempt. `note` hears
    /// when each attempt began, and with which key.
    async fn exchange_noting(
        &self,
        call: &Call,
        pin: Option<KeyPin>,
        (claim, mut permit): (Claim, Option<Permit>),
        limits: Limits,
        want: Want<'_>,
        note: impl Fn(Timestamp, KeyPin) + Send + Sync,
    ) -> (Ended, CallEvidence) {
        let asked = Instant::now();
        let was_owner = self
            .standing
            .as_ref()
            .is_some_and(|standing| standing.covers(self.clock.since_boot(), Duration::ZERO));
        let mut stop = limits.wait.is_none().then(|| asked + limits.budget);
        let mut first_byte = None;
        let mut evidence = CallEvidence {
            call: call.template.to_owned(),
            ..CallEvidence::default()
        };
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.options.backoff_min)
            .with_max_delay(self.options.backoff_max)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        let mut last = None;
        let mut used = None;
        let ended = loop {
            if let Err(keyless) = self.key_for(pin) {
                break keyless.into();
            }
            let patience = stop.unwrap_or(asked + limits.wait.unwrap_or(limits.budget));
            let Ok((permit, slot)) = timeout_at(patience, self.place(claim, permit.take())).await
            else {
                break last.unwrap_or(Ended::NotSent("budget"));
            };
            // Asked again after the wait: this is the last moment before the first byte.
            let key = match self.key_for(pin) {
                Ok(key) => key,
                Err(keyless) => break keyless.into(),
            };
            let now = Instant::now();
            let until = *stop.get_or_insert(now + limits.budget);
            if until.saturating_duration_since(now) < self.least_attempt(limits) {
                break last.unwrap_or(Ended::NotSent("budget"));
            }
            let most = until.saturating_duration_since(now).min(limits.attempt);
            if !self.may_begin(&limits, most, was_owner) {
                break last.unwrap_or(Ended::NotSent("not_owner"));
            }
            first_byte.get_or_insert(now);
            evidence.attempts += 1;
            used = Some(key.pin);
            note(self.clock.now(), key.pin);
            let until = until.min(now + limits.attempt);
            let head_until = until.min(now + limits.head);
            let ended = match self.transport.open(call, &key, head_until).await {
                Err(SendError::NotSent(code)) => Ended::NotSent(code),
                Err(SendError::Broken(code)) => Ended::Broken(code),
                Ok(response) => {
                    let mut head = Head::read(
                        response.status(),
                        response.headers(),
                        self.clock.now(),
                        self.options.retry_after_max,
                    );
                    self.keys.saw(key.pin, &head);
                    if head.feedback.throttled {
                        self.count_throttled();
                    }
                    permit.answered(Feedback {
                        spares_removals: call.method == Method::GET
                            || claim.priority != Priority::Revoke,
                        ..feedback(call, &head)
                    });
                    self.show_rate(self.limiter.per_second());
                    let body = self.body(response, &head, want, until).await;
                    add_codes(&mut head, &body);
                    Ended::Answered(head, body)
                }
            };
            drop(slot);
            self.record(&ended, limits.repeat);
            if !ended.may_repeat(limits.repeat) {
                break ended;
            }
            let pause = ended
                .retry_after()
                .or_else(|| pauses.next())
                .unwrap_or(self.options.backoff_max);
            let stop = stop.expect("set before the first attempt");
            if Instant::now() + pause + self.least_attempt(limits) > stop
                || (limits.repeat == Repeat::Read
                    && asked.elapsed() + pause > self.options.repeat_for)
            {
                break ended;
            }
            last = Some(ended);
            tokio::time::sleep(pause).await;
        };
        if let Ended::Answered(head, _) = &ended {
            evidence.status = Some(head.status.as_u16());
            evidence.code = head.all_codes();
            evidence.request_id.clone_from(&head.request_id);
        }
        if let Some(first_byte) = first_byte {
            evidence.elapsed_ms =
                u64::try_from(first_byte.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        if evidence.status == Some(401)
            && let Some(pin) = used
        {
            self.keys.reload_after_401(pin).await;
        }
        (ended, evidence)
    }

    /// The key in use, if it is still the one of the pass.
    fn key_for(&self, pin: Option<KeyPin>) -> Result<Arc<Key>, Keyless> {
        let key = self.keys.current().ok_or(Keyless::NotLoaded)?;
        if pin.is_some_and(|pin| pin != key.pin) {
            return Err(Keyless::Rotated);
        }
        Ok(key)
    }

    /// An attempt with less time than it takes to give up connecting would end in doubt for nothing.
    fn least_attempt(&self, limits: Limits) -> Duration {
        let connect = self.options.connect;
        (connect + connect / 4).min(limits.budget / 2)
    }

    /// Waits for a turn in the rate budget, unless there is one, and then for a place.
    async fn place(&self, claim: Claim, permit: Option<Permit>) -> (Permit, SemaphorePermit<'_>) {
        let places = match claim.priority {
            Priority::Revoke | Priority::Verify => &self.urgent,
            Priority::Retry | Priority::Grant | Priority::Discovery => &self.routine,
        };
        let permit = match permit {
            Some(permit) => permit,
            None => self.permit(claim).await,
        };
        let place = places
            .acquire()
            .await
            .expect("these semaphores are never closed");
        (permit, place)
    }

    async fn permit(&self, claim: Claim) -> Permit {
        let began = Instant::now();
        let permit = self.limiter.acquire_claim(claim).await;
        self.count_wait(claim.priority, began.elapsed());
        permit
    }

    /// A turn for a mutation that is yet to be decided, within the time that one may wait.
    pub(super) async fn early_turn(&self, claim: Claim) -> Option<Turn> {
        let waited = tokio::time::timeout(self.options.mutation_wait, self.permit(claim)).await;
        waited.ok().map(|permit| Turn::holding(Held(Some(permit))))
    }

    pub(super) fn rate_in_force(&self) -> Rate {
        self.limiter.rate()
    }

    async fn body(
        &self,
        response: reqwest::Response,
        head: &Head,
        want: Want<'_>,
        until: Instant,
    ) -> Result<Got, &'static str> {
        match want {
            Want::Members(organization, interest) if head.status.is_success() && !head.is_html => {
                self.transport
                    .members(response, organization.clone(), interest.clone(), until)
                    .await
                    .map(|shown| Got::Members(Box::new(shown)))
            }
            Want::Members(..) => self
                .transport
                .buffer(response, self.options.max_body, until)
                .await
                .map(Got::Bytes),
            Want::Bytes(max) => self
                .transport
                .buffer(response, max, until)
                .await
                .map(Got::Bytes),
        }
    }

    /// Notes for health whether Elastic Cloud answers and takes the key. A refusal of one mutation says nothing
    /// about that.
    fn record(&self, ended: &Ended, repeat: Repeat) {
        match ended {
            Ended::Answered(head, Ok(_)) if head.status.is_success() && !head.is_html => {
                self.keys.succeeded();
            }
            Ended::Answered(head, _)
                if matches!(head.status.as_u16(), 400 | 404 | 409)
                    || (head.status.as_u16() == 403 && repeat == Repeat::Unsent) => {}
            Ended::KeyRotated => {}
            Ended::NotSent(_) | Ended::Broken(_) | Ended::Answered(..) => {
                let code = ended
                    .refusal()
                    .map_or_else(|| ended.unavailable(), |refusal| refusal.code().to_owned());
                self.keys.failed(&code);
            }
        }
    }

    fn finish_read<T>(
        &self,
        call: &Call,
        ended: &Ended,
        result: Option<T>,
        evidence: CallEvidence,
    ) -> ReadResult<T> {
        let result = match (result, ended.refusal()) {
            (Some(result), _) => Ok(result),
            (None, Some(refusal)) => Err(ReadError::Refused(refusal)),
            (None, None) => Err(ReadError::Unavailable {
                code: ended.unavailable(),
            }),
        };
        let outcome = match &result {
            Ok(_) => "done",
            Err(ReadError::Refused(refusal)) => {
                self.count_refusal(refusal);
                "refused"
            }
            Err(ReadError::Unavailable { .. }) => "unavailable",
        };
        self.count(call.operation, outcome, &evidence);
        match result {
            Ok(result) => Ok((result, evidence)),
            Err(error) => Err((error, evidence)),
        }
    }
}

/// What the limiter learns. The limit on invitations is its own and says nothing about other calls.
fn feedback(call: &Call, head: &Head) -> Feedback {
    let own_limit = call.operation == "invite" && head.feedback.remaining != Some(0);
    Feedback {
        throttled: head.feedback.throttled && !own_limit,
        retry_after: head.feedback.retry_after.filter(|_| !own_limit),
        ..head.feedback
    }
}
