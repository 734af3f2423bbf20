//! A thread outside the runtime that notices when the runtime no longer turns.
//!
//! Owns the complaint: a log line, a metric, and a process that ends itself where waiting is hopeless, so that its
//! supervisor starts another. Never touches access.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::driver::Pulse;
use crate::domain::ids::IntegrationName;
use crate::ports::Clock;

/// When to complain, and when to give up on the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often to look.
    pub every: Duration,
    /// Loop standing still for this long: complain.
    pub complain_after: Duration,
    /// Loop standing still for this long: the stall is reported as hopeless.
    pub give_up_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(2500),
            complain_after: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// Gives up after `limit` and complains after a sixth of it, but never of a loop that turns as often as it
    /// should: once in a `floor_poll`, and of a heartbeat as often as [`Self::beat`] says.
    #[must_use]
    pub fn of(limit: Duration, floor_poll: Duration) -> Self {
        let two_beats = Duration::from_secs(2);
        Self {
            every: (limit / 6).min(Duration::from_millis(2500)),
            complain_after: (limit / 6).max(two_beats).max(floor_poll * 2),
            give_up_after: limit,
        }
    }

    /// How often the heart has to beat: several times before anybody complains, and on whole seconds where that is
    /// often enough, in step with everything else.
    #[must_use]
    pub fn beat(&self) -> Duration {
        let second = Duration::from_secs(1);
        if self.complain_after >= second * 8 {
            second * 2
        } else {
            second / 2
        }
    }
}

/// The heartbeat of the runtime itself, which beats before any loop turns and while none does.
#[derive(Debug, Default)]
pub struct Heart(AtomicI64);

impl Heart {
    /// Notes that the runtime turns.
    pub fn beat(&self, clock: &dyn Clock) {
        self.0.store(since_boot_ms(clock), Ordering::Relaxed);
    }

    /// The process ends: from now on nothing is missed.
    pub fn rest(&self) {
        self.0.store(i64::MAX, Ordering::Relaxed);
    }
}

fn since_boot_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.since_boot().as_millis()).unwrap_or(i64::MAX)
}

/// What a look at a pulse found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The loop turns.
    Fine,
    /// It has not turned for this long.
    Stalled(Duration),
    /// It has not turned for so long that only a new process helps.
    Hopeless(Duration),
}

/// Judges a pulse. `now_ms` is time since boot.
#[must_use]
pub fn judge(pulse: &Pulse, now_ms: i64, patience: &Patience) -> Finding {
    judge_turn(pulse.turned_at_ms(), now_ms, patience)
}

/// Judges what last turned at `turned`, both times since boot; 0 is what does not turn yet, or no more.
fn judge_turn(turned: i64, now_ms: i64, patience: &Patience) -> Finding {
    if turned == 0 {
        return Finding::Fine;
    }
    let still = Duration::from_millis(u64::try_from(now_ms.saturating_sub(turned)).unwrap_or(0));
    if still >= patience.give_up_after {
        Finding::Hopeless(still)
    } else if still >= patience.complain_after {
        Finding::Stalled(still)
    } else {
        Finding::Fine
    }
}

/// Since when the watchdog itself has been looking without a gap. A process that was stopped or a machine that slept
/// finds every pulse old when it goes on: that is no stall, and its loops get their time to turn.
#[derive(Debug, Clone, Copy)]
struct Attention {
    looked_at: i64,
    since: i64,
}

impl Attention {
    fn look(&mut self, now_ms: i64, every: Duration) {
        let gap = now_ms - self.looked_at;
        let longest = i64::try_from(every.as_millis())
            .unwrap_or(i64::MAX)
            .saturating_mul(3);
        if gap > longest.max(1000) {
            self.since = now_ms;
        }
        self.looked_at = now_ms;
    }

    fn judge(self, turned: i64, patience: &Patience) -> Finding {
        let turned = if turned == 0 {
            0
        } else {
            turned.max(self.since)
        };
        judge_turn(turned, self.looked_at, patience)
    }
}

/// How long the last words may take before the process ends without them: whoever reads the log may be stuck too.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Watches the pulses and the heartbeat until the process ends, from a thread of its own: a stalled runtime cannot
/// stop it. `hopeless` is called when only a new process helps.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(
    pulses: Vec<(IntegrationName, Arc<Pulse>)>,
    heart: Arc<Heart>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    hopeless: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<()> {
    let began = since_boot_ms(clock.as_ref());
    let mut attention = Attention {
        looked_at: began,
        since: began,
    };
    let hopeless = Arc::new(hopeless);
    thread(move || {
        loop {
            sleep(patience.every);
            attention.look(since_boot_ms(clock.as_ref()), patience.every);
            for (integration, pulse) in &pulses {
                let waiting =
                    Duration::from_millis(u64::try_from(pulse.oldest_due_ms()).unwrap_or(0));
                metrics::gauge!("latchkey_oldest_due_seconds", "integration" => integration.to_string())
                    .set(waiting.as_secs_f64());
            }
            let turns = pulses
                .iter()
                .map(|(integration, pulse)| (integration.as_str(), pulse.turned_at_ms()))
                .chain([("every integration", heart.0.load(Ordering::Relaxed).max(1))]);
            for (what, turned) in turns {
                match attention.judge(turned, &patience) {
                    Finding::Fine => {}
                    Finding::Stalled(still) => {
                        tracing::error!(
                            code = "runtime_stalled",
                            integration = what,
                            seconds = still.as_secs(),
                            "Scheduler stands still; revocations are late"
                        );
                    }
                    Finding::Hopeless(still) => {
                        let end = Arc::clone(&hopeless);
                        // Ends the process also when the line below is never written.
                        let spare = thread(move || {
                            sleep(LAST_WORDS);
                            end();
                        });
                        if spare.is_ok() {
                            tracing::error!(
                                code = "runtime_stalled",
                                integration = what,
                                seconds = still.as_secs(),
                                "Scheduler stands still; ending the process, the next start takes over"
                            );
                        }
                        hopeless();
                        return;
                    }
                }
            }
        }
    })
}

