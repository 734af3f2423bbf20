//! What the head of an answer tells: codes, limits, expiry, clock.
//!
//! Owns tolerant reading of headers whose form nobody has written down. Never passes on upstream's text: only codes
//! of a closed grammar leave this module.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};

use super::limiter::Feedback;
use crate::domain::Timestamp;

/// Codes kept from one answer.
const MAX_CODES: usize = 4;

/// The head of an answer.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) codes: Vec<String>,
    pub(super) request_id: Option<String>,
    pub(super) is_html: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) key_expires_at: Option<Timestamp>,
    pub(super) date: Option<Timestamp>,
    pub(super) feedback: Feedback,
}

impl Head {
    /// Reads the headers of an answer that arrived at `now`.
    pub(super) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        now: Timestamp,
        retry_after_max: Duration,
    ) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = text(RETRY_AFTER.as_str())
            .and_then(|value| parse_retry_after(value, now))
            .map(|after| after.min(retry_after_max));
        let throttled = status == StatusCode::TOO_MANY_REQUESTS;
        Self {
            status,
            codes: headers
                .get_all("x-cloud-error-codes")
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(split_codes)
                .take(MAX_CODES)
                .collect(),
            request_id: ["x-cloud-request-id", "x-request-id"]
                .into_iter()
                .find_map(text)
                .and_then(sane_request_id),
            is_html: text(CONTENT_TYPE.as_str()).is_some_and(|kind| {
                kind.trim_start()
                    .to_ascii_lowercase()
                    .starts_with("text/html")
            }),
            retry_after,
            key_expires_at: text("x-elastic-api-key-expiration").and_then(parse_instant),
            date: text(DATE.as_str()).and_then(parse_instant),
            feedback: Feedback {
                limit: text("x-ratelimit-limit").and_then(parse_count),
                remaining: text("x-ratelimit-remaining").and_then(parse_count),
                interval: text("x-ratelimit-interval").and_then(parse_interval),
                throttled,
                retry_after: retry_after.filter(|_| throttled),
                spares_removals: false,
            },
        }
    }

    /// The code that stands for the answer: the provider's first, else `http_` and the status.
    pub(super) fn code(&self) -> String {
        self.codes
            .first()
            .cloned()
            .unwrap_or_else(|| format!("http_{}", self.status.as_u16()))
    }

    /// Every provider code, for evidence.
    pub(super) fn all_codes(&self) -> Option<String> {
        (!self.codes.is_empty()).then(|| self.codes.join(","))
    }

    /// Adds codes that the body named.
    pub(super) fn add_codes<'a>(&mut self, codes: impl Iterator<Item = &'a str>) {
        for code in codes.flat_map(split_codes) {
            if self.codes.len() < MAX_CODES && !self.codes.contains(&code) {
                self.codes.push(code);
            }
        }
    }
}

fn split_codes(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter_map(|code| {
        let fits = (1..=64).contains(&code.len())
            && code
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        fits.then(|| code.to_owned())
    })
}

fn sane_request_id(text: &str) -> Option<String> {
    let fits = (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'));
    fits.then(|| text.to_owned())
}

/// The number that a header begins with: `100` as well as `100, 100;w=60`.
fn parse_count(text: &str) -> Option<u32> {
    let digits = text.trim_start();
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// A window as `60`, `60s`, `1m`, `1 minute` or `PT1M`. Unclear texts are ignored.
fn parse_interval(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|length| !length.is_zero());
    }
    let lower = text.to_ascii_lowercase();
    let words = lower.strip_prefix("pt").unwrap_or(&lower);
    humantime::parse_duration(words)
        .ok()
        .filter(|length| !length.is_zero())
}

fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = parse_instant(text)?;
    Some(
        (until - now)
            .max(TimeDelta::zero())
            .to_std()
            .unwrap_or_default(),
    )
}

/// An instant as RFC 3339 or as an HTTP date.
pub(super) fn parse_instant(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_rfc2822(text))
        .ok()
        .map(|instant| instant.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_understood_in_every_likely_form_and_otherwise_ignored() {
        for text in [
            "60",
            "60s",
            "1m",
            "1 minute",
            "60.0",
            " 60 ",
            "PT1M",
            "60 seconds",
        ] {
            assert_eq!(
                parse_interval(text),
                Some(Duration::from_secs(60)),
                "{text}"
            );
        }
        for text in ["", "soon", "-1", "0", "NaN", "inf", "1 fortnight"] {
            assert_eq!(parse_interval(text), None, "{text}");
        }
    }

    #[test]
    fn counts_and_codes_outside_of_their_grammar_are_dropped() {
        assert_eq!(parse_count("100, 100;w=60"), Some(100));
        assert_eq!(parse_count("many"), None);
        assert_eq!(parse_count("99999999999"), None);
        let long = "x".repeat(65);
        let text = format!("root.unauthorized, <script>,user.not_found,,{long},Upper.Case");
        let codes: Vec<_> = split_codes(&text).collect();
        assert_eq!(codes, ["root.unauthorized", "user.not_found"]);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date_and_is_clamped() {
        let now = parse_instant("2026-01-01T00:00:00Z").expect("valid");
        let after = |text: &'static str| {
            let headers = HeaderMap::from_iter([(
                RETRY_AFTER,
                reqwest::header::HeaderValue::from_static(text),
            )]);
            Head::read(
                StatusCode::TOO_MANY_REQUESTS,
                &headers,
                now,
                Duration::from_secs(60),
            )
            .retry_after
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("86400"), Some(Duration::from_secs(60)));
        assert_eq!(
            after("Thu, 01 Jan 2026 00:00:09 GMT"),
            Some(Duration::from_secs(9))
        );
        assert_eq!(after("Thu, 01 Jan 2015 00:00:09 GMT"), Some(Duration::ZERO));
        assert_eq!(after("later"), None);
    }

    #[test]
    fn the_expiry_of_the_key_is_read_in_both_forms() {
        let expected = parse_instant("2026-03-01T10:00:00Z");
        assert!(expected.is_some());
        assert_eq!(parse_instant("Sun, 01 Mar 2026 10:00:00 GMT"), expected);
        assert_eq!(parse_instant("never"), None);
    }
}
