//! `rrr suite`: benchmark suites.

mod args;
mod run;
mod show;

pub use args::SuiteArgs;

use crate::Done;
use crate::args::{Format, Globals};
use crate::term::{Term, visible};
use args::{CheckArgs, ExportArgs, ExportFormat, InitArgs, ReportArgs, SourceArgs, SuiteCommand};
use rrr_suite::db::Database;
use rrr_suite::matrix::{PlanningOptions, Task, tasks};
use rrr_suite::spec::{Suite, read, templates};
use rrr_suite::{export, report};
use serde_json::json;
use std::io::{self, Write};

pub fn run(args: SuiteArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    match args.command {
        SuiteCommand::Init(a) => init(&a, term),
        SuiteCommand::Check(a) => check(&a, globals, term),
        SuiteCommand::Run(a) => run::run(&a, globals, term),
        SuiteCommand::Status(a) => show::status(&a),
        SuiteCommand::Show(a) => show::task(&a),
        SuiteCommand::Export(a) => export_table(&a),
        SuiteCommand::Report(a) => write_report(&a, term),
    }
}

fn init(args: &InitArgs, term: &Term) -> anyhow::Result<Done> {
    let text = match () {
        () if args.paper => templates::PAPER,
        () if args.branches => templates::BRANCHES,
        () if args.blocks => templates::BLOCKS,
        () if args.fge => templates::FGE,
        () => templates::SMALL,
    };
    templates::write(&args.file, text, args.force)?;
    writeln!(io::stdout(), "{}", args.file.display())?;
    term.say(&format!("run it with: rrr suite run {}", args.file.display()));
    Ok(Done::Fully)
}

fn check(args: &CheckArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let (suite, tasks) = plan(&args.source, globals, term)?;
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => {
            writeln!(out, "{}: {} tasks", visible(&suite.name), tasks.len())?;
            for t in &tasks {
                let c = &t.cell;
                let line = format!("{}  {}  {}  seed {}", &t.hash[..12], c.dataset, c.method, c.seed);
                writeln!(out, "{}", visible(line))?;
            }
        }
        Format::Json => {
            let list: Vec<_> = tasks
                .iter()
                .map(|t| json!({ "hash": t.hash, "cell": t.cell, "after": t.after, "config": t.config }))
                .collect();
            let whole = json!({ "suite": suite.name, "tasks": list });
            writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
        }
    }
    Ok(Done::Fully)
}

/// The suite of the file and its tasks.
fn plan(source: &SourceArgs, globals: &Globals, term: &Term) -> anyhow::Result<(Suite, Vec<Task>)> {
    let suite = read(&source.suite)?;
    term.say(&format!("{}: reading the datasets ...", suite.name));
    let options = PlanningOptions {
        root: source.root.clone(),
        offline: globals.offline,
        threads: globals.thread_count(),
    };
    let tasks = tasks(&suite, &options)?;
    Ok((suite, tasks))
}

fn export_table(args: &ExportArgs) -> anyhow::Result<Done> {
    let db = Database::open(&args.db.db)?;
    let suite = db.suite(args.db.suite.as_deref())?;
    let table = export::table(&db.rows(&suite.name)?);
    let bytes = match args.format {
        ExportFormat::Csv => table.to_csv(),
        ExportFormat::Json => table.to_json(),
        ExportFormat::Parquet => table.to_parquet(),
    };
    match &args.out {
        Some(path) => rrr_checkpoint::atomic_write(path, &bytes)?,
        None => io::stdout().write_all(&bytes)?,
    }
    Ok(Done::Fully)
}

fn write_report(args: &ReportArgs, term: &Term) -> anyhow::Result<Done> {
    let db = Database::open(&args.db.db)?;
    let suite = db.suite(args.db.suite.as_deref())?;
    let report = report::Report::new(&suite, &db.rows(&suite.name)?)?;
    for path in report.write(&args.out, args.overwrite)? {
        term.say(&format!("wrote {}", path.display()));
    }
    writeln!(io::stdout(), "{}", args.out.join("index.html").display())?;
    Ok(Done::Fully)
}
