//! `rrr train`: from a folder of images to a run, or on from where a run stopped.

use crate::Done;
use crate::args::{Cli, Format, Globals, TrainArgs};
use crate::interrupt;
use crate::progress::{View, duration};
use crate::term::{Term, visible};
use anyhow::Context;
use clap::CommandFactory;
use clap::error::ErrorKind;
use rrrnet::config::Settings;
use rrrnet::train::{Outcome, Summary, TrainOptions, resume, train};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

pub fn run(args: TrainArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let options = train_options(args.overwrite, globals)?;
    let mut view = View::new(term);
    let (run, outcome) = match args.resume {
        Some(run) => {
            if args.settings.into_settings(None, None) != Settings::default() {
                let what =
                    "a run goes on with its own settings: only --threads and --format go with --resume";
                Cli::command().error(ErrorKind::ArgumentConflict, what).exit();
            }
            let outcome = resume(&run, globals.threads, &options, &mut |e| view.show(e));
            (run, outcome)
        }
        None => {
            let out = args.out.context("no folder for the run\nhint: give --out RUN")?;
            let file = args.config.map(|path| Settings::read(&path)).transpose()?.unwrap_or_default();
            let config = args.settings.into_settings(args.data, globals.threads).over(file).resolve()?;
            let outcome = train(&config, &out, &options, &mut |e| view.show(e));
            (out, outcome)
        }
    };
    view.finish();
    finish(&outcome?, &run, args.format, term)
}

/// What a training is told besides its configuration; Ctrl-C is watched from here on.
pub fn train_options(overwrite: bool, globals: &Globals) -> anyhow::Result<TrainOptions<'static>> {
    let interrupt = interrupt::watch()?;
    Ok(TrainOptions { overwrite, offline: globals.offline, interrupt, command: command_line() })
}

/// Says how a training ended; the model's path and accuracy are data.
pub fn finish(outcome: &Outcome, run: &Path, format: Format, term: &Term) -> anyhow::Result<Done> {
    match outcome {
        Outcome::Interrupted { done, total } => {
            term.say(&format!("interrupted after {done} of {total} steps; everything is saved"));
            term.say(&format!("go on with: rrr train --resume {}", run.display()));
            Ok(Done::Interrupted)
        }
        Outcome::Finished(summary) => {
            let seconds = duration(Duration::from_secs_f64(summary.seconds));
            term.say(&format!("trained in {seconds}"));
            match format {
                Format::Text => print_summary(summary)?,
                Format::Json => writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(summary)?)?,
            }
            Ok(Done::Fully)
        }
    }
}

fn print_summary(summary: &Summary) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "model     {}", visible(summary.model.display()))?;
    if let Some(e) = &summary.evaluation {
        let (low, high) = (e.metrics.accuracy_interval.low, e.metrics.accuracy_interval.high);
        writeln!(
            out,
            "accuracy  {:.1}% of {} test images (95% interval {:.1}-{:.1}%)",
            100.0 * e.metrics.accuracy,
            e.metrics.n,
            100.0 * low,
            100.0 * high
        )?;
    }
    if let Some(report) = &summary.report {
        writeln!(out, "report    {}", visible(report.display()))?;
    }
    Ok(())
}

/// The command as it was typed, more or less.
fn command_line() -> Option<String> {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .map(|a| if a.contains([' ', '"', '\'']) { format!("'{}'", a.replace('\'', "'\\''")) } else { a })
        .collect();
    Some(format!("rrr {}", args.join(" ")))
}
