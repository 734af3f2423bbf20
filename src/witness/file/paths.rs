//! The places of the witness file and of what lies beside it.
//!
//! Owns their names and permissions: nobody but the owner reads them. Never reads or writes a record.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(in crate::witness) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(in crate::witness) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(in crate::witness) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

pub(in crate::witness) fn truncated(path: &Path) -> io::Result<File> {
    let file = private(path)?;
    file.set_len(0)?;
    (&file).seek(SeekFrom::Start(0))?;
    Ok(file)
}
