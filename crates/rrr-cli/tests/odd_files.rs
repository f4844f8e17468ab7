//! Folders with more in them than images: other formats, links, pipes, strange names.

mod common;

use common::{World, assert_fails, run, train_args};
use std::fs;
use std::path::{Path, PathBuf};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Trains on the photos and gives the run and what was said.
fn trained(world: &World, more: &[&str]) -> (PathBuf, String) {
    let out = world.path("run");
    let said = run(train_args(world, &world.photos(), &out, &[&["--branches", "2"], more].concat()));
    assert_eq!(said.code, Some(0), "{}", said.err);
    (out, said.err)
}

#[test]
fn images_of_other_formats_are_no_secret() {
    let world = World::new();
    for name in ["red/0.tiff", "red/1.tif", "blue/0.avif", "blue/labels.csv"] {
        fs::write(world.photos().join(name), "x").unwrap();
    }
    let note = "warning: left out 3 files that are not JPEG, PNG, WebP, GIF or BMP, such as ";
    let (dir, err) = trained(&world, &[]);
    assert!(err.contains(&format!("{note}blue/0.avif\n")), "{err}");
    let (dir, photos) = (text(&dir), text(&world.photos()));
    for args in [vec!["eval", &dir], vec!["eval", &dir, &photos], vec!["quantize", &dir]] {
        let said = run(&args);
        assert!(said.code == Some(0) && said.err.contains(&format!("{note}blue/0.avif\n")), "{}", said.err);
    }
    let full = text(&world.photos().join("blue/0.avif"));
    for args in [vec!["predict", &dir, &photos], vec!["eval", &dir, "--ood", &photos]] {
        let said = run(&args);
        assert!(said.code == Some(0) && said.err.contains(&format!("{note}{full}\n")), "{}", said.err);
    }
    let json = run(["eval", &dir, "--format", "json"]).out;
    assert!(json.contains("\"left out 3 files that are not JPEG"), "{json}");

    let missing = run(["predict", &dir, "nothere.png"]);
    assert_fails(&missing, &["'nothere.png' does not exist; give image files or folders of images"]);
}

#[test]
fn images_missing_from_a_table_can_be_skipped() {
    let world = World::new();
    let table = world.path("t.csv");
    let mut rows = String::from("path,label\n");
    for class in common::CLASSES {
        (0..=common::IMAGES).for_each(|i| rows += &format!("photos/{class}/{i}.jpg,{class}\n"));
    }
    fs::write(&table, rows).unwrap();
    let (refused, out) = (world.path("refused"), world.path("run"));
    let said = run(train_args(&world, &table, &refused, &[]));
    assert_fails(&said, &["t.csv' line 7 names 'photos/blue/5.jpg'", "--skip-bad"]);
    let said =
        run(train_args(&world, &table, &out, &["--skip-bad", "--branches", "2", "--test-per-class", "2"]));
    assert_eq!((said.code, said.err.matches("warning: left out ").count()), (Some(0), 3), "{}", said.err);
    assert!(said.err.contains("photos/red/5.jpg: cannot be read: "), "{}", said.err);

    let (dir, table) = (text(&out), text(&table));
    assert_fails(&run(["eval", &dir, &table]), &["line 7 names 'photos/blue/5.jpg'"]);
    let said = run(["eval", &dir, &table, "--skip-bad"]);
    assert!(
        said.code == Some(0) && said.err.contains("left out ") && said.out.contains("15 images"),
        "{}",
        said.err
    );
}

