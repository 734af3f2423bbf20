//! Records that are read back: exports, packs, the witness file.

use std::io;

use latchkey::audit::verify::VerifyError;
use latchkey::audit::{Header, Verifier, export};
use latchkey::ports::audit::AuditRecord;
use latchkey::witness::record::{self, Record};

use super::super::seeds::{self, LINES};
use super::{Verdict, verdict};

/// Lines of an export: what is read is written alike, and only what was sealed verifies.
pub(super) fn exports(input: &[u8]) -> Verdict {
    for line in input.split(|byte| *byte == b'\n') {
        match export::read(line) {
            Ok(export::Line::Record(sequence, body)) => {
                if let Ok(body) = String::from_utf8(body.to_vec()) {
                    let again = export::record(&AuditRecord { sequence, body });
                    assert_eq!(again.as_bytes(), line, "a record has two lines");
                }
            }
            Ok(export::Line::Block(block)) => {
                let again = export::block(&block.stored());
                let read = export::read(again.as_bytes()).expect("what we wrote");
                assert_eq!(read, export::Line::Block(block), "a block has two meanings");
            }
            Err(_) => {}
        }
    }
    match Verifier::new(vec![seeds::SIGNER.public()], None).run(io::BufReader::new(input)) {
        Ok(report) => {
            assert!(
                seeds::HEADS.contains(&report.head),
                "this was never sealed: {report:?}"
            );
            let proven = input
                .split(|byte| *byte == b'\n')
                .filter(|line| line.starts_with(b"{\"sequence\":"));
            assert!(
                proven
                    .into_iter()
                    .all(|line| LINES.contains(&line.to_vec())),
                "a record that nobody sealed"
            );
            verdict(true, "verified")
        }
        Err(VerifyError::Finding(finding)) => verdict(false, &finding.to_string()),
        Err(VerifyError::Read(_)) => verdict(false, "unread"),
    }
}

/// Headers of a block, signed by the key that is trusted: whatever such a block says, verifying it ends.
pub(super) fn headers(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return verdict(false, "not text");
    };
    let header = match Header::parse(text) {
        Ok(header) => header,
        Err(malformed) => return verdict(false, &malformed.to_string()),
    };
    assert_eq!(header.text(), text, "a header has two texts");
    let mut lines = format!("{}\n", export::record(&seeds::record(1)));
    lines.push_str(&export::block(&seeds::block_of(&header)));
    lines.push('\n');
    lines.push_str(&export::block(&seeds::block_of(&header)));
    let found =
        Verifier::new(vec![seeds::SIGNER.public()], None).run(io::BufReader::new(lines.as_bytes()));
    verdict(
        true,
        &found
            .err()
            .map_or_else(String::new, |error| error.to_string()),
    )
}

/// `NAME`, a line feed, and what stands in that file instead.
pub(super) fn packs(input: &[u8]) -> Verdict {
    let at = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let (name, content) = input.split_at(at);
    let content = content.strip_prefix(b"\n").unwrap_or(content);
    let Some((name, was)) = seeds::PACK
        .iter()
        .find(|(known, _)| known.as_bytes() == name)
    else {
        return verdict(false, "no file of a pack");
    };
    let folder = tempfile::tempdir().expect("a folder");
    for (name, was) in seeds::PACK.iter() {
        std::fs::write(folder.path().join(name), was).expect("written");
    }
    std::fs::write(folder.path().join(name), content).expect("written");
    let keys = [seeds::SIGNER.public()];
    let strict = latchkey::audit::pack::verify(folder.path(), &keys, None, false);
    let is_same = content == was.as_slice();
    let is_same_signature = *name == "manifest.sig" && content.trim_ascii() == was.trim_ascii();
    assert_eq!(
        strict.is_ok(),
        is_same || is_same_signature,
        "{name} was changed and taken"
    );
    let lax = latchkey::audit::pack::verify(folder.path(), &keys, None, true);
    let words = lax
        .as_ref()
        .err()
        .map_or_else(String::new, ToString::to_string);
    verdict(strict.is_ok(), &format!("{name} {words}"))
}

pub(super) fn witness(input: &[u8]) -> Verdict {
    match record::read(input) {
        record::Line::Whole(json) => {
            let Ok(read) = serde_json::from_slice::<Record>(json) else {
                return verdict(true, "no record");
            };
            let line = read.line();
            assert_eq!(
                record::read(&line),
                record::Line::Whole(&line[18..line.len() - 1]),
                "what we write is not whole"
            );
            let again: Record =
                serde_json::from_slice(&line[18..line.len() - 1]).expect("what we wrote");
            assert_eq!(again, read, "a record changed on its way");
            verdict(
                true,
                &format!("{read:?}").chars().take(12).collect::<String>(),
            )
        }
        record::Line::Torn => verdict(false, "torn"),
        record::Line::Broken(what) => verdict(false, what),
    }
}
