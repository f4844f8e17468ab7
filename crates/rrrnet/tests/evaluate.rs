//! What finished runs and models are measured with, and what they refuse.

mod common;

use common::{OPTIONS, World};
use rrrnet::compute::Precision;
use rrrnet::config::{Method, Settings};
use rrrnet::evaluate::{Columns, EvaluateError, EvaluateOptions, evaluate, evaluate_run};
use rrrnet::model::{Model, ModelError, Weights};
use rrrnet::predict::{Predictor, Timing, Workers};
use rrrnet::quantize::{QuantizeError, QuantizeOptions, quantize};
use rrrnet::train::{TrainOptions, train};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn settings(world: &World) -> Settings {
    Settings {
        method: Some(Method::Rrr),
        data: Some(world.photos()),
        backbone: Some(world.backbone().display().to_string()),
        branches: Some(2),
        epochs: Some(1),
        image_size: Some(16),
        batch_size: Some(5),
        threads: Some(1),
        ..Settings::default()
    }
}

fn run(settings: Settings, out: PathBuf) -> PathBuf {
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    train(&settings.resolve().unwrap(), &out, &options, &mut |_| {}).unwrap();
    out
}

fn quantized(run: &Path, calibrate: Option<&Path>, skip_bad: bool) -> Result<usize, QuantizeError> {
    let options = QuantizeOptions { images: 256, skip_bad, columns: Columns::default(), threads: 1 };
    quantize(run, calibrate, None, options).map(|report| report.calibration_images)
}

#[test]
fn a_run_is_measured_only_with_the_images_that_it_knows() {
    let world = World::new();
    let out = run(settings(&world), world.path("run"));
    let photos = world.photos();
    let check = |what: &str, same: bool| {
        let (evaluated, quantized) = (evaluate_run(&out, OPTIONS), quantized(&out, None, false));
        if same {
            assert_eq!(evaluated.unwrap().metrics.n, 3, "{what}");
            assert_eq!(quantized.unwrap(), 12, "{what}");
        } else {
            assert!(matches!(evaluated, Err(EvaluateError::DataChanged(_))), "{what}");
            assert!(
                matches!(quantized, Err(QuantizeError::Evaluate(EvaluateError::DataChanged(_)))),
                "{what}"
            );
        }
    };
    check("as it was", true);
    fs::copy(photos.join("red/0.jpg"), photos.join("red/9.jpg")).unwrap();
    check("one more image", false);
    fs::remove_file(photos.join("red/9.jpg")).unwrap();
    for i in 0..common::IMAGES {
        common::copy(&photos.join(format!("red/{i}.jpg")), &photos.join("yellow"));
    }
    check("one more class", false);
    fs::remove_dir_all(photos.join("yellow")).unwrap();
    fs::rename(photos.join("red"), photos.join("crimson")).unwrap();
    check("a class of another name", false);
    fs::rename(photos.join("crimson"), photos.join("red")).unwrap();
    check("as it was again", true);
}

#[test]
fn unreadable_images_and_tables_are_read_as_in_training() {
    let world = World::new();
    let photos = world.photos();
    let mut table = String::from("what,kind,pic\n");
    for (i, class) in common::CLASSES.iter().enumerate() {
        for image in 0..common::IMAGES {
            table.push_str(&format!("x,{i},photos/{class}/{image}.jpg\n"));
        }
    }
    let csv = world.path("table.csv");
    fs::write(&csv, table).unwrap();
    fs::write(photos.join("green/1.jpg"), b"no image").unwrap();
    let settings = Settings {
        data: Some(csv.clone()),
        image_column: Some("pic".into()),
        label_column: Some("kind".into()),
        skip_bad: Some(true),
        ..settings(&world)
    };
    let out = run(settings, world.path("run"));
    // The unreadable image is one of the 12 to calibrate on or one of the 3 to measure with.
    let measured = evaluate_run(&out, OPTIONS).unwrap().metrics.n;
    assert_eq!(measured + quantized(&out, None, false).unwrap(), 14);

    let model = Model::load(&out).unwrap();
    assert!(evaluate(&model, &csv, EvaluateOptions { skip_bad: true, ..OPTIONS }).is_err());
    let columns = Columns { image: Some("pic"), label: Some("kind") };
    let all = evaluate(&model, &csv, EvaluateOptions { columns, skip_bad: true, ..OPTIONS }).unwrap();
    assert_eq!(all.metrics.n, 14);
    let file = world.path("model.safetensors");
    fs::copy(out.join("model.safetensors"), &file).unwrap();
    assert!(quantized(&file, Some(&photos), false).is_err());
    assert!(quantized(&file, Some(&photos), true).is_ok());
}

#[test]
fn weights_and_numbers_that_make_no_sense_are_refused() {
    let world = World::new();
    let out = run(settings(&world), world.path("run"));
    let mut model = Model::load(&out).unwrap();
    let Weights::F32(state) = &mut model.state else { panic!("not quantised") };
    state.branches[0].get_mut("fc.weight").unwrap().data.fill(f32::NAN);
    let mut predictor = Predictor::new(&model, Precision::F32.compute(1)).unwrap();
    let said = predictor.predict_files(
        &[world.photos().join("red/0.jpg")],
        1,
        &Workers::new(1).unwrap(),
        &mut Timing::default(),
    );
    assert!(matches!(said, Err(ModelError::NotFinite)));

    let file = world.path("flat.safetensors");
    for std in [0.0, f32::INFINITY] {
        let mut model = Model::load(&out).unwrap();
        model.info.preprocessing.std[1] = std;
        model.save(&file).unwrap();
        assert!(matches!(Model::load(&file), Err(ModelError::Header { .. })), "{std}");
    }
}
