//! The pure core of the limiter: who may send at an instant, and when to ask again.
//!
//! Owns the arithmetic of windows, shares and reserved reads. Time is always an argument, measured from any fixed
//! origin. It never waits, never reads a clock and knows nothing of HTTP.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::ports::provider::{Claim, Priority, Rate};

/// Window assumed when upstream tells a limit but no window: a minute is the longest that is common, so assuming
/// it can only be too careful.
const ASSUMED_INTERVAL: Duration = Duration::from_secs(60);
/// Bounds of a window that upstream may ask for; anything else is ignored.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// Added to every window, because requests arrive less evenly than they leave. At most a fiftieth of the window.
const GUARD: Duration = Duration::from_millis(20);
/// After a removal had to wait, what ranks below removals holds back for this long: the next removals are on their
/// way from the queue behind the limiter, and a gap of one round trip must not be filled with other calls.
const LULL: Duration = Duration::from_secs(2);

/// Numbers of the limiter, each with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct LimiterOptions {
    /// Requests per window before upstream has said anything. Elastic publishes no number; 100 in 10 s is what one
    /// busy Terraform run does.
    pub initial: u32,
    /// Never fewer per window than this, or nothing would be learnt any more.
    pub minimum: u32,
    /// Never more per window than this, also when upstream allows more: it bounds the memory of the window.
    pub maximum: u32,
    /// Window used until upstream names one.
    pub interval: Duration,
    /// What every good answer adds to the window's budget while upstream names no limit.
    pub increase: f64,
    /// One read in this time is reserved, so that removals never starve their own proof.
    pub read_every: Duration,
    /// Share of the budget that additions and discovery may not touch, so that a removal finds room at once. Reads
    /// leave half of it alone.
    pub urgent_share: f64,
    /// Share of the budget that removals may take which were refused before.
    pub retry_share: f64,
}

impl Default for LimiterOptions {
    fn default() -> Self {
        Self {
            initial: 100,
            minimum: 1,
            maximum: 5_000,
            interval: Duration::from_secs(10),
            increase: 0.1,
            read_every: Duration::from_secs(10),
            urgent_share: 0.2,
            retry_share: 0.1,
        }
    }
}

/// What an answer told about the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    /// Requests allowed per window.
    pub limit: Option<u32>,
    /// Requests left in the current window.
    pub remaining: Option<u32>,
    /// Length of the window.
    pub interval: Option<Duration>,
    /// Whether the answer was 429.
    pub throttled: bool,
    /// How long it asked to wait; clamped by the caller.
    pub retry_after: Option<Duration>,
    /// Whether the request was no removal. What a read is told to wait must not hold up removals: they find out for
    /// themselves.
    pub spares_removals: bool,
}

/// One who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    claim: Claim,
    number: u64,
}

impl Ticket {
    /// The priority it was drawn for.
    #[must_use]
    pub fn priority(self) -> Priority {
        self.claim.priority
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This one may send.
    Admit(Ticket),
    /// Nobody may send before this instant, unless an answer changes the budget.
    Wait(Duration),
    /// Nobody waits.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    General,
    /// A removal that was refused before.
    Retry,
    Reserved,
    /// Spent by somebody else who shares the budget, as upstream's count tells.
    Foreign,
}

#[derive(Debug, Clone, Copy)]
struct Shares {
    total: usize,
    general: usize,
    reserved: usize,
    /// Least time between two reserved reads.
    spacing: Duration,
}

/// The state of one budget.
#[derive(Debug)]
pub struct Core {
    options: LimiterOptions,
    interval: Duration,
    interval_told: bool,
    told: Option<u32>,
    current: f64,
    spent: VecDeque<(Duration, Use)>,
    /// How many of those are not reserved reads.
    general_spent: usize,
    last_reserved: Option<Duration>,
    last_read: Option<Duration>,
    /// When a removal was last seen waiting.
    held_up: Option<Duration>,
    /// Tickets below this number were there when a removal waited.
    held_below: u64,
    last_cut: Option<Duration>,
    paused_until: Duration,
    removals_paused_until: Duration,
    in_flight: usize,
    queue: BTreeSet<Ticket>,
    next_number: u64,
}

impl Core {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(options: LimiterOptions) -> Self {
        let maximum = options.maximum.max(1);
        Self {
            interval: options.interval.clamp(*INTERVALS.start(), *INTERVALS.end()),
            interval_told: false,
            told: None,
            current: f64::from(options.initial.clamp(1, maximum)),
            spent: VecDeque::new(),
            general_spent: 0,
            last_reserved: None,
            last_read: None,
            held_up: None,
            held_below: 0,
            last_cut: None,
            paused_until: Duration::ZERO,
            removals_paused_until: Duration::ZERO,
            in_flight: 0,
            queue: BTreeSet::new(),
            next_number: 0,
            options: LimiterOptions { maximum, ..options },
        }
    }

