//! `rrr suite status` and `rrr suite show`.

use super::args::{ShowArgs, StatusArgs};
use crate::Done;
use crate::args::Format;
use crate::progress::duration;
use crate::term::{lines, visible};
use rrr_suite::db::{Database, Row, State};
use rrr_suite::status::Status;
use serde_json::json;
use std::io::{self, Write};
use std::time::Duration;

pub fn status(args: &StatusArgs) -> anyhow::Result<Done> {
    let db = Database::open(&args.db.db)?;
    let suite = db.suite(args.db.suite.as_deref())?;
    let rows = db.rows(&suite.name)?;
    let status = Status::of(&rows);
    let mut out = io::stdout().lock();
    if args.format == Format::Json {
        let tasks = args.tasks.then_some(&rows);
        let whole = json!({ "suite": suite, "status": status, "tasks": tasks });
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
        return Ok(Done::Fully);
    }
    let all = ("all".to_owned(), status.total);
    let counts: Vec<_> = status.methods.iter().chain([&all]).map(|(name, c)| (visible(name), c)).collect();
    let width = counts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(6);
    let suite = visible(&suite.name);
    writeln!(out, "{suite:width$}  {:>5} {:>7} {:>7} {:>6}", "done", "running", "waiting", "failed")?;
    for (name, c) in counts {
        writeln!(out, "{name:width$}  {:>5} {:>7} {:>7} {:>6}", c.done, c.running, c.waiting, c.failed)?;
    }
    if let Some(left) = status.seconds_left.filter(|s| *s > 0.0) {
        let workers = status.workers.max(1);
        writeln!(out, "about {} left with {workers} at work", duration(Duration::from_secs_f64(left)))?;
    }
    for row in rows.iter().filter(|r| args.tasks || r.state == State::Failed) {
        writeln!(out, "{}", visible(line(row)))?;
    }
    Ok(Done::Fully)
}

fn line(row: &Row) -> String {
    let c = &row.cell;
    let what = match (row.state, &row.result, &row.message) {
        (State::Done, Some(r), _) => {
            let accuracy = r.test.as_ref().map(|t| t.accuracy).or(r.validation_accuracy);
            accuracy.map_or(String::new(), |a| format!("{:.1}%", 100.0 * a))
        }
        (State::Running, ..) => {
            format!("{}/{} steps, {}", row.done, row.total, row.owner.as_deref().unwrap_or(""))
        }
        (_, _, Some(message)) => message.replace('\n', " "),
        _ => String::new(),
    };
    format!(
        "{}  {:7}  {}  {}  seed {}  {what}",
        &row.hash[..12],
        row.state.as_str(),
        c.dataset,
        c.method,
        c.seed
    )
}

pub fn task(args: &ShowArgs) -> anyhow::Result<Done> {
    let db = Database::open(&args.db)?;
    let found = db.find(&args.task)?;
    let (_, row) = &found[0];
    let mut out = io::stdout().lock();
    if args.format == Format::Json {
        let suites: Vec<&String> = found.iter().map(|(suite, _)| suite).collect();
        let whole = json!({ "suites": suites, "task": row, "config": row.config });
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
        return Ok(Done::Fully);
    }
    writeln!(out, "task      {}", row.hash)?;
    for (suite, row) in &found {
        let c = &row.cell;
        let line = format!("{suite}: {}, {}, seed {}", c.dataset, c.method, c.seed);
        writeln!(out, "suite     {}", visible(line))?;
    }
    writeln!(out, "state     {}, {} attempts", row.state.as_str(), row.attempts)?;
    if let Some(owner) = &row.owner {
        writeln!(out, "owner     {owner}, {} of {} steps", row.done, row.total)?;
    }
    writeln!(out, "time      {}", duration(Duration::from_secs_f64(row.seconds)))?;
    let run = db.run_of(&row.hash);
    writeln!(out, "run       {}{}", visible(run.display()), if run.is_dir() { "" } else { " (not there)" })?;
    if let Some(message) = &row.message {
        writeln!(out, "message   {}", lines(message))?;
    }
    if let Some(result) = &row.result {
        writeln!(out, "result    {}", serde_json::to_string_pretty(result)?)?;
    }
    writeln!(out, "\n{}", row.config.trim_end())?;
    Ok(Done::Fully)
}
