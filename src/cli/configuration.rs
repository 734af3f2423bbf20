//! `check-config` and `schema`: the configuration without a running connector.
//!
//! Owns how problems are reported: all of them at once. Never reads a secret.

use std::path::Path;

use super::args::CheckConfigArgs;
use super::exit::{Exit, Failure};
use super::streams::{Format, Streams};
use super::text;
use crate::config::{self, Config};

/// The configuration, or all that is wrong with it, printed problem by problem.
pub(super) fn load(path: &Path, streams: &mut Streams) -> Result<Config, Failure> {
    let errors = match Config::load(path) {
        Ok(config) => return Ok(config),
        Err(errors) => errors,
    };
    for problem in &errors.problems {
        streams.note(&text::safe(&problem.to_string()))?;
    }
    let count = text::count(errors.problems.len(), "problem", "problems");
    Err(Failure::new(
        Exit::Configuration,
        format!("{count} in {}", path.display()),
        "`latchkey schema` describes every setting",
    ))
}

/// `latchkey check-config`
pub(super) fn check(args: &CheckConfigArgs, streams: &mut Streams) -> Result<(), Failure> {
    load(&args.config, streams)?;
    streams.line(&format!(
        "{} is fine",
        text::safe(&args.config.display().to_string())
    ))
}

/// `latchkey schema`
pub(super) fn schema(streams: &mut Streams) -> Result<(), Failure> {
    streams.document(Format::Json, &config::schema())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::time::Zone;
    use crate::runtime::SystemClock;

    fn streams() -> Streams {
        Streams {
            out: Box::new(std::io::sink()),
            err: Box::new(std::io::sink()),
            out_is_terminal: false,
            err_is_terminal: false,
            allow_colour: false,
            width: None,
            clock: Arc::new(SystemClock),
            zone: Zone::Named(chrono_tz::UTC),
            interrupt: tokio_util::sync::CancellationToken::new(),
        }
    }

    #[test]
    fn a_bad_configuration_exits_with_64() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, "nonsense: true\n").expect("written");
        for config in [config, dir.path().join("missing.yaml")] {
            let failure = check(&CheckConfigArgs { config }, &mut streams()).expect_err("bad");
            assert_eq!(failure.exit, Exit::Configuration, "{failure:?}");
        }
        assert_eq!(schema(&mut streams()), Ok(()));
    }
}
