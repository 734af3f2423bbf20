//! A receipt for people to read, and to show to others.
//!
//! Owns its words and its layout. Pure: time and zone are arguments. Never says more than the receipt does.

use super::proof_view::{Calls, Line, Receipt, Sighting};
use super::time::{self, Zone};
use super::view::{Assignment, Names};
use crate::domain::Timestamp;

/// What the assurance of a receipt means, in a sentence.
pub(super) fn assurance(receipt: &Receipt) -> &'static str {
    match receipt.assurance.as_str() {
        "reopened" => {
            "Not sure: access came back after it was seen gone, and is being removed again."
        }
        "given_up" => {
            "Not sure: access was given up without being removed. It may still be there; see who decided so below."
        }
        "seen_gone_once" if receipt.is_open => {
            "Seen gone once: a complete read of Elastic Cloud showed none of it. A second look is still owed."
        }
        "seen_gone_once" => "Seen gone once: a complete read of Elastic Cloud showed none of it.",
        "seen_gone_twice" => {
            "Seen gone twice: two complete reads of Elastic Cloud showed none of it, the second after everything that was sent could have landed."
        }
        "nothing_to_remove" => "Nothing had to be removed at the end of this grant.",
        _ => "How sure this is, this version of the command line does not know.",
    }
}

/// What became of an assignment, in a few words.
pub(super) fn fate(line: &Line) -> &'static str {
    match line.fate.as_str() {
        "not_given" => "nothing was given",
        "standing" => "covered by standing access: nothing added, nothing removed",
        "removed" => "removed",
        "taken_away" => "gone: somebody else took it away",
        "member_left" => "gone with the membership",
        "kept" => "not removed yet: another grant still holds it",
        "forgotten" => "given up: nobody knows that it is gone",
        "adopted" => "standing access now: adopted, not removed",
        _ => "unknown",
    }
}

/// A local time with its milliseconds: a proof is read next to other logs.
fn exactly(at: Option<Timestamp>, zone: Zone) -> String {
    at.map_or_else(|| "unknown".to_owned(), |at| time::exact_time(at, zone))
}

fn text_of(assignment: &Assignment, names: &Names) -> String {
    let mut text = format!("{} on {}", assignment.role, names.show(&assignment.target));
    if let Some(roles) = &assignment.application_roles {
        text.push_str(&format!(" as [{}]", roles.join(", ")));
    }
    text
}

/// The lines of a receipt: a label, empty where a line goes on, and what it says.
pub(super) fn lines(receipt: &Receipt, names: &Names, zone: Zone) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut say = |label: &str, value: String| out.push((label.to_owned(), value));
    say("Receipt", format!("of grant {}", receipt.grant_id));
    say("", assurance(receipt).to_owned());
    let end = receipt.end.as_ref();
    let why = end.map_or("ended", |end| end.reason.as_str());
    let mut cause = why.replace('_', " ");
    if let Some(code) = end.and_then(|end| end.code.as_ref()) {
        cause.push_str(&format!(" ({code})"));
    }
    if let Some(by) = end.and_then(|end| end.by.as_ref()) {
        cause.push_str(&format!(" by {by}"));
    }
    if let Some(comment) = end.and_then(|end| end.comment.as_ref()) {
        cause.push_str(&format!(": {comment}"));
    }
    let mut who = receipt.beneficiary.clone();
    if let Some(user) = receipt.user_id.as_ref().filter(|id| **id != who) {
        who.push_str(&format!(" (user {user})"));
    }
    say("For", who);
    let mut asked = format!(
        "{}, for {}",
        exactly(receipt.created_at, zone),
        time::length(receipt.duration_seconds.unsigned_abs())
    );
    if receipt.extensions > 0 {
        asked.push_str(&format!(", moved later {} times", receipt.extensions));
    }
    say("Asked", asked);
    if let Some(by) = &receipt.requester {
        say("", format!("by {by}"));
    }
    if let Some(reason) = &receipt.reason {
        say("", format!("because of: {reason}"));
    }
    say(
        "",
        format!("request {}, caller {}", receipt.request_id, receipt.caller),
    );
    if receipt.verified_at.is_some() {
        say(
            "Verified",
            format!("{}: access was seen", exactly(receipt.verified_at, zone)),
        );
    }
    if receipt.due_at.is_some() {
        say("Due", exactly(receipt.due_at, zone));
    }
    let mut ended = format!("{}: {cause}", exactly(receipt.ended_at, zone));
    if let Some(millis) = receipt.due_to_gone_milliseconds {
        ended.push_str(&format!(
            "; seen gone {}.{:03} s after it was due",
            millis / 1000,
            millis % 1000
        ));
    }
    say("Ended", ended);
    for line in &receipt.lines {
        say(
            "Access",
            format!("{}: {}", text_of(&line.assignment, names), fate(line)),
        );
        for detail in line_details(line, names, zone) {
            say("", format!("  {detail}"));
        }
    }
    for (label, sighting) in [("Before", &receipt.before), ("After", &receipt.after)] {
        if let Some(sighting) = sighting {
            say(label, sighted(sighting, names, zone));
        }
    }
    for warning in &receipt.warnings {
        say("Warning", format!("{} ({})", warning.message, warning.code));
    }
    for note in &receipt.notes {
        say("Note", note.clone());
    }
    out
}

