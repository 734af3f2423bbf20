//! Small texts: durations, percent-decoding, seeded ids and the shape of an Elastic Cloud key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// RFC 3339 with milliseconds, in UTC.
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads `24h`, `7d`, `30m`, `90s`, `2w`, `3mo` or `1y`; `None` for anything else.
pub(crate) fn duration(text: &str) -> Option<TimeDelta> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().ok()?;
    let unit_seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "mo" => 30 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    TimeDelta::try_seconds(number.checked_mul(unit_seconds)?)
}

/// Percent-decodes one path segment.
pub(crate) fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}

/// Decodes a segment and splits it at commas, which clients may have encoded.
pub(crate) fn csv(segment: &str) -> Vec<String> {
    decode(segment)
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A random text of letters and digits.
pub(crate) fn token(rng: &mut ChaCha8Rng, length: usize) -> String {
    pick(rng, ALPHANUMERIC, length)
}

/// A random text of lower-case hexadecimal digits.
pub(crate) fn hex(rng: &mut ChaCha8Rng, length: usize) -> String {
    pick(rng, b"0123456789abcdef", length)
}

/// A random text of digits that does not start with a zero.
pub(crate) fn digits(rng: &mut ChaCha8Rng, length: usize) -> String {
    let mut text = pick(rng, b"123456789", 1);
    text.push_str(&pick(rng, b"0123456789", length.saturating_sub(1)));
    text
}

fn pick(rng: &mut ChaCha8Rng, from: &[u8], length: usize) -> String {
    (0..length)
        .map(|_| char::from(from[below(rng, from.len())]))
        .collect()
}

/// A number in `0..limit`; 0 for a limit of 0.
pub(crate) fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
    usize::try_from(rng.next_u64() % limit).unwrap_or(0)
}

/// Whether an event of this probability happens.
pub(crate) fn chance(rng: &mut ChaCha8Rng, probability: f64) -> bool {
    let drawn = f64::from(u32::try_from(rng.next_u64() >> 32).unwrap_or(u32::MAX));
    drawn / (f64::from(u32::MAX) + 1.0) < probability
}

/// Fisher-Yates.
pub(crate) fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

/// The value of a Cloud API key: `essu_` and the checked, encoded `id:secret`.
pub(crate) fn cloud_key(id: &str, secret: &str) -> String {
    let inner = STANDARD.encode(format!("{id}:{secret}"));
    let mut bytes = inner.clone().into_bytes();
    bytes.extend_from_slice(&u64::from(crc32(inner.as_bytes())).to_be_bytes());
    format!("essu_{}", STANDARD.encode(bytes))
}

/// The value of an Elasticsearch API key.
pub(crate) fn elasticsearch_key(id: &str, secret: &str) -> String {
    STANDARD.encode(format!("{id}:{secret}"))
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0xEDB8_8320;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("72h"), TimeDelta::try_hours(72));
        assert_eq!(duration("3mo"), TimeDelta::try_days(90));
        for wrong in ["", "3", "d", "-1d", "1 d", "99999999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_checksum_is_the_common_crc32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn an_encoded_comma_separates() {
        assert_eq!(csv("a%2Cb,c"), ["a", "b", "c"]);
    }
}
