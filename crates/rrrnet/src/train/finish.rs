//! What a finished training leaves behind: the model, its evaluation, its predictions and the report.

use super::data::Images as Data;
use super::{Choice, Event, TrainError};
use crate::bench::QuickSpeed;
use crate::config::{Method, TrainConfig};
use crate::cost::net_cost;
use crate::evaluate::{EvaluateError, Evaluation, fit_temperature};
use crate::machine;
use crate::model::{Model, Provenance};
use crate::predict::Predictor;
use crate::run::{EpochRecord, RunDir};
use rrr_data::{ImageStore, RgbImage, Workers};
use rrr_nn::Compute;
use rrr_report::metrics::{Metrics, Predictions, argmax};
use rrr_report::report::{
    Backbone, Cost, CostComparison, CostPart, CurvePoint, Curves, Dataset, Fact, ImageFormat, Machine,
    Mistake, Report, Speed, Thumbnail, render_html,
};
use serde::Serialize;
use std::borrow::Cow;
use std::path::PathBuf;

/// Mistakes shown in the report.
const MISTAKES: usize = 24;
/// Side of their pictures in pixels.
const THUMBNAIL: usize = 96;

/// A finished training.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model file.
    #[serde(serialize_with = "rrr_checkpoint::lossy::path")]
    pub model: PathBuf,
    /// The numbers of the test split, if there is one.
    pub evaluation: Option<Evaluation>,
    /// The report, if there is a test split.
    #[serde(serialize_with = "rrr_checkpoint::lossy::option")]
    pub report: Option<PathBuf>,
    /// Seconds spent training.
    pub seconds: f64,
}

/// Everything the last steps need.
pub(super) struct Finish<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) run: &'a RunDir,
    pub(super) data: &'a Data,
    pub(super) workers: &'a Workers,
    pub(super) compute: Compute,
    pub(super) seconds: f64,
    pub(super) command: Option<String>,
}

impl Finish<'_> {
    /// Calibrates the model on the validation split, saves it, measures it on the test split and writes the report.
    pub(super) fn run(
        &self,
        model: &Model,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Summary, TrainError> {
        let model = &*self.calibrated(model, events)?;
        let summary =
            Summary { model: self.run.model(), evaluation: None, report: None, seconds: self.seconds };
        let Some(test) = &self.data.test else {
            model.save(&self.run.model())?;
            return Ok(summary);
        };
        events(&Event::Stage("measuring on the test images"));
        let mut predictor = Predictor::new(model, self.compute.clone())?;
        let predictions = predictor.predict_store(test, self.config.batch_size, self.workers)?;
        let metrics = Metrics::evaluate(&predictions).map_err(EvaluateError::from)?;
        model.save(&self.run.model())?;
        let evaluation = Evaluation {
            dataset: test.dataset().name.clone(),
            split: "test".into(),
            precision: self.config.precision.to_string(),
            skipped: test.bad().iter().map(ToString::to_string).collect(),
            notes: Vec::new(),
            metrics,
            selective: None,
            out_of_distribution: None,
        };
        let mut json = serde_json::to_vec_pretty(&evaluation).expect("an evaluation is plain values");
        json.push(b'\n');
        self.run.write(&self.run.evaluation(), &json)?;
        self.run.write(&self.run.predictions(), &predictions_csv(test, &predictions)?)?;
        events(&Event::Stage("measuring the speed"));
        let report = Report {
            speed: Some(speed(&mut predictor)),
            ..self.report(model, test, &predictions, &evaluation.metrics)?
        };
        let html = render_html(&report);
        self.run.write(&self.run.report(), html.as_bytes())?;
        Ok(Summary { evaluation: Some(evaluation), report: Some(self.run.report()), ..summary })
    }

    /// The model with the temperature that suits it on the validation images.
    fn calibrated<'m>(
        &self,
        model: &'m Model,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Cow<'m, Model>, TrainError> {
        let Some(valid) = &self.data.valid else { return Ok(Cow::Borrowed(model)) };
        events(&Event::Stage("calibrating on the validation images"));
        let (batch, compute) = (self.config.batch_size, self.compute.clone());
        let temperature = fit_temperature(model, compute, valid, batch, self.workers)?;
        if temperature.is_none() {
            let note = "the validation images determine no temperature: the probabilities stay uncalibrated";
            events(&Event::Note(note.into()));
        }
        let mut model = model.clone();
        model.info.temperature = temperature;
        Ok(Cow::Owned(model))
    }

    fn report(
        &self,
        model: &Model,
        test: &ImageStore,
        predictions: &Predictions,
        metrics: &Metrics,
    ) -> Result<Report, TrainError> {
        let dataset = &test.dataset().name;
        Ok(Report {
            title: format!("{} on {dataset}", self.config.method),
            method: method_in_words(self.config),
            dataset: Dataset {
                name: dataset.clone(),
                classes: model.info.classes.len(),
                train_images: Some(self.data.train.len()),
                split: "test".into(),
                image_size: model.info.preprocessing.size,
            },
            metrics: metrics.clone(),
            curves: Some(curves(&self.run.records()?)),
            mistakes: mistakes(test, predictions)?,
            cost: cost(model),
            speed: None,
            config: Some(self.config.to_toml()),
            provenance: self.provenance(&model.info.provenance)?,
        })
    }

    fn provenance(&self, p: &Provenance) -> Result<rrr_report::report::Provenance, TrainError> {
        let augmentation = match Choice::read(self.run)? {
            Some(choice) => choice.to_string(),
            None => self.config.augmentation.to_string(),
        };
        let notes = vec![
            Fact::new("recipe", &p.recipe),
            Fact::new("epochs", p.epochs),
            Fact::new("augmentation", augmentation),
            Fact::new("precision", self.config.precision),
        ];
        Ok(rrr_report::report::Provenance {
            versions: vec![Fact::new("rrrnet", &p.rrrnet)],
            seed: p.seed,
            command: self.command.clone(),
            backbone: Some(Backbone {
                name: p.backbone.clone(),
                licence: p.backbone_licence.clone(),
                sha256: p.backbone_sha256.clone(),
                source: p.backbone_source.clone(),
            }),
            machine: Machine {
                cpu: machine::cpu_model(),
                cores: self.compute.pool().threads(),
                isa: self.compute.isa().to_string(),
                platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            },
            finished: Some(machine::utc_now()),
            train_seconds: Some(self.seconds),
            notes,
        })
    }
}

