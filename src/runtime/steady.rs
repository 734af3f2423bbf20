//! A clock that other people's changes of the wall clock cannot lengthen access with.
//!
//! Owns the line that time follows: boot time from a known instant. The wall clock may run ahead of it, by a little
//! at once and by more than a minute only after a pause in which somebody can object; it never pulls it back. So no
//! end moves later, however the wall clock is set, and no wrong clock of a moment ends everything at once. Never waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::Timestamp;
use crate::ports::Clock;

/// How far the wall clock may be ahead of the line before it is suspected.
const TOLERANCE: TimeDelta = TimeDelta::seconds(60);

/// How far the wall clock must fall behind the line to be worth a word.
const SETBACK: TimeDelta = TimeDelta::seconds(1);

/// A jump forward that is not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// How far the wall clock is ahead of the line.
    pub ahead: TimeDelta,
    /// How long it has been so.
    pub lasting: Duration,
}

#[derive(Debug)]
struct Line {
    /// An instant of the line, and the time since boot at which it was.
    base: Timestamp,
    boot: Duration,
    /// Since when, by boot time, the wall clock has been suspiciously far ahead.
    suspected: Option<Duration>,
    /// How far the wall clock is behind, where that is worth a word.
    behind: TimeDelta,
    /// Jumps that were believed because nobody objected in time.
    outlasted: Option<TimeDelta>,
}

/// A clock over another one.
#[derive(Debug)]
pub struct SteadyClock {
    inner: Arc<dyn Clock>,
    patience: Duration,
    line: Mutex<Line>,
}