fn sighted(sighting: &Sighting, names: &Names, zone: Zone) -> String {
    let mut held: Vec<String> = sighting
        .assignments
        .iter()
        .map(|one| text_of(one, names))
        .collect();
    if sighting.more > 0 {
        held.push(format!("{} more", sighting.more));
    }
    let held = if held.is_empty() {
        "the member held nothing".to_owned()
    } else {
        format!("the member held {}", held.join(", "))
    };
    format!(
        "{held} (read of {})",
        exactly(sighting.read_started_at, zone)
    )
}

fn line_details(line: &Line, names: &Names, zone: Zone) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(calls) = &line.added {
        out.push(called("added", calls, zone));
    }
    if line.seen_at.is_some() {
        out.push(format!("seen present {}", exactly(line.seen_at, zone)));
    }
    if line.missing_at.is_some() {
        out.push(format!(
            "missing {}: somebody else removed it",
            exactly(line.missing_at, zone)
        ));
    }
    if let Some(calls) = &line.removed {
        out.push(called("removed", calls, zone));
    }
    if let Some(code) = &line.blocked_code {
        out.push(format!("its removal was blocked for a while ({code})"));
    }
    if line.gone_at.is_some() {
        out.push(format!(
            "seen gone {}, by a read that started {}",
            exactly(line.gone_at, zone),
            exactly(line.gone_read_started_at, zone)
        ));
    }
    let at = exactly(line.second_look_at, zone);
    match line.second_look.as_deref() {
        Some("owed") => out.push(format!("second look owed, not before {at}")),
        Some("done") => out.push(format!("second look {at}: still gone")),
        Some("reopened") => out.push(format!("came back {at}, being removed again")),
        Some("taken_over") => out.push(format!(
            "a later grant was given the same {at}; its own receipt proves the end"
        )),
        Some(_) | None => {}
    }
    if line.resurrections > 0 && line.second_look.as_deref() != Some("reopened") {
        out.push(format!(
            "came back {} times, last {}, and was removed again",
            line.resurrections,
            exactly(line.resurrected_at, zone)
        ));
    }
    for restored in &line.restored {
        out.push(format!("put back as it was: {}", text_of(restored, names)));
    }
    if let Some(how) = &line.given_up {
        let mut words = format!("{} by {}", exactly(how.at, zone), how.by);
        if let Some(second) = &how.confirmed_by {
            words.push_str(&format!(", confirmed by {second}"));
        }
        out.push(format!("decided {words}: {}", how.reason));
    }
    out
}

fn called(what: &str, calls: &Calls, zone: Zone) -> String {
    let mut words = format!("{what}: intended {}", exactly(calls.intended_at, zone));
    match (calls.sent_at, calls.done_at) {
        (None, _) => words.push_str(", whether it was sent is not known"),
        (Some(_), Some(_)) => words.push_str(&format!(
            ", sent {}, done {}",
            exactly(calls.sent_at, zone),
            exactly(calls.done_at, zone)
        )),
        (Some(_), None) => words.push_str(&format!(
            ", sent {}, never answered as done",
            exactly(calls.sent_at, zone)
        )),
    }
    let mut counts = vec![super::text::count(calls.sent, "call", "calls")];
    if calls.refused > 0 {
        counts.push(format!("{} refused", calls.refused));
    }
    if calls.unanswered > 0 {
        counts.push(format!("{} unanswered", calls.unanswered));
    }
    if let Some(code) = &calls.last_code {
        counts.push(format!("last code {code}"));
    }
    if !calls.request_ids.is_empty() {
        counts.push(format!("upstream request {}", calls.request_ids.join(", ")));
    }
    words.push_str(&format!(" ({})", counts.join("; ")));
    words
}
