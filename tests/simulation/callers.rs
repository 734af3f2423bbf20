//! Those who call the connector: requesters, and the impatient among them.
//!
//! Owns what they ask, and what they check about the answers: what was answered is durable, and a request id stands
//! for one effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;
use latchkey::domain::assignment::Target;
use latchkey::domain::ids::{CallerName, GrantId, RequestId};
use latchkey::domain::request::{Principal, Selector};
use latchkey::domain::ttl::Ttl;
use latchkey::ports::Clock;
use latchkey::service::{Extension, GrantAsk, Revocation, Revoked, ServiceError, Wait, WhichGrant};

use super::cast::{BOSS, GUESTS, MEMBERS, ROBOT};
use super::clock::{Dice, Ms, SECOND, sleep};
use super::model::Stand;
use super::process::Office;
use super::stage::{Stage, say};

/// One request as it was sent.
#[derive(Debug, Clone)]
struct Sent {
    id: RequestId,
    ask: GrantAsk,
    grant: Option<GrantId>,
    /// A revocation by request id was sent for it.
    closing: bool,
}

/// One caller.
#[derive(Debug)]
pub(crate) struct Caller {
    stage: Arc<Stage>,
    office: Arc<Office>,
    dice: Dice,
    name: CallerName,
    sent: Vec<Sent>,
    count: u32,
}

impl Caller {
    pub(crate) fn new(stage: Arc<Stage>, office: Arc<Office>, dice: Dice, number: usize) -> Self {
        Self {
            stage,
            office,
            dice,
            name: CallerName::parse(format!("caller-{number}")).expect("well formed"),
            sent: Vec::new(),
            count: 0,
        }
    }

    /// Asks and asks until the calm.
    pub(crate) async fn run(mut self) {
        loop {
            let (pace, calm_from) = {
                let on = self.stage.on();
                (on.setup.pace, on.weather.calm_from)
            };
            sleep(self.dice.range(pace / 4, pace * 2)).await;
            if self.stage.clock.elapsed() >= calm_from {
                return;
            }
            match self.dice.below(20) {
                0..9 => self.create_new().await,
                9 => {
                    for _ in 0..self.dice.range(2, 5) {
                        self.create_new().await;
                    }
                }
                10..12 => self.extend().await,
                12..14 => self.revoke().await,
                14 => self.revoke_by_request().await,
                15 | 16 => self.repeat().await,
                17 => self.other_body().await,
                18 => self.revoke_access().await,
                _ => self.look().await,
            }
        }
    }

    fn patience(&mut self) -> Option<Ms> {
        let impatience = self.stage.on().weather.impatience;
        self.dice
            .chance(impatience)
            .then(|| self.dice.range(1, 3 * SECOND))
    }

    fn next_id(&mut self) -> RequestId {
        self.count += 1;
        RequestId::parse(format!("{}-{}", self.name, self.count)).expect("well formed")
    }

    fn ask(&mut self) -> GrantAsk {
        let who = match self.dice.below(20) {
            0 => ROBOT,
            1 => BOSS,
            2..5 => self.dice.pick(&GUESTS.collect::<Vec<_>>()),
            _ => self.dice.pick(&MEMBERS.collect::<Vec<_>>()),
        };
        let owners = self.stage.on().weather.owners;
        let first = usize::from(!owners);
        let on = self.stage.on();
        let pairs = &on.cast.pairs;
        let chosen = &pairs[first + self.dice.below(pairs.len() - first)];
        let mut targets: BTreeSet<Target> = BTreeSet::from([chosen.target.clone()]);
        for other in pairs {
            let fits =
                other.role == chosen.role && other.application_roles == chosen.application_roles;
            if fits && self.dice.chance(0.4) {
                targets.insert(other.target.clone());
            }
        }
        let wall = self.stage.clock.now();
        let seconds = match self.dice.below(6) {
            0 => self.dice.range(1, 10),
            1 | 2 => self.dice.range(10, 90),
            3 | 4 => self.dice.range(60, 400),
            _ => self.dice.range(400, 3_000),
        };
        let starts_at = self
            .dice
            .chance(0.2)
            .then(|| wall + TimeDelta::seconds(self.dice.range(0, 300)));
        let not_after = self.dice.chance(0.2).then(|| {
            starts_at.unwrap_or(wall) + TimeDelta::milliseconds(self.dice.range(500, 400_000))
        });
        GrantAsk {
            integration: None,
            beneficiary: if GUESTS.contains(&who) || self.dice.chance(0.3) {
                Principal::Email(on.cast.emails[who].clone())
            } else {
                Principal::User(on.cast.users[who].clone())
            },
            requester: String::new(),
            justification: String::new(),
            role: chosen.role.clone(),
            targets: targets.into_iter().collect(),
            application_roles: chosen.application_roles.clone(),
            duration: Ttl::from_seconds(seconds).expect("in range"),
            starts_at,
            not_after,
            invite: GUESTS.contains(&who),
        }
    }

