//! Running the tasks of a suite, beside any number of other processes that do the same.

use crate::db::{Claim, Database, Owner};
use crate::error::Result;
use crate::matrix::Task;
use crate::measure::collect;
use crate::restart;
use crate::result::TaskResult;
use crate::tidy;
use rrrnet::config::{TEACHER_AUTO, TrainConfig};
use rrrnet::run::RunDir;
use rrrnet::train::{Event, Outcome, Resources, TrainOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub use crate::tidy::Keep;

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// Threads; results do not depend on them.
    pub threads: usize,
    /// Use no network.
    pub offline: bool,
    /// What stays of a finished run.
    pub keep: Keep,
    /// How long a worker that is not heard of is believed to be alive.
    pub lease: Duration,
    /// End when all that is left is in other hands, instead of waiting for what they may leave.
    pub no_wait: bool,
    /// Once raised, the running task saves and is given back.
    pub interrupt: &'a AtomicBool,
}

/// News from a worker.
#[derive(Clone, Debug)]
pub enum News<'a> {
    /// A task begins, or goes on.
    Begun {
        /// The task.
        task: &'a Task,
    },
    /// Something happens within the training.
    Training(&'a Event<'a>),
    /// A task is done.
    Finished {
        /// The task.
        task: &'a Task,
        /// Its numbers.
        result: &'a TaskResult,
        /// Seconds that this worker spent on it.
        seconds: f64,
    },
    /// A task has failed; others go on.
    Failed {
        /// The task.
        task: &'a Task,
        /// Why.
        message: &'a str,
    },
    /// The task went to another worker while this one was not heard of.
    Lost {
        /// The task.
        task: &'a Task,
    },
    /// All that is left is in other hands or waits for it.
    Waiting {
        /// Tasks that others run.
        running: usize,
    },
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left to do.
    Complete {
        /// Tasks of the suite that are done.
        done: usize,
        /// Tasks that have failed, or wait for one that has.
        failed: usize,
        /// Tasks in other hands.
        left: usize,
    },
    /// It was interrupted; what it did is saved.
    Interrupted,
}

/// Between looks at the database while others work.
const POLL: Duration = Duration::from_millis(500);

enum TaskEnd {
    Done,
    Interrupted,
}

/// Runs tasks until none is left.
///
/// # Errors
/// [`SuiteError`](crate::SuiteError) of the database or the folder of the runs; what happens within a task is recorded there
/// instead.
pub fn run(
    db: &mut Database,
    suite: &str,
    tasks: &[Task],
    options: &RunOptions<'_>,
    news: &mut dyn FnMut(&News<'_>),
) -> Result<Ended> {
    let owner = Owner::this_process();
    let resources = Resources::default();
    let mut waiting = false;
    tidy::sweep(db, suite)?;
    loop {
        if options.interrupt.load(Ordering::SeqCst) {
            return Ok(Ended::Interrupted);
        }
        if let Some(claim) = db.claim(tasks, &owner, options.lease)? {
            waiting = false;
            let task = tasks.iter().find(|t| t.hash == claim.hash).expect("only own tasks are claimed");
            let work = Work { owner: &owner, task, claim: &claim, resources: &resources, options };
            if let TaskEnd::Interrupted = work.run(db, news)? {
                return Ok(Ended::Interrupted);
            }
            continue;
        }
        let rows = db.rows(suite)?;
        let count = |state| rows.iter().filter(|r| r.state == state).count();
        let running = count(crate::db::State::Running);
        if running == 0 || options.no_wait {
            let done = count(crate::db::State::Done);
            return Ok(Ended::Complete { done, failed: rows.len() - done - running, left: running });
        }
        if !std::mem::replace(&mut waiting, true) {
            news(&News::Waiting { running });
        }
        std::thread::sleep(POLL);
    }
}

/// One claimed task.
struct Work<'a> {
    owner: &'a Owner,
    task: &'a Task,
    claim: &'a Claim,
    resources: &'a Resources,
    options: &'a RunOptions<'a>,
}

