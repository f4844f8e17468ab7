//! Bad input of every kind: one clear message, a non-zero exit code, nothing half-written.

mod common;

use common::{World, assert_fails, rrr, run, said, train_args, write_backbone, write_jpeg};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Trains on `data`, expects failure with `parts` in the message and no trace of a run.
fn refuses(world: &World, data: &Path, more: &[&str], parts: &[&str]) {
    let out = world.path("refused");
    assert_fails(&run(train_args(world, data, &out, more)), parts);
    assert!(!out.exists(), "a run was left behind");
}

#[test]
fn a_truncated_jpeg() {
    let world = World::new();
    let path = world.photos().join("red/2.jpg");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refuses(&world, &world.photos(), &[], &["2.jpg", "truncated"]);

    let out = world.path("skipped");
    let trained = run(train_args(&world, &world.photos(), &out, &["--skip-bad", "--branches", "2"]));
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    assert!(trained.err.contains("left out") && trained.err.contains("2.jpg"), "{}", trained.err);

    let (run_dir, bad) = (out.display().to_string(), path.display().to_string());
    let good = world.photos().join("red/0.jpg").display().to_string();
    let predicted = run(["predict", &run_dir, &good, &bad]);
    assert_fails(&predicted, &["2.jpg", "1 of 2 images could not be read", "--skip-bad"]);
    assert!(predicted.out.contains("0.jpg"));
    assert_eq!(run(["predict", &run_dir, &good, &bad, "--skip-bad"]).code, Some(0));
}

#[test]
fn a_text_file_named_png() {
    let world = World::new();
    fs::write(world.photos().join("red/notes.png"), "remember the milk").unwrap();
    refuses(&world, &world.photos(), &[], &["notes.png", "not an image"]);
}

#[test]
fn an_empty_class_folder() {
    let world = World::new();
    fs::create_dir(world.photos().join("violet")).unwrap();
    refuses(&world, &world.photos(), &[], &["violet"]);
}

#[test]
fn one_class_only() {
    let world = World::new();
    for class in ["green", "blue"] {
        fs::remove_dir_all(world.photos().join(class)).unwrap();
    }
    refuses(&world, &world.photos(), &[], &["red", "class"]);
}

#[test]
fn a_class_with_one_image() {
    let world = World::new();
    write_jpeg(&world.photos().join("violet/0.jpg"), &[200; 40 * 40 * 3], 40);
    refuses(&world, &world.photos(), &["--test-per-class", "1"], &["violet", "1 image"]);
}

#[test]
fn a_labels_table_without_its_column() {
    let world = World::new();
    let data = world.path("album");
    fs::create_dir_all(data.join("images")).unwrap();
    fs::copy(world.photos().join("red/0.jpg"), data.join("images/a.jpg")).unwrap();
    let info = r#"{"image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"}"#;
    fs::write(data.join("info.json"), info).unwrap();
    fs::write(data.join("labels.csv"), "FILE_NAME,SPECIES\na.jpg,red\n").unwrap();
    refuses(&world, &data, &[], &["labels.csv", "no column 'CATEGORY'", "SPECIES"]);
}

#[test]
fn a_checkpoint_with_a_missing_tensor() {
    let world = World::new();
    let broken = world.path("broken");
    write_backbone(&broken, Some("layer3.0.bn2.weight"));
    let name = broken.display().to_string();
    refuses(&world, &world.photos(), &["--backbone", &name], &["layer3.0.bn2.weight", "missing"]);
}

#[test]
fn a_model_file_that_is_none() {
    let world = World::new();
    let weights = world.backbone().join("model.safetensors").display().to_string();
    let image = world.photos().join("red/0.jpg").display().to_string();
    assert_fails(&run(["predict", &weights, &image]), &["not an rrrnet model", "hint:"]);
    assert_fails(&run(["predict", &image, &image]), &["0.jpg is not a checkpoint"]);
}

#[test]
fn a_pickle_with_a_hostile_opcode() {
    let world = World::new();
    let (path, marker) = (world.path("hostile.pt"), world.path("owned"));
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    write!(zip, "cos\nsystem\n(S'touch {}'\ntR.", marker.display()).unwrap();
    zip.start_file("archive/version", stored).unwrap();
    zip.write_all(b"3\n").unwrap();
    zip.finish().unwrap();
    let name = path.display().to_string();
    refuses(&world, &world.photos(), &["--backbone", &name], &["hostile.pt", "refused"]);
    assert_fails(&run(["inspect", &name]), &["refused"]);
    assert!(!marker.exists(), "the pickle was executed");
}

#[test]
fn an_unknown_key_in_the_configuration() {
    let world = World::new();
    let file = world.path("my.toml");
    fs::write(&file, "epochs = 1\nlearning_rate = 1.0\n").unwrap();
    let name = file.display().to_string();
    refuses(&world, &world.photos(), &["--config", &name], &["my.toml, line 2", "learning_rate"]);
}

#[test]
fn an_output_folder_that_cannot_be_made() {
    let world = World::new();
    let file = world.path("file");
    fs::write(&file, "x").unwrap();
    for out in [file.join("run"), file.clone(), "/proc/rrr/run".into()] {
        if out.starts_with("/proc") && !cfg!(target_os = "linux") {
            continue;
        }
        let said = run(train_args(&world, &world.photos(), &out, &[]));
        assert_fails(&said, &["cannot write to", &out.display().to_string(), "--out"]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[cfg(unix)]
#[test]
fn a_read_only_output_folder() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let folder = world.path("locked");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.join("x"), "x").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        return;
    }
    for out in [folder.clone(), folder.join("run")] {
        let said = run(train_args(&world, &world.photos(), &out, &[]));
        assert_fails(&said, &["cannot write to", "permission denied"]);
    }
}

/// A limit on the size of files stands in for a full disk: it needs no rights and fails the same writes.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up() {
    let world = World::new();
    let out = world.path("run");
    // 16 blocks of 512 or 1024 bytes hold the configuration, but no checkpoint.
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(rrr().get_program());
    command.args(train_args(&world, &world.photos(), &out, &["--branches", "2"]));
    let failed = said(command.output().unwrap());
    assert_fails(&failed, &["cannot write", "last.safetensors"]);
    let left: Vec<_> = fs::read_dir(out.join("checkpoint")).unwrap().collect();
    assert!(left.is_empty(), "half-written files: {left:?}");
    assert!(!out.join("model.safetensors").exists());

    let resumed = run(["train", "--resume", &out.display().to_string()]);
    assert_eq!(resumed.code, Some(0), "with room again it starts over: {}", resumed.err);
}