    async fn create_new(&mut self) {
        let (id, ask) = (self.next_id(), self.ask());
        self.sent.push(Sent {
            id,
            ask,
            grant: None,
            closing: false,
        });
        self.create(self.sent.len() - 1).await;
        // Without an answer it is sent again, sooner or later.
        while self.sent[self.sent.len() - 1].grant.is_none() && self.dice.chance(0.5) {
            sleep(self.dice.range(1, 5 * SECOND)).await;
            self.create(self.sent.len() - 1).await;
        }
    }

    async fn create(&mut self, index: usize) {
        let Sent { id, ask, .. } = self.sent[index].clone();
        let patience = self.patience();
        let wait = if self.dice.chance(0.1) {
            Wait::Active {
                until: tokio::time::Instant::now() + std::time::Duration::from_secs(3),
            }
        } else {
            Wait::Accepted
        };
        {
            let mut on = self.stage.on();
            say!(
                on,
                None,
                "{}: create {id}: {} on {:?} for {}, {}",
                self.name,
                ask.role,
                ask.targets
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
                ask.beneficiary,
                ask.duration
            );
        }
        let name = self.name.clone();
        let (request, body) = (id.clone(), ask);
        let answer = self
            .office
            .ask(patience, |service| async move {
                service.create_grant(&name, request, body, wait).await
            })
            .await;
        let mut on = self.stage.on();
        match answer {
            None => say!(on, None, "{}: {id} has no answer", self.name),
            Some(Ok(created)) => {
                let grant = created.grant.id;
                say!(on, None, "{}: {id} is {grant}", self.name);
                if !on.model.promises.contains_key(&grant) {
                    let text =
                        format!("{id} was answered with {grant}, which the ledger never took");
                    on.violate("I5 accepted is durable", None, text);
                }
                let known = on.model.requests.entry(id.to_string()).or_default();
                let (before, closed) = (known.grant, known.closed);
                known.grant = Some(grant);
                if before.is_some_and(|before| before != grant) || closed {
                    let text = format!("{id} stands for {grant}, and for {before:?} before");
                    on.violate("I6 one effect per request id", None, text);
                }
                self.sent[index].grant = Some(grant);
            }
            Some(Err(error)) => {
                say!(on, None, "{}: {id} is refused: {error}", self.name);
                let wrong = matches!(error, ServiceError::RequestIdReused)
                    || (matches!(error, ServiceError::RequestClosed) && !self.sent[index].closing);
                if wrong {
                    let text = format!("{id} is new and is refused: {error}");
                    on.violate("I6 one effect per request id", None, text);
                }
            }
        }
    }

    async fn repeat(&mut self) {
        if !self.sent.is_empty() {
            let index = self.dice.below(self.sent.len());
            self.create(index).await;
        }
    }