impl Work<'_> {
    fn run(&self, db: &mut Database, news: &mut dyn FnMut(&News<'_>)) -> Result<TaskEnd> {
        let (task, started) = (self.task, Instant::now());
        news(&News::Begun { task });
        let (stop, lost) = (AtomicBool::new(false), AtomicBool::new(false));
        let progress = [AtomicU64::new(0), AtomicU64::new(0)];
        let mut heart = Database::open(db.path())?;
        let trained = std::thread::scope(|scope| {
            let (end, ended) = channel::<()>();
            let beat = scope.spawn(|| {
                let ended = ended;
                self.beat(&mut heart, &ended, &progress, &stop, &lost)
            });
            let mut watch = |event: &Event<'_>| {
                if let Event::Step(s) = event {
                    progress[0].store(s.done, Ordering::Relaxed);
                    progress[1].store(s.total, Ordering::Relaxed);
                }
                if self.options.interrupt.load(Ordering::SeqCst) {
                    stop.store(true, Ordering::SeqCst);
                }
                news(&News::Training(event));
            };
            let train = AssertUnwindSafe(|| self.train(&stop, &mut watch));
            let trained = catch_unwind(train).unwrap_or_else(|panic| Err(panic_message(&*panic)));
            drop(end);
            // A heart that failed has raised `lost`.
            let _ = beat.join();
            trained
        });
        let seconds = started.elapsed().as_secs_f64();
        if lost.load(Ordering::SeqCst) {
            news(&News::Lost { task });
            return Ok(TaskEnd::Done);
        }
        match trained {
            Ok(Some(result)) => {
                tidy::note(&self.claim.run, self.options.keep)?;
                if db.finish(self.claim, &result, seconds)? {
                    tidy::tidy(db, &task.hash, task.after.as_deref(), self.options.keep)?;
                    news(&News::Finished { task, result: &result, seconds });
                } else {
                    news(&News::Lost { task });
                }
                Ok(TaskEnd::Done)
            }
            Ok(None) => {
                db.release(self.claim, seconds)?;
                Ok(TaskEnd::Interrupted)
            }
            Err(message) => {
                db.fail(self.claim, &message, seconds)?;
                news(&News::Failed { task, message: &message });
                Ok(TaskEnd::Done)
            }
        }
    }

    /// Renews the lease until `ended` hangs up; stops the training if the task was given to somebody else, or if the
    /// database can not be reached for as long as the lease.
    fn beat(
        &self,
        db: &mut Database,
        ended: &std::sync::mpsc::Receiver<()>,
        progress: &[AtomicU64; 2],
        stop: &AtomicBool,
        lost: &AtomicBool,
    ) {
        let mut heard = Instant::now();
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(self.options.lease / 4) {
            let done = (progress[0].load(Ordering::Relaxed), progress[1].load(Ordering::Relaxed));
            let ours = match db.heartbeat(&self.claim.hash, &self.owner.id, self.options.lease, done) {
                Ok(ours) => {
                    heard = Instant::now();
                    ours
                }
                Err(_) => heard.elapsed() < self.options.lease,
            };
            if !ours {
                lost.store(true, Ordering::SeqCst);
                stop.store(true, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Trains from wherever the run is; nothing if interrupted.
    fn train(
        &self,
        stop: &AtomicBool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Option<TaskResult>, String> {
        let run = self.claim.run.as_path();
        let (threads, offline) = (self.options.threads, self.options.offline);
        let options = TrainOptions { overwrite: true, offline, interrupt: stop, command: None };
        let outcome = match self.go_on(&options, events)? {
            Some(outcome) => outcome,
            None => {
                let config = self.config(threads)?;
                tidy::remove(run).map_err(|e| e.to_string())?;
                self.resources.train(&config, run, &options, events).map_err(|e| e.to_string())?
            }
        };
        match outcome {
            Outcome::Interrupted { .. } => Ok(None),
            Outcome::Finished(summary) => {
                collect(run, &summary, threads).map(Some).map_err(|e| e.to_string())
            }
        }
    }

    /// Goes on with the run; nothing if there is none, or none that can go on.
    fn go_on(
        &self,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Option<Outcome>, String> {
        let run = self.claim.run.as_path();
        if RunDir::open(run).is_err() {
            return Ok(None);
        }
        let mut training = false;
        let mut watch = |event: &Event<'_>| {
            training |= matches!(event, Event::Ready(_));
            events(event);
        };
        match self.resources.resume(run, Some(self.options.threads), options, &mut watch) {
            Ok(outcome) => Ok(Some(outcome)),
            // Images that are out of reach are no reason to lose what was trained.
            Err(e) if restart::helps(&e, training) && self.task.config.data.exists() => {
                let reason = e.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                events(&Event::Note(format!(
                    "the run starts from the beginning, for it cannot go on: {reason}"
                )));
                Ok(None)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    fn config(&self, threads: usize) -> Result<TrainConfig, String> {
        let mut config = TrainConfig { threads: Some(threads), ..self.task.config.clone() };
        if let Some(after) = &self.task.after {
            let model = crate::db::run_path(self.runs(), after).join("model.safetensors");
            if !model.is_file() {
                return Err(format!(
                    "the model of task {} that is needed is not there: {}\nhint: it is kept until the tasks that need \
                     it are done; delete the database's row to train it again, or run with --keep models",
                    &after[..12],
                    model.display()
                ));
            }
            match &config.teacher {
                Some(teacher) if teacher != Path::new(TEACHER_AUTO) => config.teacher = Some(model),
                _ => config.init = Some(model),
            }
        }
        Ok(config)
    }

    fn runs(&self) -> &Path {
        self.claim.run.parent().unwrap_or(Path::new(""))
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the training panicked: {}", text.unwrap_or("without a message"))
}
