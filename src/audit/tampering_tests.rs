//! Every kind of tampering with an export is named at the first bad record.

use super::block::Block;
use super::export;
use super::key::SigningKey;
use super::tree::Hash;
use super::verify::{Finding, Head, Report, Verifier, VerifyError};
use crate::domain::Timestamp;
use crate::ports::audit::AuditRecord;

const PER_BLOCK: usize = 5;
const BLOCKS: usize = 4;

struct Export {
    key: SigningKey,
    lines: Vec<String>,
    heads: Vec<Head>,
}

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).expect("in range")
}

/// Sequences with a gap after each block, as some databases leave them.
fn sequence(at: usize) -> u64 {
    (at + 1 + at / PER_BLOCK) as u64
}

fn records() -> Vec<AuditRecord> {
    (0..PER_BLOCK * BLOCKS)
        .map(|at| AuditRecord {
            sequence: sequence(at),
            body: format!("{{\"at\":{at},\"event\":\"grant_changed\",\"to\":\"active\"}}"),
        })
        .collect()
}

fn export() -> Export {
    let (key, _) = SigningKey::generate().expect("randomness");
    let (mut lines, mut heads, mut previous) = (Vec::new(), Vec::new(), Hash::NONE);
    for (number, records) in (1..).zip(records().chunks(PER_BLOCK)) {
        let block = Block::seal("ledger", number, previous, records, now(), &key);
        previous = block.hash();
        heads.push(Head {
            number,
            hash: previous,
        });
        lines.extend(records.iter().map(export::record));
        lines.push(export::block(&block.stored()));
    }
    Export { key, lines, heads }
}

impl Export {
    fn verified(&self, lines: &[String], head: Option<Head>) -> Result<Report, Finding> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        match Verifier::new(vec![self.key.public()], head).run(text.as_bytes()) {
            Ok(report) => Ok(report),
            Err(VerifyError::Finding(finding)) => Err(finding),
            Err(VerifyError::Read(error)) => panic!("a slice can be read: {error}"),
        }
    }

    fn newest(&self) -> Option<Head> {
        self.heads.last().copied()
    }

    /// What is found after a change of the lines.
    fn finding(&self, change: impl FnOnce(&mut Vec<String>)) -> Finding {
        let mut lines = self.lines.clone();
        change(&mut lines);
        self.verified(&lines, self.newest())
            .expect_err("tampering is found")
    }
}

/// Index of the line of a record.
fn line_of(at: usize) -> usize {
    at + at / PER_BLOCK
}

#[test]
fn an_export_as_it_was_written_verifies() {
    let export = export();
    let report = export
        .verified(&export.lines, export.newest())
        .expect("untouched");
    assert_eq!(report.records, 20);
    assert_eq!(report.first_block, 1);
    assert_eq!(Some(report.head), export.newest());
    assert_eq!(report.sequences, (1, sequence(19)));
    // A part that begins later verifies as well, and says where it begins.
    let part = export
        .verified(&export.lines[PER_BLOCK + 1..], export.newest())
        .expect("whole blocks");
    assert_eq!(part.first_block, 2);
}

#[test]
fn each_byte_of_each_record_is_covered() {
    let export = export();
    for at in 0..PER_BLOCK * BLOCKS {
        let line = line_of(at);
        let finding = export.finding(|lines| {
            lines[line] = lines[line].replace("active", "Active");
        });
        assert_eq!(
            finding,
            Finding::Changed {
                sequence: sequence(at),
                line: line as u64 + 1
            }
        );
    }
    // Wherever a byte is changed, something is found, and it is in that line or the block that seals it.
    let line = &export.lines[0];
    for at in 0..line.len() {
        let mut bytes = line.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        if changed.contains('\n') {
            continue;
        }
        export.finding(|lines| lines[0] = changed);
    }
}

#[test]
fn each_missing_record_is_named() {
    let export = export();
    for at in 0..PER_BLOCK * BLOCKS {
        let line = line_of(at);
        let finding = export.finding(|lines| drop(lines.remove(line)));
        assert_eq!(
            finding,
            Finding::Missing {
                sequence: sequence(at),
                line: line as u64 + 1
            }
        );
    }
}

#[test]
fn each_inserted_or_repeated_record_is_named() {
    let export = export();
    for at in 0..PER_BLOCK * BLOCKS {
        let line = line_of(at);
        let repeated = export.finding(|lines| lines.insert(line, lines[line].clone()));
        assert_eq!(
            repeated,
            Finding::Inserted {
                sequence: sequence(at),
                line: line as u64 + 2
            }
        );
        let invented = export.finding(|lines| {
            lines.insert(line, "{\"sequence\":9999,\"event\":{}}".to_owned());
        });
        assert_eq!(
            invented,
            Finding::Inserted {
                sequence: 9999,
                line: line as u64 + 1
            }
        );
    }
    let behind = export.finding(|lines| lines.push("{\"sequence\":9999,\"event\":{}}".to_owned()));
    assert!(
        matches!(behind, Finding::Inserted { sequence: 9999, .. }),
        "{behind}"
    );
}

