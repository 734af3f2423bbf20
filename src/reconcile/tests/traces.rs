//! What the engine sends and writes in every scenario, call by call, kept beside the scenarios.
//!
//! A scenario asserts what it is about; its trace holds everything else as it is. A change that moves a read, a pause or
//! a word of the audit shows where it does, to whoever reviews it. Renew with `INSTA_UPDATE=always`, and read the
//! difference: it is what the change does.
//!
//! Owns the traces and their files. Never says what is right.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Mutex;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::world::Call;
use crate::domain::Timestamp;
use crate::domain::assignment::Assignment;
use crate::domain::event::AuditEvent;
use crate::domain::member::MemberRecord;

/// Longer ones are kept as a digest: nobody would read them.
const READABLE: usize = 200;

/// Of scenarios that are played again and again, each time killed elsewhere, the first ones are kept.
const OF_A_TEST: u32 = 3;

thread_local! {
    /// Traces that the test of this thread has ended.
    static ENDED: Cell<u32> = const { Cell::new(0) };
}

/// What happened, so far.
#[derive(Debug)]
pub(super) struct Trace {
    /// Nothing once it was told.
    lines: Mutex<Option<Vec<(Timestamp, String)>>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            lines: Mutex::new(Some(Vec::new())),
        }
    }
}

impl Trace {
    pub(super) fn note(&self, now: Timestamp, line: String) {
        let mut lines = self.lines.lock().expect("nobody panics while noting");
        if let Some(lines) = lines.as_mut() {
            lines.push((now, line));
        }
    }

    /// A record that was written, with its audit. What is not spelled out is in the digest.
    pub(super) fn committed(&self, now: Timestamp, record: &MemberRecord, audit: &[AuditEvent]) {
        if !self.is_on() {
            return;
        }
        let due = record.due.map_or_else(
            || "nothing due".to_owned(),
            |due| format!("{:?} {} due {}", due.kind, due.weight, clock(due.at)),
        );
        let json = serde_json::to_string(record).expect("records are stored as JSON");
        self.note(
            now,
            format!(
                "{} is {}: {due}",
                record.key.subject,
                &digest(json.as_bytes())[..8]
            ),
        );
        self.wrote(now, audit);
    }

    pub(super) fn wrote(&self, now: Timestamp, audit: &[AuditEvent]) {
        if !self.is_on() {
            return;
        }
        for event in audit {
            let mut json = serde_json::to_value(&event.kind).expect("events are stored as JSON");
            drop_what_says_nothing(&mut json);
            self.note(now, format!("  {json}"));
        }
    }

    /// Everything in order, calls among it: what was written because of a call comes after it.
    fn text(&self, calls: &[(Timestamp, Call)]) -> Option<String> {
        let mut lines = self.lines.lock().expect("nobody panics while noting");
        let noted = lines.take()?;
        let sent = calls.iter().map(|(at, call)| (*at, 0, words(call)));
        let mut all: Vec<_> = sent
            .chain(noted.into_iter().map(|(at, line)| (at, 1, line)))
            .collect();
        all.sort_by_key(|(at, kind, _)| (*at, *kind));
        let mut text = String::new();
        for (at, _, line) in &all {
            writeln!(text, "{} {line}", clock(*at)).expect("a string takes everything");
        }
        (!all.is_empty()).then_some(text)
    }

    /// The whole trace in one line, for scenarios that have many and keep them by themselves.
    pub(super) fn summary(&self, calls: &[(Timestamp, Call)]) -> Option<String> {
        self.text(calls).map(|text| brief(&text))
    }

    /// Nothing more is noted, nothing is kept.
    pub(super) fn stop(&self) {
        *self.lines.lock().expect("nobody panics while noting") = None;
    }

    fn is_on(&self) -> bool {
        let lines = self.lines.lock().expect("nobody panics while noting");
        lines.is_some()
    }

    /// Compares the trace with the one that is kept.
    pub(super) fn end(&self, calls: &[(Timestamp, Call)]) {
        let Some(text) = self.text(calls) else { return };
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default().to_owned();
        let Some((_, test)) = test.split_once("::tests::") else {
            panic!(
                "a trace is named after the thread of its test: run with more than one test thread"
            );
        };
        let number = ENDED.replace(ENDED.get() + 1);
        if number >= OF_A_TEST {
            return;
        }
        let mut name = test.replace("::", "-");
        if number > 0 {
            write!(name, "-{}", number + 1).expect("a string takes everything");
        }
        let kept = if text.lines().count() > READABLE {
            brief(&text)
        } else {
            text
        };
        keep(&name, &kept);
    }
}

/// Compares a text with the one that is kept under this name.
pub(super) fn keep(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => "traces", prepend_module_to_snapshot => false, omit_expression => true
    }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Of evidence that the world does not give, and of lists without anything, nothing is to be read.
fn drop_what_says_nothing(event: &mut Value) {
    if let Value::Object(fields) = event {
        fields.retain(|name, value| {
            let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            !(is_empty || (name == "evidence" && value["call"] == ""))
        });
    }
}

fn words(call: &Call) -> String {
    let list = |set: &[Assignment]| {
        let all: Vec<String> = set.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    match call {
        Call::Read => "read".to_owned(),
        Call::Add(set) => format!("add {}", list(set)),
        Call::Remove(set) => format!("remove {}", list(set)),
        Call::Invite => "invite".to_owned(),
        Call::CancelInvitation => "cancel the invitation".to_owned(),
        Call::Invitations => "read invitations".to_owned(),
    }
}

fn brief(text: &str) -> String {
    format!(
        "{} lines, {}",
        text.lines().count(),
        &digest(text.as_bytes())[..16]
    )
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn clock(at: Timestamp) -> String {
    at.format("%dT%H:%M:%S%.3f").to_string()
}

#[test]
fn every_trace_is_of_a_scenario_that_there_is() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reconcile/tests");
    let mut found = 0;
    for file in std::fs::read_dir(here.join("traces")).expect("a folder") {
        let name = file.expect("readable").file_name();
        let name = name.to_str().expect("plain letters");
        let Some((module, scenario)) = name
            .strip_suffix(".snap")
            .and_then(|name| name.split_once('-'))
        else {
            panic!("{name} is no trace");
        };
        let scenario = scenario.split('-').next().unwrap_or_default();
        let scenario = match (module, scenario) {
            ("random", "calm" | "wild") => "history",
            (_, scenario) => scenario,
        };
        let source = std::fs::read_to_string(here.join(format!("{module}.rs"))).expect("a module");
        assert!(
            source.contains(&format!("fn {scenario}(")),
            "{name}: no such scenario"
        );
        found += 1;
    }
    assert!(found > 100, "{found}");
}
