//! `rrr eval`: a model against labelled images.

use crate::Done;
use crate::args::{EvalArgs, Format, Globals};
use crate::term::{Term, visible};
use rrrnet::evaluate::{EvaluateOptions, Evaluation, evaluate, evaluate_run};
use rrrnet::model::Model;
use std::io::{self, Write};

pub fn run(args: &EvalArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let options = EvaluateOptions {
        batch_size: args.batch_size,
        threads: globals.thread_count(),
        precision: args.precision,
        skip_bad: args.skip_bad,
        columns: args.columns.names(),
        abstain_below: args.abstain_below,
        ood: args.ood.as_deref(),
    };
    if let Some(caveat) = args.precision.caveat() {
        term.warn(caveat);
    }
    let evaluation = match &args.data {
        Some(data) => evaluate(&Model::load(&args.run)?, data, options)?,
        None => evaluate_run(&args.run, options)?,
    };
    for note in &evaluation.notes {
        term.warn(note);
    }
    let others = evaluation.out_of_distribution.iter().flat_map(|o| &o.skipped);
    for bad in evaluation.skipped.iter().chain(others) {
        term.warn(&format!("left out {bad}"));
    }
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => print(&mut out, &evaluation)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&evaluation)?)?,
    }
    Ok(Done::Fully)
}

fn print(out: &mut impl Write, e: &Evaluation) -> io::Result<()> {
    let m = &e.metrics;
    let percent = |x: f64| format!("{:.1}%", 100.0 * x);
    writeln!(out, "dataset             {} ({}, {} images)", visible(&e.dataset), e.split, m.n)?;
    writeln!(out, "precision           {}", e.precision)?;
    writeln!(
        out,
        "accuracy            {} (95% interval {}-{})",
        percent(m.accuracy),
        percent(m.accuracy_interval.low),
        percent(m.accuracy_interval.high)
    )?;
    writeln!(out, "balanced accuracy   {}", percent(m.balanced_accuracy))?;
    writeln!(out, "macro F1            {:.3}", m.macro_f1)?;
    writeln!(out, "top-5 accuracy      {}", percent(m.top5_accuracy))?;
    let scaling = m.temperature_scaling;
    let was = |before: f64| format!(" ({before:.4} without the temperature)");
    let (nll, ece) = (scaling.map(|s| was(s.nll.before)), scaling.map(|s| was(s.ece.before)));
    writeln!(out, "log-likelihood loss {:.4}{}", m.nll, nll.unwrap_or_default())?;
    writeln!(out, "calibration error   {:.4}{}", m.calibration.ece, ece.unwrap_or_default())?;
    if let Some(scaling) = scaling {
        writeln!(out, "temperature         {:.3}", scaling.temperature)?;
    }
    if let Some(disagreement) = m.disagreement {
        writeln!(out, "single branches     {} on average", percent(m.mean_branch_accuracy))?;
        writeln!(out, "disagreement        {} of branch pairs", percent(disagreement))?;
    }
    if let Some(s) = &e.selective {
        let least = s.abstain_below;
        writeln!(out, "coverage            {} ({} images of {least} or surer)", percent(s.coverage), s.kept)?;
        writeln!(out, "accuracy of these   {}", s.accuracy.map_or("-".into(), percent))?;
    }
    if let Some(o) = &e.out_of_distribution {
        writeln!(out, "out of distribution {} ({} images)", visible(&o.dataset), o.images)?;
        let line = |name: &str, auroc: f64| format!("  AUROC by {name:20} {auroc:.3}");
        if let Some(auroc) = o.auroc.mutual_information {
            writeln!(out, "{}", line("mutual information", auroc))?;
        }
        writeln!(out, "{}", line("entropy", o.auroc.entropy))?;
        writeln!(out, "{}", line("1 - top probability", o.auroc.top_probability))?;
    }
    let names: Vec<String> = m.per_class.iter().map(|c| visible(&c.name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    writeln!(out, "\n{:width$}  precision  recall     F1  images", "class")?;
    let number = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
    for (c, name) in m.per_class.iter().zip(names) {
        let (precision, recall, f1) = (number(c.precision), number(c.recall), number(c.f1));
        writeln!(out, "{name:width$}  {precision:>9}  {recall:>6}  {f1:>5}  {:>6}", c.support)?;
    }
    Ok(())
}