impl SteadyClock {
    /// A clock that begins with what `inner` shows, and believes a jump after `patience` at the latest.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, patience: Duration) -> Self {
        let line = Line {
            base: inner.now(),
            boot: inner.since_boot(),
            suspected: None,
            behind: TimeDelta::zero(),
            outlasted: None,
        };
        Self {
            inner,
            patience,
            line: Mutex::new(line),
        }
    }

    /// Raises the line to an instant that has been: time was that far when the process last ran. Answers by how much
    /// the wall clock is behind it; zero when it is not.
    pub fn raise(&self, floor: Timestamp) -> TimeDelta {
        let now = self.now();
        if floor <= now {
            return TimeDelta::zero();
        }
        let mut line = self.lock();
        line.base = floor;
        line.boot = self.inner.since_boot();
        floor - now
    }

    /// The jump that is not believed yet, if there is one.
    #[must_use]
    pub fn suspected(&self) -> Option<Jump> {
        let now = self.now();
        let line = self.lock();
        let since = line.suspected?;
        Some(Jump {
            ahead: self.inner.now() - now,
            lasting: self.inner.since_boot().saturating_sub(since),
        })
    }

    /// Believes the wall clock from now on.
    pub fn believe(&self) {
        let wall = self.inner.now();
        let boot = self.inner.since_boot();
        let mut line = self.lock();
        if line.suspected.take().is_some() && wall > line.at(boot) {
            (line.base, line.boot) = (wall, boot);
        }
    }

    /// How far the wall clock is behind the line; zero when it is not.
    #[must_use]
    pub fn behind(&self) -> TimeDelta {
        let now = self.now();
        (now - self.inner.now()).max(TimeDelta::zero())
    }

    /// How far the wall clock was set back since this was last asked, if it was.
    #[must_use]
    pub fn setback(&self) -> Option<TimeDelta> {
        let behind = self.behind();
        let mut line = self.lock();
        let further = behind - line.behind;
        line.behind = behind;
        (further >= SETBACK).then_some(further)
    }

    /// How far the wall clock had jumped, where that was believed because nobody decided in time; asked once.
    #[must_use]
    pub fn outlasted(&self) -> Option<TimeDelta> {
        self.lock().outlasted.take()
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Plain numbers: a panic elsewhere leaves them usable.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn at(&self, boot: Duration) -> Timestamp {
        let passed = boot.saturating_sub(self.boot);
        let micros = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        self.base
            .checked_add_signed(TimeDelta::microseconds(micros))
            .unwrap_or(self.base)
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let mut line = self.lock();
        // Asked under the lock, so that what is answered never runs backwards.
        let (wall, boot) = (self.inner.now(), self.inner.since_boot());
        let steady = line.at(boot);
        let ahead = wall - steady;
        if ahead <= TimeDelta::zero() {
            line.suspected = None;
            return steady;
        }
        if ahead > TOLERANCE {
            let since = *line.suspected.get_or_insert(boot);
            if boot.saturating_sub(since) < self.patience {
                return steady;
            }
            line.outlasted = Some(ahead);
        }
        (line.base, line.boot, line.suspected) = (wall, boot, None);
        wall
    }

    fn since_boot(&self) -> Duration {
        self.inner.since_boot()
    }

    fn entropy(&self) -> [u8; 10] {
        self.inner.entropy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ManualClock;

    fn steady() -> (ManualClock, SteadyClock, Timestamp) {
        let wall = ManualClock::default();
        let clock = SteadyClock::new(Arc::new(wall.clone()), Duration::from_secs(60));
        let begun = wall.now();
        (wall, clock, begun)
    }

    fn seconds(count: i64) -> TimeDelta {
        TimeDelta::seconds(count)
    }

    #[test]
    fn it_shows_wall_time_while_that_behaves() {
        let (wall, clock, begun) = steady();
        wall.advance(seconds(10));
        assert_eq!(clock.now(), begun + seconds(10));
        wall.jump(seconds(3));
        assert_eq!(clock.now(), begun + seconds(13));
        assert_eq!(clock.suspected(), None);
        assert_eq!(clock.setback(), None);
    }

    #[test]
    fn a_clock_set_back_lengthens_nothing_and_is_told_of_once() {
        let (wall, clock, begun) = steady();
        wall.advance(seconds(10));
        wall.jump(seconds(-7200));
        assert_eq!(clock.now(), begun + seconds(10));
        wall.advance(seconds(3600));
        assert_eq!(clock.now(), begun + seconds(3610));
        assert_eq!(clock.setback(), Some(seconds(7200)));
        assert_eq!(clock.setback(), None);
        assert_eq!(clock.behind(), seconds(7200));
        // Set right again: nothing has happened.
        wall.jump(seconds(7200));
        assert_eq!(clock.now(), begun + seconds(3610));
        assert_eq!((clock.setback(), clock.behind()), (None, seconds(0)));
    }

    #[test]
    fn a_jump_forward_is_suspected_and_believed_after_the_pause() {
        let (wall, clock, begun) = steady();
        wall.jump(seconds(3600));
        assert_eq!(clock.now(), begun);
        wall.advance(seconds(59));
        assert_eq!(clock.now(), begun + seconds(59));
        let jump = clock.suspected().expect("suspected");
        assert_eq!(jump.ahead, seconds(3600));
        assert_eq!(jump.lasting, Duration::from_secs(59));
        wall.advance(seconds(1));
        assert_eq!(clock.now(), begun + seconds(3660));
        assert_eq!(clock.outlasted(), Some(seconds(3600)));
        assert_eq!((clock.suspected(), clock.outlasted()), (None, None));
    }

    #[test]
    fn a_jump_that_goes_back_in_time_has_no_effect() {
        let (wall, clock, begun) = steady();
        wall.jump(seconds(86_400));
        wall.advance(seconds(30));
        assert_eq!(clock.now(), begun + seconds(30));
        wall.jump(seconds(-86_400));
        wall.advance(seconds(60));
        assert_eq!(clock.now(), begun + seconds(90));
        assert_eq!(clock.setback(), None);
    }

    #[test]
    fn a_jump_is_believed_at_once_when_somebody_vouches_for_it() {
        let (wall, clock, begun) = steady();
        wall.jump(seconds(3600));
        assert_eq!(clock.now(), begun);
        clock.believe();
        assert_eq!(clock.now(), begun + seconds(3600));
        clock.believe();
        assert_eq!(clock.now(), begun + seconds(3600));
    }

    #[test]
    fn time_goes_on_from_where_it_had_come_before_a_restart() {
        let (wall, clock, begun) = steady();
        assert_eq!(clock.raise(begun - seconds(5)), seconds(0));
        assert_eq!(clock.raise(begun + seconds(600)), seconds(600));
        wall.advance(seconds(10));
        assert_eq!(clock.now(), begun + seconds(610));
        // The wall clock catches up.
        wall.jump(seconds(620));
        assert_eq!(clock.now(), begun + seconds(630));
    }
}
