//! Loops that wake the process together.
//!
//! Owns the phase of periodic ticks: a process that idles should be woken once a second, not once by each of its loops.
//! Never shortens a period.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// Ticks at once and then every `period`; with an `epoch` at whole periods since it, like everything else that shares
/// it. What is missed is left out.
#[derive(Debug)]
pub struct Pace {
    every: Interval,
    epoch: Option<Instant>,
}

impl Pace {
    /// A pace that begins now.
    #[must_use]
    pub fn new(epoch: Option<Instant>, period: Duration) -> Self {
        let mut every = interval(period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { every, epoch }
    }

    /// Waits for the next tick. Dropping the future loses none.
    pub async fn tick(&mut self) {
        self.every.tick().await;
        if let Some(epoch) = self.epoch {
            self.every
                .reset_at(next(epoch, Instant::now(), self.every.period()));
        }
    }
}

/// The first instant after `now` that lies whole periods after `epoch`, and at least half a period away: a loop that
/// has just begun needs no second turn at once.
fn next(epoch: Instant, now: Instant, period: Duration) -> Instant {
    let over = now.saturating_duration_since(epoch).as_nanos() % period.as_nanos().max(1);
    let over = Duration::from_nanos(u64::try_from(over).unwrap_or(0));
    let rest = period - over;
    if rest * 2 < period {
        now + rest + period
    } else {
        now + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn loops_that_begin_apart_tick_together() {
        let epoch = Instant::now();
        let period = Duration::from_secs(1);
        let mut ticks = Vec::new();
        for start in [0, 300, 800] {
            tokio::time::sleep_until(epoch + Duration::from_millis(start)).await;
            let mut pace = Pace::new(Some(epoch), period);
            pace.tick().await;
            assert_eq!(
                Instant::now() - epoch,
                Duration::from_millis(start),
                "at once"
            );
            ticks.push(pace);
        }
        let mut seen = Vec::new();
        for pace in &mut ticks {
            pace.tick().await;
            seen.push((Instant::now() - epoch).as_millis());
        }
        assert_eq!(seen, [1000, 1000, 2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_epoch_it_ticks_from_where_it_began() {
        let began = Instant::now();
        let mut pace = Pace::new(None, Duration::from_secs(1));
        for second in 0..3 {
            pace.tick().await;
            assert_eq!(Instant::now() - began, Duration::from_secs(second));
        }
    }
}
