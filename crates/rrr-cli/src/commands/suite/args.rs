//! The command line of `rrr suite`.

use crate::args::{Format, positive};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SuiteArgs {
    #[command(subcommand)]
    pub command: SuiteCommand,
}

#[derive(Debug, Subcommand)]
pub enum SuiteCommand {
    /// Write a suite's file to begin with
    Init(InitArgs),
    /// Read a suite's file and say what it would run
    Check(CheckArgs),
    /// Run what is not done yet; any number of processes may share one database
    Run(RunArgs),
    /// Show how far a suite is
    Status(StatusArgs),
    /// Show one task
    Show(ShowArgs),
    /// Write all tasks and their numbers as a table
    Export(ExportArgs),
    /// Write the report: HTML, Markdown, LaTeX, figures and their data
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// File to write
    #[arg(default_value = "suite.toml")]
    pub file: PathBuf,
    /// The paper's comparison: 40 datasets, methods A to D, 3 seeds
    #[arg(long, group = "which")]
    pub paper: bool,
    /// The paper's choice of the number of branches on a validation split
    #[arg(long, group = "which")]
    pub branches: bool,
    /// The paper's forward selection of blocks, with its control
    #[arg(long, group = "which")]
    pub blocks: bool,
    /// Fast geometric ensembles next to branches
    #[arg(long, group = "which")]
    pub fge: bool,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// What a suite's file needs to become tasks.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The suite's file
    pub suite: PathBuf,
    /// Folder of the datasets that the file names; otherwise its `root`, or the environment variable RRR_ALBUM
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The results database; runs go to a folder beside it
    #[arg(long, value_name = "FILE", default_value = "results.db")]
    pub db: PathBuf,
    /// Run failed tasks again
    #[arg(long)]
    pub retry_failed: bool,
    /// What stays of a finished run
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub keep: KeepArg,
    /// Seconds for which a worker that is not heard of is believed to be alive
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = positive)]
    pub lease: usize,
    /// End when all that is left is in other hands
    #[arg(long)]
    pub no_wait: bool,
}

/// What stays of a finished run.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum KeepArg {
    /// Configuration, curves, predictions and report
    #[default]
    Reports,
    /// The model as well
    Models,
    /// Checkpoints too
    All,
}

/// Which suite of which database.
#[derive(Debug, Args)]
pub struct DbArgs {
    /// The results database
    #[arg(long, value_name = "FILE", default_value = "results.db")]
    pub db: PathBuf,
    /// Name of the suite, where the database has several
    #[arg(long, value_name = "NAME")]
    pub suite: Option<String>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub db: DbArgs,
    /// List every task
    #[arg(long)]
    pub tasks: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The beginning of a task's hash
    pub task: String,
    /// The results database
    #[arg(long, value_name = "FILE", default_value = "results.db")]
    pub db: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub db: DbArgs,
    /// File format
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// File to write; standard output by default
    #[arg(long, value_name = "FILE", required_if_eq("format", "parquet"))]
    pub out: Option<PathBuf>,
}

/// Format of an exported table.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated values with a header.
    #[default]
    Csv,
    /// An array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub db: DbArgs,
    /// Folder to write to; a report that is there is replaced
    #[arg(long, value_name = "DIR", default_value = "suite-report")]
    pub out: PathBuf,
    /// Replace files that are no report too
    #[arg(long)]
    pub overwrite: bool,
}
