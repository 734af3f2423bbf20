//! Durations and instants as people write and read them.
//!
//! Owns the grammar of `--for`, `--by`, `--starts` and `--until`, and how instants are shown. Never reads a clock:
//! the current time and the zone are arguments. The zone of this machine is found in one place, [`Zone::local`].

use std::time::Duration;

use chrono::{
    DateTime, Datelike as _, FixedOffset, NaiveDateTime, NaiveTime, Offset as _, TimeDelta,
    TimeZone as _,
};

use crate::domain::Timestamp;
use crate::domain::ttl::Ttl;

/// A time zone for showing and reading local times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// A zone of the IANA database, which knows its abbreviations.
    Named(chrono_tz::Tz),
    /// Whatever the operating system says, shown as an offset.
    System,
}

impl Zone {
    /// The zone of this machine: `TZ` when it names one, else the system's.
    #[must_use]
    pub fn local() -> Self {
        std::env::var("TZ")
            .ok()
            .filter(|name| !name.is_empty())
            .or_else(|| iana_time_zone::get_timezone().ok())
            .and_then(|name| name.trim_start_matches(':').parse().ok())
            .map_or(Self::System, Self::Named)
    }

    fn local_time(self, at: Timestamp) -> DateTime<FixedOffset> {
        match self {
            Self::Named(zone) => {
                let local = at.with_timezone(&zone);
                local.with_timezone(&local.offset().fix())
            }
            Self::System => at.with_timezone(&chrono::Local).fixed_offset(),
        }
    }

    fn abbreviation(self, at: Timestamp) -> String {
        let name = match self {
            Self::Named(zone) => at.with_timezone(&zone).format("%Z").to_string(),
            Self::System => at.with_timezone(&chrono::Local).format("%:z").to_string(),
        };
        match name.as_str() {
            "+00:00" => "UTC".to_owned(),
            offset if offset.starts_with(['+', '-']) => format!("UTC{offset}"),
            _ => name,
        }
    }

    fn instant_of(self, local: NaiveDateTime) -> Result<Timestamp, String> {
        let found = match self {
            Self::Named(zone) => zone.from_local_datetime(&local).map(|at| at.to_utc()),
            Self::System => chrono::Local
                .from_local_datetime(&local)
                .map(|at| at.to_utc()),
        };
        let shown = local.format("%Y-%m-%d %H:%M");
        match found {
            chrono::LocalResult::Single(at) => Ok(at),
            chrono::LocalResult::Ambiguous(first, _) => Err(format!(
                "{shown} comes twice that day because clocks go back; write it with its offset, such as {}",
                self.local_time(first).format("%Y-%m-%dT%H:%M:%S%:z")
            )),
            chrono::LocalResult::None => Err(format!(
                "{shown} does not exist that day because clocks go forward; choose another time"
            )),
        }
    }
}

const UNITS: [&str; 18] = [
    "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes", "h", "hr",
    "hrs", "hour", "hours", "d", "day", "days",
];

/// Reads a length such as `45m`, `1h30m` or `90s`. Months, years and fractions of a second are refused: `1M` next to
/// `1m` would be a trap.
///
/// # Errors
/// One sentence that says what is wrong and shows what is right.
pub fn parse_duration(written: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write it like 45m, 1h30m or 90s";
    let text = written.trim();
    if text.is_empty() {
        return Err(format!("the duration is empty; {EXAMPLES}"));
    }
    if text.starts_with('-') {
        return Err(format!("a duration cannot be negative; {EXAMPLES}"));
    }
    if text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{text} has no unit; {EXAMPLES}"));
    }
    if let Some(unit) = text
        .split(|c: char| c.is_ascii_digit() || c.is_whitespace())
        .find(|word| !word.is_empty() && !UNITS.contains(word))
    {
        return Err(format!(
            "{:?} is not a unit here (s, m, h and d are); {EXAMPLES}",
            super::text::safe(unit)
        ));
    }
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("not a duration ({error}); {EXAMPLES}"))?;
    if length.is_zero() {
        return Err(format!("a duration of zero does nothing; {EXAMPLES}"));
    }
    Ok(length)
}

/// Reads the length of a grant.
///
/// # Errors
/// As [`parse_duration`], and for more than 366 days.
pub fn parse_ttl(written: &str) -> Result<Ttl, String> {
    let length = parse_duration(written)?;
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    Ttl::from_seconds(seconds).map_err(|error| error.to_string())
}

