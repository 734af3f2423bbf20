//! The rate limit: one fixed window per key or organization.

use chrono::{DateTime, TimeDelta, Utc};

use super::reply::{Failure, Reply};
use super::settings::{IntervalFormat, Presence, Settings};

/// A window and what was used of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    started_at: DateTime<Utc>,
    used: u64,
}

/// What the headers say after a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) remaining: u64,
    pub(crate) is_exceeded: bool,
    reset_after: TimeDelta,
}

impl Window {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self {
            started_at: now,
            used: 0,
        }
    }

    /// Takes one call out of the window.
    pub(crate) fn take(&mut self, settings: &Settings, now: DateTime<Utc>) -> Allowance {
        let length =
            TimeDelta::try_seconds(settings.rate_interval_seconds.max(1)).unwrap_or(TimeDelta::MAX);
        if now - self.started_at >= length || now < self.started_at {
            *self = Self::new(now);
        }
        let limit = if settings.rate_limit == 0 {
            u64::MAX
        } else {
            settings.rate_limit
        };
        let is_exceeded = self.used >= limit;
        if !is_exceeded {
            self.used += 1;
        }
        Allowance {
            remaining: limit - self.used,
            is_exceeded,
            reset_after: length - (now - self.started_at),
        }
    }
}

impl Allowance {
    pub(crate) fn refusal(self, settings: &Settings) -> Failure {
        let seconds = (self.reset_after.num_milliseconds().max(0) + 999) / 1_000;
        let mut failure = Failure::new(
            429,
            settings.rate_code.clone(),
            "Too many requests, try again later",
        );
        failure.retry_after =
            (settings.rate_retry_after == Presence::Present).then(|| seconds.to_string());
        failure
    }

    /// Puts the headers on an answer; an unlimited service sends none.
    pub(crate) fn stamp(self, settings: &Settings, reply: Reply) -> Reply {
        if settings.rate_headers == Presence::Absent || settings.rate_limit == 0 {
            return reply;
        }
        let interval = match settings.rate_interval_format {
            IntervalFormat::Duration => format!("{}s", settings.rate_interval_seconds),
            IntervalFormat::Seconds => settings.rate_interval_seconds.to_string(),
        };
        reply
            .with("x-ratelimit-interval", interval)
            .with("x-ratelimit-limit", settings.rate_limit.to_string())
            .with("x-ratelimit-remaining", self.remaining.to_string())
    }
}
