//! Reducing and repairing a tiny backbone, through the library.

mod common;

use common::{World, write_backbone};
use rrrnet::backbone::{Backbone, BackboneOptions};
use rrrnet::compute::Precision;
use rrrnet::config::{Method, Settings};
use rrrnet::model::Model;
use rrrnet::reduce::{
    ReduceContext, ReduceEvent, ReduceOptions, ReduceOutcome, ReduceReport, RepairOptions, reduce,
};
use rrrnet::train::{Outcome, TrainError, TrainOptions, train};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

fn options(world: &World, branches: usize, repaired: bool) -> ReduceOptions {
    ReduceOptions {
        backbone: world.backbone().display().to_string(),
        normalize: None,
        blocks: [1; 4],
        split: "layer3.0".into(),
        branches,
        classes: 3,
        round_to: None,
        budget: None,
        seed: 5,
        repair: repaired.then(|| RepairOptions {
            pictures: vec![world.photos()],
            crops: 60,
            image_size: 32,
            teacher_size: 48,
            epochs_whole: 6,
            epochs_branches: 5,
            batch_size: 10,
            lr: 3e-3,
        }),
    }
}

fn context(threads: usize, interrupt: &AtomicBool) -> ReduceContext<'_> {
    ReduceContext { threads, precision: Precision::F32, overwrite: false, offline: true, interrupt }
}

fn run(options: &ReduceOptions, out: &Path, threads: usize) -> ReduceReport {
    let interrupt = AtomicBool::new(false);
    match reduce(options, out, &context(threads, &interrupt), &mut |_| {}).unwrap() {
        ReduceOutcome::Finished(report) => *report,
        ReduceOutcome::Interrupted => panic!("nobody interrupted"),
    }
}

fn train_on(backbone: &Path, world: &World, settings: Settings, out: &Path) -> Result<Outcome, TrainError> {
    let interrupt = AtomicBool::new(false);
    let settings = Settings {
        data: Some(world.photos()),
        backbone: Some(backbone.display().to_string()),
        epochs: Some(1),
        batch_size: Some(5),
        image_size: Some(32),
        ..settings
    };
    let options = TrainOptions { overwrite: false, offline: true, interrupt: &interrupt, command: None };
    train(&settings.resolve().unwrap(), out, &options, &mut |_| {})
}

fn error_of(options: &ReduceOptions, out: &Path) -> String {
    let interrupt = AtomicBool::new(false);
    reduce(options, out, &context(1, &interrupt), &mut |_| {}).unwrap_err().to_string()
}

fn files_beside(out: &Path) -> Vec<PathBuf> {
    let stem = out.file_stem().unwrap().to_string_lossy().into_owned();
    let all = fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(&format!("{stem}."))).collect()
}

#[test]
fn a_repair_lowers_the_error_whatever_the_threads_and_wherever_it_stops() {
    let world = World::new();
    let options = options(&world, 2, true);
    let (one, two, stopped) = (world.path("one.st"), world.path("two.st"), world.path("stopped.st"));
    let report = run(&options, &one, 1);
    let repair = report.repair.unwrap();
    assert!(repair.error[1] < 0.7 * repair.error[0], "{:?}", repair.error);
    assert_eq!((repair.crops, repair.epochs), (60, [6, 5]));
    run(&options, &two, 2);
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    // The first two stages are whole, so there is nothing to repair in them.
    let load =
        |path: &Path| Backbone::load(&path.display().to_string(), &BackboneOptions::default()).unwrap();
    let (small, full) = (load(&one), load(&world.backbone()));
    assert!(!small.state.is_empty() && small.state.iter().all(|(name, tensor)| full.state[name] == *tensor));
    let mut stops = 0;
    loop {
        let interrupt = AtomicBool::new(false);
        let mut steps = 0;
        let outcome = reduce(&options, &stopped, &context(1, &interrupt), &mut |event| {
            match event {
                ReduceEvent::Step(_) => {
                    steps += 1;
                    interrupt.store(steps == 7, Ordering::SeqCst);
                }
                // Twice while the full backbone runs.
                ReduceEvent::Stage(_) => interrupt.store(stops < 2, Ordering::SeqCst),
                _ => {}
            }
        });
        match outcome.unwrap() {
            ReduceOutcome::Interrupted => stops += 1,
            ReduceOutcome::Finished(_) => break,
        }
    }
    assert!(stops > 8, "{stops}");
    assert_eq!(fs::read(&one).unwrap(), fs::read(&stopped).unwrap());
    assert_eq!(files_beside(&stopped), [stopped]);
}

