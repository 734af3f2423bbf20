//! Elastic Cloud as the connector reaches it: behind the real rate limiter, through a network that loses, delays,
//! repeats and lies.
//!
//! Owns the way there and back. What a request does is decided upstream, when it takes effect there; which calls there
//! are stands in `provider`.

mod provider;

use std::sync::Arc;
use std::time::Duration;

use latchkey::domain::assignment::Assignment;
use latchkey::domain::event::CallEvidence;
use latchkey::domain::ids::UserId;
use latchkey::domain::member::WriteKind;
use latchkey::elastic::limiter::{Feedback, Limiter, LimiterOptions, Permit};
use latchkey::ports::AccessProvider;
use latchkey::ports::provider::{Claim, KeyPin, Outcome, Priority, ReadError, Refusal, Turn};

use super::clock::{Ms, sleep};
use super::invariants::PAUSE;
use super::network::{Course, Reply, refusal};
use super::stage::{Inner, Stage, say};
use super::unknowns::Lag;
use super::world::{Pending, Verdict};

/// How long a mutation waits for its turn, how long it may take, and how long a read may take: as in the adapter.
const WAIT: Duration = Duration::from_secs(10);
const BUDGET: Ms = 2_500;
const READ_WAIT: Duration = Duration::from_secs(30);
/// A removal waits no longer than this for the read that comes before it.
const URGENT_READ_WAIT: Duration = Duration::from_secs(5);

/// One process's way to Elastic Cloud.
#[derive(Debug)]
pub(crate) struct Cloud {
    stage: Arc<Stage>,
    life: u64,
    limiter: Limiter,
}

/// A place in the budget that was taken before it was decided what to send.
#[derive(Debug)]
struct Held(Permit);

fn evidence(call: &str, elapsed: Ms) -> CallEvidence {
    CallEvidence {
        call: call.to_owned(),
        attempts: 1,
        elapsed_ms: elapsed.unsigned_abs(),
        ..CallEvidence::default()
    }
}

impl Cloud {
    pub(crate) fn new(stage: Arc<Stage>, life: u64) -> Self {
        let limiter = Limiter::new(LimiterOptions::default());
        Self {
            stage,
            life,
            limiter,
        }
    }

    /// Waits for a turn; none when it does not come in time.
    async fn permit(&self, claim: Claim, wait: Duration) -> Option<Permit> {
        let permit = tokio::time::timeout(wait, self.limiter.acquire_claim(claim))
            .await
            .ok();
        {
            let mut on = self.stage.on();
            let went = permit.is_some();
            let rate = self.limiter.rate();
            if on.unknowns.limit.is_some() {
                say!(
                    on,
                    None,
                    "turn for {:?}: {went}, {} of {} left",
                    claim.priority,
                    rate.remaining,
                    rate.limit
                );
            }
        }
        self.stage.point(self.life).await;
        permit
    }

    /// Sends one mutation and waits for what comes back.
    async fn send(
        &self,
        pin: KeyPin,
        priority: Priority,
        turn: Option<Turn>,
        who: usize,
        mut what: Pending,
    ) -> (Result<Verdict, Reply>, Ms) {
        self.stage.point(self.life).await;
        if self.pin() != pin {
            return (Err(Reply::Refused(Refusal::KeyRotated)), 0);
        }
        let permit = match turn.and_then(Turn::take::<Held>) {
            Some(held) => held.0,
            None => match self.permit(Claim::of(priority), WAIT).await {
                Some(permit) => permit,
                None => {
                    let mut on = self.stage.on();
                    on.fault(who, PAUSE, "no turn in time");
                    let code = "budget".to_owned();
                    return (Err(Reply::Refused(Refusal::NotSent { code })), 0);
                }
            },
        };
        if self.pin() != pin {
            permit.answered(Feedback::default());
            return (Err(Reply::Refused(Refusal::KeyRotated)), 0);
        }
        let (course, sent_at, feedback) = {
            let mut on = self.stage.on();
            let what_is = |on: &Inner| match &what {
                Pending::Write { kind, set, .. } => format!("{kind:?} {}", on.cast.show(*set)),
                Pending::Invite { .. } => "invite".to_owned(),
                Pending::Cancel { token } => format!("cancel {token}"),
            };
            say!(
                on,
                Some(who),
                "connector: {} for {}",
                what_is(&on),
                on.cast.name(who)
            );
            if let Pending::Write {
                kind,
                set,
                back,
                again,
                sent,
                ..
            } = &mut what
            {
                *sent = on.now;
                (*back, *again) = on.check_sending(*kind, who, *set);
            }
            let (feedback, throttled) = on.count_call();
            let course = if throttled {
                let retry_after = feedback.retry_after;
                Course::Instead(Reply::Refused(Refusal::Throttled { retry_after }), 20)
            } else {
                on.course(&what, who)
            };
            (course, on.now, feedback)
        };
        let answer = match course {
            Course::Decided { number, at, back } if at + back - sent_at < BUDGET => {
                sleep(at - sent_at).await;
                let verdict = self.stage.on().answered(number, who, &what);
                sleep(back).await;
                Ok(verdict)
            }
            Course::Decided { .. } | Course::Silence => {
                sleep(BUDGET).await;
                Err(Reply::Unknown("timeout"))
            }
            Course::Instead(reply, after) => {
                sleep(after.min(BUDGET)).await;
                if matches!(reply, Reply::Refused(_))
                    && let Pending::Write {
                        kind: WriteKind::Add,
                        set,
                        ..
                    } = &what
                {
                    self.stage.on().model.refused(who, *set);
                }
                Err(reply)
            }
        };
        if matches!(answer, Err(Reply::Unknown(_))) {
            permit.answered(Feedback::default());
        } else {
            permit.answered(feedback);
        }
        let elapsed = self.stage.clock.elapsed() - sent_at;
        self.stage.point(self.life).await;
        (answer, elapsed)
    }

