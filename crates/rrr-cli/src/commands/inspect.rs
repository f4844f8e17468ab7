//! `rrr inspect`: what a run, a model or a checkpoint contains.

use crate::Done;
use crate::args::{Format, InspectArgs};
use crate::term::visible;
use rrr_checkpoint::{Checkpoint, Inspection, inspect};
use rrrnet::backbone::ReducedBackbone;
use rrrnet::config::TrainConfig;
use rrrnet::cost::net_cost;
use rrrnet::model::Model;
use rrrnet::run::RunDir;
use rrrnet::train::training_position;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;

pub fn run(args: &InspectArgs) -> anyhow::Result<Done> {
    if args.path.is_dir()
        && let Ok(run) = RunDir::open(&args.path)
    {
        print(&run_summary(&run)?, args.format)?;
        return Ok(Done::Fully);
    }
    let checkpoint = Checkpoint::open(&args.path)?;
    if Model::is_model(&checkpoint) {
        print(&model_summary(&args.path)?, args.format)?;
    } else if let Some((steps, warmed)) = training_position(&checkpoint) {
        let summary = json!({"kind": "training checkpoint", "steps": steps, "warming_batches": warmed});
        print(&summary, args.format)?;
    } else if let Some(reduced) = ReducedBackbone::read(&checkpoint)? {
        let mut summary = serde_json::to_value(&reduced.header)?;
        summary["kind"] = "reduced backbone".into();
        print(&summary, args.format)?;
    } else {
        print_checkpoint(&inspect(&args.path)?, args.format)?;
    }
    Ok(Done::Fully)
}

fn run_summary(run: &RunDir) -> anyhow::Result<Value> {
    let config = TrainConfig::read(&run.config())?;
    let records = run.records()?;
    let mut summary = json!({
        "kind": "run",
        "method": config.method,
        "data": config.data,
        "epochs": config.epochs,
        "precision": config.precision,
        "epochs_done": records.len(),
        "finished": run.model().is_file(),
    });
    if let Some(last) = records.last() {
        summary["last_epoch"] = serde_json::to_value(last)?;
    }
    if let Ok(text) = std::fs::read_to_string(run.evaluation()) {
        let test: Value = serde_json::from_str(&text)?;
        summary["test"] = json!({ "images": test["n"], "accuracy": test["accuracy"], "nll": test["nll"] });
    }
    if run.model().is_file() {
        summary["model"] = model_summary(&run.model())?;
    }
    Ok(summary)
}

fn model_summary(path: &Path) -> anyhow::Result<Value> {
    let model = Model::load(path)?;
    let size = model.info.preprocessing.size;
    let cost = net_cost(&model.spec, [size; 2]);
    let names = |s: &rrr_nn::SequenceSpec| -> Vec<String> {
        let conv1 = s.conv1.map(|c| format!("conv1 ({c} channels)"));
        let blocks = s.blocks.iter().map(|b| format!("{} ({} -> {} -> {})", b.name, b.cin, b.width, b.cout));
        conv1.into_iter().chain(blocks).collect()
    };
    Ok(json!({
        "kind": "model",
        "stem": names(&model.spec.stem),
        "branches": model.spec.branches,
        "coarse_branches": Some(model.spec.coarse).filter(|n| *n > 0),
        "branch": names(&model.spec.branch),
        "params": cost.params,
        "macs": cost.macs,
        "classes": model.info.classes,
        "preprocessing": model.info.preprocessing,
        "combine": model.info.combine,
        "temperature": model.info.temperature,
        "provenance": model.info.provenance,
        "quantization": model.quantization(),
    }))
}

/// Prints what an inspection of a checkpoint found.
pub fn print_checkpoint(found: &Inspection, format: Format) -> anyhow::Result<()> {
    print(&serde_json::to_value(found)?, format)
}

fn print(summary: &Value, format: Format) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(summary)?)?,
        Format::Text => text(&mut out, summary, 0)?,
    }
    Ok(())
}

/// Fields one to a line, nested ones indented; what is absent is left out.
fn text(out: &mut impl Write, value: &Value, depth: usize) -> io::Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    let shown = || fields.iter().filter(|(_, v)| !v.is_null());
    let width = shown().map(|(k, _)| k.len()).max().unwrap_or(0);
    for (key, value) in shown() {
        write!(out, "{:indent$}{:width$}  ", "", visible(key), indent = 2 * depth)?;
        match value {
            Value::Object(_) => {
                writeln!(out)?;
                text(out, value, depth + 1)?;
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                writeln!(out, "{}", items.join(", "))?;
            }
            other => writeln!(out, "{}", plain(other))?,
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => visible(s),
        other => other.to_string(),
    }
}