fn speed(predictor: &mut Predictor) -> Speed {
    let measured = QuickSpeed::of(predictor);
    Speed {
        batch: QuickSpeed::BATCH,
        images_per_second: measured.images_per_second,
        latency_ms: Some(measured.latency_ms),
        full_images_per_second: None,
    }
}

fn method_in_words(config: &TrainConfig) -> String {
    let split = config.split.as_deref().unwrap_or_default();
    match config.method {
        Method::Rrr => {
            let coarse = match config.coarse_branches {
                0 => String::new(),
                n => format!(", {n} of them on half the image size"),
            };
            format!("RRR-Net, {} branches from {split}{coarse}", config.branch_count())
        }
        Method::Reduced => format!("reduced backbone, trained from {split}"),
        Method::Finetune => "fine-tuning of the whole backbone".into(),
        Method::Probe => "linear probe of the whole backbone".into(),
        Method::Fge => format!("fast geometric ensemble of {} copies from {split}", config.branch_count()),
    }
}

fn curves(records: &[EpochRecord]) -> Curves {
    let point = |r: &EpochRecord| CurvePoint {
        at: r.epoch as f64,
        train_loss: Some(r.loss),
        train_accuracy: Some(r.accuracy),
        eval_loss: r.val_loss,
        eval_accuracy: r.val_accuracy,
        learning_rate: Some(r.lr),
    };
    Curves { axis: "epoch".into(), points: records.iter().map(point).collect() }
}

