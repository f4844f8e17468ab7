//! `rrr predict`: the classes of images.

use crate::Done;
use crate::args::{Globals, PredictArgs, TableFormat};
use crate::term::{Term, visible};
use anyhow::bail;
use rrrnet::predict::{FoundImages, Prediction, Timing, Workers, find_images, load};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct Output<'a> {
    predictions: &'a [Prediction],
    unreadable: Vec<Unreadable>,
    timing: Timing,
}

#[derive(Serialize)]
struct Unreadable {
    path: String,
    reason: String,
}

pub fn run(args: &PredictArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    if let Some(caveat) = args.precision.caveat() {
        term.warn(caveat);
    }
    let predictor = load(&args.run, globals.thread_count(), args.precision)?;
    let mut predictor = predictor.abstain_below(args.abstain_below);
    let workers = Workers::new(globals.thread_count())?;
    let FoundImages { images: paths, notes } = find_images(&args.images)?;
    for note in &notes {
        term.warn(note);
    }
    let mut timing = Timing::default();
    let (mut kept, mut unreadable) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(args)?;
    let mut abstained = 0;
    for batch in paths.chunks(args.batch_size) {
        let mut predictions = Vec::with_capacity(batch.len());
        for result in predictor.predict_files(batch, args.top, &workers, &mut timing)? {
            match result {
                Ok(prediction) => predictions.push(prediction),
                Err(bad) => {
                    term.warn(&bad.to_string());
                    unreadable.push(Unreadable { path: bad.path.display().to_string(), reason: bad.reason });
                }
            }
        }
        abstained += predictions.iter().filter(|p| p.abstained == Some(true)).count();
        printer.print(&predictions)?;
        if args.format == TableFormat::Json {
            kept.extend(predictions);
        }
    }
    let failed = unreadable.len();
    if args.format == TableFormat::Json {
        let output = Output { predictions: &kept, unreadable, timing };
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&output)?)?;
    }
    if timing.images > 0 {
        let each = |seconds: f64| 1e3 * seconds / timing.images as f64;
        term.say(&format!(
            "{} images; per image: decode {:.2} ms, preprocess {:.2} ms, network {:.2} ms",
            timing.images,
            each(timing.decode_seconds),
            each(timing.preprocess_seconds),
            each(timing.network_seconds)
        ));
    }
    if let Some(p) = args.abstain_below {
        term.say(&format!("abstained on {abstained} of {} images: top probability below {p}", timing.images));
    }
    if failed > 0 && !args.skip_bad {
        bail!(
            "{failed} of {} images could not be read\nhint: repair or remove them, or give --skip-bad to leave them out",
            paths.len()
        );
    }
    Ok(Done::Fully)
}

/// Prints predictions as they come; JSON waits for the end.
enum Printer {
    Text,
    Csv(Box<csv::Writer<io::Stdout>>),
    Later,
}

impl Printer {
    fn new(args: &PredictArgs) -> anyhow::Result<Self> {
        Ok(match args.format {
            TableFormat::Text => Self::Text,
            TableFormat::Json => Self::Later,
            TableFormat::Csv => {
                let mut out = csv::Writer::from_writer(io::stdout());
                let head =
                    ["path", "rank", "class", "probability", "agreement", "entropy", "mutual_information"];
                let abstained = args.abstain_below.map(|_| "abstained");
                out.write_record(head.into_iter().chain(abstained)).map_err(io::Error::from)?;
                Self::Csv(Box::new(out))
            }
        })
    }

    fn print(&mut self, predictions: &[Prediction]) -> io::Result<()> {
        match self {
            Self::Text => {
                let mut out = io::stdout().lock();
                for p in predictions {
                    writeln!(
                        out,
                        "{}  ({}agreement {:.0}%, uncertainty {:.3} nats)",
                        visible(p.path.display()),
                        if p.abstained == Some(true) { "abstained, " } else { "" },
                        100.0 * p.agreement,
                        p.mutual_information
                    )?;
                    for r in &p.top {
                        writeln!(out, "  {:5.1}%  {}", 100.0 * r.probability, visible(&r.class))?;
                    }
                }
            }
            Self::Csv(out) => {
                for p in predictions {
                    for (rank, r) in p.top.iter().enumerate() {
                        let row = [
                            p.path.display().to_string(),
                            (rank + 1).to_string(),
                            r.class.clone(),
                            r.probability.to_string(),
                            p.agreement.to_string(),
                            p.entropy.to_string(),
                            p.mutual_information.to_string(),
                        ];
                        out.write_record(row.into_iter().chain(p.abstained.map(|a| a.to_string())))?;
                    }
                }
                out.flush()?;
            }
            Self::Later => {}
        }
        Ok(())
    }
}
