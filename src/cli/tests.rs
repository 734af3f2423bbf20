//! The command line as people type it: arguments, help texts, completions.

use super::*;
use clap::CommandFactory as _;
