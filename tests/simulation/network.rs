//! The network between the connector and Elastic Cloud, and upstream's limit on calls.
//!
//! Owns the fate of one request: lost, late, twice, refused or decided. Never knows what a request does.

use std::time::Duration;

use latchkey::domain::member::WriteKind;
use latchkey::elastic::limiter::Feedback;
use latchkey::ports::provider::Refusal;

use super::clock::{Ms, SECOND};
use super::invariants::PAUSE;
use super::stage::{Inner, say};
use super::world::{Pending, Verdict};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Course {
    /// Upstream decides; the answer takes so long.
    Decided { number: u64, at: Ms, back: Ms },
    /// Nothing comes back; the caller gives up.
    Silence,
    /// Something else answers, after so long.
    Instead(Reply, Ms),
}

#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Refused(Refusal),
    Unknown(&'static str),
}

pub(crate) fn refusal(status: u16, code: &str) -> Refusal {
    let code = code.to_owned();
    match status {
        401 => Refusal::Unauthenticated { code },
        403 => Refusal::Forbidden { code },
        404 => Refusal::NotFound { code },
        429 => Refusal::Throttled { retry_after: None },
        _ => Refusal::Invalid { code },
    }
}

impl Inner {
    /// Counts a call against upstream's limit; answers what the answer's head tells, and whether it is refused.
    pub(crate) fn count_call(&mut self) -> (Feedback, bool) {
        self.tally.calls += 1;
        let Some(limit) = self.unknowns.limit else {
            return (Feedback::default(), false);
        };
        let now = self.now;
        let calls = &mut self.world.calls;
        while calls.front().is_some_and(|at| *at + limit.window <= now) {
            calls.pop_front();
        }
        let throttled = calls.len() >= limit.calls as usize;
        if !throttled {
            calls.push_back(now);
        }
        let window = Duration::from_millis(limit.window.unsigned_abs());
        let mut feedback = Feedback {
            throttled,
            ..Feedback::default()
        };
        if limit.told {
            let left = limit
                .calls
                .saturating_sub(u32::try_from(calls.len()).unwrap_or(u32::MAX));
            feedback.limit = Some(limit.calls);
            feedback.remaining = Some(left);
            feedback.interval = Some(window);
            let told_since = *self.told_since.get_or_insert(now);
            let all_told = calls.front().is_some_and(|first| *first > told_since);
            if throttled && all_told && self.is_calm_budget() {
                self.violate(
                    "I8 budget",
                    None,
                    format!("more than {} calls in one window", limit.calls),
                );
            }
        }
        if throttled {
            self.tally.faults += 1;
            self.excuse(None, PAUSE + limit.window);
            if limit.retry_after {
                feedback.retry_after = Some(window / 4);
            }
        }
        (feedback, throttled)
    }

    fn is_calm_budget(&self) -> bool {
        // Answers that never came back told nothing.
        self.excused_all < self.now
    }

    /// How long a request takes to arrive or an answer to come back.
    pub(crate) fn latency(&mut self) -> Ms {
        if !self.is_calm() && self.dice.chance(self.weather.slow) {
            self.tally.faults += 1;
            self.excuse(None, 15 * SECOND);
            return self.dice.range(500, 4_000);
        }
        self.dice.range(5, 120)
    }

