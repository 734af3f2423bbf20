//! Looking at a witness that may be in use.
//!
//! Owns nothing but the look. Never takes the lock, and never writes.

use std::io;
use std::path::Path;

use super::store::{Store, scan};
use crate::ports::witness::{Condition, Found, Intent};

/// Looks at the witness at `path` without opening it for writing: for `doctor` and `adopt`, also while a connector
/// runs on it.
///
/// # Errors
/// When it can be trusted and its intents cannot be read all the same.
pub fn inspect(path: &Path) -> io::Result<(Found, Vec<Intent>)> {
    let mut store = Store::unopened(path);
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => match scan(path, u64::MAX, |_, _, _| Ok(())) {
            Ok(scanned) => {
                store.condition = Condition::Whole;
                store.binding = scanned.binding;
                store.mark = scanned.mark;
                store.good = scanned.good;
            }
            Err(error) => {
                store.condition = Condition::Damaged {
                    detail: error.to_string(),
                };
            }
        },
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            store.condition = Condition::Damaged {
                detail: format!("it cannot be read ({})", error.kind()),
            };
        }
    }
    let intents = store.open_intents()?;
    let found = Found {
        condition: store.condition,
        binding: store.binding,
        mark: store.mark,
    };
    Ok((found, intents))
}
