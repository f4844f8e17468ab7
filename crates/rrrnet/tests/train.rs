//! Whole trainings of tiny networks, through the library.

mod common;

use common::{CLASSES, OPTIONS, World};
use rrr_checkpoint::Checkpoint;
use rrrnet::compute::Precision;
use rrrnet::config::{Augmentation, Method, Select, Settings, TEACHER_AUTO, TrainConfig};
use rrrnet::evaluate::{evaluate, evaluate_run};
use rrrnet::model::{Combine, Model};
use rrrnet::predict::{Timing, Workers, load};
use rrrnet::run::{EpochRecord, RunDir};
use rrrnet::train::{Choice, Event, Outcome, Summary, TrainError, TrainOptions, resume, train};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const METHODS: [Method; 5] = [Method::Rrr, Method::Reduced, Method::Finetune, Method::Probe, Method::Fge];

fn settings(world: &World, method: Method) -> Settings {
    Settings {
        data: Some(world.photos()),
        backbone: Some(world.backbone().display().to_string()),
        method: Some(method),
        branches: matches!(method, Method::Rrr | Method::Fge).then_some(2),
        epochs: Some(3),
        ema_epochs: (method != Method::Fge).then_some(1),
        warm_passes: method.is_reduced().then_some(1),
        batch_size: Some(5),
        image_size: Some(32),
        augmentation: Some(Augmentation::Shift),
        checkpoint_every: Some(0),
        threads: Some(1),
        ..Settings::default()
    }
}

fn config(world: &World, method: Method) -> TrainConfig {
    settings(world, method).resolve().unwrap()
}

fn run(config: &TrainConfig, out: &Path) -> Summary {
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    match train(config, out, &options, &mut |_| {}).unwrap() {
        Outcome::Finished(summary) => *summary,
        Outcome::Interrupted { .. } => panic!("nobody interrupted"),
    }
}

/// Trains with a stop after every single step and warming batch; gives the number of stops.
fn run_with_stops(config: &TrainConfig, out: &Path) -> usize {
    for stops in 0.. {
        let interrupt = AtomicBool::new(false);
        let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
        let mut stop = |event: &Event<'_>| {
            if matches!(event, Event::Step(_) | Event::Warmed { .. }) {
                interrupt.store(true, Ordering::SeqCst);
            }
        };
        let outcome = if stops == 0 {
            train(config, out, &options, &mut stop)
        } else {
            resume(out, None, &options, &mut stop)
        };
        if let Outcome::Finished(_) = outcome.unwrap() {
            return stops;
        }
    }
    unreachable!("a training ends")
}

/// The lines of `metrics.jsonl` without what depends on the clock.
fn records(run: &Path) -> Vec<EpochRecord> {
    let timeless = |r: EpochRecord| EpochRecord { images_per_second: 0.0, seconds: 0.0, ..r };
    RunDir::open(run).unwrap().records().unwrap().into_iter().map(timeless).collect()
}

/// Names, shapes and bits of everything in a checkpoint.
fn tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let file = Checkpoint::open(path).unwrap();
    let bits = |name: &str| file.read_f32(name).unwrap().into_iter().map(f32::to_bits).collect();
    file.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), bits(&t.name))).collect()
}

fn assert_same(a: &Path, b: &Path, what: &str) {
    for file in ["model.safetensors", "predictions.csv", "evaluation.json"] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{what}: {file} differs");
    }
    let last = "checkpoint/last.safetensors";
    assert!(tensors(&a.join(last)) == tensors(&b.join(last)), "{what}: {last} differs");
    assert_eq!(records(a), records(b), "{what}");
}

#[test]
fn a_training_that_stops_at_every_step_ends_as_if_never_stopped() {
    let world = World::new();
    for method in METHODS {
        let config = config(&world, method);
        let (whole, pieces) =
            (world.path(&format!("{method}-whole")), world.path(&format!("{method}-pieces")));
        run(&config, &whole);
        let stops = run_with_stops(&config, &pieces);
        // 12 training images make 3 batches; every epoch and every warming pass has so many stops.
        assert_eq!(stops, 3 * (3 + usize::from(method.is_reduced())), "{method}");
        assert_same(&whole, &pieces, method.as_str());
    }
}