    /// Decides what becomes of a mutation. `who` is the person it is about.
    pub(crate) fn course(&mut self, what: &Pending, who: usize) -> Course {
        let now = self.now;
        let weather = self.weather;
        let (there, back) = (self.latency(), self.latency());
        if !self.is_calm() {
            if self.world.down_until > now {
                self.fault(who, PAUSE, "upstream is down");
                return match self.dice.below(4) {
                    0 => Course::Instead(
                        Reply::Refused(Refusal::NotSent {
                            code: "connect".to_owned(),
                        }),
                        10,
                    ),
                    1 => Course::Silence,
                    2 => {
                        self.world.queue(now + there, what.clone());
                        Course::Instead(Reply::Unknown("http_502"), there + back)
                    }
                    _ => Course::Instead(Reply::Unknown("http_503"), there + back),
                };
            }
            if self.dice.chance(weather.lost_before) {
                self.fault(who, PAUSE, "the request is lost");
                return Course::Silence;
            }
            if self.dice.chance(weather.lost_after) {
                self.fault(who, PAUSE, "the answer is lost");
                self.world.queue(now + there, what.clone());
                return Course::Silence;
            }
            if self.dice.chance(weather.late) {
                let most = (self.setup.look_after - 20 * SECOND)
                    .min(weather.calm_from + 60 * SECOND - now)
                    .max(4 * SECOND);
                let late = self.dice.range(3 * SECOND, most);
                let wait = self.setup.look_after + PAUSE;
                self.fault(who, wait, "the request is held up");
                say!(
                    self,
                    Some(who),
                    "it will take effect in {} s",
                    late / SECOND
                );
                self.world.queue(now + late, what.clone());
                return Course::Silence;
            }
            if self.dice.chance(weather.lie) {
                self.fault(who, PAUSE, "upstream lies: done, without effect");
                if let Pending::Cancel { token } = what {
                    for open in &mut self.world.invitations {
                        open.excused |= open.token == *token;
                    }
                }
                return Course::Instead(Reply::Done, there + back);
            }
            if self.dice.chance(weather.not_sent) {
                self.fault(who, PAUSE, "no connection");
                let code = "connect".to_owned();
                return Course::Instead(Reply::Refused(Refusal::NotSent { code }), 10);
            }
            if self.dice.chance(weather.throttle) {
                self.fault(who, PAUSE, "throttled");
                return Course::Instead(
                    Reply::Refused(Refusal::Throttled { retry_after: None }),
                    there + back,
                );
            }
            if self.dice.chance(weather.unauthenticated) {
                self.fault(who, PAUSE, "401 for a moment");
                return Course::Instead(
                    Reply::Refused(refusal(401, "root.unauthorized")),
                    there + back,
                );
            }
            if self.dice.chance(weather.forbidden) {
                let wait = self.setup.blocked_retry + PAUSE;
                self.fault(who, wait, "403 for a moment");
                return Course::Instead(
                    Reply::Refused(refusal(
                        403,
                        "role_assignments.unauthorized_role_assignments",
                    )),
                    there + back,
                );
            }
            if self.dice.chance(weather.duplicate) {
                self.fault(who, 2 * 60 * SECOND, "the request will take effect twice");
                let again = self.dice.range(200, 25 * SECOND);
                let number = self.world.queue(now + there, what.clone());
                let mut twice = what.clone();
                if let Pending::Write { again, .. } | Pending::Invite { again, .. } = &mut twice {
                    *again = true;
                }
                self.world.queue(now + there + again, twice);
                return Course::Decided {
                    number,
                    at: now + there,
                    back,
                };
            }
        }
        if !self.world.key.valid {
            self.fault(who, PAUSE, "the key is not valid");
            return Course::Instead(
                Reply::Refused(refusal(401, "root.unauthorized")),
                there + back,
            );
        }
        if !self.world.key.owner {
            let wait = self.setup.blocked_retry + PAUSE;
            self.fault(who, wait, "the key has lost its rights");
            return Course::Instead(
                Reply::Refused(refusal(
                    403,
                    "role_assignments.unauthorized_role_assignments",
                )),
                there + back,
            );
        }
        let number = self.world.queue(now + there, what.clone());
        Course::Decided {
            number,
            at: now + there,
            back,
        }
    }

    pub(crate) fn fault(&mut self, who: usize, lasts: Ms, what: &str) {
        self.tally.faults += 1;
        self.excuse(Some(who), lasts);
        say!(self, Some(who), "fault: {what}");
    }

    /// What a mutation without an answer means for the model.
    pub(crate) fn unanswered(&mut self, who: usize, what: &Pending) {
        if let Pending::Invite { .. } = what {
            let until = self.now + self.setup.look_after + PAUSE;
            self.model.invitation_in_doubt[who] = until;
        }
    }

    /// What a mutation that upstream refused means for the model.
    pub(crate) fn answered(&mut self, number: u64, who: usize, what: &Pending) -> Verdict {
        let verdict = self
            .world
            .results
            .remove(&number)
            .unwrap_or(Verdict::Refused(500, "lost"));
        if let Verdict::Refused(..) = &verdict {
            let wait = self.setup.blocked_retry + PAUSE;
            self.excuse(Some(who), wait);
            if let Pending::Write {
                kind: WriteKind::Add,
                set,
                ..
            } = what
            {
                self.model.refused(who, *set);
            }
        }
        verdict
    }
}
