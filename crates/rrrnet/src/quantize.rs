//! From a trained model to one of 8-bit integers: calibration, file, and what it costs in accuracy.

use crate::bench::{Until, timed};
use crate::compute::Precision;
use crate::config::{ConfigError, TrainConfig};
use crate::evaluate::{Columns, EvaluateError, EvaluateOptions, listed, measure};
use crate::model::{AccuracyChange, Model, ModelError, ModelFile, Preprocessing, Quantization, Weights};
use crate::predict::Predictor;
use crate::run::{RunDir, RunError};
use rrr_data::{DataError, Dataset, ImageStore, Source, StoreOptions, Workers};
use rrr_nn::{Calibrator, Compute, Images, NetState, Pixels, Pool, StateError};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fewest images that say anything about the activations.
const MIN_IMAGES: usize = 8;
/// Images that the f32 network runs at a time.
const BATCH: usize = 32;
/// Timed passes of one image; the median counts.
const TIMINGS: usize = 15;

/// Why a model cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// There is no usable model, or the quantised one cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The weights cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The run cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The images cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The accuracy cannot be measured.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] rrr_checkpoint::Error),
    /// The model has 8-bit weights already.
    #[error(
        "{} is quantised already\nhint: quantise the model that it was made from",
        .0.display()
    )]
    AlreadyQuantized(PathBuf),
    /// Nothing says which images to calibrate on.
    #[error("{} is no run, so its training images are not known\nhint: name images with --calibrate", .0.display())]
    NoCalibration(PathBuf),
    /// Not enough images to calibrate on.
    #[error(
        "{} has {found} images to calibrate on besides the test images; {MIN_IMAGES} are the least, some hundreds are better",
        path.display()
    )]
    TooFew {
        /// Where they come from.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// The quantised model would replace the model that it is made from.
    #[error("{} is the model itself\nhint: choose another file with --out", .0.display())]
    Overwrites(PathBuf),
    /// The quantised model would replace something else.
    #[error("{} is there and no quantised model\nhint: choose another file with --out", .0.display())]
    Foreign(PathBuf),
    /// The report, which lies beside the model, would replace something else.
    #[error(
        "{} lies where the report would, and is none\nhint: choose another name with --out, ending in .safetensors",
        .0.display()
    )]
    ReportOverwrites(PathBuf),
}

/// How to quantise.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeOptions<'a> {
    /// Most calibration images.
    pub images: usize,
    /// Leave unreadable images out instead of failing; as a run does that was trained so.
    pub skip_bad: bool,
    /// Columns of a table of calibration images, where they do not have the usual names; those of a run's own table are known.
    pub columns: Columns<'a>,
    /// Number of threads.
    pub threads: usize,
}

/// What quantising did.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizeReport {
    /// The quantised model's file.
    #[serde(serialize_with = "rrr_checkpoint::lossy::path")]
    pub model: PathBuf,
    /// Where these numbers were written as JSON.
    #[serde(serialize_with = "rrr_checkpoint::lossy::path")]
    pub report: PathBuf,
    /// Calibration images.
    pub calibration_images: usize,
    /// What to know about the images, such as that some are of formats that are not read. One sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Accuracy before and after; absent where there are no labelled images besides those of the calibration.
    pub accuracy: Option<AccuracyChange>,
    /// Bytes of the two model files.
    pub bytes: Change<u64>,
    /// Milliseconds for one image, decoding left out.
    pub latency_ms: Change<f64>,
}

/// A number of the f32 model and of the quantised one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change<T> {
    /// The f32 model's.
    pub before: T,
    /// The quantised model's.
    pub after: T,
}