#[test]
fn stops_change_nothing_with_validation_and_independent_batches() {
    let world = World::new();
    let settings = Settings {
        independent_batches: Some(true),
        val_per_class: Some(1),
        select: Some(Select::Best),
        checkpoint_every: Some(1),
        ..settings(&world, Method::Rrr)
    };
    let config = settings.resolve().unwrap();
    let (whole, pieces) = (world.path("whole"), world.path("pieces"));
    run(&config, &whole);
    run_with_stops(&config, &pieces);
    assert_same(&whole, &pieces, "independent batches");
    assert!(records(&whole).iter().all(|r| r.val_accuracy.is_some() && r.val_loss.is_some()));
    let best = "checkpoint/best.safetensors";
    assert!(fs::read(whole.join(best)).unwrap() == fs::read(pieces.join(best)).unwrap());
    assert!(tensors(&whole.join(best)) == tensors(&whole.join("model.safetensors")));
}

#[test]
fn a_stem_that_trains_moves_and_stops_and_threads_change_nothing() {
    let world = World::new();
    let frozen = config(&world, Method::Rrr);
    let trained = TrainConfig { stem_lr: 0.1, ..frozen.clone() };
    let outs = ["frozen", "whole", "pieces", "threads"].map(|name| world.path(name));
    run(&frozen, &outs[0]);
    run(&trained, &outs[1]);
    run_with_stops(&trained, &outs[2]);
    run(&TrainConfig { threads: Some(2), ..trained }, &outs[3]);
    assert_same(&outs[1], &outs[2], "stops");
    assert_same(&outs[1], &outs[3], "threads");
    let stem = |out: &Path| {
        let model = Model::load(&out.join("model.safetensors")).unwrap();
        model.trained_state(out).unwrap().stem["conv1.weight"].data.clone()
    };
    let backbone = Checkpoint::open(world.backbone()).unwrap().read_f32("conv1.weight").unwrap();
    assert!(stem(&outs[0]) == backbone && stem(&outs[1]) != backbone);
}

#[test]
fn the_augmentation_is_chosen_once_and_kept() {
    let world = World::new();
    for method in [Method::Rrr, Method::Probe] {
        let auto = TrainConfig { augmentation: Augmentation::Auto, ..config(&world, method) };
        let [chosen, given, stopped] =
            ["chosen", "given", "stopped"].map(|name| world.path(&format!("{method}-{name}")));
        run(&auto, &chosen);
        let choice = Choice::read(&RunDir::open(&chosen).unwrap()).unwrap().unwrap();
        // Of the 4 training images of each class, one is held out.
        assert_eq!((choice.train_images, choice.held_out_images), (9, 3));
        let kept = TrainConfig::read(&chosen.join("config.toml")).unwrap();
        assert_eq!(kept.augmentation, choice.augmentation);
        let best = choice.trials.iter().find(|t| t.augmentation == kept.augmentation).unwrap();
        assert!(choice.trials.len() > 2 && choice.trials.iter().all(|t| t.accuracy <= best.accuracy));

        run(&kept, &given);
        assert_same(&chosen, &given, "chosen and given");

        // A stop during the choice, then the rest.
        let interrupt = AtomicBool::new(false);
        let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
        let mut stop =
            |event: &Event<'_>| interrupt.store(matches!(event, Event::Stage(_)), Ordering::SeqCst);
        let outcome = train(&auto, &stopped, &options, &mut stop).unwrap();
        assert!(matches!(outcome, Outcome::Interrupted { done: 0, .. }));
        interrupt.store(false, Ordering::SeqCst);
        resume(&stopped, None, &options, &mut |_| {}).unwrap();
        assert_same(&chosen, &stopped, "a stop during the choice");
    }
}

