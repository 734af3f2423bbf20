//! The key in a mounted file, as orchestrators and secret agents provide it.
//!
//! Owns reading it afresh at every fetch, so that a replaced file is a rotated key, and replacing it in one step. Never
//! follows a path that is not a plain file.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::ports::SecretStore;
use crate::ports::secrets::{ReplaceError, Replacement, SecretError};

use super::parse::{MAX_SECRET_BYTES, parse_key};
use super::replace::{Change, change};

/// A file that holds the key.
#[derive(Debug)]
pub struct FileSecret {
    path: PathBuf,
    field: String,
    warned: AtomicBool,
}

impl FileSecret {
    /// Names the file, and the field where it holds a JSON object. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, field: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            field: field.into(),
            warned: AtomicBool::new(false),
        }
    }

    fn failed(&self, error: &io::Error) -> SecretError {
        let place = self.describe();
        let kind = error.kind();
        if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
            return SecretError::NotFound {
                place,
                remedy: "mount the secret at this path, or correct `secret.file.path`".to_owned(),
            };
        }
        if kind == ErrorKind::PermissionDenied {
            return SecretError::Denied {
                place,
                code: "permission_denied".to_owned(),
                remedy:
                    "let the user that Latchkey runs as read this file and enter its directories"
                        .to_owned(),
            };
        }
        SecretError::Unavailable {
            place,
            code: kind.to_string().replace(' ', "_"),
            remedy: "look at the volume that holds the file".to_owned(),
        }
    }

    fn not_plain(&self, problem: &str) -> SecretError {
        SecretError::Malformed {
            place: self.describe(),
            problem: problem.to_owned(),
            remedy: "point `secret.file.path` at the file that holds the key".to_owned(),
        }
    }

    /// Says once that anybody on this machine can read the key.
    fn warn_of_mode(&self, mode: u32) {
        if is_world_readable(mode) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                secret.path = %self.path.display(),
                secret.mode = format_args!("{:o}", mode & 0o7777),
                "Every user of this machine can read the file with the Elastic Cloud key; give it mode 0400"
            );
        }
    }
}

/// Whether a file's mode lets everybody read it.
fn is_world_readable(mode: u32) -> bool {
    mode & 0o004 != 0
}

/// Reads at most one byte more than `max`, which tells a file that is too large.
pub(super) async fn read_limited(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let limit = max as u64 + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    tokio::fs::File::open(path)
        .await?
        .take(limit)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}

/// Reads a small text such as a token. The error is a short code without any part of it.
#[cfg(any(feature = "kubernetes", feature = "vault"))]
pub(super) async fn read_text(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read_limited(path, MAX_SECRET_BYTES)
        .await
        .map_err(|error| error.kind().to_string().replace(' ', "_"))?;
    if bytes.len() > MAX_SECRET_BYTES {
        return Err("too_large".to_owned());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.trim().is_empty() => Ok(Zeroizing::new(text.to_owned())),
        Ok(_) => Err("empty".to_owned()),
        Err(_) => Err("not_text".to_owned()),
    }
}

/// Puts a file in the place of another in one step, with the same mode; after a power cut there is one of the two.
async fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.latchkey-new"));
    // Left by a crash: it may hold a key that nobody uses.
    tokio::fs::remove_file(&beside).await.or_else(|error| {
        if error.kind() == ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode & 0o777);
    let mut file = options.open(&beside).await?;
    let written = async {
        file.write_all(text.as_bytes()).await?;
        file.sync_all().await?;
        tokio::fs::rename(&beside, path).await?;
        tokio::fs::File::open(folder).await?.sync_all().await
    }
    .await;
    if written.is_err() {
        tokio::fs::remove_file(&beside).await.ok();
    }
    written
}

impl FileSecret {
    async fn text(&self) -> Result<(Zeroizing<Vec<u8>>, u32), SecretError> {
        // Looked at before it is opened: opening a pipe would wait for a writer.
        let found = tokio::fs::metadata(&self.path)
            .await
            .map_err(|error| self.failed(&error))?;
        if found.is_dir() {
            return Err(self.not_plain("it is a directory"));
        }
        if !found.is_file() {
            return Err(self.not_plain("it is not a plain file"));
        }
        self.warn_of_mode(found.permissions().mode());
        let bytes = read_limited(&self.path, MAX_SECRET_BYTES)
            .await
            .map_err(|error| self.failed(&error))?;
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(self.not_plain("it is larger than 64 KiB"));
        }
        Ok((bytes, found.permissions().mode()))
    }

    fn utf8<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, SecretError> {
        std::str::from_utf8(bytes).map_err(|_| self.not_plain("it is not UTF-8 text"))
    }
}