#[test]
fn a_reduced_backbone_trains_with_any_number_of_classes() {
    let world = World::new();
    let out = world.path("small.st");
    let report = run(&options(&world, 2, false), &out, 1);
    assert!(report.repair.is_none());
    let settings = Settings { branches: Some(2), warm_passes: Some(1), ..Settings::default() };
    assert!(matches!(
        train_on(&out, &world, settings, &world.path("run")).unwrap(),
        Outcome::Finished(summary) if summary.evaluation.is_some()
    ));
    let copies =
        Settings { method: Some(Method::Fge), branches: Some(2), epochs: Some(5), ..Settings::default() };
    assert!(train_on(&out, &world, copies, &world.path("fge")).is_err(), "one epoch is too short for copies");
}

#[test]
fn one_branch_is_a_backbone_that_can_still_be_split() {
    let world = World::new();
    let out = world.path("whole.st");
    run(&options(&world, 1, false), &out, 1);
    let small = Backbone::load(&out.display().to_string(), &BackboneOptions::default()).unwrap();
    let full = Backbone::load(&world.backbone().display().to_string(), &BackboneOptions::default()).unwrap();
    assert_eq!((small.kept, small.arch, small.card), ([1; 4], full.arch, full.card));
    assert!(small.tail.is_none());
    assert!(small.state.iter().all(|(name, tensor)| full.state[name] == *tensor));
    assert!(!small.state.contains_key("layer3.1.conv1.weight"));
    for (method, branches) in [(Method::Rrr, Some(3)), (Method::Reduced, None)] {
        let settings = Settings { method: Some(method), branches, ..Settings::default() };
        train_on(&out, &world, settings, &world.path(method.as_str())).unwrap();
    }
    let more = Settings { blocks: Some(vec![1, 1, 2, 1]), branches: Some(2), ..Settings::default() };
    train_on(&out, &world, more, &world.path("more")).unwrap();
    let model = Model::load(&world.path("more")).unwrap();
    assert_eq!(model.spec.stem.blocks.len() + model.spec.branch.blocks.len(), 4);
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let world = World::new();
    let out = world.path("small.st");
    run(&options(&world, 2, false), &out, 1);
    let whole = Settings { method: Some(Method::Finetune), ..Settings::default() };
    let text = train_on(&out, &world, whole, &world.path("b")).unwrap_err().to_string();
    assert!(text.contains("method finetune needs the whole backbone"), "{text}");
    let other = Settings { branches: Some(4), ..Settings::default() };
    let text = train_on(&out, &world, other, &world.path("d")).unwrap_err().to_string();
    assert!(
        text.contains("it has 2 branches, not 4")
            && text.contains("--blocks 1,1,1,1 --split layer3.0 --branches 2"),
        "{text}"
    );
    assert!(error_of(&options(&world, 2, false), &out).contains("is there already"));
    let again = ReduceOptions { backbone: out.display().to_string(), ..options(&world, 2, false) };
    assert!(error_of(&again, &world.path("again.st")).contains("is reduced already"));
    let mut nothing = options(&world, 2, true);
    nothing.repair.as_mut().unwrap().pictures = vec![world.path("nowhere")];
    assert!(error_of(&nothing, &world.path("n.st")).contains("nowhere"));
    let mut few = options(&world, 2, true);
    few.repair.as_mut().unwrap().crops = 5;
    assert!(
        error_of(&few, &world.path("f.st")).contains("5 pictures or crops are not enough, 10 are the least")
    );
    let mut wild = options(&world, 2, true);
    wild.repair.as_mut().unwrap().lr = 1e30;
    assert!(error_of(&wild, &world.path("w.st")).contains("use a smaller --lr"));
    write_backbone(&world.path("holey"), Some("layer4.0.conv1.weight"));
    let holey =
        ReduceOptions { backbone: world.path("holey").display().to_string(), ..options(&world, 2, false) };
    let text = error_of(&holey, &world.path("h.st"));
    assert!(text.contains("has no layer4"), "{text}");
}

#[test]
fn a_damaged_reduced_backbone_is_named() {
    let world = World::new();
    let out = world.path("small.st");
    run(&options(&world, 2, false), &out, 1);
    let bytes = fs::read(&out).unwrap();
    for (from, to) in [
        (r#"\"branches\":2"#, r#"\"branches\":0"#),
        (r#"\"branches\":2"#, r#"\"branches\":3"#),
        (r#"\"version\":1"#, r#"\"version\":9"#),
        (r#"\"stem\":8"#, r#"\"stem\":9"#),
    ] {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("{from} is in the header"));
        let mut broken = bytes.clone();
        broken[at..at + to.len()].copy_from_slice(to.as_bytes());
        let path = world.path("broken.st");
        fs::write(&path, broken).unwrap();
        let error = Backbone::load(&path.display().to_string(), &BackboneOptions::default()).unwrap_err();
        assert!(error.to_string().contains("broken.st is damaged"), "{error}");
    }
}