/// Reads an instant: `14:00` (the next time local clocks show it, at most 12 hours away unless it is still today),
/// `+10m`, `2026-11-21 14:00` (local) or RFC 3339.
///
/// # Errors
/// One sentence that says what is wrong and shows what is right.
pub fn parse_instant(written: &str, now: Timestamp, zone: Zone) -> Result<Timestamp, String> {
    let text = written.trim();
    if let Some(length) = text.strip_prefix('+') {
        let delta = TimeDelta::from_std(parse_duration(length)?)
            .map_err(|_| "that is too far away".to_owned())?;
        return now
            .checked_add_signed(delta)
            .ok_or_else(|| "that is too far away".to_owned());
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    for format in [
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S",
    ] {
        if let Ok(local) = NaiveDateTime::parse_from_str(text, format) {
            return zone.instant_of(local);
        }
    }
    for format in ["%H:%M", "%H:%M:%S"] {
        if let Ok(clock) = NaiveTime::parse_from_str(text, format) {
            return next_time(clock, now, zone);
        }
    }
    Err(format!(
        "{:?} is not a time; write 14:00, +10m, \"2026-11-21 14:00\" or 2026-11-21T14:00:00Z",
        super::text::safe(text)
    ))
}

fn next_time(clock: NaiveTime, now: Timestamp, zone: Zone) -> Result<Timestamp, String> {
    let today = zone.local_time(now).date_naive();
    let at = zone.instant_of(today.and_time(clock))?;
    if at >= now {
        return Ok(at);
    }
    let tomorrow = today
        .succ_opt()
        .ok_or_else(|| "that is too far away".to_owned())?;
    let at = zone.instant_of(tomorrow.and_time(clock))?;
    if at - now <= TimeDelta::hours(12) {
        return Ok(at);
    }
    Err(format!(
        "{} has passed today; for tomorrow write \"{} {}\"",
        clock.format("%H:%M"),
        tomorrow.format("%Y-%m-%d"),
        clock.format("%H:%M")
    ))
}

/// An instant for people: `14:05 CET`, with the date when it is not today.
#[must_use]
pub fn clock_time(at: Timestamp, now: Timestamp, zone: Zone) -> String {
    let (local, today) = (zone.local_time(at), zone.local_time(now));
    let name = zone.abbreviation(at);
    if local.date_naive() == today.date_naive() {
        format!("{} {name}", local.format("%H:%M"))
    } else if local.year() == today.year() {
        format!("{} {name}", local.format("%a %-d %b %H:%M"))
    } else {
        format!("{} {name}", local.format("%Y-%m-%d %H:%M"))
    }
}

/// A local time with date, milliseconds and zone.
#[must_use]
pub fn exact_time(at: Timestamp, zone: Zone) -> String {
    format!(
        "{} {}",
        zone.local_time(at).format("%Y-%m-%d %H:%M:%S%.3f"),
        zone.abbreviation(at)
    )
}

/// An instant that has passed: like [`parse_instant`], where a bare clock time means the last one and not the next.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_past(written: &str, now: Timestamp, zone: Zone) -> Result<Timestamp, String> {
    let text = written.trim();
    if chrono::NaiveTime::parse_from_str(text, "%H:%M").is_ok() {
        let today = zone.local_time(now).format("%Y-%m-%d");
        let at = parse_instant(&format!("{today} {text}"), now, zone)?;
        return Ok(if at > now {
            at - TimeDelta::days(1)
        } else {
            at
        });
    }
    parse_instant(text, now, zone)
}

/// How far away an instant is: `in 44 minutes`, `3 days ago`, `now`. Never rounds up what is left.
#[must_use]
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let away = (at - now).num_seconds();
    let words = length(away.unsigned_abs());
    match away {
        0 => "now".to_owned(),
        1.. => format!("in {words}"),
        _ => format!("{words} ago"),
    }
}

/// A length in words with at most two units: `1 hour 5 minutes`.
#[must_use]
pub fn length(seconds: u64) -> String {
    let unit = |number: u64, name: &str| match number {
        1 => format!("1 {name}"),
        many => format!("{many} {name}s"),
    };
    let (large, small) = match seconds {
        0..60 => return unit(seconds, "second"),
        60..600 => ((seconds / 60, "minute"), (seconds % 60, "second")),
        600..3600 => return unit(seconds / 60, "minute"),
        3600..86_400 => ((seconds / 3600, "hour"), (seconds / 60 % 60, "minute")),
        _ => ((seconds / 86_400, "day"), (seconds / 3600 % 24, "hour")),
    };
    match small.0 {
        0 => unit(large.0, large.1),
        _ => format!("{} {}", unit(large.0, large.1), unit(small.0, small.1)),
    }
}

