//! The command line.

use crate::commands::suite::SuiteArgs;
use crate::settings::{SettingsArgs, precision, three};
use crate::term::Color;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use rrrnet::compute::Precision;
use rrrnet::evaluate::Columns;
use std::path::PathBuf;

/// Fine-tune a reduced, recycled ResNet on your own images, on a plain CPU.
#[derive(Debug, Parser)]
#[command(
    name = "rrr",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted (a training has then saved its state)."
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Globals {
    /// Number of threads; all cores by default. Results do not depend on it
    #[arg(long, global = true, value_name = "N", value_parser = threads, help_heading = "Global options")]
    pub threads: Option<usize>,
    /// Use no network: only what is in the cache (also HF_HUB_OFFLINE=1)
    #[arg(long, global = true, help_heading = "Global options")]
    pub offline: bool,
    /// Say more; twice for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// When to use colour; NO_COLOR is respected
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    pub color: Color,
}

impl Globals {
    /// Threads to use.
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(rrrnet::default_threads)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on the bundled sample dataset and show what comes out
    #[command(allow_negative_numbers = true)]
    Quickstart(QuickstartArgs),
    /// List, download, look at or convert pretrained backbones
    Backbone(BackboneArgs),
    /// Show the architecture and cost of a reduced network, without weights
    Plan(PlanArgs),
    /// Make a backbone small once, for many trainings; with pictures, repair what was cut
    #[command(allow_negative_numbers = true)]
    Reduce(Box<ReduceArgs>),
    /// Train a network on a folder of images
    #[command(allow_negative_numbers = true)]
    Train(Box<TrainArgs>),
    /// Measure a trained model on labelled images
    Eval(EvalArgs),
    /// Classify images
    Predict(PredictArgs),
    /// Measure how fast a model runs on this machine, and what it needs
    #[command(allow_negative_numbers = true)]
    Bench(BenchArgs),
    /// Make a model of 8-bit integers: smaller and faster, nearly as accurate
    Quantize(QuantizeArgs),
    /// Say what a run, a model or a checkpoint contains
    Inspect(InspectArgs),
    /// Compare methods over many datasets and seeds
    Suite(SuiteArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How predictions are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people.
    #[default]
    Text,
    /// One object per image, in an array.
    Json,
    /// One row per image and class.
    Csv,
}

#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// Where the run goes
    #[arg(long, value_name = "RUN", default_value = "runs/quickstart")]
    pub out: PathBuf,
    /// Replace a run that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Another backbone: a name of the catalog, a file or a folder
    #[arg(long, value_name = "NAME")]
    pub backbone: Option<String>,
    /// Passes over the training images
    #[arg(long, value_name = "N", value_parser = positive)]
    pub epochs: Option<usize>,
}

#[derive(Debug, Args)]
pub struct BackboneArgs {
    #[command(subcommand)]
    pub command: BackboneCommand,
}

