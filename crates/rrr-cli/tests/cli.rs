//! The commands, end to end, through the real binary.

mod common;

use common::{World, assert_fails, rrr, run, said, train_args};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

#[test]
fn every_method_trains_evaluates_and_predicts() {
    let world = World::new();
    let two_branches = ["--branches", "2", "--warm-passes", "1"];
    let cases: [(&str, &[&str]); 6] = [
        ("rrr", &two_branches),
        ("rrr", &["--branches", "2", "--warm-passes", "1", "--independent-batches", "--recycle", "paper"]),
        ("reduced", &["--val-per-class", "1"]),
        ("finetune", &["--augmentation", "none"]),
        ("probe", &[]),
        ("fge", &["--branches", "2", "--epochs", "3"]),
    ];
    for (i, (method, more)) in cases.into_iter().enumerate() {
        let out = world.path(&format!("run-{i}"));
        let more: Vec<&str> = ["--method", method].iter().chain(more).copied().collect();
        let mut args = train_args(&world, &world.photos(), &out, &more);
        if more.contains(&"--epochs") {
            let first = args.iter().position(|a| a == "--epochs").unwrap();
            args.drain(first..first + 2);
        }
        let trained = run(&args);
        assert_eq!(trained.code, Some(0), "{method}: {}", trained.err);
        assert!(trained.out.contains("accuracy") && trained.out.contains("report.html"), "{}", trained.out);
        assert!(trained.err.contains("epoch 1/"), "{}", trained.err);

        let run_dir = out.display().to_string();
        let eval = run(["eval", &run_dir, "--format", "json"]);
        let json: serde_json::Value =
            serde_json::from_str(&eval.out).unwrap_or_else(|e| panic!("{e}: {}", eval.err));
        assert_eq!((json["n"].as_u64(), json["split"].as_str()), (Some(3), Some("test")));
        assert!(run(["eval", &run_dir]).out.contains("balanced accuracy"));

        let photos = world.photos().display().to_string();
        let predicted = run(["predict", &run_dir, &photos, "--format", "json", "--top", "2"]);
        let json: serde_json::Value = serde_json::from_str(&predicted.out).unwrap();
        assert_eq!(json["predictions"].as_array().unwrap().len(), 15);
        assert_eq!(json["predictions"][0]["top"].as_array().unwrap().len(), 2);
        assert!(json["timing"]["network_seconds"].as_f64().unwrap() > 0.0);
        let rows = run(["predict", &run_dir, &photos, "--format", "csv", "--top", "1"]).out;
        assert_eq!(rows.lines().count(), 16);
        assert_eq!(
            rows.lines().next().unwrap(),
            "path,rank,class,probability,agreement,entropy,mutual_information"
        );

        let small = ["--batch", "1,3", "--rounds", "2", "--layers", "--threads", "1"];
        let benched = run(["bench", &run_dir, "--format", "json"].iter().chain(&small));
        let json: serde_json::Value =
            serde_json::from_str(&benched.out).unwrap_or_else(|e| panic!("{e}: {}", benched.err));
        assert_bench(&json);
        assert!(run(["bench", &run_dir].iter().chain(&small)).out.contains("GFLOP/s"));

        let inspected = run(["inspect", &run_dir, "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&inspected.out).unwrap();
        assert_eq!((json["method"].as_str(), json["finished"].as_bool()), (Some(method), Some(true)));
        assert!(run(["inspect", &format!("{run_dir}/model.safetensors")]).out.contains("preprocessing"));
        assert!(run(["inspect", &format!("{run_dir}/checkpoint/last.safetensors")]).out.contains("training"));
    }
    assert!(run(["inspect", &world.backbone().display().to_string()]).out.contains("made for this test"));
}

/// Checks what `rrr bench` measured with batches of 1 and 3.
fn assert_bench(json: &serde_json::Value) {
    let positive = |v: &serde_json::Value| v.as_f64().unwrap() > 0.0;
    assert!(positive(&json["machine"]["peak_gflops"]) && positive(&json["cold_start"]["total_ms"]));
    let cases = json["cases"].as_array().unwrap();
    assert!(cases.len().is_multiple_of(2));
    for (case, batch) in cases.iter().zip([1, 3].into_iter().cycle()) {
        assert_eq!((case["batch"].as_u64(), case["latency"]["calls"].as_u64()), (Some(batch), Some(2)));
        assert!(positive(&case["images_per_second"]) && positive(&case["memory"]["weights_bytes"]));
        assert!(positive(&case["gflops"]) && positive(&case["peak_gflops"]));
        let layers = case["layers"].as_array().unwrap();
        let share: f64 = layers.iter().map(|l| l["share"].as_f64().unwrap()).sum();
        assert!(layers.len() > 3 && (share - 1.0).abs() < 1e-6);
    }
}

#[test]
fn converting_replaces_no_model_unasked() {
    let world = World::new();
    let (backbone, out) = (world.backbone().display().to_string(), world.path("out").display().to_string());
    let convert = |more: &[&str]| run(["backbone", "convert", &backbone, &out].iter().chain(more));
    assert_eq!(convert(&[]).code, Some(0));
    assert_fails(&convert(&[]), &["model.safetensors is there already", "--overwrite"]);
    assert_eq!(convert(&["--overwrite"]).code, Some(0));
}

#[test]
fn flags_win_over_the_configuration_file() {
    let world = World::new();
    let file = world.path("my.toml");
    fs::write(&file, "epochs = 7\nbatch_size = 3\nseed = 5\nbranches = 2\n").unwrap();
    let out = world.path("run");
    let file = file.display().to_string();
    let trained = run(train_args(&world, &world.photos(), &out, &["--config", &file, "--format", "json"]));
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    let json: serde_json::Value = serde_json::from_str(&trained.out).unwrap();
    assert_eq!(json["evaluation"]["n"], 3);
    let resolved = fs::read_to_string(out.join("config.toml")).unwrap();
    for line in ["epochs = 1", "batch_size = 5", "seed = 5", "branches = 2"] {
        assert!(resolved.lines().any(|l| l == line), "no `{line}` in {resolved}");
    }
    let again = out.join("config.toml").display().to_string();
    let copy = world.path("copy").display().to_string();
    let repeated = run(["train", "--config", &again, "--out", &copy]);
    assert_eq!(repeated.code, Some(0), "{}", repeated.err);
    let model = |dir: &std::path::Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(model(&out) == model(copy.as_ref()), "the resolved configuration reproduces the model");
}

#[test]
fn a_run_is_not_overwritten_unasked() {
    let world = World::new();
    let out = world.path("run");
    let args = train_args(&world, &world.photos(), &out, &["--method", "probe"]);
    assert_eq!(run(&args).code, Some(0));
    let before = fs::read(out.join("model.safetensors")).unwrap();
    assert_fails(&run(&args), &["already holds a run", "hint:", "--overwrite"]);
    assert!(fs::read(out.join("model.safetensors")).unwrap() == before);
    let overwrite = args.iter().cloned().chain(["--overwrite".into()]);
    assert_eq!(run(overwrite).code, Some(0));

    let other = world.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious.txt"), "x").unwrap();
    let args = train_args(&world, &world.photos(), &other, &["--method", "probe", "--overwrite"]);
    assert_fails(&run(args), &["is not empty and holds no run"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_resume_goes_on() {
    let world = World::new();
    let (whole, stopped) = (world.path("whole"), world.path("stopped"));
    let more = ["--branches", "2", "--warm-passes", "1"];
    let long = |out| {
        let mut args = train_args(&world, &world.photos(), out, &more);
        let epochs = args.iter().position(|a| a == "--epochs").unwrap();
        args[epochs + 1] = "200".into();
        args
    };
    let mut child = rrr().args(long(&stopped)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch 2/200") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it was interrupted");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("rrr train --resume"), "{rest}");
    assert_fails(&run(["predict", &stopped.display().to_string(), "x.jpg"]), &["no model yet", "--resume"]);

    let resumed = run(["train", "--resume", &stopped.display().to_string()]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    assert!(resumed.err.contains("going on after"), "{}", resumed.err);
    assert_eq!(run(long(&whole)).code, Some(0));
    for file in ["model.safetensors", "predictions.csv"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(stopped.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn a_plan_needs_no_weights() {
    let said = run(["plan", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["shift"], 11);
    assert_eq!(json["planes"], serde_json::json!([64, 128, 79, 170]));
    assert!(json["params_saved"].as_f64().unwrap() > 6.0 && json["macs_saved"].as_f64().unwrap() > 6.0);
    assert!(run(["plan", "--branches", "4"]).out.contains("4 branches"));
    assert_fails(&run(["plan", "--blocks", "9,1,1,1"]), &["layer1 cannot keep 9 blocks", "hint:"]);
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [
        &["train"][..],
        &["train", "photos", "--out", "x", "--epochs", "0"],
        &["train", "photos", "--out", "x", "--resume", "y"],
        &["train", "--resume", "y", "--epochs", "3"],
        &["predict", "run"],
        &["bench", "run", "--batch", "0"],
        &["bench", "run", "--precision", "f17"],
        &["bench", "run", "--seconds", "-1"],
        &["frobnicate"],
    ] {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.err);
        assert!(said.out.is_empty());
    }
}

#[test]
fn completions_and_help_go_to_standard_output() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(["completions", shell]).out.contains("quickstart"));
    }
    for command in
        ["quickstart", "backbone", "plan", "train", "eval", "predict", "bench", "inspect", "completions"]
    {
        assert!(run([command, "--help"]).out.contains("Usage"));
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for args in [&["plan", "--format", "json"][..], &["completions", "bash"], &["backbone", "list"]] {
        let mut child = rrr().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let said = said(child.wait_with_output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn errors_are_coloured_only_on_request() {
    let plain = run(["eval", "nothing"]);
    assert_fails(&plain, &["nothing is neither a run nor a model file"]);
    assert!(!plain.err.contains('\x1b'));
    assert!(run(["eval", "nothing", "--color", "always"]).err.contains("\x1b[31;1merror:"));
}

#[test]
fn quickstart_without_a_backbone_says_what_to_do() {
    let world = World::new();
    let out = world.path("quick");
    let mut command = rrr();
    command.args(["quickstart", "--out"]).arg(&out).env("RRR_CACHE", world.path("cache"));
    let said = said(command.output().unwrap());
    assert_fails(&said, &["quickstart needs pretrained weights", "hint:", "rrr backbone pull resnet152"]);
    assert!(!out.exists());
}

#[test]
fn quickstart_trains_on_the_bundled_sample() {
    let world = World::new();
    let out = world.path("quick");
    let mut command = rrr();
    command.args(["quickstart", "--epochs", "1", "--backbone"]).arg(world.backbone());
    command.arg("--out").arg(&out).env("RRR_CACHE", world.path("cache"));
    let said = said(command.output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("five test images") && said.err.contains("next:"), "{}", said.out);
    assert!(out.join("report.html").is_file());
}
