//! `rrr completions`: a completion script on standard output.

use crate::Done;
use crate::args::{Cli, CompletionsArgs};
use clap::CommandFactory;
use std::io::Write;

pub fn run(args: &CompletionsArgs) -> anyhow::Result<Done> {
    // The generator panics when it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rrr", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Done::Fully)
}