/// A short length for tables: `44m`, `1h5m`, `2d3h`.
#[must_use]
pub fn short_length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 if (seconds / 60).is_multiple_of(60) => format!("{}h", seconds / 3600),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ if (seconds / 3600).is_multiple_of(24) => format!("{}d", seconds / 86_400),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `until 14:05 CET, in 44 minutes`: both ways of saying when.
#[must_use]
pub fn until(at: Timestamp, now: Timestamp, zone: Zone) -> String {
    format!("until {}, {}", clock_time(at, now, zone), relative(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: Zone = Zone::Named(chrono_tz::Europe::Berlin);

    fn at(text: &str) -> Timestamp {
        text.parse().expect("RFC 3339")
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (written, seconds) in [
            ("45m", 2_700),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90s", 90),
            ("2 hours", 7_200),
            ("1d", 86_400),
        ] {
            assert_eq!(
                parse_duration(written),
                Ok(Duration::from_secs(seconds)),
                "{written}"
            );
        }
    }

    #[test]
    fn bad_durations_say_what_would_be_right() {
        for (written, hint) in [
            ("45", "no unit"),
            ("", "empty"),
            ("-5m", "negative"),
            ("1M", "not a unit"),
            ("1y", "not a unit"),
            ("500ms", "not a unit"),
            ("1.5h", "not a unit"),
            ("soon", "not a unit"),
            ("m", "not a duration"),
            ("0m", "zero"),
            ("99999999999999999999h", "not a duration"),
        ] {
            let error = parse_duration(written).expect_err(written);
            assert!(
                error.contains(hint) && error.contains("45m"),
                "{written}: {error}"
            );
        }
        assert!(parse_ttl("367d").is_err());
        assert_eq!(parse_ttl("45m").map(Ttl::seconds), Ok(2_700));
    }

    #[test]
    fn instants_are_read_in_the_local_zone() {
        let now = at("2026-11-21T12:00:00Z"); // 13:00 in Berlin
        for (written, expected) in [
            ("14:00", "2026-11-21T13:00:00Z"),
            ("00:30", "2026-11-21T23:30:00Z"),
            ("+10m", "2026-11-21T12:10:00Z"),
            ("2026-11-22 09:00", "2026-11-22T08:00:00Z"),
            ("2026-11-22T09:00:30", "2026-11-22T08:00:30Z"),
            ("2026-11-22T09:00:00Z", "2026-11-22T09:00:00Z"),
            ("2026-11-22T09:00:00+02:00", "2026-11-22T07:00:00Z"),
        ] {
            assert_eq!(
                parse_instant(written, now, BERLIN),
                Ok(at(expected)),
                "{written}"
            );
        }
    }

    #[test]
    fn instants_that_cannot_be_meant_are_refused() {
        let now = at("2026-11-21T12:00:00Z");
        for (written, hint) in [
            ("12:30", "has passed today"),
            ("25:00", "not a time"),
            ("2026-11-22", "not a time"),
            ("+5", "no unit"),
            ("tomorrow", "not a time"),
            ("2026-10-25 02:30", "twice"),
            ("2026-03-29 02:30", "does not exist"),
        ] {
            let error = parse_instant(written, now, BERLIN).expect_err(written);
            assert!(error.contains(hint), "{written}: {error}");
        }
    }

    #[test]
    fn instants_are_shown_with_zone_and_distance() {
        let now = at("2026-11-21T12:20:30Z");
        assert_eq!(
            until(at("2026-11-21T13:05:00Z"), now, BERLIN),
            "until 14:05 CET, in 44 minutes"
        );
        assert_eq!(
            clock_time(at("2026-11-22T13:05:00Z"), now, BERLIN),
            "Sun 22 Nov 14:05 CET"
        );
        assert_eq!(
            clock_time(at("2027-06-22T13:05:00Z"), now, BERLIN),
            "2027-06-22 15:05 CEST"
        );
        assert_eq!(
            clock_time(at("2026-11-21T13:05:00Z"), now, Zone::Named(chrono_tz::UTC)),
            "13:05 UTC"
        );
    }

    #[test]
    fn distances_never_promise_more_than_is_left() {
        let now = at("2026-11-21T12:00:00Z");
        for (seconds, words) in [
            (0, "now"),
            (1, "in 1 second"),
            (59, "in 59 seconds"),
            (60, "in 1 minute"),
            (150, "in 2 minutes 30 seconds"),
            (2_699, "in 44 minutes"),
            (3_600, "in 1 hour"),
            (5_459, "in 1 hour 30 minutes"),
            (100_000, "in 1 day 3 hours"),
            (-180, "3 minutes ago"),
        ] {
            assert_eq!(relative(now + TimeDelta::seconds(seconds), now), words);
        }
        assert_eq!(
            [59, 2_700, 3_600, 5_400, 183_600, 86_400].map(short_length),
            ["59s", "45m", "1h", "1h30m", "2d3h", "1d"]
        );
    }
}
