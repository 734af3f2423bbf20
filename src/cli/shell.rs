//! Completion scripts and manual pages, made from the same definitions as `--help`.
//!
//! Owns what is written for shells and for `man`. Never asks the connector anything.

use super::args::{CompletionsArgs, ManArgs};
use super::exit::{Exit, Failure};
use super::streams::Streams;

/// `latchkey completions`
pub(super) fn completions(args: &CompletionsArgs, streams: &mut Streams) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "latchkey", &mut script);
    streams.out.write_all(&script)?;
    Ok(())
}

/// `latchkey man`
pub(super) fn man(args: &ManArgs, streams: &mut Streams) -> Result<(), Failure> {
    // Pages list the commands themselves; the grouping of `--help` is for terminals.
    let command = super::command().help_template("{all-args}");
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        streams.out.write_all(&page)?;
        return Ok(());
    };
    let failed = |error: std::io::Error| {
        Failure::new(
            Exit::Failed,
            format!("cannot write manual pages to {}: {error}", dir.display()),
            "",
        )
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)?;
    streams.note(&format!("wrote the manual pages to {}", dir.display()))
}
