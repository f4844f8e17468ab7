//! Calibration at the end of a training, and what becomes of it.

mod common;

use common::{OPTIONS, World};
use rrr_checkpoint::Checkpoint;
use rrrnet::compute::Precision;
use rrrnet::config::{Method, Select, Settings, TrainConfig};
use rrrnet::evaluate::{evaluate, evaluate_run};
use rrrnet::model::{Model, ModelError};
use rrrnet::predict::{Timing, Workers, load};
use rrrnet::train::{Event, Outcome, TrainOptions, resume, train};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const EPOCHS: usize = 30;
/// Nine training images in batches of five.
const STEPS: u64 = 2 * EPOCHS as u64;

fn config(world: &World, method: Method, select: Select) -> TrainConfig {
    let settings = Settings {
        data: Some(world.mislabelled()),
        backbone: Some(world.backbone().display().to_string()),
        method: Some(method),
        branches: Some(2),
        epochs: Some(EPOCHS),
        warm_passes: Some(1),
        batch_size: Some(5),
        image_size: Some(32),
        augmentation: Some("none".parse().unwrap()),
        select: Some(select),
        threads: Some(1),
        ..Settings::default()
    };
    settings.resolve().unwrap()
}

/// Trains with a stop after each of the steps `stops`.
fn run(config: &TrainConfig, out: &Path, stops: &[u64]) {
    for round in 0..=stops.len() {
        let interrupt = AtomicBool::new(false);
        let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
        let mut watch = |event: &Event<'_>| {
            if matches!(event, Event::Step(step) if stops.get(round) == Some(&step.done)) {
                interrupt.store(true, Ordering::SeqCst);
            }
        };
        let outcome = match round {
            0 => train(config, out, &options, &mut watch),
            _ => resume(out, None, &options, &mut watch),
        };
        assert_eq!(matches!(outcome.unwrap(), Outcome::Interrupted { .. }), round < stops.len());
    }
}

fn same_tensors(a: &Path, b: &Path) -> bool {
    let read = |path| {
        let file = Checkpoint::open(path).unwrap();
        let bits =
            |name: &str| file.read_f32(name).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        file.tensors().iter().map(|t| (t.name.clone(), bits(&t.name))).collect::<Vec<_>>()
    };
    read(a) == read(b)
}

#[test]
fn a_training_with_validation_images_calibrates_its_model() {
    let world = World::new();
    for (method, select) in
        [(Method::Rrr, Select::Last), (Method::Rrr, Select::Best), (Method::Fge, Select::Last)]
    {
        let name = format!("{method}-{select}");
        let (out, config) = (world.path(&name), config(&world, method, select));
        run(&config, &out, &[]);
        let model = Model::load(&out).unwrap();
        let temperature = model.info.temperature.expect("one wrong label of four determines a temperature");
        if select == Select::Best {
            let best = out.join("checkpoint/best.safetensors");
            assert!(same_tensors(&best, &out.join("model.safetensors")), "{name}");
            assert_eq!(Model::load(&best).unwrap().info.temperature, None, "{name}");
        }

        let own = evaluate_run(&out, OPTIONS).unwrap();
        let scaling = own.metrics.temperature_scaling.unwrap();
        assert_eq!(scaling.temperature, temperature, "{name}");
        let written = fs::read_to_string(out.join("evaluation.json")).unwrap();
        assert!(
            written.contains("\"temperature_scaling\"") && !written.contains("\"selective\""),
            "{written}"
        );
        assert_eq!(serde_json::to_string_pretty(&own).unwrap() + "\n", written, "{name}");
        let report = fs::read_to_string(out.join("report.html")).unwrap();
        assert!(report.contains(&format!("a temperature of {:.3}, fitted", temperature.get())), "{name}");

        let mut plain = model.clone();
        plain.info.temperature = None;
        let uncalibrated = world.path(&format!("{name}.safetensors"));
        plain.save(&uncalibrated).unwrap();
        let file = Checkpoint::open(&uncalibrated).unwrap();
        assert!(!file.metadata()["rrrnet.model"].contains("temperature"), "{name}");
        assert_eq!(Model::load(&uncalibrated).unwrap(), plain, "{name}");
        let data = world.path("mislabelled");
        let before = evaluate(&plain, &data, OPTIONS).unwrap().metrics;
        assert_eq!((before.nll, before.calibration.ece), (scaling.nll.before, scaling.ece.before), "{name}");
        assert_eq!(before.confusion, own.metrics.confusion, "{name}");
        assert_eq!(before.temperature_scaling, None, "{name}");
        let fitted = evaluate(&model, &data.join("val"), OPTIONS).unwrap().metrics;
        let scaling = fitted.temperature_scaling.unwrap();
        assert!(scaling.nll.after < scaling.nll.before, "{name}: {scaling:?}");

        let workers = Workers::new(1).unwrap();
        let images = [world.photos().join("red/0.jpg"), world.photos().join("green/1.jpg")];
        let said = |path: &Path| {
            let mut predictor = load(path, 1, Precision::Auto).unwrap();
            predictor.predict_files(&images, 3, &workers, &mut Timing::default()).unwrap()
        };
        for (calibrated, plain) in said(&out).into_iter().zip(said(&uncalibrated)) {
            let (calibrated, plain) = (calibrated.unwrap(), plain.unwrap());
            let classes =
                |p: &rrrnet::predict::Prediction| p.top.iter().map(|r| r.class.clone()).collect::<Vec<_>>();
            assert_eq!(classes(&calibrated), classes(&plain), "{name}");
            assert_ne!(calibrated.top[0].probability, plain.top[0].probability, "{name}");
            assert_eq!(calibrated.mutual_information, plain.mutual_information, "{name}");
            assert_eq!((calibrated.abstained, plain.abstained), (None, None), "{name}");
        }
    }
}

#[test]
fn stops_do_not_change_the_temperature() {
    let world = World::new();
    let config = config(&world, Method::Rrr, Select::Best);
    let (whole, pieces) = (world.path("whole"), world.path("pieces"));
    run(&config, &whole, &[]);
    // The last stop comes when only the calibration and the evaluation are left.
    run(&config, &pieces, &[1, 7, STEPS]);
    for file in ["model.safetensors", "evaluation.json", "predictions.csv"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(pieces.join(file)).unwrap(), "{file}");
    }
    assert!(Model::load(&pieces).unwrap().info.temperature.is_some());
}

#[test]
fn a_temperature_that_makes_no_sense_is_refused() {
    let world = World::new();
    let out = world.path("run");
    run(&config(&world, Method::Rrr, Select::Last), &out, &[]);
    let file = out.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let key = br#"\"temperature\":"#;
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let digits = bytes[at..].iter_mut().take_while(|b| **b != b',');
    digits.filter(|b| b.is_ascii_digit()).for_each(|b| *b = b'0');
    fs::write(&file, &bytes).unwrap();
    let e = Model::load(&out).unwrap_err();
    assert!(matches!(e, ModelError::Header { .. }), "{e}");
    assert!(e.to_string().contains("a temperature of 0 makes no sense"), "{e}");
}
