//! `rrr suite run`.

use super::args::{KeepArg, RunArgs};
use super::plan;
use crate::Done;
use crate::args::Globals;
use crate::interrupt;
use crate::progress::duration;
use crate::term::{Term, visible};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rrr_suite::db::Database;
use rrr_suite::matrix::{Cell, Task};
use rrr_suite::result::TaskResult;
use rrr_suite::status::Status;
use rrr_suite::worker::{self, Ended, Keep, News, RunOptions};
use rrrnet::train::Event;
use std::time::Duration;

pub fn run(args: &RunArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let interrupt = interrupt::watch()?;
    let (suite, tasks) = plan(&args.source, globals, term)?;
    let mut db = Database::open_or_create(&args.db)?;
    db.register(&suite, &tasks)?;
    if args.retry_failed {
        db.retry_failed(&suite.name)?;
    }
    let options = RunOptions {
        threads: globals.thread_count(),
        offline: globals.offline,
        keep: match args.keep {
            KeepArg::Reports => Keep::Reports,
            KeepArg::Models => Keep::Models,
            KeepArg::All => Keep::All,
        },
        lease: Duration::from_secs(args.lease as u64),
        no_wait: args.no_wait,
        interrupt,
    };
    let reader = Database::open(&args.db)?;
    let mut view = View::new(term, &reader, &suite.name, tasks.len());
    view.matrix();
    let ended = worker::run(&mut db, &suite.name, &tasks, &options, &mut |news| view.show(news));
    view.bar.finish_and_clear();
    match ended? {
        Ended::Interrupted => {
            term.say("interrupted; everything is saved, and the same command goes on");
            Ok(Done::Interrupted)
        }
        Ended::Complete { done, failed: 0, left } => {
            let left = if left > 0 { format!(", {left} in other hands") } else { String::new() };
            term.say(&format!("{done} of {} tasks are done{left}", tasks.len()));
            Ok(Done::Fully)
        }
        Ended::Complete { done, failed, .. } => bail!(
            "{failed} of {} tasks have failed or wait for one that has; {done} are done\nhint: `rrr suite status \
             --tasks` says why; `rrr suite run --retry-failed` runs them again",
            tasks.len()
        ),
    }
}

/// Shows where the matrix is: a bar on a terminal, a line per task otherwise.
struct View<'a> {
    term: &'a Term,
    db: &'a Database,
    suite: &'a str,
    bar: ProgressBar,
    task: String,
    left: String,
    epochs: usize,
}

impl<'a> View<'a> {
    fn new(term: &'a Term, db: &'a Database, suite: &'a str, tasks: usize) -> Self {
        let target =
            if term.is_interactive() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")
            .expect("the template is constant and valid");
        let bar = ProgressBar::with_draw_target(Some(tasks as u64), target).with_style(style);
        Self { term, db, suite, bar, task: String::new(), left: String::new(), epochs: 0 }
    }

    fn show(&mut self, news: &News<'_>) {
        match news {
            News::Begun { task } => {
                self.task = name(&task.cell);
                self.epochs = task.config.epochs;
                self.matrix();
                self.bar.set_message(format!("{}{}", self.task, self.left));
            }
            News::Training(event) => self.training(event),
            News::Finished { task, result, seconds } => {
                self.matrix();
                self.line(&finished(task, result, *seconds, &self.counts()));
            }
            News::Failed { task, message } => {
                self.bar.suspend(|| self.term.warn(&format!("{} failed: {message}", name(&task.cell))));
            }
            News::Lost { task } => {
                let text = format!("{}: another worker has taken this task over", name(&task.cell));
                self.bar.suspend(|| self.term.warn(&text));
            }
            News::Waiting { running } => {
                self.line(&format!("waiting for {running} tasks in other hands"));
            }
        }
    }

    fn training(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => self.bar.suspend(|| self.term.warn(&format!("{}: {text}", self.task))),
            Event::Ready(r) if r.done > 0 => {
                self.line(&format!("{}: going on after {} of {} steps", self.task, r.done, r.total));
            }
            Event::Chosen(what, choice) => self.line(&format!("{}: {what} {choice}", self.task)),
            Event::Step(s) => self.bar.set_message(format!(
                "{}  epoch {}/{}  loss {:.3}{}",
                self.task, s.epoch, self.epochs, s.loss, self.left
            )),
            _ => {}
        }
    }

    /// Brings the view up to what all workers have done.
    fn matrix(&mut self) {
        let Ok(rows) = self.db.rows(self.suite) else { return };
        let status = Status::of(&rows);
        self.bar.set_position(status.total.done as u64);
        let workers =
            if status.workers > 1 { format!(" with {} workers", status.workers) } else { String::new() };
        self.left = status.seconds_left.map_or(String::new(), |s| {
            format!("  about {} left{workers}", duration(Duration::from_secs_f64(s)))
        });
    }

    fn counts(&self) -> String {
        format!("[{}/{}]", self.bar.position(), self.bar.length().unwrap_or(0))
    }

    fn line(&self, text: &str) {
        let left = if self.term.is_interactive() { "" } else { &self.left };
        self.bar.suspend(|| self.term.say(&format!("{text}{left}")));
    }
}

fn name(cell: &Cell) -> String {
    visible(format!("{} {} seed {}", cell.dataset, cell.method, cell.seed))
}

fn finished(task: &Task, result: &TaskResult, seconds: f64, counts: &str) -> String {
    let accuracy = result.test.as_ref().map(|t| t.accuracy).or(result.validation_accuracy);
    let accuracy = accuracy.map_or("no test images".into(), |a| format!("{:.1}%", 100.0 * a));
    let time = duration(Duration::from_secs_f64(seconds));
    format!("{counts} {}  {accuracy}  {time}", name(&task.cell))
}