    /// The same request id with another body.
    async fn other_body(&mut self) {
        let known: Vec<usize> = (0..self.sent.len())
            .filter(|index| self.sent[*index].grant.is_some())
            .collect();
        if known.is_empty() {
            return;
        }
        let Sent { id, mut ask, .. } = self.sent[self.dice.pick(&known)].clone();
        ask.requester = "somebody else".to_owned();
        let (name, request) = (self.name.clone(), id.clone());
        let answer = self
            .office
            .ask(None, |service| async move {
                service
                    .create_grant(&name, request, ask, Wait::Accepted)
                    .await
            })
            .await;
        if let Some(Ok(created)) = answer {
            let text = format!("{id} with another body is {}", created.grant.id);
            self.stage
                .on()
                .violate("I6 one effect per request id", None, text);
        }
    }

    fn any_grant(&mut self) -> Option<GrantId> {
        let known: Vec<GrantId> = self.sent.iter().filter_map(|sent| sent.grant).collect();
        let recent = known.len().min(6);
        (recent > 0).then(|| known[known.len() - 1 - self.dice.below(recent)])
    }

    async fn extend(&mut self) {
        let Some(grant) = self.any_grant() else {
            return;
        };
        let by = Ttl::from_seconds(self.dice.range(1, 300)).expect("in range");
        {
            let mut on = self.stage.on();
            if let Some(promise) = on.model.promises.get_mut(&grant) {
                promise.extended += by.delta();
            }
            say!(on, None, "{}: extend {grant} by {by}", self.name);
        }
        let extension = Extension {
            request_id: self.next_id(),
            grant_id: grant,
            by,
            requester: String::new(),
            reason: String::new(),
        };
        let (patience, name) = (self.patience(), self.name.clone());
        let repeats = self.dice.range(1, 3);
        for _ in 0..repeats {
            let (name, extension) = (name.clone(), extension.clone());
            let answer = self
                .office
                .ask(patience, |service| async move {
                    service.extend_grant(&name, extension).await
                })
                .await;
            if let Some(Err(ServiceError::RequestIdReused)) = answer {
                self.stage.on().violate(
                    "I6 one effect per request id",
                    None,
                    format!("{} is refused as another body", extension_id(&grant)),
                );
            }
        }
    }

    async fn revoke(&mut self) {
        let Some(grant) = self.any_grant() else {
            return;
        };
        {
            let mut on = self.stage.on();
            say!(on, None, "{}: revoke {grant}", self.name);
        }
        let revocation = Revocation {
            which: WhichGrant::Id(grant),
            requester: String::new(),
            reason: String::new(),
        };
        self.send_revocation(revocation).await;
    }

    async fn send_revocation(&mut self, revocation: Revocation) -> bool {
        let (patience, name) = (self.patience(), self.name.clone());
        let answer = self
            .office
            .ask(patience, |service| async move {
                service.revoke_grant(&name, revocation).await
            })
            .await;
        match answer {
            Some(Ok(Revoked::Grant(grant))) => {
                let mut on = self.stage.on();
                let stands = on.model.promises.get(&grant.id).is_some_and(|promise| {
                    matches!(promise.stand, Stand::Leaving { .. } | Stand::Ended { .. })
                });
                if !stands {
                    let text = format!(
                        "the revocation of {} was answered, and is not stored",
                        grant.id
                    );
                    on.violate("I5 accepted is durable", None, text);
                }
                false
            }
            Some(Ok(Revoked::Tombstoned)) => true,
            Some(Err(_)) | None => false,
        }
    }

    /// The revocation of a request, which may come before it.
    async fn revoke_by_request(&mut self) {
        let index = if self.dice.chance(0.5) || self.sent.is_empty() {
            let (id, ask) = (self.next_id(), self.ask());
            self.sent.push(Sent {
                id,
                ask,
                grant: None,
                closing: true,
            });
            self.sent.len() - 1
        } else {
            self.dice.below(self.sent.len())
        };
        self.sent[index].closing = true;
        let id = self.sent[index].id.clone();
        {
            let mut on = self.stage.on();
            say!(
                on,
                None,
                "{}: revoke whatever {id} is or will be",
                self.name
            );
        }
        let revocation = Revocation {
            which: WhichGrant::Request(id.clone()),
            requester: String::new(),
            reason: String::new(),
        };
        if self.send_revocation(revocation).await {
            let mut on = self.stage.on();
            on.model.requests.entry(id.to_string()).or_default().closed = true;
        }
        if self.dice.chance(0.7) {
            self.create(index).await;
        }
    }