#[test]
fn records_out_of_order_and_records_that_changed_places_are_named() {
    let export = export();
    let swapped = export.finding(|lines| lines.swap(line_of(6), line_of(8)));
    assert_eq!(
        swapped,
        Finding::OutOfOrder {
            sequence: sequence(8),
            expected: sequence(6),
            line: line_of(6) as u64 + 1
        }
    );
    // The contents change places, the sequences stay.
    let contents = export.finding(|lines| {
        let with = |at: usize, body: &AuditRecord| {
            export::record(&AuditRecord {
                sequence: sequence(at),
                body: body.body.clone(),
            })
        };
        let all = records();
        lines[line_of(6)] = with(6, &all[8]);
        lines[line_of(8)] = with(8, &all[6]);
    });
    assert_eq!(
        contents,
        Finding::Changed {
            sequence: sequence(6),
            line: line_of(6) as u64 + 1
        }
    );
}

#[test]
fn blocks_that_are_missing_moved_or_changed_are_named() {
    let export = export();
    let span = PER_BLOCK + 1;
    let missing = export.finding(|lines| drop(lines.drain(span..2 * span)));
    assert!(
        matches!(&missing, Finding::Block { number: 3, what, .. } if what.contains("block 2 belongs here")),
        "{missing}"
    );
    let moved = export.finding(|lines| {
        let second: Vec<String> = lines.drain(span..2 * span).collect();
        lines.splice(2 * span..2 * span, second);
    });
    assert!(matches!(moved, Finding::Block { number: 3, .. }), "{moved}");
    let only_its_line = export.finding(|lines| drop(lines.remove(span - 1)));
    assert!(
        matches!(
            only_its_line,
            Finding::Block { number: 2, .. } | Finding::Inserted { sequence: 1, .. }
        ),
        "{only_its_line}"
    );
    let redated = export.finding(|lines| {
        let line = 2 * span - 1;
        lines[line] = lines[line].replace("sealed_at:2027", "sealed_at:2026");
    });
    assert!(
        matches!(&redated, Finding::Block { number: 2, what, .. } if what.contains("signature")),
        "{redated}"
    );
}

#[test]
fn an_end_that_was_cut_off_is_found_with_the_head_that_was_kept() {
    let export = export();
    let span = PER_BLOCK + 1;
    for blocks in 1..BLOCKS {
        let finding = export.finding(|lines| lines.truncate(blocks * span));
        assert_eq!(
            finding,
            Finding::Truncated {
                found: blocks as u64,
                expected: BLOCKS as u64
            }
        );
        // Within a block as well, and without any head.
        let cut = &export.lines[..blocks * span + 2];
        let finding = export.verified(cut, None).expect_err("cut");
        assert!(matches!(finding, Finding::Inserted { .. }), "{finding}");
    }
    assert_eq!(export.finding(Vec::clear), Finding::Empty);
}

#[test]
fn a_history_sealed_again_with_another_key_is_named() {
    let export = export();
    let forged = super::tampering_tests::export();
    let finding = export
        .verified(&forged.lines, None)
        .expect_err("another key");
    assert!(
        matches!(&finding, Finding::Block { number: 1, what, .. } if what.contains("not among those given")),
        "{finding}"
    );
    // Under the right name, but not by the right key.
    let posing = export.finding(|lines| {
        let own = export.key.id().to_owned();
        let at = PER_BLOCK;
        lines[at] = forged.lines[at].replace(forged.key.id(), &own);
    });
    assert!(
        matches!(&posing, Finding::Block { number: 1, what, .. } if what.contains("signature")),
        "{posing}"
    );
    // Whoever has the key can write another history; the head that was kept elsewhere tells.
    let other: Vec<AuditRecord> = records().into_iter().take(PER_BLOCK).collect();
    let block = Block::seal("ledger", 1, Hash::NONE, &other[..4], now(), &export.key);
    let mut lines: Vec<String> = other[..4].iter().map(export::record).collect();
    lines.push(export::block(&block.stored()));
    let finding = export
        .verified(&lines, Some(export.heads[0]))
        .expect_err("another history");
    assert_eq!(finding, Finding::OtherHistory { number: 1 });
}

#[test]
fn lines_that_no_export_has_are_named() {
    let export = export();
    for nonsense in [
        "",
        "{}",
        "nonsense",
        "{\"sequence\":01,\"event\":{}}",
        "{\"sequence\":,\"event\":{}}",
        "{\"block\":1}",
    ] {
        let finding = export.finding(|lines| lines.insert(3, nonsense.to_owned()));
        assert!(
            matches!(finding, Finding::Line { line: 4, .. }),
            "{nonsense}: {finding}"
        );
    }
}