#[async_trait]
impl SecretStore for FileSecret {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        let (bytes, _) = self.text().await?;
        parse_key(&self.describe(), self.utf8(&bytes)?, &self.field)
    }

    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn can_replace(&self) -> bool {
        true
    }

    async fn replace(&self, replacement: &Replacement<'_>) -> Result<(), ReplaceError> {
        let place = self.describe();
        let shown = tokio::fs::symlink_metadata(&self.path)
            .await
            .map_err(|error| self.failed(&error))?;
        // Whoever keeps the link decides what it shows, as Kubernetes does in its volumes.
        if shown.is_symlink() {
            return Err(ReplaceError::Unwritable { place });
        }
        let (bytes, mode) = self.text().await?;
        match change(&place, self.utf8(&bytes)?, &self.field, replacement)? {
            Change::Nothing => Ok(()),
            Change::Write(text) => {
                put(&self.path, &text, mode).await.map_err(|error| {
                    let kind = error.kind();
                    SecretError::Denied {
                        place,
                        code: kind.to_string().replace(' ', "_"),
                        remedy: "let the user that Latchkey runs as write the folder of this file"
                            .to_owned(),
                    }
                })?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::parse::DEFAULT_FIELD;
    use secrecy::ExposeSecret;

    async fn fetched(path: &Path) -> Result<String, SecretError> {
        let store = FileSecret::new(path, DEFAULT_FIELD);
        store
            .fetch()
            .await
            .map(|key| key.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn a_replaced_file_is_a_rotated_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "essu_one\n").expect("writable");
        assert_eq!(fetched(&path).await.as_deref(), Ok("essu_one"));
        std::fs::write(&path, r#"{"api_key":"essu_two"}"#).expect("writable");
        assert_eq!(fetched(&path).await.as_deref(), Ok("essu_two"));
    }

    #[tokio::test]
    async fn what_cannot_hold_a_key_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("empty"), "\n").expect("writable");
        std::fs::write(path("huge"), "x".repeat(MAX_SECRET_BYTES + 1)).expect("writable");
        std::fs::write(path("binary"), [0xff, 0xfe, 0x00]).expect("writable");
        let cases = [
            ("missing", "secret_not_found", "no secret found"),
            ("empty/below", "secret_not_found", "no secret found"),
            (".", "secret_malformed", "directory"),
            ("empty", "secret_malformed", "empty"),
            ("huge", "secret_malformed", "64 KiB"),
            ("binary", "secret_malformed", "UTF-8"),
        ];
        for (name, code, text) in cases {
            let error = fetched(&path(name)).await.expect_err(name);
            assert_eq!(error.code(), code, "{name}");
            assert!(error.to_string().contains(text), "{name}: {error}");
            assert!(error.to_string().contains("file "), "{name}: {error}");
            assert!(!error.remedy().is_empty(), "{name}");
        }
        let device = fetched(Path::new("/dev/null")).await.expect_err("a device");
        assert!(device.to_string().contains("not a plain file"), "{device}");
    }

    #[tokio::test]
    async fn a_key_is_replaced_in_one_step_and_only_where_it_was_expected() {
        use crate::ports::secrets::digest;

        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        std::fs::write(&path, r#"{"api_key":"essu_one","note":1}"#).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("ours");
        let store = FileSecret::new(&path, DEFAULT_FIELD);
        let one = digest(&SecretString::from("essu_one"));
        let replacement = Replacement {
            expected: &one,
            key: &SecretString::from("essu_two"),
            token: "t",
        };
        store.replace(&replacement).await.expect("replaced");
        store.replace(&replacement).await.expect("there already");
        assert_eq!(fetched(&path).await.as_deref(), Ok("essu_two"));
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.contains("\"note\":1"), "{text}");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        std::fs::write(&path, "essu_three").expect("writable");
        let changed = store.replace(&replacement).await.expect_err("another key");
        assert_eq!(changed.code(), "secret_changed");
        let left = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(left, 1, "nothing is left beside it");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        let linked = FileSecret::new(&link, DEFAULT_FIELD);
        let refused = linked.replace(&replacement).await.expect_err("a link");
        assert_eq!(refused.code(), "secret_unwritable");
    }

    #[test]
    fn only_modes_that_let_everybody_read_are_warned_of() {
        assert!(is_world_readable(0o100_644));
        assert!(!is_world_readable(0o100_640));
        assert!(!is_world_readable(0o100_400));
    }
}