#[test]
fn coarse_branches_train_save_and_resume_like_the_others() {
    let world = World::new();
    let coarse = Settings { coarse_branches: Some(1), image_size: Some(32), ..settings(&world, Method::Rrr) };
    let coarse = coarse.resolve().unwrap();
    let outs = ["whole", "pieces", "threads"].map(|name| world.path(name));
    run(&coarse, &outs[0]);
    run_with_stops(&coarse, &outs[1]);
    run(&TrainConfig { threads: Some(2), ..coarse.clone() }, &outs[2]);
    assert_same(&outs[0], &outs[1], "coarse branches and stops");
    assert_same(&outs[0], &outs[2], "coarse branches and threads");
    let plain = world.path("plain");
    run(&TrainConfig { coarse_branches: 0, ..coarse }, &plain);
    let [model, fine] = [&outs[0], &plain].map(|out| Model::load(out).unwrap());
    assert_eq!((model.spec.coarse, fine.spec.coarse), (1, 0));
    let weights = |model: &Model| model.trained_state(&outs[0]).unwrap().clone();
    let (model, fine) = (weights(&model), weights(&fine));
    assert_eq!(model.stem, fine.stem, "the stem is set up by whole images");
    assert_ne!(model.branches[0], fine.branches[0]);
    assert_eq!(model.branches[1..], fine.branches[1..]);
}

#[test]
fn a_teacher_is_learnt_from_and_stops_and_threads_change_nothing() {
    let world = World::new();
    let teacher = world.path("teacher");
    run(&config(&world, Method::Finetune), &teacher);
    // It looks at larger images than its pupil.
    let alone = Settings { image_size: Some(24), ..settings(&world, Method::Rrr) };
    let taught = Settings { teacher: Some(teacher), ..alone.clone() };
    let [alone, taught] = [alone, taught].map(|s| s.resolve().unwrap());
    let outs = ["alone", "whole", "pieces", "threads"].map(|name| world.path(name));
    run(&alone, &outs[0]);
    run(&taught, &outs[1]);
    run_with_stops(&taught, &outs[2]);
    run(&TrainConfig { threads: Some(2), ..taught.clone() }, &outs[3]);
    assert_same(&outs[1], &outs[2], "stops");
    assert_same(&outs[1], &outs[3], "threads");
    let weights = |out: &Path| tensors(&out.join("model.safetensors"));
    assert!(weights(&outs[0]) != weights(&outs[1]));
}

#[test]
fn another_teacher_under_the_same_name_is_refused() {
    let world = World::new();
    let [teacher, other, out] = ["teacher", "other", "run"].map(|name| world.path(name));
    let plain = config(&world, Method::Probe);
    run(&plain, &teacher);
    run(&TrainConfig { epochs: 2, ..plain }, &other);
    let taught = Settings { teacher: Some(teacher.clone()), ..settings(&world, Method::Rrr) };
    run(&taught.resolve().unwrap(), &out);
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    assert!(resume(&out, None, &options, &mut |_| {}).is_ok());
    fs::copy(other.join("model.safetensors"), teacher.join("model.safetensors")).unwrap();
    let e = resume(&out, None, &options, &mut |_| {}).unwrap_err();
    assert!(matches!(e, TrainError::TeacherChanged { .. }), "{e}");
}

#[test]
fn a_teacher_is_made_where_none_is_given() {
    let world = World::new();
    let auto = Settings { teacher: Some(TEACHER_AUTO.into()), ..settings(&world, Method::Rrr) };
    let auto = auto.resolve().unwrap();
    let outs = ["whole", "pieces", "given"].map(|name| world.path(name));
    run(&auto, &outs[0]);
    let stops = run_with_stops(&auto, &outs[1]);
    assert_same(&outs[0], &outs[1], "stops");
    let made = outs[0].join("teacher");
    let of = TrainConfig::read(&made.join("config.toml")).unwrap();
    assert_eq!((of.method, of.augmentation), (Method::Finetune, auto.augmentation));
    assert!(stops > of.epochs && made.join("report.html").exists() && !made.join("checkpoint").exists());

    run(&TrainConfig { teacher: Some(made), ..auto.clone() }, &outs[2]);
    assert_same(&outs[0], &outs[2], "made and given");

    // Another training in the same folder has a teacher of its own.
    let interrupt = AtomicBool::new(true);
    let options = TrainOptions { overwrite: true, offline: true, interrupt: &interrupt, command: None };
    train(&auto, &outs[0], &options, &mut |_| {}).unwrap();
    assert!(!outs[0].join("teacher/model.safetensors").exists());
}