#[derive(Debug, Subcommand)]
pub enum BackboneCommand {
    /// List the catalog and what of it is in the cache
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Download a backbone into the cache
    Pull {
        /// Name in the catalog
        name: String,
    },
    /// Show the card and the architecture of a backbone
    Inspect {
        /// Name in the catalog, file or folder
        name: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a backbone as safetensors with a config.json beside it
    Convert {
        /// Name in the catalog, file or folder
        name: String,
        /// Folder to write to
        out: PathBuf,
        /// Replace a model that is there
        #[arg(long)]
        overwrite: bool,
    },
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Architecture of the full backbone
    #[arg(long, value_name = "NAME", default_value = "resnet152")]
    pub backbone: String,
    /// Blocks kept of each stage
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',', default_value = "1,1,1,1")]
    pub blocks: Vec<usize>,
    /// Block at which branches begin, or its published index
    #[arg(long, value_name = "BLOCK", default_value = rrrnet::config::DEFAULT_SPLIT)]
    pub split: String,
    /// Number of branches
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub branches: usize,
    /// How many of the branches see the images at half their size
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub coarse_branches: usize,
    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive)]
    pub classes: usize,
    /// Side of the square input in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 128, value_parser = positive)]
    pub image_size: usize,
    /// Blocks of a network whose parameters stem and branches together must not exceed, such as 1,1,1,1: branches become
    /// thinner where the stem has more blocks
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',')]
    pub budget: Option<Vec<usize>>,
    /// Make branch widths multiples of this, within the same budget
    #[arg(long, value_name = "N", value_parser = positive)]
    pub round_to: Option<usize>,
    /// Use this shift instead of calibrating one
    #[arg(long, value_name = "N")]
    pub shift: Option<usize>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ReduceArgs {
    /// File to write, for `rrr train --backbone`
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Pretrained backbone: a name of the catalog, a file or a folder
    #[arg(long, value_name = "NAME", default_value = "resnet152")]
    pub backbone: String,
    /// Mean of each input channel in 0..1, for a backbone without a card
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "std")]
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of each input channel, likewise
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "mean")]
    pub std: Option<[f64; 3]>,
    /// Blocks kept of each stage [default: those of `rrr train`, with their budget; 1,1,1,1 with --split]
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',')]
    pub blocks: Option<Vec<usize>>,
    /// Block at which branches begin, or its published index [default: layer3.0]
    #[arg(long, value_name = "BLOCK")]
    pub split: Option<String>,
    /// Number of branches; 1 makes a reduced backbone that can still be split in any way
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub branches: usize,
    /// Number of classes up to which the branches stay within the budget of an unsplit tail
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive)]
    pub classes: usize,
    /// Blocks of a network whose parameters stem and branches together must not exceed, such as 1,1,1,1: branches become
    /// thinner where the stem has more blocks
    #[arg(long, value_name = "N,N,N,N", value_delimiter = ',')]
    pub budget: Option<Vec<usize>>,
    /// Make branch widths multiples of this, within the same budget
    #[arg(long, value_name = "N", value_parser = positive)]
    pub round_to: Option<usize>,
    /// Seed of everything random
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Number format of matrix products; `auto` is bf16 on CPUs that are faster in it (AMX, Zen 4), else f32
    #[arg(long, value_parser = precision(), default_value = "auto")]
    pub precision: Precision,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Pictures without labels, files or folders, on which the small network learns to give the full one's features
    #[arg(long, value_name = "PICTURES", num_args = 1.., help_heading = "Repair")]
    pub repair: Vec<PathBuf>,
    /// Crops of the pictures to learn from
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = positive, requires = "repair", help_heading = "Repair")]
    pub crops: usize,
    /// Side of the crops in pixels: that of the later trainings is best
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = positive, requires = "repair", help_heading = "Repair")]
    pub image_size: usize,
    /// Side of the same crops for the full network [default: --image-size, 128 if that is smaller]
    #[arg(long, value_name = "PIXELS", value_parser = positive, requires = "repair", help_heading = "Repair")]
    pub teacher_size: Option<usize>,
    /// Passes over the crops before the split
    #[arg(long, value_name = "N", default_value_t = 8, requires = "repair", help_heading = "Repair")]
    pub epochs_whole: usize,
    /// Passes over the crops after the split
    #[arg(long, value_name = "N", default_value_t = 8, requires = "repair", help_heading = "Repair")]
    pub epochs_branches: usize,
    /// Crops per step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive, requires = "repair", help_heading = "Repair")]
    pub batch_size: usize,
    /// Learning rate of AdamW at its highest
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, requires = "repair", help_heading = "Repair")]
    pub lr: f64,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// A folder of class folders, a Meta-Album folder, or a CSV/TSV of path and label
    pub data: Option<PathBuf>,
    /// Folder for the run
    #[arg(long, value_name = "RUN", required_unless_present = "resume")]
    pub out: Option<PathBuf>,
    /// Continue an interrupted run as if it had never stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["data", "out", "overwrite", "config"])]
    pub resume: Option<PathBuf>,
    /// Replace a run that is there
    #[arg(long)]
    pub overwrite: bool,
    /// TOML file with any of the settings below, such as the config.toml of another run
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder of a run, or a model file
    pub run: PathBuf,
    /// Labelled images with the model's classes; the run's own test split by default
    pub data: Option<PathBuf>,
    /// Also measure how well the model's uncertainty tells the images of this folder, of another kind than the
    /// model's, from the others; they need no labels
    #[arg(long, value_name = "FOLDER")]
    pub ood: Option<PathBuf>,
    /// Also measure what is left if the model abstains where its top probability is below P
    #[arg(long, value_name = "P", value_parser = probability)]
    pub abstain_below: Option<f32>,
    /// Leave unreadable images out instead of stopping
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch)]
    pub batch_size: usize,
    /// Number format of matrix products; `auto` is bf16 on CPUs that are faster in it (AMX, Zen 4), else f32
    #[arg(long, value_parser = precision(), default_value = "auto")]
    pub precision: Precision,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Columns of a table of images that the command is given.
