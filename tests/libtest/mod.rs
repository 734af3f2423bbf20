//! What `cargo test` passes on to targets that bring their own `main`.

use clap::Args;

/// Flags of the usual test harness, which `cargo test` passes on to every target. They change nothing here.
#[derive(Debug, Args)]
pub(crate) struct Harness {
    #[arg(long, hide = true)]
    pub(crate) list: bool,
    #[arg(long, hide = true, alias = "no-capture")]
    nocapture: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    pub(crate) ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}