#[test]
fn a_teacher_that_has_seen_the_held_out_images_is_refused() {
    let world = World::new();
    let teacher = world.path("teacher");
    run(&config(&world, Method::Probe), &teacher);
    let pupil = Settings { teacher: Some(teacher), ..settings(&world, Method::Rrr) };
    let refuse = |settings: Settings| {
        let (interrupt, out) = (AtomicBool::new(false), world.path("refused"));
        let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
        let e = train(&settings.resolve().unwrap(), &out, &options, &mut |_| {}).unwrap_err();
        assert!(matches!(e, TrainError::Teacher { .. }) && !out.exists(), "{e}");
        e.to_string()
    };
    let seed = refuse(Settings { seed: Some(1), ..pupil.clone() });
    assert!(seed.contains("another split of this dataset (seed 0, 12 images)"), "{seed}");
    let fewer = refuse(Settings { train_per_class: Some(3), ..pupil.clone() });
    assert!(fewer.contains("another split"), "{fewer}");
    fs::remove_dir_all(world.photos().join("red")).unwrap();
    let classes = refuse(pupil);
    assert!(classes.contains("its 3 classes are not the 2 classes here"), "{classes}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let world = World::new();
    for method in [Method::Rrr, Method::Finetune] {
        let runs = [1, 2].map(|threads| {
            let out = world.path(&format!("{method}-{threads}"));
            let config = TrainConfig { threads: Some(threads), ..config(&world, method) };
            run(&config, &out);
            out
        });
        assert_same(&runs[0], &runs[1], method.as_str());
    }
}

#[test]
fn the_seed_changes_the_result() {
    let world = World::new();
    let models = [0, 1].map(|seed| {
        let out = world.path(&format!("seed-{seed}"));
        run(&TrainConfig { seed, ..config(&world, Method::Rrr) }, &out);
        fs::read(out.join("model.safetensors")).unwrap()
    });
    assert!(models[0] != models[1]);
}

#[test]
fn a_run_holds_all_its_files_and_a_model_that_works_alone() {
    let world = World::new();
    for method in METHODS {
        let out = world.path(method.as_str());
        let summary = run(&config(&world, method), &out);
        for file in ["config.toml", "metrics.jsonl", "evaluation.json", "predictions.csv", "report.html"] {
            assert!(fs::metadata(out.join(file)).unwrap().len() > 0, "{method}: {file}");
        }
        let alone = world.path(&format!("{method}.safetensors"));
        fs::copy(&summary.model, &alone).unwrap();
        let model = Model::load(&alone).unwrap();
        assert_eq!(model.info.classes, CLASSES);
        assert_eq!(model.spec.branches, if method.has_branches() { 2 } else { 1 });
        assert_eq!(model.info.combine == Combine::Logits, method == Method::Fge);
        assert_eq!(model.info.provenance.backbone_licence.as_deref(), Some("made for this test"));

        let again = TrainConfig::read(&out.join("config.toml")).unwrap();
        assert_eq!(again.method, method);
        let own = evaluate_run(&out, OPTIONS).unwrap();
        assert_eq!(own.metrics, summary.evaluation.unwrap().metrics, "{method}");
        assert_eq!(own.metrics.n, 3);
        let all = evaluate(&model, &world.photos(), OPTIONS).unwrap();
        assert_eq!((all.metrics.n, all.split.as_str()), (15, "all"));

        let mut timing = Timing::default();
        let images = [world.photos().join("red/0.jpg"), world.path("nothing.jpg")];
        let workers = Workers::new(1).unwrap();
        let said = load(&alone, 1, Precision::Auto)
            .unwrap()
            .predict_files(&images, 2, &workers, &mut timing)
            .unwrap();
        let first = said[0].as_ref().unwrap();
        assert_eq!((first.top.len(), timing.images), (2, 1));
        assert!(first.top[0].probability >= first.top[1].probability && first.mutual_information >= 0.0);
        assert!(said[1].is_err());
    }
}

#[test]
fn a_few_epochs_learn_to_tell_colours() {
    let world = World::new();
    for precision in [Precision::F32, Precision::Bf16] {
        let settings = Settings {
            epochs: Some(20),
            augmentation: Some(Augmentation::None),
            precision: Some(precision),
            seed: Some(1),
            ..settings(&world, Method::Rrr)
        };
        let summary = run(&settings.resolve().unwrap(), &world.path(&precision.to_string()));
        assert_eq!(summary.evaluation.unwrap().metrics.accuracy, 1.0, "{precision}");
    }
}

#[test]
fn damaged_checkpoints_and_changed_images_are_refused() {
    let world = World::new();
    let out = world.path("run");
    run(&config(&world, Method::Rrr), &out);
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    let go = || resume(&out, None, &options, &mut |_| {}).unwrap_err();

    fs::rename(world.photos().join("red/4.jpg"), world.photos().join("red/9.jpg")).unwrap();
    assert!(matches!(go(), TrainError::DataChanged { .. }));
    fs::rename(world.photos().join("red/9.jpg"), world.photos().join("red/4.jpg")).unwrap();

    // Whatever part it is in.
    for name in ["red/0.jpg", "red/1.jpg", "red/2.jpg", "red/3.jpg", "red/4.jpg"] {
        let (image, former) = (world.photos().join(name), fs::read(world.photos().join(name)).unwrap());
        fs::copy(world.photos().join("blue/0.jpg"), &image).unwrap();
        assert!(matches!(go(), TrainError::ContentsChanged { .. }), "{name}");
        fs::write(&image, former).unwrap();
    }

    let last = out.join("checkpoint/last.safetensors");
    let whole = fs::read(&last).unwrap();
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&last, &whole[..length]).unwrap();
        assert!(go().to_string().contains("last.safetensors"), "{length} bytes");
    }
    fs::copy(out.join("model.safetensors"), &last).unwrap();
    assert!(matches!(go(), TrainError::Damaged { .. }));
}