/// Quantises the model of a run, or a model file, and writes it to `out` (by default `NAME-int8.safetensors` beside the
/// model) with a report beside that.
///
/// The activations are watched on up to [`QuantizeOptions::images`] images below `calibrate`, a dataset or any folder of
/// images (by default the run's own dataset), spread evenly; the run's test images are never among them. The accuracy is
/// measured on those test images, else on the labelled images of `calibrate` that are left.
///
/// # Errors
/// [`QuantizeError`], before anything is written.
pub fn quantize(
    path: &Path,
    calibrate: Option<&Path>,
    out: Option<&Path>,
    options: QuantizeOptions<'_>,
) -> Result<QuantizeReport, QuantizeError> {
    let file = Model::file_of(path)?;
    let model = Model::load(&file)?;
    let Weights::F32(state) = &model.state else { return Err(QuantizeError::AlreadyQuantized(file)) };
    let out = out.map_or_else(|| beside(&file), Path::to_path_buf);
    let same = |a: &Path, b: &Path| {
        a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    if same(&out, &file) {
        return Err(QuantizeError::Overwrites(file));
    }
    if out.symlink_metadata().is_ok() && !is_quantized(&out) {
        return Err(QuantizeError::Foreign(out));
    }
    let report = out.with_extension("json");
    if same(&report, &out) || is_something_else(&report) {
        return Err(QuantizeError::ReportOverwrites(report));
    }
    rrr_checkpoint::check_writable(&out)?;
    if !model.is_finite() {
        return Err(ModelError::NotFinite.into());
    }
    let config = match RunDir::open(path) {
        Ok(run) => Some(TrainConfig::read(&run.config())?),
        Err(_) => None,
    };
    let (calibrate, columns) = match (calibrate, &config) {
        (Some(data), _) => (data.to_path_buf(), options.columns),
        (None, Some(c)) => {
            let columns = Columns { image: c.image_column.as_deref(), label: c.label_column.as_deref() };
            (c.data.clone(), columns)
        }
        (None, None) => return Err(QuantizeError::NoCalibration(path.to_path_buf())),
    };
    let skip_bad = options.skip_bad || config.as_ref().is_some_and(|config| config.skip_bad);
    let workers = Workers::new(options.threads)?;
    let pool = Arc::new(Pool::new(options.threads));
    let images = Chosen::new(&model, (&calibrate, columns, skip_bad), config.as_ref(), options.images)?;
    let store_options = StoreOptions {
        resize: model.info.preprocessing.resize(),
        skip_bad,
        ..StoreOptions::new(model.info.preprocessing.size)
    };
    let load = |dataset| ImageStore::load(dataset, store_options, &workers).map(Arc::new);
    let seen = load(images.calibration)?;
    let test = images.test.map(|(dataset, split)| load(dataset).map(|store| (store, split))).transpose()?;

    let quantized = calibrated(&model, state, &seen, Arc::clone(&pool))?;
    let mut made = Quantization {
        rrrnet: env!("CARGO_PKG_VERSION").into(),
        calibration: calibrate.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        images: seen.len(),
        accuracy: None,
    };
    let quantized = |made| Model {
        spec: model.spec.clone(),
        state: Weights::Int8 { state: quantized.clone(), made },
        info: model.info.clone(),
    };
    if let Some((store, split)) = &test {
        let options = EvaluateOptions {
            batch_size: BATCH,
            threads: options.threads,
            precision: Precision::F32,
            skip_bad,
            columns: Columns::default(),
            abstain_below: None,
            ood: None,
        };
        let accuracy = |model: &Model| -> Result<_, EvaluateError> {
            Ok(measure(model, store, split, options, &workers)?.metrics.accuracy)
        };
        made.accuracy = Some(AccuracyChange {
            dataset: store.dataset().name.clone(),
            split: split.to_string(),
            images: store.len(),
            before: accuracy(&model)?,
            after: accuracy(&quantized(made.clone()))?,
        });
    }
    let quantized = quantized(made.clone());
    let latency_ms =
        Change { before: latency(&model, &seen, &pool)?, after: latency(&quantized, &seen, &pool)? };
    quantized.save(&out)?;
    let report = QuantizeReport {
        report,
        calibration_images: seen.len(),
        notes: images.notes,
        accuracy: made.accuracy,
        bytes: Change { before: size(&file), after: size(&out) },
        latency_ms,
        model: out,
    };
    let mut json = serde_json::to_vec_pretty(&report).expect("a report is plain values");
    json.push(b'\n');
    rrr_checkpoint::atomic_write(&report.report, &json)?;
    Ok(report)
}

/// Which images serve what.
struct Chosen {
    calibration: Dataset,
    /// With the name of the part.
    test: Option<(Dataset, &'static str)>,
    notes: Vec<String>,
}

impl Chosen {
    fn new(
        model: &Model,
        (calibrate, columns, skip_bad): (&Path, Columns<'_>, bool),
        config: Option<&TrainConfig>,
        most: usize,
    ) -> Result<Self, QuantizeError> {
        let test = config.map(|config| listed(config, model)).transpose()?.and_then(|listed| listed.test);
        let key = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let tested: BTreeSet<PathBuf> = test.iter().flat_map(|t| &t.samples).map(|s| key(&s.path)).collect();
        let labelled = Source::open(calibrate, &columns.open(&model.info.classes, skip_bad));
        let (dataset, notes) = match (labelled, calibrate.is_dir()) {
            (Ok(source), _) => (Ok(source.everything()), source.notes),
            // Calibration needs no labels.
            (Err(_), true) => {
                let (dataset, notes) = Dataset::unlabelled(calibrate, model.info.classes.clone())?;
                (Err(dataset), notes)
            }
            (Err(e), false) => return Err(e.into()),
        };
        let mut all = dataset.as_ref().unwrap_or_else(|unlabelled| unlabelled).clone();
        all.samples.retain(|s| !tested.contains(&key(&s.path)));
        let found = all.samples.len();
        if found < MIN_IMAGES {
            return Err(QuantizeError::TooFew { path: calibrate.to_path_buf(), found });
        }
        let count = found.min(most.max(MIN_IMAGES));
        let mut taken = (0..count).map(|i| i * found / count).peekable();
        let (mut calibration, mut rest) = (Vec::with_capacity(count), Vec::new());
        for (i, sample) in all.samples.drain(..).enumerate() {
            if taken.next_if_eq(&i).is_some() { calibration.push(sample) } else { rest.push(sample) }
        }
        let test = match (test, dataset) {
            (Some(test), _) => Some((test, "test")),
            (None, Ok(_)) if !rest.is_empty() => Some((Dataset { samples: rest, ..all.clone() }, "rest")),
            _ => None,
        };
        Ok(Self { calibration: Dataset { samples: calibration, ..all }, test, notes })
    }
}

/// The weights in 8 bits, after a look at the activations on all images of `seen`.
fn calibrated(
    model: &Model,
    state: &NetState,
    seen: &ImageStore,
    pool: Arc<Pool>,
) -> Result<rrr_nn::QuantizedState, QuantizeError> {
    let Preprocessing { size, .. } = model.info.preprocessing;
    let normalize = model.info.preprocessing.normalize();
    let mut calibrator = Calibrator::new(&model.spec, state, pool)?;
    let bytes = size * size * 3;
    let mut pixels = vec![0; BATCH * bytes];
    for start in (0..seen.len()).step_by(BATCH) {
        let n = BATCH.min(seen.len() - start);
        for (i, image) in pixels.chunks_exact_mut(bytes).take(n).enumerate() {
            seen.copy_to(start + i, image)?;
        }
        let data = &pixels[..n * bytes];
        calibrator.observe(&Images { pixels: Pixels::U8 { data, normalize }, n, height: size, width: size });
    }
    Ok(calibrator.quantize(normalize))
}

/// Median milliseconds of the network for one image.
fn latency(model: &Model, seen: &ImageStore, pool: &Arc<Pool>) -> Result<f64, QuantizeError> {
    let mut predictor = Predictor::new(model, Compute::new(Arc::clone(pool)))?;
    let size = model.info.preprocessing.size;
    let mut pixels = vec![0; size * size * 3];
    seen.copy_to(0, &mut pixels)?;
    Ok(timed(Until::Calls(TIMINGS), || drop(predictor.logits(&pixels, 1))).p50_ms)
}

/// Whether a file is a quantised model, to judge by its header.
fn is_quantized(file: &Path) -> bool {
    file.is_file() && ModelFile::open(file).is_ok_and(|file| file.is_quantized())
}

/// Whether a file is there that is no report of a quantisation.
fn is_something_else(report: &Path) -> bool {
    let is_report = |text: Vec<u8>| {
        serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|v| v["calibration_images"].is_u64())
    };
    report.exists() && !std::fs::read(report).is_ok_and(is_report)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_os_string();
    name.push("-int8.safetensors");
    file.with_file_name(name)
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |m| m.len())
}
