//! Training: methods A to D and FGE, from a configuration to a finished run directory.
//!
//! [`train`] starts a run, [`resume`] continues one as if it had never stopped. Both report through a callback and
//! stop at the next step when a flag is raised.

mod augmentation;
mod checkpoint;
mod data;
mod error;
mod events;
mod finish;
mod resources;
mod schedule;
mod session;
mod setup;
mod teacher;
mod trial;

pub use augmentation::{Choice, Trial};
pub use checkpoint::training_position;
pub(crate) use data::{Listed, resize, store_options};
pub use error::TrainError;
pub use events::{Event, Ready, Step};
pub use finish::Summary;
pub use resources::Resources;
pub use schedule::Schedule;

use crate::arch::blocks_text;
use crate::backbone::Backbone;
use crate::config::{Augmentation, Method, Select, TEACHER_AUTO, TrainConfig};
use crate::cost::net_cost;
use crate::model::{Model, ModelInfo};
use crate::run::RunDir;
use checkpoint::{Pace, Position, Saved};
use data::Images;
use finish::Finish;
use rrr_data::Workers;
use rrr_nn::{Compute, NetSpec, Trainer};
use session::{Ended, Session, trainer_options};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use teacher::Teacher;
use trial::Trials;

/// Number of the method as implemented: it rises whenever the same configuration begins to give other numbers, so that
/// results kept by a benchmark suite are known to be old.
pub const RESULTS_VERSION: u32 = 5;

/// What a training needs besides its configuration.
#[derive(Clone, Debug)]
pub struct TrainOptions<'a> {
    /// Replace a run that is there.
    pub overwrite: bool,
    /// Use no network.
    pub offline: bool,
    /// Once raised, the training finishes its step, saves and returns.
    pub interrupt: &'a AtomicBool,
    /// The command line, for the report.
    pub command: Option<String>,
}

/// How a training ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The model is there.
    Finished(Box<Summary>),
    /// It was interrupted; [`resume`] goes on from here.
    Interrupted {
        /// Optimiser steps done.
        done: u64,
        /// Optimiser steps in all.
        total: u64,
    },
}

