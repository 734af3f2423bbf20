//! Logs: one event a line, on standard error, as text or JSON.
//!
//! Owns the format and that no event can forge another one: control characters are written as escapes. Never
//! writes to standard output, which belongs to the answers of commands.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people: time, level, fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("reading the log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Something else installed a subscriber before.
    #[error("installing the log subscriber")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Dependencies that report their own bookkeeping at INFO, where this project's events say that access changed. The
/// scheduler of sweeps logs each job it makes, starts and finishes; the sweeps themselves log what they did. The SDK of
/// Azure logs each call that fails; whoever called says what that means.
const CHATTY: &[&str] = &[
    "tokio_cron_scheduler",
    "azure_identity",
    "typespec_client_core",
];

/// What a database server says unasked, at a level of its own choice. It was shown our password and may repeat it. In two
/// pieces, since nothing here is called of that crate.
const UNASKED: &str = concat!("sqlx", "::postgres::notice");

/// The filter with the dependencies above at WARN. One that the filter names keeps what it says, and a filter that
/// lets through no INFO of others stays as it is: this must never make a log louder.
fn quieted(filter: &str) -> String {
    let mut levels = filter
        .rsplit(',')
        .filter(|part| !part.is_empty())
        .filter_map(|part| part.parse::<LevelFilter>().ok());
    // The last one counts.
    let level = levels.next().unwrap_or(LevelFilter::OFF);
    let mut quieted = filter.to_owned();
    if level >= LevelFilter::INFO {
        for name in CHATTY.iter().filter(|name| !filter.contains(**name)) {
            quieted.push_str(&format!(",{name}=warn"));
        }
    }
    if !filter.contains(UNASKED) {
        quieted.push_str(&format!(",{UNASKED}=off"));
    }
    quieted
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// [`LoggingError`] when the filter does not parse or logging was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(quieted(filter)).map_err(LoggingError::Filter)?;
    subscriber(format, filter, io::stderr)
        .try_init()
        .map_err(LoggingError::Install)
}

/// The subscriber that [`init`] installs, with a writer of choice.
pub fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let writer = OneLine(writer);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(false)
                    .with_writer(writer),
            ),
        ),
        LogFormat::Json => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(true)
                    .with_writer(writer),
            ),
        ),
    }
}

/// Keeps every event on one line and free of control characters.
#[derive(Debug, Clone)]
struct OneLine<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }

    fn make_writer_for(&'w self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        OneLineWriter(self.0.make_writer_for(meta))
    }
}

/// Receives one whole event per call, as the formatter hands it over.
#[derive(Debug)]
struct OneLineWriter<W>(W);

impl<W: Write> Write for OneLineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (body, end) = match text.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (text.as_ref(), ""),
        };
        if body.chars().any(is_unsafe) {
            self.0.write_all((escape(body) + end).as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a character could forge a line, move a cursor or reorder what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes unsafe characters the way JSON does, so that both formats stay what they are.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let filter = EnvFilter::try_new(filter).expect("a valid filter");
        let subscriber = subscriber(format, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }

    const HOSTILE: &str = "a\nERROR forged\r\u{1b}[31m\u{9b}2J\u{202e}\u{7f}\0end";

    #[test]
    fn an_event_cannot_forge_another_line_or_move_the_cursor() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, "info", || {
                tracing::info!(grant.reason = HOSTILE, "Said {HOSTILE}");
                tracing::info!(grant.reason = %HOSTILE, "Said it again");
            });
            assert_eq!(text.matches('\n').count(), 2, "{text:?}");
            assert!(text.chars().all(|c| c == '\n' || !is_unsafe(c)), "{text:?}");
            assert!(text.contains("end"), "{text:?}");
        }
    }

    #[test]
    fn json_stays_json_and_keeps_the_hostile_text() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(grant.reason = HOSTILE, "Said");
        });
        let event: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(event["grant.reason"], HOSTILE);
        assert_eq!(event["message"], "Said");
    }

    #[test]
    fn a_dependency_is_quiet_unless_the_filter_names_it() {
        let said = |filter: &str| {
            logged(LogFormat::Text, &quieted(filter), || {
                tracing::info!(target: "tokio_cron_scheduler::job", "Bookkeeping");
                tracing::warn!(target: "tokio_cron_scheduler::job", "Trouble");
                tracing::info!("Ours");
            })
        };
        for filter in ["info", "debug", "off,INFO,", "info,latchkey=debug"] {
            let text = said(filter);
            assert!(
                !text.contains("Bookkeeping") && text.contains("Trouble") && text.contains("Ours"),
                "{filter}: {text}"
            );
        }
        let text = said("warn,tokio_cron_scheduler=info");
        assert!(
            text.contains("Bookkeeping") && !text.contains("Ours"),
            "{text}"
        );
        let text = said("info,tokio_cron_scheduler=off");
        assert!(!text.contains("Trouble") && text.contains("Ours"), "{text}");
        for filter in ["off", "error", "latchkey=info"] {
            assert!(!said(filter).contains("Trouble"), "{filter}");
        }
    }

    #[test]
    fn what_a_database_says_unasked_is_heard_only_where_the_filter_names_it() {
        let said = |filter: &str| {
            logged(LogFormat::Text, &quieted(filter), || {
                tracing::warn!(target: UNASKED, "Unasked");
                tracing::warn!("Ours");
            })
        };
        for filter in ["warn", "info", "trace", "info,sqlx=trace"] {
            let text = said(filter);
            assert!(
                text.contains("Ours") && !text.contains("Unasked"),
                "{filter}: {text}"
            );
        }
        assert!(said(&format!("info,{UNASKED}=warn")).contains("Unasked"));
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        let text = logged(LogFormat::Text, "warn", || {
            tracing::info!("Quiet");
            tracing::warn!("Loud");
        });
        assert!(text.contains("Loud") && !text.contains("Quiet"), "{text}");
    }
}
