//! Temperature, `--abstain-below` and `--ood`, through the real binary.

mod common;

use common::{CLASSES, World, assert_fails, copy, run, train_args};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A finished run, calibrated on validation images.
fn trained(world: &World, name: &str, more: &[&str]) -> PathBuf {
    let out = world.path(name);
    let mut args = train_args(world, &world.mislabelled(), &out, &["--augmentation", "none"]);
    let epochs = args.iter().position(|a| a == "--epochs").unwrap();
    args[epochs + 1] = "30".into();
    let said = run(args.into_iter().chain(more.iter().map(ToString::to_string)));
    assert_eq!(said.code, Some(0), "{}", said.err);
    out
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command that prints JSON.
fn json(args: &[&str]) -> Value {
    let said = run(args.iter().chain(&["--format", "json"]));
    assert_eq!(said.code, Some(0), "{}", said.err);
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.out))
}

#[test]
fn a_temperature_is_shown_and_survives_quantising() {
    let world = World::new();
    let dir = text(&trained(&world, "run", &["--branches", "2", "--warm-passes", "1"]));
    let temperature = json(&["inspect", &dir])["model"]["temperature"].clone();
    assert!(temperature.as_f64().unwrap() > 0.0);
    assert!(run(["inspect", &dir]).out.contains("temperature"));
    let evaluated = run(["eval", &dir]).out;
    assert_eq!(evaluated.matches("without the temperature").count(), 2, "{evaluated}");
    assert!(evaluated.contains("\ntemperature         "), "{evaluated}");
    let scaling = &json(&["eval", &dir, &text(&world.photos())])["temperature_scaling"];
    assert_eq!(scaling["temperature"], temperature);
    assert!(scaling["nll"]["before"].is_f64() && scaling["ece"]["after"].is_f64(), "{scaling}");

    let quantized = text(&world.path("run/model-int8.safetensors"));
    json(&["quantize", &dir]);
    assert_eq!(json(&["inspect", &quantized])["temperature"], temperature);
    assert_eq!(
        json(&["eval", &quantized, &text(&world.photos())])["temperature_scaling"]["temperature"],
        temperature
    );
}

#[test]
fn without_validation_images_nothing_is_calibrated() {
    let world = World::new();
    let out = world.path("run");
    let said = run(train_args(&world, &world.photos(), &out, &["--branches", "2", "--warm-passes", "1"]));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let dir = text(&out);
    assert!(json(&["inspect", &dir])["model"]["temperature"].is_null());
    assert!(json(&["eval", &dir]).get("temperature_scaling").is_none());
    assert!(!run(["eval", &dir]).out.contains("temperature"));
    for file in ["evaluation.json", "report.html"] {
        assert!(!fs::read_to_string(out.join(file)).unwrap().contains("temperature"), "{file}");
    }
}

#[test]
fn unsure_images_are_abstained_from() {
    let world = World::new();
    let dir = text(&trained(&world, "run", &["--branches", "2", "--warm-passes", "1"]));
    let photos = text(&world.photos());
    let probability = |p: &Value| p["top"][0]["probability"].as_f64().unwrap();
    let plain = json(&["predict", &dir, &photos]);
    let plain = plain["predictions"].as_array().unwrap();
    assert!(plain.iter().all(|p| p.get("abstained").is_none()));
    let mut sorted: Vec<f64> = plain.iter().map(probability).collect();
    sorted.sort_by(f64::total_cmp);
    let threshold = sorted[7].to_string();

    let args = ["predict", &dir, &photos, "--abstain-below", &threshold];
    let marked = json(&args);
    let marked = marked["predictions"].as_array().unwrap();
    for p in marked {
        assert_eq!(p["abstained"].as_bool(), Some(probability(p) < sorted[7]), "{p}");
    }
    let abstained = marked.iter().filter(|p| p["abstained"] == true).count();
    assert!(abstained <= 7);

    let said = run(args);
    assert_eq!((said.code, said.out.matches("(abstained, agreement").count()), (Some(0), abstained));
    let count = format!("abstained on {abstained} of 15 images: top probability below {threshold}");
    assert!(said.err.contains(&count), "{}", said.err);
    let rows = run(args.iter().chain(&["--format", "csv", "--top", "2"])).out;
    assert!(rows.lines().next().unwrap().ends_with(",mutual_information,abstained"), "{rows}");
    assert_eq!(rows.lines().filter(|l| l.ends_with(",true")).count(), 2 * abstained, "{rows}");
    assert_eq!(rows.lines().filter(|l| l.ends_with(",false")).count(), 2 * (15 - abstained), "{rows}");

    let args = ["eval", &dir, &photos, "--abstain-below", &threshold];
    let evaluated = json(&args);
    let selective = &evaluated["selective"];
    assert_eq!(selective["kept"].as_u64(), Some(15 - abstained as u64));
    assert_eq!(selective["coverage"].as_f64(), Some((15 - abstained) as f64 / 15.0));
    assert!((0.0..=1.0).contains(&selective["accuracy"].as_f64().unwrap()));
    let said = run(args);
    assert!(said.out.contains("coverage") && said.out.contains("accuracy of these"), "{}", said.out);

    for bad in ["0", "1.5", "-0.5", "NaN", "much"] {
        let wish = format!("--abstain-below={bad}");
        assert_eq!(run(["predict", &dir, &photos, &wish]).code, Some(2), "{bad}");
        assert_eq!(run(["eval", &dir, &wish]).code, Some(2), "{bad}");
    }
}