/// Trains as `config` says and writes everything to the folder `out`.
///
/// # Errors
/// [`TrainError`]; nothing is written before images and backbone have proved usable.
pub fn train(
    config: &TrainConfig,
    out: &Path,
    options: &TrainOptions<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome, TrainError> {
    start(None, config, out, options, events)
}

/// Continues the run in the folder `run`; `threads` overrides what it was started with.
///
/// Once there is a checkpoint its `config.toml` may be edited only where that changes no weights: where data, backbone,
/// initial model and teacher lie, `threads`, `checkpoint_every`, `select`, `skip_bad` and `memory_budget_mib`.
///
/// # Errors
/// [`TrainError`]: there is no run, its checkpoint is damaged, or its images, its teacher or its configuration have changed.
pub fn resume(
    run: &Path,
    threads: Option<usize>,
    options: &TrainOptions<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome, TrainError> {
    go_on(None, run, threads, options, events)
}

impl Resources {
    /// [`train`] with what earlier trainings have read.
    ///
    /// # Errors
    /// Those of [`train`].
    pub fn train(
        &self,
        config: &TrainConfig,
        out: &Path,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Outcome, TrainError> {
        start(Some(self), config, out, options, events)
    }

    /// [`resume`] with what earlier trainings have read.
    ///
    /// # Errors
    /// Those of [`resume`].
    pub fn resume(
        &self,
        run: &Path,
        threads: Option<usize>,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Outcome, TrainError> {
        go_on(Some(self), run, threads, options, events)
    }
}

fn start(
    resources: Option<&Resources>,
    config: &TrainConfig,
    out: &Path,
    options: &TrainOptions<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome, TrainError> {
    RunDir::check_new(out, options.overwrite)?;
    let init = config.init.as_deref().map(absolute);
    let teacher = config
        .teacher
        .as_deref()
        .map(|path| if path == Path::new(TEACHER_AUTO) { path.into() } else { absolute(path) });
    let (data, backbone_given) = (absolute(&config.data), absolute_backbone(&config.backbone));
    let config = &TrainConfig { data, backbone: backbone_given, init, teacher, ..config.clone() };
    config.check()?;
    let mut prepared = Prepared::new(config, resources, events)?;
    let backbone = backbone(resources, config, options, events)?;
    let start = Start::fresh(config, &prepared, &backbone)?;
    if config.teacher.as_deref() == Some(Path::new(TEACHER_AUTO)) {
        setup::check_whole(&backbone, "a teacher of its own is a whole one, fine-tuned")?;
    }
    let run = RunDir::create(out, options.overwrite, &config.to_toml())?;
    let steps = prepared.total_steps(config);
    let Some(config) = prepared.settle(config, &backbone, &run, options, events)? else {
        return Ok(Outcome::Interrupted { done: 0, total: steps });
    };
    drop(backbone);
    if let Some(interrupted) = prepared.teach(resources, &config, &run, options, events)? {
        return Ok(interrupted);
    }
    prepared.go(&config, &run, start, options, events)
}

fn go_on(
    resources: Option<&Resources>,
    run: &Path,
    threads: Option<usize>,
    options: &TrainOptions<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome, TrainError> {
    let run = RunDir::take(run)?;
    let mut config = TrainConfig::read(&run.config())?;
    config.threads = threads.or(config.threads);
    let saved = run.last().exists().then(|| Saved::read(&run.last())).transpose()?;
    if let Some(change) = saved.as_ref().and_then(|saved| saved.change_to(&config)) {
        return Err(TrainError::ConfigChanged { path: run.config(), change });
    }
    let mut prepared = Prepared::new(&config, resources, events)?;
    let state = if let Some(saved) = saved {
        if saved.fingerprint != prepared.fingerprint {
            return Err(TrainError::DataChanged { data: config.data.clone() });
        }
        if saved.contents.as_ref().is_some_and(|contents| *contents != prepared.data.contents()) {
            return Err(TrainError::ContentsChanged { data: config.data.clone() });
        }
        let begun = saved.teacher.as_ref();
        if let (Some(begun), Some(teacher), Some(path)) = (begun, &prepared.teacher, &config.teacher)
            && *begun != teacher.sha256
        {
            return Err(TrainError::TeacherChanged { path: path.clone() });
        }
        let damaged = |reason| TrainError::Damaged { path: run.last(), reason };
        Start::continued(&config, &prepared, saved).map_err(damaged)?
    } else {
        events(&Event::Note("the run has no checkpoint yet: it starts from the beginning".into()));
        let backbone = backbone(resources, &config, options, events)?;
        let start = Start::fresh(&config, &prepared, &backbone)?;
        let total = prepared.total_steps(&config);
        let Some(settled) = prepared.settle(&config, &backbone, &run, options, events)? else {
            return Ok(Outcome::Interrupted { done: 0, total });
        };
        config = settled;
        start
    };
    if let Some(interrupted) = prepared.teach(resources, &config, &run, options, events)? {
        return Ok(interrupted);
    }
    run.truncate_records((state.position.steps / prepared.steps_per_epoch(&config)) as usize)?;
    prepared.go(&config, &run, state, options, events)
}

fn backbone(
    resources: Option<&Resources>,
    config: &TrainConfig,
    options: &TrainOptions<'_>,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Arc<Backbone>, TrainError> {
    events(&Event::Stage("reading the backbone"));
    let own = Resources::default();
    let backbone = resources.unwrap_or(&own).backbone(config, options.offline, events)?;
    let missing = config.blocks.filter(|asked| asked.iter().zip(&backbone.kept).any(|(a, b)| a > b));
    if let Some(asked) = missing {
        let [asked, kept] = [asked, backbone.kept].map(blocks_text);
        events(&Event::Note(format!("of the blocks {asked} the backbone has {kept}; they are kept")));
    }
    Ok(backbone)
}

/// Images and threads.
struct Prepared {
    data: Images,
    workers: Workers,
    compute: Compute,
    fingerprint: String,
    teacher: Option<Teacher>,
}

/// Where a training starts from: the beginning, or a checkpoint.
struct Start {
    trainer: Trainer,
    copies: Vec<rrr_nn::State>,
    position: Position,
    info: ModelInfo,
}

impl Start {
    fn fresh(config: &TrainConfig, prepared: &Prepared, backbone: &Backbone) -> Result<Self, TrainError> {
        let setup = setup::prepare(config, prepared.data.train.dataset(), backbone)?;
        let options = trainer_options(config);
        let trainer = Trainer::new(&setup.spec, &setup.state, &options, prepared.compute.clone())?;
        Ok(Self { trainer, copies: Vec::new(), position: Position::default(), info: setup.info })
    }

    /// From a checkpoint, or what is wrong with that.
    fn continued(config: &TrainConfig, prepared: &Prepared, saved: Saved) -> Result<Self, String> {
        saved.check(&prepared.schedule(config))?;
        let options = trainer_options(config);
        let trainer = Trainer::resume(&saved.spec, &saved.trainer, &options, prepared.compute.clone())
            .map_err(|e| e.to_string())?;
        Ok(Self { trainer, copies: saved.copies, position: saved.position, info: saved.info })
    }
}

impl Prepared {
    fn new(
        config: &TrainConfig,
        resources: Option<&Resources>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Self, TrainError> {
        let threads = config.threads.unwrap_or_else(crate::default_threads);
        let workers = Workers::new(threads)?;
        events(&Event::Stage("reading the images"));
        let data = Images::open(config, &workers, resources)?;
        for note in &data.notes {
            events(&Event::Note(note.clone()));
        }
        if config.select == Select::Best && data.valid.is_none() {
            return Err(TrainError::NoValidation);
        }
        let fingerprint = data.fingerprint();
        if let Some(caveat) = config.precision.caveat() {
            events(&Event::Note(caveat.into()));
        }
        let compute = config.precision.compute(threads);
        let given = config.teacher.as_deref().filter(|path| *path != Path::new(TEACHER_AUTO));
        let teacher = given.map(|path| Teacher::new(path, config, &data, &workers, &compute)).transpose()?;
        let prepared = Self { data, workers, compute, fingerprint, teacher };
        let schedule = prepared.schedule(config);
        if !schedule.copies_are_distinct() {
            return Err(TrainError::TooFewSteps { steps: schedule.total(), copies: config.branch_count() });
        }
        Ok(prepared)
    }

    /// The configuration with nothing left to choose, as the run keeps it from then on. `None` if interrupted.
    fn settle(
        &self,
        config: &TrainConfig,
        backbone: &Backbone,
        run: &RunDir,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Option<TrainConfig>, TrainError> {
        if config.augmentation != Augmentation::Auto {
            return Ok(Some(config.clone()));
        }
        let trials =
            Trials { backbone, workers: &self.workers, compute: &self.compute, interrupt: options.interrupt };
        let Some(choice) = augmentation::choose(config, self.data.train.dataset(), &trials, events)? else {
            return Ok(None);
        };
        let config = TrainConfig { augmentation: choice.augmentation, ..config.clone() };
        choice.write(run)?;
        run.write(&run.config(), config.to_toml().as_bytes())?;
        events(&Event::Chosen("augmentation", choice.to_string()));
        Ok(Some(config))
    }

    /// Trains the teacher where it is to be made, or goes on with that. The outcome if interrupted.
    fn teach(
        &mut self,
        resources: Option<&Resources>,
        config: &TrainConfig,
        run: &RunDir,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Option<Outcome>, TrainError> {
        if config.teacher.as_deref() != Some(Path::new(TEACHER_AUTO)) {
            return Ok(None);
        }
        let own = run.teacher();
        if !own.model().exists() {
            events(&Event::Stage("training the teacher first, the whole backbone"));
            let outcome = if own.config().exists() {
                go_on(resources, own.root(), config.threads, options, events)?
            } else {
                let options = TrainOptions { command: None, ..options.clone() };
                start(resources, &teacher::config_of(config)?, own.root(), &options, events)?
            };
            if matches!(outcome, Outcome::Interrupted { .. }) {
                return Ok(Some(outcome));
            }
            own.remove_checkpoints()?;
            events(&Event::Stage("the teacher is ready"));
        }
        let teacher = Teacher::new(&own.model(), config, &self.data, &self.workers, &self.compute)?;
        self.teacher = Some(teacher);
        Ok(None)
    }

    fn schedule(&self, config: &TrainConfig) -> Schedule {
        Schedule::new(config, self.steps_per_epoch(config) as usize)
    }

    fn total_steps(&self, config: &TrainConfig) -> u64 {
        self.schedule(config).total()
    }

    fn steps_per_epoch(&self, config: &TrainConfig) -> u64 {
        self.data.train.len().div_ceil(config.batch_size) as u64
    }

    /// Trains to the end or to an interrupt, and finishes the run.
    fn go(
        mut self,
        config: &TrainConfig,
        run: &RunDir,
        state: Start,
        options: &TrainOptions<'_>,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Outcome, TrainError> {
        run.make_checkpoints()?;
        let schedule = self.schedule(config);
        let total = schedule.total();
        events(&Event::Ready(self.ready(config, &state, total)));
        let mut info = state.info;
        info.provenance.images_sha256 = Some(self.data.listed.clone());
        let mut session = Session {
            config,
            run,
            data: &self.data,
            workers: &self.workers,
            compute: self.compute.clone(),
            info,
            fingerprint: self.fingerprint.clone(),
            contents: self.data.contents(),
            schedule,
            trainer: state.trainer,
            copies: state.copies,
            position: state.position,
            pace: Pace::new(),
            teacher: self.teacher.take(),
        };
        if session.run(options.interrupt, events)? == Ended::Interrupted {
            return Ok(Outcome::Interrupted { done: session.position.steps, total });
        }
        let model = match config.select {
            Select::Last => session.model()?,
            Select::Best => Model::load(&run.best())?,
        };
        if !model.is_finite() {
            return Err(TrainError::NotFinite { lr: config.lr });
        }
        let finish = Finish {
            config,
            run,
            data: &self.data,
            workers: &self.workers,
            compute: self.compute.clone(),
            seconds: session.position.seconds,
            command: options.command.clone(),
        };
        drop(session);
        Ok(Outcome::Finished(Box::new(finish.run(&model, events)?)))
    }

    fn ready<'a>(&self, config: &'a TrainConfig, state: &'a Start, total: u64) -> Ready<'a> {
        let spec = state.trainer.spec();
        // While `fge` trains, its network has one branch; its model has all the copies.
        let branches = if config.method == Method::Fge { config.branch_count() } else { spec.branches };
        let cost = net_cost(&NetSpec { branches, ..spec.clone() }, [config.image_size; 2]);
        let count =
            |store: &Option<std::sync::Arc<rrr_data::ImageStore>>| store.as_ref().map_or(0, |s| s.len());
        Ready {
            config,
            backbone: &state.info.provenance.backbone,
            classes: state.info.classes.len(),
            train: self.data.train.len(),
            valid: count(&self.data.valid),
            test: count(&self.data.test),
            params: cost.params,
            macs: cost.macs,
            done: state.position.steps,
            total,
        }
    }
}

/// The path from the root, so that the run does not depend on where the next command is typed.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The same of a backbone that is a file or a folder; a catalog's name stays as it is.
fn absolute_backbone(name: &str) -> String {
    let path = Path::new(name);
    let full = if path.exists() { absolute(path).into_os_string().into_string().ok() } else { None };
    full.unwrap_or_else(|| name.into())
}
