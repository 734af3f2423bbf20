//! What is shown while a command waits.
//!
//! Owns one line on standard error: a spinner on a terminal, plain lines (one for each change) elsewhere. Never
//! writes to standard output.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit::Failure;
use super::streams::Streams;
use super::text;

/// A line that says what is waited for.
#[derive(Debug)]
pub(super) struct Progress {
    spinner: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Nothing is shown before the first [`Self::say`].
    pub(super) fn new(streams: &Streams) -> Self {
        let spinner = streams.err_is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .expect("the template is constant and valid"),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            spinner,
            last: String::new(),
        }
    }

    /// Says what is waited for. The words are escaped here.
    pub(super) fn say(&mut self, streams: &mut Streams, words: &str) -> Result<(), Failure> {
        if self.last == words {
            return Ok(());
        }
        words.clone_into(&mut self.last);
        let line = text::safe(words);
        match &self.spinner {
            Some(bar) => bar.set_message(line.into_owned()),
            None => streams.note(&line)?,
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}