#[derive(Debug, Args)]
pub struct ColumnArgs {
    /// Column of image paths in a CSV or TSV file
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// Column of labels in a CSV or TSV file
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
}

impl ColumnArgs {
    /// The names.
    pub fn names(&self) -> Columns<'_> {
        Columns { image: self.image_column.as_deref(), label: self.label_column.as_deref() }
    }
}

#[derive(Debug, Args)]
pub struct PredictArgs {
    /// Folder of a run, or a model file
    pub run: PathBuf,
    /// Image files, and folders that are searched for images
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Classes to print per image
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = positive)]
    pub top: usize,
    /// Mark images whose top probability is below P as abstained from
    #[arg(long, value_name = "P", value_parser = probability)]
    pub abstain_below: Option<f32>,
    /// Leave unreadable images out instead of failing
    #[arg(long)]
    pub skip_bad: bool,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    pub batch_size: usize,
    /// Number format of matrix products; `auto` is bf16 on CPUs that are faster in it (AMX, Zen 4), else f32
    #[arg(long, value_parser = precision(), default_value = "auto")]
    pub precision: Precision,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: TableFormat,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Folder of a run, or a model file
    pub run: PathBuf,
    /// Numbers of images per call
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,32", value_parser = batch)]
    pub batch: Vec<usize>,
    /// Number formats of matrix products
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = precision(), default_value = "auto")]
    pub precision: Vec<Precision>,
    /// Side of the square images in pixels; the model's own by default
    #[arg(long, value_name = "PIXELS", value_parser = side)]
    pub size: Option<usize>,
    /// Time each precision and batch size for so long
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = duration)]
    pub seconds: f64,
    /// Time so many calls of each instead
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = positive)]
    pub rounds: Option<usize>,
    /// Also time every layer
    #[arg(long)]
    pub layers: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Folder of a run, or a model file
    pub run: PathBuf,
    /// Images to learn the ranges of the activations from, with or without labels: a dataset or a folder; a run's own
    /// dataset by default. Test images are never used
    #[arg(long, value_name = "DATA")]
    pub calibrate: Option<PathBuf>,
    /// The quantised model's file; by default NAME-int8.safetensors beside the model
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Most calibration images
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub images: usize,
    /// Leave unreadable images out instead of stopping, as a run that was trained so does anyway
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Folder of a run, a model file, or any checkpoint
    pub path: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Parses a number of seconds above 0.
fn duration(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 3600.0 => Ok(s),
        Ok(_) => Err("it must be above 0 and at most 3600".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Parses a probability above 0.
fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        Ok(_) => Err("it must be above 0 and at most 1".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Parses a number of at least 1.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

/// Parses a number of threads.
fn threads(text: &str) -> Result<usize, String> {
    let threads = positive(text)?;
    if threads <= 1 << 10 { Ok(threads) } else { Err("it must be at most 1024".into()) }
}

/// Parses a number of images that go through a network at once.
fn batch(text: &str) -> Result<usize, String> {
    let images = positive(text)?;
    if images <= 1 << 16 { Ok(images) } else { Err("it must be at most 65536".into()) }
}

/// Parses the side of an image in pixels.
fn side(text: &str) -> Result<usize, String> {
    let side = positive(text)?;
    if (8..=4096).contains(&side) { Ok(side) } else { Err("it must lie in 8..4096".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
