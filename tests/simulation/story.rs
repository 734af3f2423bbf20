//! The story of a run: what happened, when, to whom, in words.
//!
//! Owns the transcript and its fingerprint, by which two runs of one seed are compared. Never decides anything.

use std::fmt::Write as _;

use super::clock::Ms;

/// One line of a story.
#[derive(Debug)]
struct Line {
    at: Ms,
    /// The person concerned; none for what concerns everybody.
    who: Option<usize>,
    text: String,
}

#[derive(Debug)]
pub(crate) struct Story {
    lines: Vec<Line>,
    /// Whether lines are kept. Without, only their places count, which is much faster.
    told: bool,
    fingerprint: u64,
}

impl Story {
    pub(crate) fn new(told: bool) -> Self {
        Self {
            lines: Vec::new(),
            told,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Whether anybody listens.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// Adds a line. `place` names the place in the source that tells it.
    pub(crate) fn say(&mut self, at: Ms, who: Option<usize>, place: u32, text: Option<String>) {
        self.mix(at.unsigned_abs());
        self.mix(u64::from(place));
        self.mix(who.map_or(u64::MAX, |who| who as u64));
        if let Some(text) = text {
            for byte in text.bytes() {
                self.mix(u64::from(byte));
            }
            self.lines.push(Line { at, who, text });
        }
    }

    fn mix(&mut self, number: u64) {
        self.fingerprint = (self.fingerprint ^ number)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23);
    }

    /// Differs when two runs differed.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The lines that concern somebody, or all of them.
    pub(crate) fn tell(&self, about: Option<usize>) -> String {
        let mut text = String::new();
        for line in &self.lines {
            if about.is_none() || line.who.is_none() || line.who == about {
                let (minutes, seconds) = (line.at / 60_000, line.at % 60_000);
                writeln!(
                    text,
                    "{minutes:3}:{:02}.{:03}  {}",
                    seconds / 1000,
                    seconds % 1000,
                    line.text
                )
                .expect("text can be written to");
            }
        }
        text
    }
}
