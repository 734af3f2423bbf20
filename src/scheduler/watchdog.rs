//! A thread outside the runtime that notices when the runtime no longer turns.
//!
//! Owns the complaint: a log line, a metric, and a process that ends itself where waiting is hopeless, so that its
//! supervisor starts another. Never touches access.

use std::sync::Arc;
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
    let turned = pulse.turned_at_ms();
    if turned == 0 {
        return Finding::Fine;
    }
    let still = Duration::from_millis(u64::try_from(now_ms - turned).unwrap_or(0));
    if still >= patience.give_up_after {
        Finding::Hopeless(still)
    } else if still >= patience.complain_after {
        Finding::Stalled(still)
    } else {
        Finding::Fine
    }
}

/// Watches the pulses until the process ends, from a thread of its own: a stalled runtime cannot stop it.
/// `hopeless` is called once when only a new process helps.
///
/// # Errors
/// When the thread cannot be started.
pub fn watch(
    pulses: Vec<(IntegrationName, Arc<Pulse>)>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    hopeless: impl Fn() + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        loop {
            #[expect(clippy::disallowed_methods, reason = "this thread exists to be outside the runtime")]
            std::thread::sleep(patience.every);
            let now_ms = i64::try_from(clock.since_boot().as_millis()).unwrap_or(i64::MAX);
            for (integration, pulse) in &pulses {
                let waiting = Duration::from_millis(u64::try_from(pulse.oldest_due_ms()).unwrap_or(0));
                metrics::gauge!("latchkey_oldest_due_seconds", "integration" => integration.to_string())
                    .set(waiting.as_secs_f64());
                match judge(pulse, now_ms, &patience) {
                    Finding::Fine => {}
                    Finding::Stalled(still) => {
                        tracing::error!(%integration, seconds = still.as_secs(), "Scheduler stands still; revocations are late");
                    }
                    Finding::Hopeless(still) => {
                        tracing::error!(%integration, seconds = still.as_secs(), "Scheduler stands still; ending the process");
                        hopeless();
                        return;
                    }
                }
            }
        }
    })?;
    Ok(())
}

/// Registers help texts.
pub fn describe_metrics() {
    metrics::describe_gauge!(
        "latchkey_oldest_due_seconds",
        metrics::Unit::Seconds,
        "How long the oldest due member has been waiting for its pass to start"
    );
}
