//! How a training looks while it runs: a bar on a terminal, plain lines otherwise.

use crate::term::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rrr_checkpoint::Progress;
use rrrnet::run::EpochRecord;
use rrrnet::train::{Event, Ready, Step};
use std::path::Path;
use std::time::{Duration, Instant};

/// Turns events into something to look at.
pub struct View<'t> {
    term: &'t Term,
    bar: ProgressBar,
    /// Images and time since the training began or went on.
    images: usize,
    since: Instant,
    epochs: usize,
    total: u64,
    done: u64,
}

impl<'t> View<'t> {
    /// A view that says nothing yet.
    pub fn new(term: &'t Term) -> Self {
        let bar = ProgressBar::hidden();
        Self { term, bar, images: 0, since: Instant::now(), epochs: 0, total: 0, done: 0 }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Stage(what) => self.line(&format!("{what} ...")),
            Event::Note(text) => self.warn(text),
            Event::Backbone(progress) => self.backbone(progress),
            Event::Chosen(what, choice) => self.line(&format!("{what}: {choice}")),
            Event::Ready(ready) => self.ready(ready),
            Event::Warmed { done, total } => self.warmed(*done, *total),
            Event::Step(step) => self.step(step),
            Event::Epoch(record) => self.epoch(record),
            Event::Saved(path) => self.saved(path),
        }
    }

    /// Shows news from getting a backbone.
    pub fn backbone(&mut self, progress: &Progress) {
        match progress {
            Progress::Downloading { name, done, total } => {
                if self.bar.is_hidden() && self.term.is_interactive() {
                    self.start(
                        total.unwrap_or(0),
                        "{msg} {bytes}/{total_bytes} {bar:30} {bytes_per_sec}, {eta} left",
                    );
                    self.bar.set_message(format!("downloading {name}"));
                }
                self.bar.set_position(*done);
                if Some(*done) == *total {
                    self.bar.finish_and_clear();
                }
            }
            Progress::Connecting { url } => self.line(&format!("asking {url} ...")),
            Progress::Pip { requirement } => self.line(&format!("getting {requirement} with pip ...")),
            Progress::Verifying { name } => self.line(&format!("verifying {name} ...")),
            Progress::Converting { name } => self.line(&format!("converting {name} ...")),
            Progress::Waiting { name } => self.line(&format!("waiting for another download of {name} ...")),
            Progress::Note(text) => self.warn(text),
            _ => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Says something above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| self.term.say(text));
    }

    /// Warns above the bar.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| self.term.warn(text));
    }

    /// Says that a file was saved, where nobody looks at a bar.
    pub fn saved(&self, path: &Path) {
        if !self.term.is_interactive() {
            self.term.say(&format!("saved {}", path.display()));
        }
    }

    /// Moves a bar of `total` steps with a name and a message, which begins anew when the name changes.
    pub fn bar(&mut self, name: &'static str, done: u64, total: u64, message: String) {
        if self.bar.prefix() != name {
            self.start(total, "{prefix} {bar:30} {pos}/{len}  {msg}");
            self.bar.set_prefix(name);
        }
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    fn start(&mut self, length: u64, template: &str) {
        self.bar.finish_and_clear();
        let target = if self.term.is_interactive() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(template).expect("the template is constant and valid");
        self.bar = ProgressBar::with_draw_target(Some(length), target).with_style(style);
    }

    fn ready(&mut self, r: &Ready<'_>) {
        let c = r.config;
        self.line(&format!(
            "{} with {}: {} classes, {} training, {} validation, {} test images",
            c.method, r.backbone, r.classes, r.train, r.valid, r.test
        ));
        self.line(&format!(
            "{:.2} M parameters, {:.2} G multiply-adds per image; {} epochs, seed {}",
            r.params as f64 / 1e6,
            r.macs as f64 / 1e9,
            c.epochs,
            c.seed
        ));
        if r.done > 0 {
            self.line(&format!("going on after {} of {} steps", r.done, r.total));
        }
        (self.epochs, self.total, self.done) = (c.epochs, r.total, r.done);
    }

    fn warmed(&mut self, done: u64, total: u64) {
        if self.bar.length() != Some(total) || self.bar.is_finished() {
            self.start(total, "warming the stem {bar:30} {pos}/{len}");
        }
        self.bar.set_position(done);
        if done == total {
            self.bar.finish_and_clear();
            self.line("the stem's batch-norm statistics are warm");
        }
    }

    fn step(&mut self, s: &Step) {
        if self.images == 0 {
            self.since = Instant::now();
            self.start(s.total, "{prefix} {bar:30} {msg}");
            self.bar.reset_eta();
        }
        self.images += s.images;
        let rate = self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-3);
        let left = self.left(s.done);
        self.bar.set_prefix(format!("epoch {}/{}", s.epoch, self.epochs));
        self.bar.set_position(s.done);
        self.bar.set_message(format!(
            "loss {:.3}  accuracy {:.1}%  {rate:.0} images/s  {} left",
            s.loss,
            100.0 * s.accuracy,
            duration(left)
        ));
    }

    /// Time that the rest will take at the present speed.
    fn left(&self, done: u64) -> Duration {
        let ran = done.saturating_sub(self.done).max(1) as f64;
        self.since.elapsed().mul_f64(self.total.saturating_sub(done) as f64 / ran)
    }

    fn epoch(&self, r: &EpochRecord) {
        let validation = match (r.val_loss, r.val_accuracy) {
            (Some(loss), Some(accuracy)) => {
                format!("  validation loss {loss:.3} accuracy {:.1}%", 100.0 * accuracy)
            }
            _ => String::new(),
        };
        let line = format!(
            "epoch {}/{}  loss {:.3}  accuracy {:.1}%{validation}  {:.0} images/s  {:.0} s",
            r.epoch,
            self.epochs,
            r.loss,
            100.0 * r.accuracy,
            r.images_per_second,
            r.seconds
        );
        // A terminal has the bar; with validation its numbers are worth a line as well.
        if !self.term.is_interactive() || r.val_accuracy.is_some() {
            self.line(&line);
        }
    }
}

/// A duration as people say it.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let texts = [5, 65, 3725].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(texts, ["5s", "1m05s", "1h02m"]);
    }
}
