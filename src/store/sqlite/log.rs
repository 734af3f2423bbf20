//! Whether the write-ahead log beside the ledger is whole, before SQLite opens it.
//!
//! Owns reading its frames as the file format describes them (sqlite.org/fileformat2.html, section 4). SQLite ends
//! the log at the first frame that does not fit its checksum and says nothing: after a crash that is right, since the
//! last commit may be half written; in the middle of the log it drops commits that were answered. Every commit is
//! synced before the next begins, so a frame that does not fit and commits after it mean damage. Never writes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// What the log looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Every commit in it can be read, or there is none.
    Whole,
    /// The last commit does not fit its checksums; all before it do.
    TornEnd,
    /// Commits follow a place that cannot be read.
    Damaged(String),
}

/// Reads the log at `path`; one that does not exist is whole.
///
/// # Errors
/// What the file system refuses.
pub(super) fn examine(path: &Path) -> io::Result<Finding> {
    match File::open(path) {
        Ok(file) => read(BufReader::with_capacity(1 << 16, file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Finding::Whole),
        Err(error) => Err(error),
    }
}

/// Running checksum of the log: two words, each fed with every other word of what is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    is_big: bool,
    words: (u32, u32),
}

impl Sum {
    fn over(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.chunks_exact(8) {
            let (a, b) = if self.is_big {
                (be(pair, 0), be(pair, 4))
            } else {
                (be(pair, 0).swap_bytes(), be(pair, 4).swap_bytes())
            };
            self.words.0 = self.words.0.wrapping_add(a).wrapping_add(self.words.1);
            self.words.1 = self.words.1.wrapping_add(b).wrapping_add(self.words.0);
        }
        self
    }

    fn fits(self, bytes: &[u8]) -> bool {
        self.words == (be(bytes, 0), be(bytes, 4))
    }
}

fn be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read(mut log: impl Read) -> io::Result<Finding> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? || header == [0; HEADER] {
        return Ok(Finding::Whole);
    }
    let page = be(&header, 8) as usize;
    let start = Sum {
        is_big: header[3] & 1 == 1,
        words: (0, 0),
    }
    .over(&header[..24]);
    let is_header = be(&header, 0) & !1 == MAGIC && start.fits(&header[24..]);
    if !is_header || !page.is_power_of_two() || !(512..=65_536).contains(&page) {
        let mut more = [0; FRAME_HEADER];
        return Ok(if fill(&mut log, &mut more)? {
            Finding::Damaged("its header does not fit its checksum".to_owned())
        } else {
            Finding::TornEnd
        });
    }
    let salt = &header[16..24];
    let mut sum = start;
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut number, mut broken, mut commit_after) = (0u64, None, false);
    while fill(&mut log, &mut frame)? {
        number += 1;
        let is_ours = frame[8..16] == *salt;
        if let Some(first) = broken {
            // Frames of earlier rounds of the log lie behind its end, under other salts.
            if is_ours && commit_after {
                return Ok(Finding::Damaged(format!(
                    "frame {first} does not fit its checksum, and commits follow it"
                )));
            }
            commit_after |= is_ours && be(&frame, 4) != 0;
            continue;
        }
        let next = sum.over(&frame[..8]).over(&frame[FRAME_HEADER..]);
        if is_ours && next.fits(&frame[16..24]) {
            sum = next;
        } else {
            broken = Some(number);
            commit_after = is_ours && be(&frame, 4) != 0;
        }
    }
    Ok(if commit_after {
        Finding::TornEnd
    } else {
        Finding::Whole
    })
}

/// Fills the buffer; `false` where the file ends before.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

    use super::*;

    const FRAME: usize = FRAME_HEADER + 4096;

    /// The log of a few commits, as SQLite wrote it.
    async fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("some.db");
        let mut conn = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .connect()
            .await
            .expect("opened");
        for statement in [
            "CREATE TABLE t (x)",
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO t VALUES (3)",
        ] {
            sqlx::query(statement)
                .execute(&mut conn)
                .await
                .expect("written");
        }
        let bytes = std::fs::read(folder.path().join("some.db-wal")).expect("a log");
        assert_eq!((bytes.len() - HEADER) % FRAME, 0);
        assert!(bytes.len() >= HEADER + 4 * FRAME);
        bytes
    }

    fn found(bytes: &[u8]) -> Finding {
        read(bytes).expect("memory")
    }

    #[tokio::test]
    async fn a_log_that_sqlite_wrote_is_whole_wherever_it_ends() {
        let bytes = log().await;
        assert_eq!(found(&bytes), Finding::Whole);
        assert_eq!(found(&[]), Finding::Whole);
        for end in (0..bytes.len()).step_by(509) {
            assert_eq!(found(&bytes[..end]), Finding::Whole, "{end}");
        }
    }

    #[tokio::test]
    async fn a_flipped_byte_before_the_last_commit_is_damage_and_in_it_a_torn_end() {
        let bytes = log().await;
        let last = bytes.len() - FRAME;
        for at in (0..bytes.len()).step_by(97) {
            let mut torn = bytes.clone();
            torn[at] ^= 0x10;
            let finding = found(&torn);
            if at >= last {
                // Damage to the mark or the salt of the last frame makes it look like none.
                let is_mark = (4..16).contains(&(at - last));
                assert!(
                    finding == Finding::TornEnd || is_mark,
                    "byte {at}: {finding:?}"
                );
            } else if at < last - FRAME {
                assert!(
                    matches!(finding, Finding::Damaged(_)),
                    "byte {at}: {finding:?}"
                );
            } else {
                assert_ne!(finding, Finding::Whole, "byte {at}");
            }
        }
    }

    #[tokio::test]
    async fn frames_of_an_earlier_round_are_not_damage() {
        let mut bytes = log().await;
        // The second half under another salt, as after the log began anew.
        let half = HEADER + 2 * FRAME;
        for frame in bytes[half..].chunks_mut(FRAME) {
            frame[8] ^= 0xff;
        }
        assert_eq!(found(&bytes), Finding::Whole);
    }
}