    /// Queues one more, of which nothing but the priority is known.
    pub fn enqueue(&mut self, priority: Priority) -> Ticket {
        self.enqueue_claim(Claim::of(priority))
    }

    /// Queues one more: by priority, then by weight, then by age, then as they come.
    pub fn enqueue_claim(&mut self, claim: Claim) -> Ticket {
        let ticket = Ticket {
            claim,
            number: self.next_number,
        };
        self.next_number += 1;
        self.queue.insert(ticket);
        ticket
    }

    /// Forgets one that gave up. One that was admitted already keeps what it spent.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.queue.remove(&ticket);
    }

    /// Requests per window in force now.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.shares().total
    }

    /// The window in force now, guard included.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.interval + GUARD.min(self.interval / 50)
    }

    /// Admits at most one. Call again until the answer is not [`Step::Admit`].
    pub fn poll(&mut self, now: Duration) -> Step {
        self.expire(now);
        let Some(first) = self.queue.first().copied() else {
            return Step::Idle;
        };
        let removal = first.priority() == Priority::Revoke;
        let paused_until = if removal {
            self.removals_paused_until
        } else {
            self.paused_until
        };
        if now < paused_until {
            self.note_waiting(removal, now);
            return Step::Wait(paused_until);
        }
        let shares = self.shares();
        let read = self.first_read().filter(|_| now >= self.paused_until);
        let owed_at = self
            .last_read
            .map_or(Duration::ZERO, |at| at + self.options.read_every);
        // Nothing is reserved in a window shorter than the time between two reads, nor of a budget of one: there a
        // read that waited long enough goes first instead.
        let owed = read.filter(|_| shares.reserved == 0 && owed_at <= now);
        let mut wake = match owed {
            Some(_) => self.free_at(shares.general, shares.total),
            None => self.free_for(first.priority(), shares),
        };
        if owed.is_none() && !removal {
            let lull = self.held_up.map_or(Duration::ZERO, |at| at + LULL);
            wake = wake.max(lull);
        }
        if wake <= now {
            self.note_waiting(removal && owed.is_some(), now);
            let ticket = owed.unwrap_or(first);
            return self.admit(ticket, use_of(ticket.priority()), now);
        }
        // What was refused before waits for its own share, and nobody waits behind it.
        if first.priority() == Priority::Retry
            && let Some(next) = self.first_after_retries()
        {
            let lull = self.held_up.map_or(Duration::ZERO, |at| at + LULL);
            let free = self.free_for(next.priority(), shares).max(lull);
            if free <= now {
                return self.admit(next, Use::General, now);
            }
            wake = wake.min(free);
        }
        self.note_waiting(removal, now);
        if read.is_some() && shares.reserved == 0 && owed_at > now {
            wake = wake.min(owed_at);
        }
        if let Some(read) = read.filter(|_| shares.reserved > 0) {
            let due = self
                .last_reserved
                .map_or(Duration::ZERO, |at| at + shares.spacing)
                .max(self.free_at(usize::MAX, shares.total));
            if due <= now {
                return self.admit(read, Use::Reserved, now);
            }
            wake = wake.min(due);
        }
        Step::Wait(wake)
    }

    /// Learns from an answer, whose request is no longer in flight.
    pub fn answered(&mut self, now: Duration, feedback: Feedback) {
        self.finished();
        self.expire(now);
        if let Some(interval) = feedback.interval.filter(|told| INTERVALS.contains(told)) {
            self.interval = interval;
            self.interval_told = true;
        }
        if let Some(limit) = feedback.limit.filter(|limit| *limit > 0) {
            let limit = limit.min(self.options.maximum);
            if self.told != Some(limit) {
                self.current = f64::from(limit);
                self.told = Some(limit);
            }
            if !self.interval_told {
                self.interval = ASSUMED_INTERVAL;
            }
            if let Some(remaining) = feedback.remaining {
                self.believe_remaining(now, limit, remaining);
            }
        }
        if feedback.throttled {
            let explained = self.told.is_some() && feedback.remaining == Some(0);
            let cut_lately = self
                .last_cut
                .is_some_and(|at| now.saturating_sub(at) < self.interval);
            if !explained && !cut_lately {
                self.current = (self.current / 2.0).max(f64::from(self.options.minimum.max(1)));
                self.last_cut = Some(now);
            }
            if let Some(after) = feedback.retry_after {
                self.paused_until = self.paused_until.max(now + after);
                if !feedback.spares_removals {
                    self.removals_paused_until = self.paused_until;
                }
            }
        } else {
            let ceiling = self.told.unwrap_or(self.options.maximum);
            self.current = (self.current + self.options.increase).min(f64::from(ceiling));
        }
    }

    /// A request ended without an answer that tells anything.
    pub fn finished(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn admit(&mut self, ticket: Ticket, from: Use, now: Duration) -> Step {
        self.queue.remove(&ticket);
        self.spent.push_back((now, from));
        self.general_spent += usize::from(from != Use::Reserved);
        self.in_flight += 1;
        // One that waited until now: others of its kind may have left the queue behind it.
        if ticket.priority() == Priority::Revoke && ticket.number < self.held_below {
            self.held_up = Some(now);
        }
        if ticket.priority() == Priority::Verify {
            self.last_read = Some(now);
        }
        if from == Use::Reserved {
            self.last_reserved = Some(now);
        }
        Step::Admit(ticket)
    }

    fn note_waiting(&mut self, removal: bool, now: Duration) {
        if removal {
            self.held_up = Some(now);
            self.held_below = self.next_number;
        }
    }

    fn first_read(&self) -> Option<Ticket> {
        let least = Ticket {
            claim: Claim::first(Priority::Verify),
            number: 0,
        };
        self.queue
            .range(least..)
            .next()
            .copied()
            .filter(|ticket| ticket.priority() == Priority::Verify)
    }

    /// Gives back what was admitted at that instant and never sent.
    pub fn unsent(&mut self, admitted_at: Duration) {
        self.finished();
        let spent = self.spent.iter().rposition(|(at, kind)| {
            *at == admitted_at && matches!(kind, Use::General | Use::Retry)
        });
        if let Some(spent) = spent {
            self.spent.remove(spent);
            self.general_spent -= 1;
        }
    }

    /// What is known of the budget at `now`.
    #[must_use]
    pub fn rate(&self, now: Duration) -> Rate {
        let shares = self.shares();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let window = self.window();
        let fresh = self.spent.iter().filter(|(at, _)| *at + window > now);
        // Where nothing is reserved, the reads that are owed come out of the same places.
        let reads = if shares.reserved == 0 {
            let every = self.options.read_every.as_nanos().max(1);
            usize::try_from(window.as_nanos().div_ceil(every)).unwrap_or(usize::MAX)
        } else {
            0
        };
        Rate {
            limit: count(shares.total),
            window,
            remaining: count(shares.total.saturating_sub(fresh.count())),
            removals: count(shares.general.saturating_sub(reads).max(1)),
            kept: count(
                shares
                    .general
                    .saturating_sub(self.cap(Priority::Verify, shares))
                    .saturating_sub(reads),
            ),
            told: self.told.is_some(),
        }
    }

    fn first_after_retries(&self) -> Option<Ticket> {
        let after = Ticket {
            claim: Claim::first(Priority::Grant),
            number: 0,
        };
        self.queue.range(after..).next().copied()
    }

    /// When one of this priority may go.
    fn free_for(&self, priority: Priority, shares: Shares) -> Duration {
        let free = self.free_at(self.cap(priority, shares), shares.total);
        if priority != Priority::Retry {
            return free;
        }
        let general = f64::from(u32::try_from(shares.general).unwrap_or(u32::MAX));
        let share = floor(general * self.options.retry_share).max(1);
        let mut spent = self.spent.iter().filter(|(_, kind)| *kind == Use::Retry);
        let over = spent.clone().count().checked_sub(share);
        let own = over.and_then(|over| spent.nth(over));
        free.max(own.map_or(Duration::ZERO, |(at, _)| *at + self.window()))
    }

    fn expire(&mut self, now: Duration) {
        let window = self.window();
        while let Some((at, kind)) = self.spent.front()
            && *at + window <= now
        {
            self.general_spent -= usize::from(*kind != Use::Reserved);
            self.spent.pop_front();
        }
    }

    fn shares(&self) -> Shares {
        let total = floor(self.current).max(1);
        let window = self.window();
        // A reserved place that no read comes for within its window would be lost to removals.
        let wanted = if self.interval < self.options.read_every {
            0
        } else {
            self.interval
                .as_nanos()
                .div_ceil(self.options.read_every.as_nanos().max(1))
        };
        let reserved = usize::try_from(wanted).unwrap_or(usize::MAX).min(total / 2);
        let spacing = u32::try_from(reserved)
            .ok()
            .filter(|reserved| *reserved > 0)
            .map_or(window, |reserved| {
                window / reserved + Duration::from_nanos(1)
            });
        Shares {
            total,
            general: total - reserved,
            reserved,
            spacing: spacing.max(self.options.read_every),
        }
    }

    fn cap(&self, priority: Priority, shares: Shares) -> usize {
        let urgent = floor(
            (f64::from(u32::try_from(shares.general).unwrap_or(u32::MAX))
                * self.options.urgent_share)
                .ceil(),
        )
        .max(1);
        match priority {
            Priority::Revoke => shares.general,
            // Half of what additions leave: reads as well must not take the place of a removal that is due next.
            Priority::Verify => shares.general.saturating_sub(urgent / 2).max(1),
            Priority::Retry | Priority::Grant => shares.general.saturating_sub(urgent).max(1),
            Priority::Discovery => (shares.general / 2)
                .min(shares.general.saturating_sub(urgent))
                .max(1),
        }
    }

    /// When fewer than `cap` of the general share and fewer than `total` of everything are spent.
    fn free_at(&self, cap: usize, total: usize) -> Duration {
        let window = self.window();
        let expiry = |over: usize, counts: &dyn Fn(Use) -> bool| {
            self.spent
                .iter()
                .filter(|(_, kind)| counts(*kind))
                .nth(over)
                .map_or(Duration::ZERO, |(at, _)| *at + window)
        };
        let general = self.general_spent.checked_sub(cap);
        let all = self.spent.len().checked_sub(total);
        let general = general.map(|over| expiry(over, &|kind| kind != Use::Reserved));
        let all = all.map(|over| expiry(over, &|_| true));
        general.unwrap_or_default().max(all.unwrap_or_default())
    }

    /// Upstream counts everybody who shares the budget; what we did not spend ourselves, somebody else did.
    fn believe_remaining(&mut self, now: Duration, limit: u32, remaining: u32) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let remaining = usize::try_from(remaining).unwrap_or(usize::MAX).min(limit);
        let ours = limit.saturating_sub(self.spent.len());
        if remaining < ours {
            self.spent
                .extend(std::iter::repeat_n((now, Use::Foreign), ours - remaining));
            self.general_spent += ours - remaining;
            return;
        }
        // Requests still on their way may not be counted yet: only what is certain is given back.
        let mut give_back = remaining
            .saturating_sub(self.in_flight)
            .saturating_sub(ours);
        while give_back > 0 {
            let Some(newest) = self
                .spent
                .iter()
                .rposition(|(_, kind)| *kind == Use::Foreign)
            else {
                break;
            };
            self.spent.remove(newest);
            self.general_spent -= 1;
            give_back -= 1;
        }
    }
}

fn use_of(priority: Priority) -> Use {
    match priority {
        Priority::Retry => Use::Retry,
        Priority::Revoke | Priority::Verify | Priority::Grant | Priority::Discovery => Use::General,
    }
}

fn floor(number: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "budgets are small positive numbers; a float cast saturates"
    )]
    let whole = number.floor() as usize;
    whole
}