fn thread(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(work)
        .map(drop)
}

fn sleep(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "this thread exists to be outside the runtime"
    )]
    std::thread::sleep(time);
}

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "latchkey_oldest_due_seconds",
        metrics::Unit::Seconds,
        "How long the oldest due member has been waiting for its pass to start"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        every: Duration::from_secs(1),
        complain_after: Duration::from_secs(10),
        give_up_after: Duration::from_secs(60),
    };

    fn looking_since(since: i64) -> Attention {
        Attention {
            looked_at: since,
            since,
        }
    }

    #[test]
    fn a_loop_that_stands_still_is_complained_of_and_then_given_up() {
        let mut attention = looking_since(1_000);
        let mut found = Vec::new();
        for second in 2..=62 {
            attention.look(second * 1_000, PATIENCE.every);
            found.push(attention.judge(1_000, &PATIENCE));
        }
        assert_eq!(found[8], Finding::Fine);
        assert_eq!(found[9], Finding::Stalled(Duration::from_secs(10)));
        assert_eq!(found[59], Finding::Hopeless(Duration::from_secs(60)));
    }

    #[test]
    fn a_process_that_was_stopped_for_an_hour_gets_its_time_to_turn() {
        let mut attention = looking_since(1_000);
        attention.look(2_000, PATIENCE.every);
        attention.look(3_602_000, PATIENCE.every);
        assert_eq!(attention.judge(2_000, &PATIENCE), Finding::Fine);
        for second in 3_603..3_661 {
            attention.look(second * 1_000, PATIENCE.every);
        }
        assert_eq!(
            attention.judge(2_000, &PATIENCE),
            Finding::Stalled(Duration::from_secs(58)),
            "a loop that does not turn afterwards is still found"
        );
    }

    #[test]
    fn what_does_not_turn_yet_or_no_more_is_no_stall() {
        assert_eq!(looking_since(9_000_000).judge(0, &PATIENCE), Finding::Fine);
    }

    #[test]
    fn a_gap_is_a_gap_only_beyond_three_looks() {
        let mut attention = looking_since(1_000);
        attention.look(4_000, PATIENCE.every);
        assert_eq!(attention.since, 1_000, "three looks");
        attention.look(7_001, PATIENCE.every);
        assert_eq!(attention.since, 7_001);
    }

    #[test]
    fn a_heart_says_when_it_beat_and_is_never_missed_once_it_rests() {
        let clock = crate::runtime::ManualClock::default();
        clock.advance(chrono::TimeDelta::milliseconds(1_234));
        let heart = Heart::default();
        heart.beat(&clock);
        let beat = heart.0.load(Ordering::Relaxed);
        assert_eq!(u128::try_from(beat), Ok(clock.since_boot().as_millis()));
        heart.rest();
        let resting = heart.0.load(Ordering::Relaxed);
        let mut attention = looking_since(beat);
        for second in 1..1_000 {
            attention.look(beat + second * 1_000, PATIENCE.every);
            assert_eq!(attention.judge(resting, &PATIENCE), Finding::Fine);
        }
    }

    #[test]
    fn a_heart_that_stops_ends_the_process() {
        let quick = Patience {
            every: Duration::from_millis(5),
            complain_after: Duration::from_millis(10),
            give_up_after: Duration::from_millis(20),
        };
        let (end, ended) = std::sync::mpsc::channel();
        let clock: Arc<dyn Clock> = Arc::new(crate::runtime::SystemClock);
        let heart = Arc::new(Heart::default());
        heart.beat(clock.as_ref());
        watch(Vec::new(), heart, clock, quick, move || {
            // A second word comes from the spare thread, when nobody listens any more.
            end.send(()).ok();
        })
        .expect("a thread");
        ended
            .recv_timeout(Duration::from_secs(60))
            .expect("only a new process helps");
    }

    #[test]
    fn patience_follows_the_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(Patience::of(second * 60, second), Patience::default());
        assert_eq!(Patience::of(second * 3, second).complain_after, second * 2);
        for patience in [Patience::default(), Patience::of(second * 3, second)] {
            assert!(patience.beat() * 4 <= patience.complain_after);
        }
    }

    #[test]
    fn every_part_of_patience_has_its_own_bound() {
        let ms = Duration::from_millis;
        for (limit, poll, every, complain) in [
            (60_000, 1_000, 2_500, 10_000),
            (12_000, 1_000, 2_000, 2_000),
            (60_000, 30_000, 2_500, 60_000),
            (6_000, 500, 1_000, 2_000),
        ] {
            let patience = Patience::of(ms(limit), ms(poll));
            assert_eq!(patience.every, ms(every), "{limit}");
            assert_eq!(patience.complain_after, ms(complain), "{limit}");
            assert_eq!(patience.give_up_after, ms(limit));
        }
        let beat = |complain| {
            let patience = Patience {
                complain_after: ms(complain),
                ..PATIENCE
            };
            patience.beat()
        };
        assert_eq!((beat(8_000), beat(7_999)), (ms(2_000), ms(500)));
    }
}
