//! Where policies come from.
//!
//! Owns reading their texts and saying everything that is wrong with them. Never decides by one.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The policies in force while the configuration names no others.
pub const DEFAULT: &str = include_str!("default.cedar");

/// What policies are checked against.
pub const SCHEMA: &str = include_str!("latchkey.cedarschema");

/// Most bytes of one file; a law that nobody can read is no law.
const LARGEST: u64 = 1024 * 1024;
/// Most files.
const MOST: usize = 1000;

/// Where policies come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The shipped default.
    Shipped,
    /// Every file of a folder whose name ends in `.cedar`, in order of name.
    Directory(PathBuf),
    /// These files.
    Files(Vec<PathBuf>),
}

/// Why policies cannot be used, all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LawError {
    /// One sentence each, with the file in front.
    pub problems: Vec<String>,
}

impl fmt::Display for LawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in the policies")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl LawError {
    pub(super) fn one(problem: impl Into<String>) -> Self {
        Self {
            problems: vec![problem.into()],
        }
    }
}

/// A file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its path, or what stands for one.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Source {
    /// Reads every text.
    ///
    /// # Errors
    /// [`LawError`] when a file cannot be read or there is none.
    pub fn read(&self) -> Result<Vec<Text>, LawError> {
        match self {
            Self::Shipped => Ok(vec![Text {
                name: "the shipped default".to_owned(),
                text: DEFAULT.to_owned(),
            }]),
            Self::Directory(folder) => {
                let files = listed(folder)?;
                if files.is_empty() {
                    return Err(LawError::one(format!(
                        "{}: holds no file whose name ends in .cedar",
                        folder.display()
                    )));
                }
                read_all(&files)
            }
            Self::Files(files) => read_all(files),
        }
    }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, LawError> {
    let wrong = |error: std::io::Error| {
        LawError::one(format!(
            "{}: cannot be read ({})",
            folder.display(),
            error.kind()
        ))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.extension().is_some_and(|ending| ending == "cedar") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Text>, LawError> {
    if files.len() > MOST {
        return Err(LawError::one(format!("more than {MOST} files of policies")));
    }
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    for path in files {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        match read {
            Ok(length) if length as u64 > LARGEST => {
                problems.push(format!("{}: is larger than a mebibyte", path.display()));
            }
            Ok(_) => texts.push(Text {
                name: path.display().to_string(),
                text,
            }),
            Err(error) => problems.push(format!(
                "{}: cannot be read ({})",
                path.display(),
                error.kind()
            )),
        }
    }
    if problems.is_empty() {
        Ok(texts)
    } else {
        Err(LawError { problems })
    }
}
