//! Lines of JSON in a file that is rotated by its size.
//!
//! Owns the file and those it was before. Every batch is on the disk before it counts as delivered. A last line that a
//! crash tore is cut off before anything is added: its event was not acknowledged, so it comes again.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::ports::audit::{AuditRecord, AuditSink, Undelivered};

/// Nobody but the owner has business with who held which access.
const MODE: u32 = 0o600;

/// A file that is rotated.
#[derive(Debug, Clone)]
pub struct FileSink {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
}

impl FileSink {
    /// Lines go to `path`, which is put aside as `PATH.1` before it would grow beyond `max_bytes`; `keep` of those stay.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64, keep: u32) -> Self {
        Self {
            path,
            max_bytes,
            keep,
        }
    }

    /// Writes lines; opened anew each time, so that whoever moves the file away gets a new one made.
    fn write(&self, lines: &[String]) -> io::Result<()> {
        let (mut file, mut size) = self.open()?;
        let mut pending = Vec::new();
        for line in lines {
            let length = line.len() as u64 + 1;
            let ahead = size + pending.len() as u64;
            if ahead > 0 && ahead + length > self.max_bytes {
                file.write_all(&pending)?;
                file.sync_all()?;
                pending.clear();
                self.rotate()?;
                (file, size) = self.open()?;
            }
            pending.extend_from_slice(line.as_bytes());
            pending.push(b'\n');
        }
        file.write_all(&pending)?;
        file.sync_all()
    }

    /// The file, at its end, and how long it is.
    fn open(&self) -> io::Result<(File, u64)> {
        let is_new = !self.path.try_exists()?;
        let follows_nothing = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(follows_nothing.map_err(io::Error::other)?)
            .open(&self.path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        if found.mode() & 0o777 != MODE {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        if is_new {
            self.sync_folder()?;
        }
        let size = mend(&mut file, found.len())?;
        Ok((file, size))
    }

    /// Puts the file aside. Cut short anywhere, it leaves a gap between the numbers and loses nothing.
    fn rotate(&self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            move_if_there(&numbered(number), &numbered(number + 1))?;
        }
        move_if_there(&self.path, &numbered(1))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Cuts off what follows the last whole line. Answers how long the file is then.
fn mend(file: &mut File, size: u64) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = size;
    let mut piece = Vec::new();
    let whole = loop {
        if end == 0 {
            break 0;
        }
        let from = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(from))?;
        piece.clear();
        io::Read::take(&mut *file, end - from).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            break from + at as u64 + 1;
        }
        end = from;
    };
    if whole < size {
        tracing::warn!(
            bytes = size - whole,
            "Cut off a torn last line of the audit's file; its event is written again"
        );
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}

#[async_trait]
impl AuditSink for FileSink {
    async fn deliver(&self, records: &[AuditRecord]) -> Result<(), Undelivered> {
        let lines: Vec<String> = records.iter().map(AuditRecord::line).collect();
        let sink = self.clone();
        let written = tokio::task::spawn_blocking(move || sink.write(&lines)).await;
        let written = written.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        written.map_err(|error| Undelivered {
            acknowledged: 0,
            code: error.kind().to_string().replace(' ', "_"),
            problem: format!("{} cannot be written", self.path.display()),
            is_refused: false,
            retry_after: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sequences: std::ops::RangeInclusive<u64>) -> Vec<AuditRecord> {
        let record = |sequence| AuditRecord {
            sequence,
            body: format!("{{\"n\":\"{sequence:04}\"}}"),
        };
        sequences.map(record).collect()
    }

    fn found(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).expect("readable");
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("a whole line");
                value["sequence"].as_u64().expect("a number")
            })
            .collect()
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_off_and_its_event_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let sink = FileSink::new(path.clone(), 1 << 20, 2);
        sink.deliver(&records(1..=3)).await.expect("written");
        let whole = fs::read(&path).expect("readable");
        // A crash may leave any beginning of what was written after the last acknowledgement.
        let mut next = whole.clone();
        for record in records(4..=5) {
            next.extend_from_slice(format!("{}\n", record.line()).as_bytes());
        }
        for length in whole.len()..=next.len() {
            fs::write(&path, &next[..length]).expect("written");
            sink.deliver(&records(4..=5)).await.expect("written");
            let found = found(&path);
            let mut once = found.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once, [1, 2, 3, 4, 5], "cut at {length}: {found:?}");
            assert_eq!(found[found.len() - 2..], [4, 5]);
        }
        // Nothing but a torn line, longer than one step of the search.
        fs::write(&path, "x".repeat(200_000)).expect("written");
        sink.deliver(&records(1..=1)).await.expect("written");
        assert_eq!(found(&path), [1]);
    }

    #[tokio::test]
    async fn a_full_file_is_put_aside_and_the_oldest_one_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let line = records(1..=1)[0].line().len() as u64 + 1;
        let sink = FileSink::new(path.clone(), line * 2, 2);
        sink.deliver(&records(1..=5)).await.expect("written");
        let numbered = |number: &str| found(&folder.path().join(format!("audit.jsonl.{number}")));
        assert_eq!(
            (numbered("2"), numbered("1"), found(&path)),
            (vec![1, 2], vec![3, 4], vec![5])
        );
        sink.deliver(&records(6..=7)).await.expect("written");
        assert_eq!(
            (numbered("2"), numbered("1"), found(&path)),
            (vec![3, 4], vec![5, 6], vec![7])
        );
        assert!(!folder.path().join("audit.jsonl.3").exists());
        // Larger than a whole file: it stands alone.
        let large = FileSink::new(path.clone(), 10, 2);
        large.deliver(&records(8..=9)).await.expect("written");
        assert_eq!(
            (numbered("2"), numbered("1"), found(&path)),
            (vec![7], vec![8], vec![9])
        );
    }

    #[tokio::test]
    async fn only_its_owner_reads_it_and_one_that_was_moved_away_is_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("changed");
        let sink = FileSink::new(path.clone(), 1 << 20, 2);
        sink.deliver(&records(1..=1)).await.expect("written");
        let mode = || fs::metadata(&path).expect("there").mode() & 0o777;
        assert_eq!(mode(), MODE);
        fs::rename(&path, folder.path().join("taken")).expect("moved");
        sink.deliver(&records(2..=2)).await.expect("written");
        assert_eq!((found(&path), mode()), (vec![2], MODE));
    }

    #[tokio::test]
    async fn what_is_no_file_of_its_own_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other");
        fs::write(&other, "somebody else's\n").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&other, &link).expect("linked");
        for path in [
            link,
            folder.path().to_owned(),
            folder.path().join("no/such"),
        ] {
            let sink = FileSink::new(path.clone(), 1 << 20, 2);
            let told = sink.deliver(&records(1..=1)).await.expect_err("refused");
            assert!(!told.code.is_empty() && told.acknowledged == 0, "{told:?}");
        }
        assert_eq!(
            fs::read_to_string(&other).expect("readable"),
            "somebody else's\n"
        );
    }
}
