//! `rrr quantize`, and what takes a quantised model.

mod common;

use common::{World, assert_fails, run, train_args};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A finished run of two branches, one of them coarse.
fn trained(world: &World) -> PathBuf {
    let out = world.path("run");
    let more = ["--branches", "2", "--coarse-branches", "1", "--warm-passes", "1"];
    let said = run(train_args(world, &world.photos(), &out, &more));
    assert_eq!(said.code, Some(0), "{}", said.err);
    out
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn a_run_is_quantised_and_used() {
    let world = World::new();
    let (dir, photos) = (trained(&world), text(&world.photos()));
    let said = run(["quantize", &text(&dir), "--calibrate", &photos, "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let report = json(&said.out);
    // Three of the fifteen photos are the run's test images.
    assert_eq!(report["calibration_images"], 12);
    assert_eq!(
        (report["accuracy"]["images"].as_u64(), report["accuracy"]["split"].as_str()),
        (Some(3), Some("test"))
    );
    let model = dir.join("model-int8.safetensors");
    assert_eq!(report["model"].as_str(), Some(text(&model).as_str()));
    assert_eq!(json(&fs::read_to_string(dir.join("model-int8.json")).unwrap()), report);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(2 * size(&model) < size(&dir.join("model.safetensors")), "not much smaller");

    // The run's dataset is the default, and the same images give the same model.
    let again = world.path("again.safetensors");
    let said = run(["quantize", &text(&dir), "--out", &text(&again)]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("points") && said.out.contains("smaller"), "{}", said.out);
    assert!(fs::read(&model).unwrap() == fs::read(&again).unwrap());

    let model = text(&model);
    let evaluated = run(["eval", &model, &photos, "--format", "json"]);
    assert_eq!(json(&evaluated.out)["n"], 15, "{}", evaluated.err);
    let predicted = run(["predict", &model, &photos, "--format", "json", "--top", "2"]);
    assert_eq!(json(&predicted.out)["predictions"].as_array().unwrap().len(), 15, "{}", predicted.err);
    let benched = run(["bench", &model, "--batch", "1,40", "--rounds", "1", "--layers", "--format", "json"]);
    let cases = json(&benched.out)["cases"].clone();
    assert_eq!(cases.as_array().map(Vec::len), Some(2), "{}", benched.err);
    assert_eq!(cases[0]["precision"], "int8");
    let layers = cases[1]["layers"].as_array().unwrap();
    let names: Vec<&str> = layers.iter().filter_map(|l| l["name"].as_str()).collect();
    assert_eq!(names[..3], ["images", "stem.conv1", "stem.maxpool"]);
    assert_eq!(names.last(), Some(&"branches.fc"), "{names:?}");
    let inspected = json(&run(["inspect", &model, "--format", "json"]).out);
    assert_eq!(
        (&inspected["quantization"]["images"], &inspected["coarse_branches"]),
        (&12.into(), &1.into())
    );
    assert_eq!(inspected["quantization"]["accuracy"], report["accuracy"]);

    assert_fails(&run(["quantize", &model, "--calibrate", &photos]), &["is quantised already", "hint:"]);
}

#[test]
fn a_model_file_is_measured_on_what_calibration_leaves() {
    let world = World::new();
    let (dir, photos) = (trained(&world), text(&world.photos()));
    let file = world.path("copy.safetensors");
    fs::copy(dir.join("model.safetensors"), &file).unwrap();
    let said = run(["quantize", &text(&file), "--calibrate", &photos, "--images", "9", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let report = json(&said.out);
    assert_eq!(
        (report["calibration_images"].as_u64(), report["accuracy"]["images"].as_u64()),
        (Some(9), Some(6))
    );
    assert!(world.path("copy-int8.safetensors").is_file());

    // Without labels there is nothing to measure on.
    let loose = world.path("loose");
    fs::create_dir(&loose).unwrap();
    let class = fs::read_dir(world.photos()).unwrap().next().unwrap().unwrap().path();
    let image = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    for i in 0..8 {
        fs::copy(&image, loose.join(format!("{i}.jpg"))).unwrap();
    }
    let said = run(["quantize", &text(&file), "--calibrate", &text(&loose), "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("accuracy was not measured") && json(&said.out)["accuracy"].is_null());

    fs::remove_file(loose.join("0.jpg")).unwrap();
    let out = world.path("never.safetensors");
    let few = run(["quantize", &text(&file), "--calibrate", &text(&loose), "--out", &text(&out)]);
    assert_fails(&few, &["7 images to calibrate on", "8 are the least"]);
    assert!(!out.exists());
}

#[test]
fn bad_wishes_get_clear_errors() {
    let world = World::new();
    let (dir, photos) = (trained(&world), text(&world.photos()));
    let file = text(&dir.join("model.safetensors"));
    assert_fails(&run(["quantize", &file]), &["is no run", "--calibrate"]);
    let missing = text(&world.path("missing"));
    assert_fails(&run(["quantize", &text(&dir), "--calibrate", &missing]), &["missing"]);
    assert_fails(&run(["quantize", &missing, "--calibrate", &photos]), &["neither a run nor a model"]);
    let over = run(["quantize", &text(&dir), "--calibrate", &photos, "--out", &file]);
    assert_fails(&over, &["is the model itself", "--out"]);
    let notes = world.path("notes.safetensors");
    fs::write(&notes, "mine").unwrap();
    for other in [text(&world.backbone().join("model.safetensors")), text(&notes)] {
        let before = fs::read(&other).unwrap();
        let said = run(["quantize", &text(&dir), "--calibrate", &photos, "--out", &other]);
        assert_fails(&said, &[&other, "is there and no quantised model", "--out"]);
        assert!(fs::read(&other).unwrap() == before);
    }
    // The report lies beside the model.
    for name in ["q.json", "run/evaluation.safetensors"] {
        let said = run(["quantize", &text(&dir), "--calibrate", &photos, "--out", &text(&world.path(name))]);
        assert_fails(&said, &["lies where the report would", "--out"]);
        assert!(!world.path(name).exists());
    }
    assert_fails(&run(["eval", &file]), &["is a model file", "name labelled images"]);
    let backbone = text(&world.backbone());
    assert_fails(&run(["quantize", &backbone, "--calibrate", &photos]), &["error:"]);
}
