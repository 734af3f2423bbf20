//! What the operating system allows this process: open files, core dumps.
//!
//! Owns asking for what is needed at start, and how open files are shared out. Never raises a hard limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that stay open whatever happens: standard streams, listeners, the runtime, the ledger with all its
/// readers, its log and its lock, a secret being read, a name being resolved.
const STANDING: u64 = 36;

/// Connections of the health listener.
pub const HEALTH_CONNECTIONS: usize = 8;

/// Callers that must at least be able to connect.
const FEWEST: u64 = 4;

/// There are not enough files to serve anybody and still revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {have} files and needs at least {need}: raise the limit (`ulimit -n`, LimitNOFILE, or that of the container)"
)]
pub struct TooFewFiles {
    /// The limit.
    pub have: u64,
    /// The least that does.
    pub need: u64,
}

/// Raises the soft limit of open files to the hard one, and answers it; `None` for no limit.
#[must_use]
pub fn open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "The limit of open files could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// A dump of memory would hold the key.
pub fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "Core dumps could not be switched off");
    }
}

/// How many callers may be connected: what was asked for, or fewer where files are scarce. What the calls to Elastic
/// Cloud need (`upstream`, at most so many at a time) is set aside first, so that callers cannot keep revocations
/// from their connections.
///
/// # Errors
/// [`TooFewFiles`] when not even a few callers would fit.
pub fn connections(
    wanted: usize,
    upstream: usize,
    files: Option<u64>,
) -> Result<usize, TooFewFiles> {
    let Some(have) = files else {
        return Ok(wanted);
    };
    let aside = STANDING + HEALTH_CONNECTIONS as u64 + upstream as u64;
    let left = have.saturating_sub(aside);
    if left < FEWEST {
        return Err(TooFewFiles {
            have,
            need: aside + FEWEST,
        });
    }
    Ok(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_what_the_calls_upstream_leave() {
        assert_eq!(connections(256, 16, None), Ok(256));
        assert_eq!(connections(256, 16, Some(1024)), Ok(256));
        assert_eq!(connections(256, 16, Some(96)), Ok(36));
        assert_eq!(connections(256, 16, Some(64)), Ok(4));
        assert_eq!(
            connections(256, 16, Some(63)),
            Err(TooFewFiles { have: 63, need: 64 })
        );
    }
}