    async fn revoke_access(&mut self) {
        let (selector, named) = {
            let on = self.stage.on();
            let who = self.dice.pick(&MEMBERS.chain(GUESTS).collect::<Vec<_>>());
            let selector = match self.dice.below(3) {
                0 => Selector::Member(Principal::User(on.cast.users[who].clone())),
                1 => Selector::Member(Principal::Email(on.cast.emails[who].clone())),
                _ => Selector::Target(self.dice.pick(&on.cast.pairs).target),
            };
            let named = on.model.named(&on.cast, &selector);
            (selector, named)
        };
        let (id, name, patience) = (self.next_id(), self.name.clone(), self.patience());
        {
            let mut on = self.stage.on();
            say!(on, None, "{}: revoke all of {selector:?}", self.name);
        }
        let done = self
            .office
            .ask(patience, |service| async move {
                let reason = String::new();
                service
                    .revoke_access(&name, id, None, selector, reason.clone(), reason, None)
                    .await
                    .is_ok()
            })
            .await;
        if done != Some(true) {
            return;
        }
        must_be_leaving(&self.stage, &named);
    }

    /// Plans and explains: reads that must change nothing.
    async fn look(&mut self) {
        let (ask, name) = (self.ask(), self.name.clone());
        let who = ask.beneficiary.clone();
        self.office
            .ask(None, |service| async move {
                drop(service.plan_grant(&name, ask).await);
                drop(service.explain_access(&name, None, &who).await);
            })
            .await;
    }
}

/// Whoever revoked these and was answered has reached every one of them.
fn must_be_leaving(stage: &Stage, named: &[GrantId]) {
    let mut on = stage.on();
    for id in named {
        let promise = &on.model.promises[id];
        if !promise.stand.is_leaving() {
            let (who, stand) = (promise.who, promise.stand);
            on.violate(
                "I9 reaches",
                Some(who),
                format!("everything was revoked, and {id} is {stand:?}"),
            );
        }
    }
}

fn extension_id(grant: &GrantId) -> String {
    format!("an extension of {grant}")
}

/// Ends whatever is still open once it is calm, as a control plane would that shuts down.
pub(crate) async fn end_everything(stage: Arc<Stage>, office: Arc<Office>, mut dice: Dice) {
    let calm_from = stage.on().weather.calm_from;
    sleep(calm_from + 60 * SECOND - stage.clock.elapsed()).await;
    let name = CallerName::parse("operator").expect("well formed");
    let drains = dice.chance(0.5);
    {
        let mut on = stage.on();
        say!(on, None, "operator: ends everything (drain: {drains})");
    }
    for turn in 0..50 {
        let name = name.clone();
        let named = {
            let on = stage.on();
            on.model.named(&on.cast, &Selector::Integration)
        };
        let done = office
            .ask(None, |service| async move {
                let words = String::new();
                if drains {
                    service
                        .drain(&name, None, words.clone(), words)
                        .await
                        .is_ok()
                } else {
                    let id = RequestId::parse(format!("end-{turn}")).expect("well formed");
                    service
                        .revoke_access(
                            &name,
                            id,
                            None,
                            Selector::Integration,
                            words.clone(),
                            words,
                            None,
                        )
                        .await
                        .is_ok()
                }
            })
            .await;
        if done == Some(true) {
            return must_be_leaving(&stage, &named);
        }
        sleep(SECOND).await;
    }
    stage.on().violate(
        "I9 heals",
        None,
        "in the calm nothing can be revoked".to_owned(),
    );
}
