//! `rrr backbone`: pretrained weights.

use crate::Done;
use crate::args::{BackboneArgs, BackboneCommand, Format, Globals};
use crate::commands::inspect::print_checkpoint;
use crate::progress::View;
use crate::term::Term;
use rrr_checkpoint::{ConvertOptions, PullOptions, Resolved, convert, inspect, list, pull, resolve};
use std::cell::RefCell;
use std::io::{self, Write};

pub fn run(args: &BackboneArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let view = RefCell::new(View::new(term));
    let progress = |p| view.borrow_mut().backbone(&p);
    let options = PullOptions { offline: globals.offline, progress: &progress, ..PullOptions::default() };
    match &args.command {
        BackboneCommand::List { format } => print_list(*format)?,
        BackboneCommand::Pull { name } => {
            let files = pull(name, &options)?;
            view.borrow().finish();
            writeln!(io::stdout(), "{}", files.weights.display())?;
            term.say(&format!(
                "{}, licence: {}",
                files.name,
                files.card.license.as_deref().unwrap_or("not stated")
            ));
        }
        BackboneCommand::Inspect { name, format } => {
            let Resolved { weights, .. } = resolve(name, &options)?;
            view.borrow().finish();
            print_checkpoint(&inspect(&weights)?, *format)?;
        }
        BackboneCommand::Convert { name, out, overwrite } => {
            let target = out.join("model.safetensors");
            if target.exists() && !overwrite {
                anyhow::bail!(
                    "{} is there already\nhint: choose another folder, or give --overwrite",
                    target.display()
                );
            }
            let found = resolve(name, &options)?;
            view.borrow().finish();
            std::fs::create_dir_all(out)
                .map_err(|e| anyhow::anyhow!("cannot make the folder {}: {e}", out.display()))?;
            let report =
                convert(&found.weights, &target, &ConvertOptions { card: found.card, ..Default::default() })?;
            if !report.dropped.is_empty() {
                term.say(&format!(
                    "left out {} tensors: {}",
                    report.dropped.len(),
                    report.dropped.join(", ")
                ));
            }
            writeln!(io::stdout(), "{}", target.display())?;
        }
    }
    Ok(Done::Fully)
}

fn print_list(format: Format) -> anyhow::Result<()> {
    let entries = list(None)?;
    let mut out = io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(());
    }
    let width = entries.iter().map(|e| e.entry.name.len()).max().unwrap_or(0);
    for e in &entries {
        let cached = e.bytes.map_or("-".into(), |b| format!("{} MiB", b >> 20));
        writeln!(out, "{:width$}  {cached:>8}  {} ({})", e.entry.name, e.entry.about, e.entry.license)?;
    }
    Ok(())
}
