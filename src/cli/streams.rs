//! Where a command writes, and the circumstances it runs in.
//!
//! Owns every byte that the command line prints: escaping of failures, colour, documents in JSON and YAML. Nothing
//! else in this module tree writes to a terminal, so tests can capture everything.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::text;
use super::time::Zone;
use crate::domain::Timestamp;
use crate::ports::clock::Clock;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: local times, colour on a terminal.
    #[default]
    Table,
    /// One JSON document with stable field names and RFC 3339 times in UTC.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Emphasis on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// What is over.
    Dim,
    /// Fine.
    Green,
    /// On its way, or worth a look.
    Yellow,
    /// Wrong.
    Red,
}

impl Paint {
    fn codes(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Red => Some("31"),
        }
    }
}

/// Output, error output, time and interruption of one run.
pub struct Streams {
    /// Standard output: answers.
    pub out: Box<dyn Write + Send>,
    /// Standard error: progress, warnings, failures.
    pub err: Box<dyn Write + Send>,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
    /// Whether `err` is a terminal.
    pub err_is_terminal: bool,
    /// Whether colour is wanted at all (`NO_COLOR` is not set).
    pub allow_colour: bool,
    /// Columns of the terminal, when known.
    pub width: Option<u16>,
    /// The current time, and randomness for request ids.
    pub clock: Arc<dyn Clock>,
    /// Zone for local times.
    pub zone: Zone,
    /// Cancelled by Ctrl-C.
    pub interrupt: CancellationToken,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("out_is_terminal", &self.out_is_terminal)
            .field("err_is_terminal", &self.err_is_terminal)
            .field("width", &self.width)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// The streams of this process.
    #[must_use]
    pub fn of_process(clock: Arc<dyn Clock>, interrupt: CancellationToken) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            out_is_terminal,
            err_is_terminal: io::stderr().is_terminal(),
            allow_colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            width: terminal_size::terminal_size().map(|(width, _)| width.0),
            clock,
            zone: Zone::local(),
            interrupt,
        }
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A request id: a UUID of version 7 from the given clock.
    #[must_use]
    pub fn new_request_id(&self) -> String {
        crate::domain::ids::GrantId::new(self.clock.now(), self.clock.entropy()).to_string()
    }

    /// The text with emphasis, when standard output takes it.
    #[must_use]
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        paint_if(self.out_is_terminal && self.allow_colour, paint, text)
    }

    /// Prints one line to standard output. The caller has escaped what others wrote.
    ///
    /// # Errors
    /// When it cannot be written; a closed pipe is [`Exit::Done`].
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Prints one line to standard error. The caller has escaped what others wrote.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.err, "{text}")?;
        Ok(())
    }

    /// Prints a warning of the server to standard error, escaped.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn warning(&mut self, words: &str) -> Result<(), Failure> {
        let label = paint_if(
            self.err_is_terminal && self.allow_colour,
            Paint::Yellow,
            "warning:",
        );
        writeln!(self.err, "{label} {}", text::safe(words))?;
        Ok(())
    }

    /// Prints a failure: what, then what to do. Nothing can be done when that fails, too.
    pub fn failure(&mut self, failure: &Failure) -> Exit {
        let colour = self.err_is_terminal && self.allow_colour;
        if !failure.what.is_empty() {
            let label = paint_if(colour, Paint::Red, "error:");
            writeln!(self.err, "{label} {}", text::safe(&failure.what)).ok();
        }
        if !failure.advice.is_empty() {
            let label = paint_if(colour, Paint::Bold, "hint:");
            writeln!(self.err, "{label} {}", text::safe(&failure.advice)).ok();
        }
        self.out.flush().ok();
        failure.exit
    }

    /// Prints a value as one document. With [`Format::Table`] it is JSON, too.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn document<T: Serialize>(&mut self, format: Format, value: &T) -> Result<(), Failure> {
        let document = match format {
            Format::Table | Format::Json => json(value)?,
            Format::Yaml => yaml(value)?,
        };
        self.line(document.trim_end())
    }

    /// Prints one value of a stream: a line of JSON, or a YAML document of its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn stream_item<T: Serialize>(&mut self, format: Format, value: &T) -> Result<(), Failure> {
        match format {
            Format::Table | Format::Json => {
                let line = serde_json::to_string(value).map_err(not_serialisable)?;
                self.line(&text::safe_json(&line))?;
            }
            Format::Yaml => {
                let document = yaml(value)?;
                self.line("---")?;
                self.line(document.trim_end())?;
            }
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Colours a text or leaves it alone.
fn paint_if(colour: bool, paint: Paint, text: &str) -> String {
    match paint.codes() {
        Some(codes) if colour => format!("\u{1b}[{codes}m{text}\u{1b}[0m"),
        _ => text.to_owned(),
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let document = serde_json::to_string_pretty(value).map_err(not_serialisable)?;
    Ok(text::safe_json(&document))
}

fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let document = serde_yaml::to_string(value)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write YAML: {error}"), ""))?;
    if document.chars().any(|c| c != '\n' && text::is_unsafe(c)) {
        // JSON is YAML, and can escape what the YAML writer leaves raw.
        return json(value);
    }
    Ok(document)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a plain function in map_err"
)]
fn not_serialisable(error: serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write JSON: {error}"), "")
}
