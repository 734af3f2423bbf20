//! What each grammar takes and refuses.

use super::*;

#[test]
fn durations_are_read_and_written_as_people_do() {
    for (text, seconds, back) in [
        ("45m", 2700, "45m"),
        ("12h", 43_200, "12h"),
        ("7d", 604_800, "7d"),
        ("1h 30m", 5400, "1h 30m"),
        ("90s", 90, "1m 30s"),
    ] {
        let period = Period::parse(text).expect(text);
        assert_eq!(period.get(), Duration::from_secs(seconds));
        assert_eq!(period.to_string(), back);
    }
    assert_eq!(
        Period::new(Duration::from_millis(2500)).to_string(),
        "2s 500ms"
    );
    for text in ["", "5", "-5m", "5 parsecs", "1000y", "45m!"] {
        assert!(Period::parse(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn base_urls_carry_nothing_but_scheme_host_and_port() {
    for text in [
        "https://api.elastic-cloud.com",
        "https://api.elastic-cloud.com/",
        "http://127.0.0.1:9000",
        "http://localhost:1",
        "http://[::1]:1",
    ] {
        assert!(HttpUrl::parse(text).is_ok(), "{text}");
    }
    for text in [
        "",
        "api.elastic-cloud.com",
        "ftp://x",
        "http://api.elastic-cloud.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "https://user:pass@x",
        "https://x/api/v1",
        "https://x?a=b",
        "https://x#f",
    ] {
        assert!(HttpUrl::parse(text).is_err(), "{text} was taken");
    }
}

#[test]
fn cron_expressions_have_six_fields_and_happen() {
    for text in ["0 */5 * * * *", "*/30 * * * * *", "0 30 3 * * MON-FRI"] {
        assert!(Cron::parse(text).is_ok(), "{text}");
    }
    for text in [
        "*/5 * * * *",
        "@daily",
        "0 0 0 30 2 *",
        "61 * * * * *",
        "0 * * * * * 2030",
        "every day at noon or later",
        "",
    ] {
        assert!(Cron::parse(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn a_misspelt_level_does_not_silence_the_log() {
    for text in [
        "info",
        "warn,latchkey=debug",
        "latchkey::elastic=trace,info",
    ] {
        assert!(LogFilter::parse(text).is_ok(), "{text}");
    }
    for text in ["", "inof", "verbose", "latchkey=loud", "info,"] {
        assert!(LogFilter::parse(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn the_nearest_word_is_found_and_a_far_one_is_not() {
    let known = || ["max_duration", "max_total", "roles", "allow_invitations"].into_iter();
    assert_eq!(nearest("max-duration", known()), Some("max_duration"));
    assert_eq!(nearest("maxduration", known()), Some("max_duration"));
    assert_eq!(nearest("role", known()), Some("roles"));
    assert_eq!(nearest("zebra_crossing", known()), None);
}
