//! Tables for people.
//!
//! Owns layout and the words for states; every cell is escaped here. Pure: time and zone are arguments.

use comfy_table::{ContentArrangement, Table as Grid, presets};

use super::exit::Failure;
use super::streams::{Paint, Streams};
use super::text;
use super::time::{self, Zone};
use super::view::{Grant, Names};
use crate::domain::Timestamp;

/// A table: headings, rows, emphasis for each row.
#[derive(Debug, Clone)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<(Paint, Vec<String>)>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells are escaped.
    pub(super) fn row<C: AsRef<str>>(&mut self, paint: Paint, cells: impl IntoIterator<Item = C>) {
        let cells = cells
            .into_iter()
            .map(|cell| text::safe(cell.as_ref()).into_owned())
            .collect();
        self.rows.push((paint, cells));
    }

    /// The lines of the table, headings first, without trailing space. What does not fit the width flows over several
    /// lines for each row, without headings: nothing is ever cut off.
    pub(super) fn lines(&self, width: Option<u16>) -> Vec<(Paint, String)> {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        grid.set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(self.headings.clone());
        for (_, cells) in &self.rows {
            grid.add_row(cells.clone());
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = grid
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        if let Some(width) = width.map(usize::from)
            && lines.iter().any(|line| line.chars().count() > width)
        {
            let flow = |(paint, cells): &(Paint, Vec<String>)| {
                let lines = flow(cells, width);
                lines
                    .into_iter()
                    .map(|line| (*paint, line))
                    .collect::<Vec<_>>()
            };
            return self.rows.iter().flat_map(flow).collect();
        }
        let paints = std::iter::once(Paint::Bold).chain(self.rows.iter().map(|(paint, _)| *paint));
        paints.zip(lines).collect()
    }

    /// Prints it, or one sentence when it is empty.
    pub(super) fn print(&self, streams: &mut Streams, empty: &str) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return streams.note(empty);
        }
        let width = streams.width.filter(|_| streams.out_is_terminal);
        for (paint, line) in self.lines(width) {
            let line = streams.paint(paint, &line);
            streams.line(&line)?;
        }
        Ok(())
    }
}

/// Cells one after the other, as many on a line as fit; lines after the first are indented.
fn flow(cells: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + cell.chars().count() <= width => {
                line.push_str("  ");
                line.push_str(cell);
            }
            Some(_) => lines.push(format!("    {cell}")),
            None => lines.push(cell.clone()),
        }
    }
    lines
}

/// Emphasis for a state.
pub(super) fn paint(grant: &Grant) -> Paint {
    match grant.state.as_str() {
        "active" if grant.externally_modified => Paint::Yellow,
        "active" => Paint::Green,
        "ended" => Paint::Dim,
        "revoking" if grant.last_error.is_some() => Paint::Red,
        _ => Paint::Yellow,
    }
}

/// The beginnings of ids that tell these grants apart: at least the time of creation.
pub(super) fn short_ids(grants: &[Grant]) -> Vec<String> {
    let repeated = |short: &str| {
        grants
            .iter()
            .filter(|grant| grant.id.starts_with(short))
            .count()
            > 1
    };
    grants
        .iter()
        .map(|grant| {
            if repeated(grant.short_id()) {
                grant.id.clone()
            } else {
                grant.short_id().to_owned()
            }
        })
        .collect()
}

/// A table of grants.
pub(super) fn grants(grants: &[Grant], names: &Names, now: Timestamp, zone: Zone) -> Table {
    let mut table = Table::new(&["GRANT", "STATE", "MEMBER", "ROLE", "ON", "WHEN"]);
    for (grant, id) in grants.iter().zip(short_ids(grants)) {
        table.row(
            paint(grant),
            [
                id,
                grant.state.clone(),
                grant.beneficiary.clone(),
                grant.role.clone(),
                targets(grant, names),
                when(grant, now, zone),
            ],
        );
    }
    table
}

/// The targets of a grant in one cell.
pub(super) fn targets(grant: &Grant, names: &Names) -> String {
    let shown: Vec<String> = grant
        .assignments
        .iter()
        .map(|granted| names.show(&granted.assignment.target))
        .collect();
    match shown.as_slice() {
        [] => "nothing".to_owned(),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    }
}

/// What the state says about time, in one cell.
pub(super) fn when(grant: &Grant, now: Timestamp, zone: Zone) -> String {
    let clock = |at: Option<Timestamp>| {
        at.map_or_else(
            || "an unknown time".to_owned(),
            |at| time::clock_time(at, now, zone),
        )
    };
    match grant.state.as_str() {
        "scheduled" => format!("starts {}", clock(grant.starts_at)),
        "awaiting_member" => format!("waits for the member until {}", clock(grant.lapses_at)),
        "activating" => format!("since {}", clock(grant.activating_since)),
        "active" => match grant.expires_at {
            Some(end) if end > now => format!(
                "until {} ({})",
                time::clock_time(end, now, zone),
                time::short_length((end - now).num_seconds().unsigned_abs())
            ),
            end => format!("ended {}, removal is due", clock(end)),
        },
        "revoking" => format!("{} since {}", cause(grant), clock(grant.revoking_since)),
        "ended" => format!("{} {}", cause(grant), clock(grant.ended_at)),
        _ => String::new(),
    }
}

/// Why a grant ends, in words.
pub(super) fn cause(grant: &Grant) -> String {
    let Some(end) = &grant.end else {
        return "ended".to_owned();
    };
    let words = match end.reason.as_str() {
        "activation_failed" => "access could not be given",
        "member_left" => "the member left",
        "superseded" => "taken away by somebody else",
        other => other,
    };
    let mut cause = words.to_owned();
    if let Some(code) = &end.code {
        cause.push_str(&format!(" ({code})"));
    }
    if let Some(by) = &end.by {
        cause.push_str(&format!(" by {by}"));
    }
    cause
}