#[test]
fn images_of_another_kind_are_told_from_the_known_ones() {
    let world = World::new();
    let dir = text(&trained(&world, "run", &["--branches", "2", "--warm-passes", "1"]));
    let photos = text(&world.photos());
    // The same images on both sides cannot be told apart.
    let same = json(&["eval", &dir, &photos, "--ood", &photos]);
    let ood = &same["out_of_distribution"];
    assert_eq!((same["n"].as_u64(), ood["images"].as_u64()), (Some(15), Some(15)));
    for score in ["mutual_information", "entropy", "top_probability"] {
        assert_eq!(ood["auroc"][score].as_f64(), Some(0.5), "{score}");
    }

    let loose = world.path("loose");
    for class in CLASSES {
        copy(&world.photos().join(format!("{class}/0.jpg")), &loose.join("deeper").join(class));
    }
    let args = ["eval", &dir, "--ood", &text(&loose)];
    let ood = &json(&args)["out_of_distribution"];
    assert_eq!((ood["dataset"].as_str(), ood["images"].as_u64()), (Some("loose"), Some(3)));
    let shown = run(args).out;
    assert!(shown.contains("out of distribution loose (3 images)"), "{shown}");
    for score in ["mutual information", "entropy", "1 - top probability"] {
        assert!(shown.contains(&format!("AUROC by {score}")), "{shown}");
    }

    let single = text(&trained(&world, "single", &["--method", "reduced"]));
    let args = ["eval", &single, "--ood", &text(&loose)];
    assert!(json(&args)["out_of_distribution"]["auroc"]["mutual_information"].is_null());
    assert!(!run(args).out.contains("mutual information"));

    assert_fails(&run(["eval", &dir, "--ood", &text(&world.path("missing"))]), &["missing' is no folder"]);
    let image = world.photos().join("red/0.jpg");
    assert_fails(&run(["eval", &dir, "--ood", &text(&image)]), &["0.jpg' is no folder"]);
    let bad = world.path("bad");
    fs::create_dir(&bad).unwrap();
    assert_fails(&run(["eval", &dir, "--ood", &text(&bad)]), &["bad' holds no images"]);
    fs::write(bad.join("notes.png"), "remember the milk").unwrap();
    assert_fails(&run(["eval", &dir, "--ood", &text(&bad)]), &["notes.png"]);
    let none = run(["eval", &dir, "--ood", &text(&bad), "--skip-bad"]);
    assert_fails(&none, &["none of the images of", "hint:"]);
    copy(&image, &bad);
    let some = run(["eval", &dir, "--ood", &text(&bad), "--skip-bad"]);
    assert_eq!(some.code, Some(0), "{}", some.err);
    assert!(
        some.err.contains("left out") && some.out.contains("bad (1 images)"),
        "{} {}",
        some.out,
        some.err
    );
}