/// The misclassified images whose true class got the least probability.
fn mistakes(test: &ImageStore, predictions: &Predictions) -> Result<Vec<Mistake>, TrainError> {
    let ensemble = predictions.ensemble().map_err(EvaluateError::from)?;
    let pooled = predictions.pooled().map_err(EvaluateError::from)?;
    let classes = &predictions.classes;
    let row = |i: usize| &ensemble[i * classes.len()..][..classes.len()];
    let predicted = |i: usize| argmax(&pooled[i * classes.len()..][..classes.len()]);
    let own = |i: usize| row(i)[predictions.labels[i] as usize];
    let mut wrong: Vec<usize> =
        (0..test.len()).filter(|i| predicted(*i) != predictions.labels[*i] as usize).collect();
    wrong.sort_by(|a, b| own(*a).total_cmp(&own(*b)));
    wrong
        .into_iter()
        .take(MISTAKES)
        .map(|i| {
            let predicted = predicted(i);
            Ok(Mistake {
                name: test.dataset().samples[i].id.clone(),
                thumbnail: thumbnail(test, i)?,
                label: classes[predictions.labels[i] as usize].clone(),
                predicted: classes[predicted].clone(),
                confidence: row(i)[predicted].into(),
                label_probability: own(i).into(),
            })
        })
        .collect()
}

fn thumbnail(store: &ImageStore, index: usize) -> Result<Option<Thumbnail>, TrainError> {
    let size = store.size();
    let mut image = RgbImage { width: size, height: size, pixels: vec![0; size * size * 3] };
    store.copy_to(index, &mut image.pixels)?;
    let side = THUMBNAIL.min(size);
    let small = image.resized(side, rrr_data::Resize::Antialias);
    let mut bytes = Vec::new();
    let encoded = jpeg_encoder::Encoder::new(&mut bytes, 80).encode(
        &small,
        side as u16,
        side as u16,
        jpeg_encoder::ColorType::Rgb,
    );
    Ok(encoded.is_ok().then_some(Thumbnail { format: ImageFormat::Jpeg, bytes }))
}

fn cost(model: &Model) -> Option<CostComparison> {
    let backbone = model.info.provenance.backbone_layout.as_ref()?;
    let (size, classes) = (model.info.preprocessing.size, model.info.classes.len());
    let own = net_cost(&model.spec, [size; 2]);
    let full = net_cost(&backbone.full_net(classes), [size; 2]);
    let cost = |params: u64, macs: u64| Cost { params, macs, bytes: 4 * params };
    let mut parts = Vec::new();
    if own.stem().params > 0 {
        let macs = own.groups.iter().map(|g| g.stem.macs).sum();
        parts.push(CostPart { name: "stem".into(), count: 1, cost: cost(own.stem().params, macs) });
    }
    for group in &own.groups {
        let name = if group.halved { "coarse branch" } else { "branch" };
        let cost = cost(group.branch.params, group.branch.macs);
        parts.push(CostPart { name: name.into(), count: group.branches, cost });
    }
    Some(CostComparison {
        image_size: size,
        parts,
        total: cost(own.params, own.macs),
        full_name: backbone.name.clone(),
        full: cost(full.params, full.macs),
    })
}

fn predictions_csv(store: &ImageStore, predictions: &Predictions) -> Result<Vec<u8>, TrainError> {
    let ensemble = predictions.ensemble().map_err(EvaluateError::from)?;
    let pooled = predictions.pooled().map_err(EvaluateError::from)?;
    let uncertain = predictions.uncertainties().map_err(EvaluateError::from)?;
    let classes = &predictions.classes;
    let mut out = csv::Writer::from_writer(Vec::new());
    let header = [
        "path",
        "label",
        "predicted",
        "probability",
        "label_probability",
        "correct",
        "agreement",
        "entropy",
        "mutual_information",
    ];
    let in_memory = "writing to memory cannot fail";
    out.write_record(header).expect(in_memory);
    for (i, sample) in store.dataset().samples.iter().enumerate() {
        let (from, to) = (i * classes.len(), (i + 1) * classes.len());
        let row = &ensemble[from..to];
        let (label, predicted) = (sample.label as usize, argmax(&pooled[from..to]));
        let agreeing =
            (0..predictions.branches).filter(|b| argmax(predictions.row(*b, i)) == predicted).count();
        out.write_record([
            sample.id.clone(),
            classes[label].clone(),
            classes[predicted].clone(),
            row[predicted].to_string(),
            row[label].to_string(),
            (label == predicted).to_string(),
            (agreeing as f64 / predictions.branches as f64).to_string(),
            uncertain[i].entropy.to_string(),
            uncertain[i].mutual_information.to_string(),
        ])
        .expect(in_memory);
    }
    Ok(out.into_inner().expect(in_memory))
}
