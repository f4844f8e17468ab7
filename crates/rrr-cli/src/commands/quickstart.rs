//! `rrr quickstart`: backbone and bundled sample in, trained model, accuracy, predictions and report out.

use crate::Done;
use crate::args::{Format, Globals, QuickstartArgs};
use crate::commands::train::{finish, train_options};
use crate::progress::View;
use crate::term::{Term, visible};
use anyhow::Context;
use rrrnet::config::Settings;
use rrrnet::predict::{Timing, Workers, load};
use rrrnet::quickstart::{configure, examples};
use rrrnet::train::{Outcome, TrainError, train};
use std::io::Write;

pub fn run(args: &QuickstartArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let config = configure(Settings {
        backbone: args.backbone.clone(),
        epochs: args.epochs,
        threads: globals.threads,
        ..Settings::default()
    })?;
    term.say(
        "This trains an RRR-Net on the bundled sample (CLP_Micro: 20 classes of public-domain clip art).",
    );
    term.say(&format!("images    {}", config.data.display()));
    term.say(&format!("run       {}", args.out.display()));
    let options = train_options(args.overwrite, globals)?;
    let mut view = View::new(term);
    let outcome = train(&config, &args.out, &options, &mut |e| view.show(e));
    view.finish();
    let outcome = match outcome {
        Err(e @ TrainError::Backbone(_)) if args.backbone.is_none() => {
            return Err(e).context(
                "quickstart needs pretrained weights and has none\n\
                 hint: once with a network: `rrr backbone pull resnet152`\n\
                 hint: or give a file: `rrr quickstart --backbone FILE`, with its config.json beside it",
            );
        }
        other => other?,
    };
    let done = finish(&outcome, &args.out, Format::Text, term)?;
    if let Outcome::Finished(_) = outcome {
        let shown = examples(&config, 5)?;
        let mut predictor = load(&args.out, globals.thread_count(), config.precision)?;
        let workers = Workers::new(globals.thread_count())?;
        let paths: Vec<_> = shown.iter().map(|e| e.path.clone()).collect();
        let said = predictor.predict_files(&paths, 1, &workers, &mut Timing::default())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nfive test images:")?;
        for (example, prediction) in shown.iter().zip(said) {
            let file = example.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match prediction {
                Ok(p) => {
                    let best = &p.top[0];
                    let mark = if best.class == example.class { "right" } else { "wrong" };
                    let (class, percent) = (&best.class, 100.0 * best.probability);
                    writeln!(out, "  {file}  {class} ({percent:.0}%)  {mark}: it is {}", example.class)?;
                }
                Err(bad) => writeln!(out, "  {}", visible(bad))?,
            }
        }
        let (run, first) =
            (args.out.display(), paths.first().map(|p| p.display().to_string()).unwrap_or_default());
        term.say("");
        term.say(&format!("next:\n  open {run}/report.html\n  rrr predict {run} {first}\n  rrr train YOUR_IMAGES/ --out runs/mine"));
    }
    Ok(done)
}