#[cfg(unix)]
#[test]
fn dead_links_and_pipes() {
    let world = World::new();
    let red = world.photos().join("red");
    let made = std::process::Command::new("mkfifo").arg(red.join("f.png")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("..", red.join("up")).unwrap();
    std::os::unix::fs::symlink("nothing", red.join("dead.png")).unwrap();
    let said = run(train_args(&world, &world.photos(), &world.path("refused"), &[]));
    assert_fails(&said, &["1 image is unreadable", "red/dead.png: cannot be read", "--skip-bad"]);
    let (_, err) = trained(&world, &["--skip-bad"]);
    for note in [
        "left out 1 file that is not a regular file: red/f.png\n",
        "left out 1 link to a folder that contains it or is read already: red/up\n",
        "red/dead.png: cannot be read: ",
    ] {
        assert!(err.contains(note), "no `{note}` in: {err}");
    }
}

#[cfg(unix)]
#[test]
fn names_that_are_no_plain_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    fs::rename(world.photos().join("red"), world.photos().join("r\ne\x1bd")).unwrap();
    let (dir, _) = trained(&world, &[]);
    let pictures = world.path("pict\tures");
    fs::create_dir(&pictures).unwrap();
    let image = world.photos().join("blue/0.jpg");
    for name in [&b"a\nb.jpg"[..], b"caf\xe9.jpg"] {
        fs::copy(&image, pictures.join(OsStr::from_bytes(name))).unwrap();
    }
    fs::write(pictures.join("c\r.jpg"), "x").unwrap();

    let (dir, pictures) = (text(&dir), text(&pictures));
    let said = run(["predict", &dir, &pictures, "--skip-bad"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("pict\\tures/a\\nb.jpg  ("), "{}", said.out);
    assert!(said.out.contains("%  r\\ne\\u{1b}d\n"), "{}", said.out);
    assert!(said.err.contains("pict\\tures/c\\r.jpg: "), "{}", said.err);
    assert_eq!(said.out.lines().count(), 2 * (1 + common::CLASSES.len()), "{}", said.out);

    let said = run(["predict", &dir, &pictures, "--skip-bad", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("caf\u{fffd}.jpg") && said.out.contains("a\\nb.jpg"), "{}", said.out);

    let said = run(["eval", &dir]);
    assert!(said.out.contains("\nr\\ne\\u{1b}d  "), "{}", said.out);
    let widths: Vec<usize> = said.out.lines().skip_while(|l| !l.starts_with("class")).map(str::len).collect();
    assert!(widths.len() == 4 && widths.iter().all(|w| *w == widths[0]), "{}", said.out);
}

#[cfg(unix)]
#[test]
fn notes_and_errors_keep_to_their_lines() {
    let plain = |err: &str| !err.contains(|c: char| c.is_control() && c != '\n');
    let world = World::new();
    let red = world.photos().join("red");
    fs::write(red.join("b\nad\x1b[2J.png"), "text").unwrap();
    fs::write(red.join("t\r.tiff"), "x").unwrap();
    let bad = "red/b\\nad\\u{1b}[2J.png: not an image";
    let refused = run(train_args(&world, &world.photos(), &world.path("refused"), &[]));
    assert_fails(&refused, &[bad, "or leave them out with --skip-bad\n"]);
    assert!(plain(&refused.err), "{}", refused.err);
    assert_eq!(refused.err.lines().filter(|line| line.contains("error: ")).count(), 1);

    let out = world.path("r\nun");
    let said = run(train_args(&world, &world.photos(), &out, &["--skip-bad"]));
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in ["warning: left out 1 file that is not JPEG, PNG, WebP, GIF or BMP: red/t\\r.tiff\n", bad] {
        assert!(said.err.contains(line), "no `{line}` in: {}", said.err);
    }
    assert!(said.err.contains("r\\nun/checkpoint/last.safetensors\n") && plain(&said.err), "{}", said.err);

    let gone = run(["train", "--resume", "no\n\x1b[2Jrun"]);
    assert_fails(&gone, &["no\\n\\u{1b}[2Jrun", "\nhint: "]);
    assert_eq!(gone.err.lines().count(), 2, "{}", gone.err);

    fs::rename(world.photos(), world.path("p\x07\nhotos")).unwrap();
    let suite = world.path("suite.toml");
    let text = format!(
        "name = \"b\\u001b\"\nseeds = [1]\nkind = \"matrix\"\n[datasets]\npaths = [\"p*\"]\n[common]\nbackbone = {:?}\n\
         epochs = 0\n[[method]]\nname = \"A\\r\"\nmethod = \"probe\"\n",
        world.backbone()
    );
    fs::write(&suite, &text).unwrap();
    let check = || run(["suite", "check", &suite.display().to_string()]);
    let wrong = check();
    assert_fails(&wrong, &["method A\\r: epochs = 0"]);
    assert!(plain(&wrong.err), "{}", wrong.err);
    fs::write(&suite, text.replace("epochs = 0", "skip_bad = true")).unwrap();
    let checked = check();
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(checked.out.contains("  p\\u{7}\\nhotos  A\\r  seed 1\n"), "{}", checked.out);
    assert!(plain(&checked.out) && plain(&checked.err), "{}", checked.err);
}

#[cfg(unix)]
#[test]
fn folders_whose_names_are_not_utf_8() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let folder = world.path("x").with_file_name(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    let (dir, weights) = (folder.join("run"), folder.join(OsStr::from_bytes(b"\xe9.safetensors")));
    let mut train: Vec<OsString> =
        train_args(&world, &world.photos(), &dir, &["--branches", "2", "--format", "json"])
            .into_iter()
            .map(OsString::from)
            .collect();
    train[3] = dir.clone().into();
    let said = run(&train);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("caf\u{fffd}/run/model.safetensors"), "{}", said.out);

    let arguments = |command: &[&str], paths: &[&Path], more: &str| -> Vec<OsString> {
        let command = command.iter().map(OsString::from).chain(paths.iter().map(OsString::from));
        command.chain(more.split_whitespace().map(OsString::from)).collect()
    };
    let (backbone, image) = (world.backbone(), world.photos().join("red/0.jpg"));
    let (full, pictures) = (folder.join("full.safetensors"), folder.join("pictures"));
    fs::copy(backbone.join("model.safetensors"), &full).unwrap();
    fs::create_dir(&pictures).unwrap();
    for i in 0..4 {
        fs::copy(world.photos().join(format!("red/{i}.jpg")), pictures.join(format!("{i}.jpg"))).unwrap();
    }
    let reduce = [
        "reduce",
        "--blocks",
        "1,1,2,1",
        "--branches",
        "2",
        "--overwrite",
        "--backbone",
        &text(&backbone),
        "--out",
    ];
    let repair =
        "--crops 16 --batch-size 4 --epochs-whole 1 --epochs-branches 1 --image-size 32 --teacher-size 32";
    for args in [
        arguments(&["eval"], &[&dir], ""),
        arguments(&["predict"], &[&dir, &image], ""),
        arguments(&["quantize"], &[&dir], ""),
        arguments(&["bench"], &[&dir], "--rounds 1"),
        arguments(&["inspect"], &[&dir], ""),
        arguments(&["inspect"], &[&full], ""),
        arguments(&reduce, &[&weights], ""),
        arguments(&reduce, &[&weights, Path::new("--repair"), &pictures], repair),
    ] {
        let said = run(args.iter().map(OsString::as_os_str).chain(["--format", "json"].map(OsStr::new)));
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.err);
        serde_json::from_str::<serde_json::Value>(&said.out).unwrap();
    }
    assert!(weights.is_file());

    // Beside a model that lies alone too.
    let alone = folder.join(OsStr::from_bytes(b"m\xe9.safetensors"));
    fs::copy(folder.join("run/model.safetensors"), &alone).unwrap();
    let said = run(arguments(&["quantize"], &[&alone, Path::new("--calibrate"), &world.photos()], ""));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(folder.join(OsStr::from_bytes(b"m\xe9-int8.safetensors")).is_file());
}
