//! The folder of a run: what may lie in it, and what becomes of it when somebody edits or damages it.

mod common;

use common::World;
use rrr_checkpoint::{Checkpoint, TensorRef, write_safetensors};
use rrrnet::compute::Precision;
use rrrnet::config::{Augmentation, Method, Settings, TrainConfig};
use rrrnet::model::Model;
use rrrnet::reduce::{ReduceContext, ReduceOptions, reduce};
use rrrnet::run::{RunDir, RunError};
use rrrnet::train::{Outcome, TrainError, TrainOptions, resume, train};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn settings(world: &World) -> Settings {
    Settings {
        data: Some(world.photos()),
        backbone: Some(world.backbone().display().to_string()),
        branches: Some(2),
        epochs: Some(2),
        warm_passes: Some(1),
        batch_size: Some(5),
        image_size: Some(32),
        augmentation: Some(Augmentation::Shift),
        checkpoint_every: Some(0),
        threads: Some(1),
        ..Settings::default()
    }
}

fn with_options<T>(act: impl FnOnce(&TrainOptions<'_>) -> T) -> T {
    let interrupt = AtomicBool::new(false);
    act(&TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None })
}

fn run(settings: Settings, out: &Path) {
    let config = settings.resolve().unwrap();
    with_options(|options| train(&config, out, options, &mut |_| {})).unwrap();
}

