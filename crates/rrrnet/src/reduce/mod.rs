//! *Reduce* as a step of its own: a backbone made small once, for many later trainings.
//!
//! [`reduce`] keeps the first blocks of each stage, splits the tail into branches that recycle its filters coherently, and
//! writes the result as a file that `--backbone` takes. With pictures it also **repairs** what was cut: without
//! labels, the small network learns to give the pooled features that the full backbone gives for the same crops
//! (feature distillation; Romero et al., "FitNets", 2015), first as one network, then branch by branch through a linear
//! projection each that is thrown away afterwards. First stages that are kept whole have nothing to repair and stay as
//! they are. The full backbone may see the crops larger than the small network does. They are fixed and so are their
//! targets, which are computed once.

mod distil;
mod error;
mod progress;
mod repair;
mod teacher;

pub use error::ReduceError;
pub use progress::{ReduceEvent, RepairEpoch, RepairStep};

use crate::arch::Split;
use crate::backbone::{Backbone, BackboneOptions, Header, ReducedBackbone, Repair};
use crate::compute::Precision;
use crate::plan::{Plan, PlanOptions};
use crate::recycle::{Recycle, recycle};
use repair::{Pictures, Work};
use rrr_data::Workers;
use rrr_nn::{NetSpec, NetState, SequenceSpec};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What to make of which backbone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReduceOptions {
    /// Catalog name, file or folder of the full backbone.
    pub backbone: String,
    /// Mean and standard deviation per channel, for a backbone without a card.
    pub normalize: Option<([f32; 3], [f32; 3])>,
    /// Blocks kept of each stage.
    pub blocks: [usize; 4],
    /// Where the branches begin: a block such as `layer3.0`, or its published index.
    pub split: String,
    /// Number of branches; one is the reduced backbone itself, which can still be split in any way.
    pub branches: usize,
    /// Number of classes for which the branches, classifiers included, stay within the budget of the tail in one piece.
    pub classes: usize,
    /// Blocks of the network whose parameters stem and branches together must not exceed.
    pub budget: Option<[usize; 4]>,
    /// Branch widths are multiples of this.
    pub round_to: Option<usize>,
    /// Seed of everything random.
    pub seed: u64,
    /// Repair, if wanted.
    pub repair: Option<RepairOptions>,
}

/// How to repair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairOptions {
    /// Pictures without labels: files, and folders that are searched.
    #[serde(serialize_with = "rrr_checkpoint::lossy::all")]
    pub pictures: Vec<PathBuf>,
    /// Crops of them, over all pictures.
    pub crops: usize,
    /// Side in pixels of the crops that the small network sees.
    pub image_size: usize,
    /// Side in pixels of the same crops as the full backbone sees them, no smaller.
    pub teacher_size: usize,
    /// Passes over the crops before the split.
    pub epochs_whole: usize,
    /// Passes over the crops after the split.
    pub epochs_branches: usize,
    /// Crops per optimiser step.
    pub batch_size: usize,
    /// Learning rate at its highest.
    pub lr: f64,
}

/// What a reduction needs besides its options.
#[derive(Clone, Copy, Debug)]
pub struct ReduceContext<'a> {
    /// Number of threads. Never changes a result.
    pub threads: usize,
    /// Number format of matrix products.
    pub precision: Precision,
    /// Replace a file that is there.
    pub overwrite: bool,
    /// Use no network.
    pub offline: bool,
    /// Once raised, the repair finishes its step, saves and returns; the same call goes on from there.
    pub interrupt: &'a AtomicBool,
}

