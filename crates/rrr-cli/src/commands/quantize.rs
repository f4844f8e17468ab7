//! `rrr quantize`: a trained model in 8 bits.

use crate::Done;
use crate::args::{Format, Globals, QuantizeArgs};
use crate::term::{Term, visible};
use rrrnet::quantize::{QuantizeOptions, QuantizeReport, quantize};
use std::io::{self, Write};

pub fn run(args: &QuantizeArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let options = QuantizeOptions {
        images: args.images,
        skip_bad: args.skip_bad,
        columns: args.columns.names(),
        threads: globals.thread_count(),
    };
    let report = quantize(&args.run, args.calibrate.as_deref(), args.out.as_deref(), options)?;
    for note in &report.notes {
        term.warn(note);
    }
    if report.accuracy.is_none() {
        term.warn(
            "the accuracy was not measured: there are no labelled images besides those of the calibration",
        );
    }
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => print(&mut out, &report)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(Done::Fully)
}

fn print(out: &mut impl Write, r: &QuantizeReport) -> io::Result<()> {
    writeln!(out, "calibration  {} images", r.calibration_images)?;
    if let Some(a) = &r.accuracy {
        let (before, after) = (100.0 * a.before, 100.0 * a.after);
        let change = after - before;
        writeln!(
            out,
            "accuracy     {before:.1}% before, {after:.1}% after ({change:+.1} points; {} {}, {} images)",
            visible(&a.dataset),
            a.split,
            a.images
        )?;
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (before, after) = (mib(r.bytes.before), mib(r.bytes.after));
    writeln!(
        out,
        "size         {before:.1} MiB before, {after:.1} MiB after ({:.1} x smaller)",
        before / after
    )?;
    let (before, after) = (r.latency_ms.before, r.latency_ms.after);
    writeln!(
        out,
        "one image    {before:.2} ms before, {after:.2} ms after ({:.1} x faster)",
        before / after
    )?;
    writeln!(out, "model        {}", visible(r.model.display()))?;
    writeln!(out, "report       {}", visible(r.report.display()))
}