fn go_on(out: &Path) -> Result<Outcome, TrainError> {
    with_options(|options| resume(out, None, options, &mut |_| {}))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write_all(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
}

/// Replaces text in `config.toml`.
fn edit(out: &Path, from: &str, to: &str) {
    let path = out.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "no `{from}` in {text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

/// Changes what the header of the run's checkpoint says.
fn edit_header(out: &Path, change: impl FnOnce(&mut Value)) {
    const KEY: &str = "rrrnet.checkpoint";
    let path = out.join("checkpoint/last.safetensors");
    let file = Checkpoint::open(&path).unwrap();
    let mut metadata = file.metadata().clone();
    let mut header = serde_json::from_str(&metadata[KEY]).unwrap();
    change(&mut header);
    metadata.insert(KEY.into(), header.to_string());
    let tensors: Vec<_> =
        file.tensors().iter().map(|t| (&t.name, &t.shape, file.read_f32(&t.name).unwrap())).collect();
    let refs: Vec<_> = tensors.iter().map(|(name, shape, data)| TensorRef { name, shape, data }).collect();
    write_safetensors(&path, &refs, &metadata).unwrap();
}

#[test]
fn a_new_run_has_nothing_of_a_former_one() {
    let world = World::new();
    let out = world.path("run");
    write_all(
        &out,
        &[
            "config.toml",
            "augmentation.json",
            "metrics.jsonl",
            "model.safetensors",
            "model-int8.safetensors",
            "model-int8.json",
            "evaluation.json",
            "predictions.csv",
            "report.html",
            "checkpoint/last.safetensors",
            "checkpoint/best.safetensors",
            "checkpoint/.rrr-Ab12.tmp",
            "teacher/config.toml",
            "teacher/model.safetensors",
            "teacher/checkpoint/last.safetensors",
            "notes.txt",
        ],
    );
    RunDir::create(&out, true, "epochs = 1\n").unwrap();
    assert_eq!(names(&out), ["checkpoint", "config.toml", "notes.txt"]);
    assert!(names(&out.join("checkpoint")).is_empty());
    assert_eq!(fs::read_to_string(out.join("config.toml")).unwrap(), "epochs = 1\n");
}

#[test]
fn what_a_kill_leaves_of_a_run_that_was_about_to_begin_is_in_nobodys_way() {
    let world = World::new();
    let out = world.path("run");
    write_all(&out, &[".rrr-writable-17", ".rrr-Ab12.tmp", "checkpoint/.rrr-Cd34.tmp"]);
    RunDir::create(&out, false, "epochs = 1\n").unwrap();
    assert_eq!(names(&out), ["checkpoint", "config.toml"]);
    for strange in ["notes.txt", "checkpoint/mine.safetensors", "photos/a.jpg"] {
        let out = world.path("other");
        write_all(&out, &[strange]);
        let refused = RunDir::create(&out, true, "").unwrap_err();
        assert!(matches!(refused, RunError::NotARun(_)) && out.join(strange).exists(), "{strange}");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_folder_that_is_being_replaced_stays_a_run() {
    let world = World::new();
    let out = world.path("run");
    write_all(&out, &["config.toml", "metrics.jsonl", "report.html/stops the removal"]);
    let failed = RunDir::create(&out, true, "epochs = 1\n").unwrap_err().to_string();
    assert!(failed.starts_with("cannot remove") && failed.contains("report.html"), "{failed}");
    assert_eq!(names(&out), ["config.toml", "report.html"]);
    assert!(RunDir::open(&out).is_ok());
}

#[test]
fn a_run_without_its_checkpoints_starts_over() {
    let world = World::new();
    let out = world.path("run");
    run(settings(&world), &out);
    let model = fs::read(out.join("model.safetensors")).unwrap();
    fs::remove_dir_all(out.join("checkpoint")).unwrap();
    assert!(matches!(go_on(&out).unwrap(), Outcome::Finished(_)));
    assert!(fs::read(out.join("model.safetensors")).unwrap() == model);
}

#[test]
fn a_run_does_not_depend_on_where_it_was_begun() {
    let world = World::new();
    let out = world.path("run");
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let relative = |path: PathBuf| up.join(path.strip_prefix("/").unwrap());
    let backbone = relative(world.backbone()).display().to_string();
    let data = relative(world.photos());
    run(Settings { backbone: Some(backbone), data: Some(data), ..settings(&world) }, &out);
    let config = TrainConfig::read(&out.join("config.toml")).unwrap();
    for path in [&config.data, Path::new(&config.backbone)] {
        assert!(path.is_absolute() && path.exists(), "{}", path.display());
    }
}

#[test]
fn a_run_goes_on_only_as_it_has_begun() {
    let world = World::new();
    let out = world.path("run");
    run(settings(&world), &out);
    for (from, to, said) in [
        ("lr = 0.001", "lr = 0.002", "lr = 0.002, but the run has begun with 0.001"),
        ("batch_size = 5", "batch_size = 4", "batch_size = 4, but"),
        ("epochs = 2", "epochs = 9", "epochs = 9, but"),
        ("augmentation = \"shift\"", "augmentation = \"auto\"", "augmentation = \"auto\", but"),
        ("coarse_branches = 0", "coarse_branches = 1", "coarse_branches = 1, but"),
    ] {
        edit(&out, from, to);
        let error = go_on(&out).unwrap_err();
        assert!(matches!(error, TrainError::ConfigChanged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("config.toml: ") && text.contains(said), "{text}");
        edit(&out, to, from);
    }
    edit(&out, "batch_size = 5", "batch_size = 0");
    let error = go_on(&out).unwrap_err();
    assert!(
        matches!(error, TrainError::Config(_)) && error.to_string().contains("config.toml: batch_size = 0")
    );
    edit(&out, "batch_size = 0", "batch_size = 5");

    fs::create_dir(world.path("moved")).unwrap();
    fs::rename(world.photos(), world.path("moved/photos")).unwrap();
    edit(&out, "/photos\"", "/moved/photos\"");
    edit(&out, "checkpoint_every = 0", "checkpoint_every = 3");
    assert!(matches!(go_on(&out).unwrap(), Outcome::Finished(_)));
}

#[test]
fn an_augmentation_is_not_chosen_anew_behind_an_old_checkpoint() {
    let world = World::new();
    let out = world.path("run");
    run(settings(&world), &out);
    edit_header(&out, |header| drop(header.as_object_mut().unwrap().remove("config")));
    assert!(matches!(go_on(&out).unwrap(), Outcome::Finished(_)));
    edit_header(&out, |header| drop(header.as_object_mut().unwrap().remove("config")));
    edit(&out, "augmentation = \"shift\"", "augmentation = \"auto\"");
    let error = go_on(&out).unwrap_err().to_string();
    assert!(error.contains("augmentation = auto, but the run has begun"), "{error}");
}

#[test]
fn a_checkpoint_has_all_of_what_it_claims() {
    let world = World::new();
    let fge = Settings { method: Some(Method::Fge), epochs: Some(3), ..settings(&world) };
    for (kind, settings) in [("rrr", settings(&world)), ("fge", fge)] {
        let out = world.path(kind);
        run(settings, &out);
        let last = out.join("checkpoint/last.safetensors");
        let whole = fs::read(&last).unwrap();
        let refused = |change: &dyn Fn(&mut Value), said: &str| {
            fs::write(&last, &whole).unwrap();
            edit_header(&out, change);
            let error = go_on(&out).unwrap_err();
            assert!(matches!(error, TrainError::Damaged { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("last.safetensors") && text.contains(said), "{text}");
        };
        refused(&|h| h["position"]["steps"] = 1000.into(), "it has done 1000 steps of");
        refused(&|h| h["config"]["seed"] = u64::MAX.into(), "seed = 18446744073709551615 makes no sense");
        if kind == "rrr" {
            refused(&|h| h["copies"] = 1.into(), "1 copies of the branch, not the 0");
            refused(&|h| h["ema_decay"] = Value::Null, "a moving average and its decay");
            refused(&|h| h["has_ema"] = false.into(), "a moving average and its decay");
        } else {
            refused(&|h| h["copies"] = 1.into(), "1 copies of the branch, not the 2");
            refused(&|h| h["copies"] = u64::MAX.into(), "copies of the branch");
            refused(&|h| h["position"]["steps"] = 1.into(), "2 copies of the branch, not the 0");
        }
    }
}

#[test]
fn the_best_model_of_fge_has_all_its_copies() {
    let world = World::new();
    let fge =
        Settings { method: Some(Method::Fge), epochs: Some(5), val_per_class: Some(1), ..settings(&world) };
    let out = world.path("run");
    run(fge, &out);
    assert!(RunDir::open(&out).unwrap().records().unwrap().iter().all(|r| r.val_accuracy.is_some()));
    assert_eq!(Model::load(&out.join("checkpoint/best.safetensors")).unwrap().spec.branches, 2);
}

#[test]
fn one_process_at_a_time_writes_to_a_run() {
    let world = World::new();
    let out = world.path("run");
    run(settings(&world), &out);
    let taken = RunDir::take(&out).unwrap();
    assert!(matches!(go_on(&out), Err(TrainError::Run(RunError::Taken(_)))));
    assert!(matches!(RunDir::create(&out, true, ""), Err(RunError::Taken(_))));
    assert!(out.join("model.safetensors").exists(), "nothing is removed before the run is taken");
    // Reading is free.
    assert!(RunDir::open(&out).is_ok());
    drop(taken);
    assert!(go_on(&out).is_ok());
}

#[test]
fn a_model_that_is_no_model_is_not_written() {
    let world = World::new();
    let out = world.path("run");
    // Three steps, of which the last one is never looked at by a loss.
    let config = Settings { lr: Some(1e30), epochs: Some(1), warm_passes: Some(0), ..settings(&world) };
    let config = config.resolve().unwrap();
    let said = with_options(|options| train(&config, &out, options, &mut |_| {})).unwrap_err().to_string();
    assert!(said.contains("diverged") && said.contains("--lr"), "{said}");
    assert!(!out.join("model.safetensors").exists());
}

#[test]
fn a_teacher_that_cannot_be_trained_is_known_before_anything_is_written() {
    let world = World::new();
    let small = world.path("small.safetensors");
    let options = ReduceOptions {
        backbone: world.backbone().display().to_string(),
        normalize: None,
        blocks: [1, 1, 1, 1],
        split: "layer3.0".into(),
        branches: 1,
        classes: 3,
        round_to: None,
        budget: None,
        seed: 0,
        repair: None,
    };
    let interrupt = AtomicBool::new(false);
    let context = ReduceContext {
        threads: 1,
        precision: Precision::F32,
        overwrite: false,
        offline: true,
        interrupt: &interrupt,
    };
    reduce(&options, &small, &context, &mut |_| {}).unwrap();
    let out = world.path("run");
    let config = Settings {
        backbone: Some(small.display().to_string()),
        blocks: Some(vec![1, 1, 1, 1]),
        teacher: Some("auto".into()),
        ..settings(&world)
    };
    let config = config.resolve().unwrap();
    let refused = with_options(|options| train(&config, &out, options, &mut |_| {})).unwrap_err();
    assert!(matches!(refused, TrainError::ReducedBackbone { .. }), "{refused}");
    assert!(!out.exists());
}