/// How a reduction ended.
#[derive(Clone, Debug)]
pub enum ReduceOutcome {
    /// The file is there.
    Finished(Box<ReduceReport>),
    /// It was interrupted; what has been done lies beside the file that is to come.
    Interrupted,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct ReduceReport {
    /// The file.
    #[serde(serialize_with = "rrr_checkpoint::lossy::path")]
    pub backbone: PathBuf,
    /// Number of branches.
    pub branches: usize,
    /// Planes of each stage.
    pub planes: [usize; 4],
    /// Parameters, without classifiers.
    pub params: u64,
    /// Multiply-adds for one image of 128x128 pixels, without classifiers.
    pub macs: u64,
    /// Pictures that could not be read and were left out.
    pub unreadable: Vec<String>,
    /// The repair, if there was one.
    pub repair: Option<Repair>,
}

/// Reduces a backbone, splits it, repairs it if pictures are given, and writes it to the file `out`.
///
/// An interrupted repair is continued by the same call, as if it had never stopped.
///
/// # Errors
/// [`ReduceError`]; nothing is written before backbone and pictures have proved usable.
pub fn reduce(
    options: &ReduceOptions,
    out: &Path,
    context: &ReduceContext<'_>,
    events: &mut dyn FnMut(&ReduceEvent<'_>),
) -> Result<ReduceOutcome, ReduceError> {
    if out.exists() && !context.overwrite {
        return Err(ReduceError::Exists(out.to_path_buf()));
    }
    rrr_checkpoint::check_writable(out)?;
    events(&ReduceEvent::Stage("reading the backbone"));
    let backbone = load(options, context, events)?;
    let small = Small::new(options, &backbone)?;
    let Some(repair) = &options.repair else {
        let state = small.split(&small.whole_state(&backbone), options.seed)?;
        return small.write(options, backbone, state, None, Vec::new(), out);
    };
    let workers = Workers::new(context.threads)?;
    let compute = context.precision.compute(context.threads);
    events(&ReduceEvent::Stage("cutting the pictures"));
    let pictures = Pictures::new(repair, options.seed, &workers)?;
    pictures.notes.iter().for_each(|note| events(&ReduceEvent::Note(note.clone())));
    let unreadable = pictures.unreadable.clone();
    for bad in &unreadable {
        events(&ReduceEvent::Note(format!("left out {bad}")));
    }
    let (learnt_from, crops) = (pictures.learnt.pictures, pictures.learnt.n);
    let work = Work {
        options,
        repair,
        backbone: &backbone,
        small: &small,
        workers: &workers,
        compute,
        out,
        interrupt: context.interrupt,
    };
    let Some((state, error)) = work.run(pictures, events)? else { return Ok(ReduceOutcome::Interrupted) };
    let report = Repair {
        pictures: learnt_from,
        crops,
        image_size: repair.image_size,
        teacher_size: repair.teacher_size,
        epochs: [repair.epochs_whole, repair.epochs_branches],
        seed: options.seed,
        error,
    };
    let done = small.write(options, backbone.clone(), state, Some(report), unreadable, out)?;
    distil::forget(out)?;
    Ok(done)
}

fn load(
    options: &ReduceOptions,
    context: &ReduceContext<'_>,
    events: &mut dyn FnMut(&ReduceEvent<'_>),
) -> Result<Backbone, ReduceError> {
    let events = std::cell::RefCell::new(events);
    let progress = |p| (events.borrow_mut())(&ReduceEvent::Backbone(p));
    let pull = rrr_checkpoint::PullOptions {
        offline: context.offline,
        progress: &progress,
        ..rrr_checkpoint::PullOptions::default()
    };
    let backbone =
        Backbone::load(&options.backbone, &BackboneOptions { pull, normalize: options.normalize })?;
    if backbone.kept != backbone.arch.blocks {
        return Err(ReduceError::AlreadyReduced(backbone.name));
    }
    Ok(backbone)
}

/// The architectures on the way.
struct Small {
    /// One branch, of full width.
    whole: Plan,
    plan: Plan,
}

impl Small {
    fn new(options: &ReduceOptions, backbone: &Backbone) -> Result<Self, ReduceError> {
        let plan = |branches| {
            Plan::new(PlanOptions {
                backbone: backbone.arch.clone(),
                blocks: options.blocks,
                split: Split::parse(&options.split, &backbone.arch)?,
                branches,
                coarse: 0,
                classes: options.classes,
                input_size: 128,
                round_to: options.round_to,
                budget: options.budget,
                shift: None,
            })
        };
        Ok(Self { whole: plan(1)?, plan: plan(options.branches)? })
    }

    /// The kept blocks' tensors.
    fn whole_state(&self, backbone: &Backbone) -> rrr_nn::State {
        let spec = self.whole.spec();
        let names = [&spec.stem, &spec.branch].into_iter().flat_map(SequenceSpec::params).map(|p| p.name);
        names.filter_map(|name| backbone.state.get(&name).map(|t| (name, t.clone()))).collect()
    }

    /// The network without classifiers whose filters come from `whole`, the tensors of the kept blocks.
    fn split(&self, whole: &rrr_nn::State, seed: u64) -> Result<NetState, ReduceError> {
        let mut state = recycle(&self.plan, whole, Recycle::Coherent, seed)?;
        state.branches.iter_mut().for_each(without_classifier);
        Ok(state)
    }

    fn write(
        &self,
        options: &ReduceOptions,
        backbone: Backbone,
        state: NetState,
        repair: Option<Repair>,
        unreadable: Vec<String>,
        out: &Path,
    ) -> Result<ReduceOutcome, ReduceError> {
        let plan = &self.plan;
        let (split, branches) = (plan.options().split, plan.spec().branches);
        let mut header =
            Header::new(backbone.arch, options.blocks, split, branches, plan.planes(), backbone.card);
        header.repair.clone_from(&repair);
        ReducedBackbone { header, state }.save(out)?;
        let bare = NetSpec {
            branch: SequenceSpec { classes: None, ..plan.spec().branch.clone() },
            ..plan.spec().clone()
        };
        let cost = crate::cost::net_cost(&bare, [plan.options().input_size; 2]);
        Ok(ReduceOutcome::Finished(Box::new(ReduceReport {
            backbone: out.to_path_buf(),
            branches,
            planes: plan.planes(),
            params: cost.params,
            macs: cost.macs,
            unreadable,
            repair,
        })))
    }
}

fn without_classifier(state: &mut rrr_nn::State) {
    state.retain(|name, _| !name.starts_with("fc."));
}
