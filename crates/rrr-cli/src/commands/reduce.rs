//! `rrr reduce`: a backbone made small once, for many trainings.

use crate::Done;
use crate::args::{Format, Globals, ReduceArgs};
use crate::interrupt;
use crate::progress::{View, duration};
use crate::term::{Term, visible};
use anyhow::bail;
use rrrnet::config::{DEFAULT_SPLIT, Settings};
use rrrnet::reduce::{
    ReduceContext, ReduceEvent, ReduceOptions, ReduceOutcome, ReduceReport, RepairOptions, reduce,
};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Least side of the crops that the full network sees, in pixels: pretrained on larger ones, it says little of small ones.
const TEACHER_SIZE: usize = 128;

pub fn run(args: &ReduceArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let options = options(args)?;
    let context = ReduceContext {
        threads: globals.thread_count(),
        precision: args.precision,
        overwrite: args.overwrite,
        offline: globals.offline,
        interrupt: interrupt::watch()?,
    };
    if let Some(caveat) = args.precision.caveat() {
        term.warn(caveat);
    }
    let mut view = View::new(term);
    let mut clock = Clock::default();
    let outcome = reduce(&options, &args.out, &context, &mut |event| show(event, &mut view, &mut clock));
    view.finish();
    match outcome? {
        ReduceOutcome::Interrupted => {
            term.say("interrupted; everything is saved. The same command goes on from here");
            Ok(Done::Interrupted)
        }
        ReduceOutcome::Finished(report) => {
            let mut out = io::stdout().lock();
            match args.format {
                Format::Text => print(&mut out, &report)?,
                Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
            }
            Ok(Done::Fully)
        }
    }
}

fn options(args: &ReduceArgs) -> anyhow::Result<ReduceOptions> {
    let asked = Settings {
        blocks: args.blocks.clone(),
        split: args.split.clone(),
        budget: args.budget.clone(),
        ..Settings::default()
    };
    let (blocks, budget) = asked.layout()?;
    if !args.lr.is_finite() || args.lr <= 0.0 {
        bail!("--lr is {}\nhint: give a number above 0", args.lr);
    }
    if !(8..=4096).contains(&args.image_size) {
        bail!("--image-size is {}\nhint: give a number of pixels in 8..4096", args.image_size);
    }
    let teacher_size = args.teacher_size.unwrap_or(args.image_size.max(TEACHER_SIZE));
    if !(args.image_size..=4096).contains(&teacher_size) {
        bail!("--teacher-size is {teacher_size}\nhint: give a number of pixels in {}..4096", args.image_size);
    }
    let single = |numbers: [f64; 3]| numbers.map(|n| n as f32);
    Ok(ReduceOptions {
        backbone: args.backbone.clone(),
        normalize: args.mean.zip(args.std).map(|(mean, std)| (single(mean), single(std))),
        blocks,
        split: args.split.clone().unwrap_or_else(|| DEFAULT_SPLIT.into()),
        branches: args.branches,
        classes: args.classes,
        round_to: args.round_to,
        budget,
        seed: args.seed,
        repair: (!args.repair.is_empty()).then(|| RepairOptions {
            pictures: args.repair.clone(),
            crops: args.crops,
            image_size: args.image_size,
            teacher_size,
            epochs_whole: args.epochs_whole,
            epochs_branches: args.epochs_branches,
            batch_size: args.batch_size,
            lr: args.lr,
        }),
    })
}

/// When the present part of the repair began, and after how many of its steps.
#[derive(Default)]
struct Clock(Option<(usize, Instant, u64)>);

fn show(event: &ReduceEvent<'_>, view: &mut View<'_>, clock: &mut Clock) {
    match event {
        ReduceEvent::Stage(what) => view.line(&format!("{what} ...")),
        ReduceEvent::Note(text) => view.warn(text),
        ReduceEvent::Backbone(progress) => view.backbone(progress),
        ReduceEvent::Saved(path) => view.saved(path),
        ReduceEvent::Epoch(e) => {
            let error = format!("error on held-out pictures {:.1}%", 100.0 * e.held_out);
            view.line(&match e.epoch {
                0 => format!("before the repair: {error}"),
                _ => format!("{} {}/{}: {error}", name(e.part), e.epoch, e.epochs),
            });
        }
        ReduceEvent::Step(s) => {
            let (part, since, from) = *clock.0.get_or_insert((s.part, Instant::now(), s.done));
            if part != s.part {
                clock.0 = Some((s.part, Instant::now(), s.done));
            }
            let ran = s.done.saturating_sub(from).max(1) as f64;
            let left: Duration = since.elapsed().mul_f64((s.total - s.done) as f64 / ran);
            let message = format!("error {:.1}%  {} left", 100.0 * s.error, duration(left));
            view.bar(name(s.part), s.done, s.total, message);
        }
    }
}

fn name(part: usize) -> &'static str {
    ["repair before the split", "repair of the branches"][part]
}

fn print(out: &mut impl Write, r: &ReduceReport) -> io::Result<()> {
    let backbone = visible(r.backbone.display());
    writeln!(out, "backbone    {backbone}")?;
    let planes = r.planes.map(|p| p.to_string()).join(", ");
    writeln!(out, "branches    {} (planes {planes})", r.branches)?;
    writeln!(
        out,
        "cost        {:.2} M parameters, {:.2} G multiply-adds at 128x128, without classifiers",
        r.params as f64 / 1e6,
        r.macs as f64 / 1e9
    )?;
    if let Some(repair) = &r.repair {
        let [before, after] = repair.error.map(|e| 100.0 * e);
        writeln!(
            out,
            "repair      error of the features {before:.1}% before, {after:.1}% after ({} crops of {} pictures)",
            repair.crops, repair.pictures
        )?;
    }
    writeln!(out, "use it      rrr train DATA --backbone {backbone} --out RUN")
}
