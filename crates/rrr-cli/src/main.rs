//! The `rrr` command: argument parsing, progress and printing around the `rrrnet` library.
//!
//! Standard output carries data, standard error talk. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted (a
//! training then has saved its checkpoint).

mod args;
mod commands;
mod interrupt;
mod progress;
mod settings;
mod term;

use args::{Cli, Command};
use clap::Parser;
use rrrnet::compute::check_instruction_set;
use std::process::ExitCode;
use term::Term;

/// How a command ended, short of an error.
enum Done {
    /// It did what it was asked to.
    Fully,
    /// It was interrupted and has saved its state.
    Interrupted,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let term = Term::new(cli.globals.color, cli.globals.quiet, cli.globals.verbose);
    term.init_log();
    if let Err(e) = check_instruction_set() {
        term.error(&anyhow::anyhow!("{e}\nhint: choose one of these, or unset RRR_ISA"));
        return ExitCode::from(2);
    }
    match run(cli, &term) {
        Ok(Done::Fully) => ExitCode::SUCCESS,
        Ok(Done::Interrupted) => ExitCode::from(130),
        // Whoever read our output has seen enough.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // The library's errors name their files.
            let e = if e.is::<std::io::Error>() { e.context("cannot write to standard output") } else { e };
            term.error(&e);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, term: &Term) -> anyhow::Result<Done> {
    let globals = &cli.globals;
    match cli.command {
        Command::Quickstart(a) => commands::quickstart::run(&a, globals, term),
        Command::Backbone(a) => commands::backbone::run(&a, globals, term),
        Command::Plan(a) => commands::plan::run(&a, globals),
        Command::Reduce(a) => commands::reduce::run(&a, globals, term),
        Command::Train(a) => commands::train::run(*a, globals, term),
        Command::Eval(a) => commands::eval::run(&a, globals, term),
        Command::Predict(a) => commands::predict::run(&a, globals, term),
        Command::Bench(a) => commands::bench::run(&a, globals, term),
        Command::Quantize(a) => commands::quantize::run(&a, globals, term),
        Command::Inspect(a) => commands::inspect::run(&a),
        Command::Suite(a) => commands::suite::run(a, globals, term),
        Command::Completions(a) => commands::completions::run(&a),
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