    async fn write(
        &self,
        kind: WriteKind,
        priority: Priority,
        turn: Option<Turn>,
        pin: KeyPin,
        user: &UserId,
        set: &[Assignment],
    ) -> Outcome<()> {
        let (who, set) = {
            let mut on = self.stage.on();
            let who = on
                .cast
                .user(user)
                .expect("grants are for people of the cast");
            let all = on.cast.set(set);
            if all.count_ones() as usize != set.len() {
                on.violate(
                    "I3 standing is sacred",
                    Some(who),
                    "an assignment that nobody asked for is changed".to_owned(),
                );
            }
            (who, all)
        };
        let back = 0;
        let what = Pending::Write {
            kind,
            who,
            set,
            back,
            again: false,
            sent: 0,
        };
        let earlier = self.stage.on().model.owner_in_doubt[who];
        let (answer, elapsed) = self.send(pin, priority, turn, who, what).await;
        {
            let mut on = self.stage.on();
            let is_owner = set & (1 << on.cast.owner) != 0;
            if is_owner && kind == WriteKind::Remove && !matches!(answer, Err(Reply::Unknown(_))) {
                on.model.owner_in_doubt[who] = earlier;
            }
        }
        let evidence = evidence("write", elapsed);
        match answer {
            Ok(Verdict::Done | Verdict::Invited(_)) | Err(Reply::Done) => {
                Outcome::Done((), evidence)
            }
            Ok(Verdict::Refused(status, code)) => Outcome::Refused(refusal(status, code), evidence),
            Err(Reply::Refused(refusal)) => Outcome::Refused(refusal, evidence),
            Err(Reply::Unknown(code)) => Outcome::Unknown(CallEvidence {
                code: Some(code.to_owned()),
                ..evidence
            }),
        }
    }

    /// Sends one read. Answers the instant that it shows.
    async fn read(&self, priority: Priority) -> Result<Ms, (ReadError, CallEvidence)> {
        self.stage.point(self.life).await;
        let failed = |error: ReadError, elapsed| Err((error, evidence("read", elapsed)));
        let wait = match priority {
            Priority::Revoke => URGENT_READ_WAIT,
            Priority::Verify | Priority::Retry | Priority::Grant | Priority::Discovery => READ_WAIT,
        };
        let Some(permit) = self.permit(Claim::of(priority), wait).await else {
            // A listing that finds no room holds nothing up.
            if matches!(priority, Priority::Revoke | Priority::Verify) {
                self.stage.on().excuse(None, PAUSE);
            }
            let code = "budget".to_owned();
            return failed(Refusal::NotSent { code }.into(), 0);
        };
        let (latency, broken, feedback, sent_at) = {
            let mut on = self.stage.on();
            let (feedback, throttled) = on.count_call();
            let latency = on.latency();
            let unavailable = |code: &str| ReadError::Unavailable {
                code: code.to_owned(),
            };
            let fails = on.weather.read_fails;
            let broken = if throttled {
                let retry_after = feedback.retry_after;
                Some(ReadError::Refused(Refusal::Throttled { retry_after }))
            } else if on.is_calm() {
                None
            } else if on.world.down_until > on.now {
                Some(unavailable("http_503"))
            } else if !on.world.key.valid {
                Some(refusal(401, "root.unauthorized").into())
            } else if on.dice.chance(fails) {
                Some(unavailable("timeout"))
            } else {
                None
            };
            if let Some(error) = &broken {
                on.tally.faults += 1;
                on.excuse(None, PAUSE);
                say!(on, None, "fault: a read fails, {}", error.code());
            }
            (latency, broken, feedback, on.now)
        };
        sleep(latency).await;
        permit.answered(feedback);
        self.stage.point(self.life).await;
        match broken {
            Some(error) => failed(error, latency),
            None => {
                let mut on = self.stage.on();
                let lag = match on.unknowns.lag {
                    Lag::None => 0,
                    Lag::Always(lag) => lag,
                    Lag::UpTo(most) => on.dice.range(0, most),
                };
                Ok((sent_at + latency / 2 - lag).max(0))
            }
        }
    }
}