#[test]
fn a_checkpoint_that_knows_no_contents_of_images_is_continued() {
    let world = World::new();
    let out = world.path("run");
    run(&config(&world, Method::Rrr), &out);
    let last = out.join("checkpoint/last.safetensors");
    let mut bytes = fs::read(&last).unwrap();
    let key = b"\"contents\\\"";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap();
    bytes[at + 1] = b'x';
    fs::write(&last, &bytes).unwrap();
    fs::copy(world.photos().join("blue/0.jpg"), world.photos().join("red/0.jpg")).unwrap();
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    assert!(matches!(resume(&out, None, &options, &mut |_| {}).unwrap(), Outcome::Finished(_)));
}

#[test]
fn what_cannot_be_trained_is_refused_before_anything_is_written() {
    let world = World::new();
    let interrupt = AtomicBool::new(false);
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    let refuse = |settings: Settings| {
        let out = world.path("refused");
        let e = train(&settings.resolve().unwrap(), &out, &options, &mut |_| {}).unwrap_err();
        assert!(!out.exists(), "{e}");
        e
    };
    let best = Settings { select: Some(Select::Best), ..settings(&world, Method::Rrr) };
    assert!(matches!(refuse(best), TrainError::NoValidation));
    let short = Settings { branches: Some(8), epochs: Some(1), ..settings(&world, Method::Fge) };
    assert!(matches!(refuse(short), TrainError::TooFewSteps { .. }));
    let wide = Settings { branches: Some(900), ..settings(&world, Method::Rrr) };
    assert!(matches!(refuse(wide), TrainError::Plan(_)));
    let split = Settings { split: Some("layer9.0".into()), ..settings(&world, Method::Rrr) };
    assert!(matches!(refuse(split), TrainError::Arch(_)));
    let unknown = Settings { backbone: Some("resnet9000".into()), ..settings(&world, Method::Rrr) };
    assert!(matches!(refuse(unknown), TrainError::Backbone(_)));
}
