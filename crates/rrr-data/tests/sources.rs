//! Opening folders, Meta-Album sets and tables, good and bad.

use std::fs;
use std::path::{Path, PathBuf};

use rrr_data::{DataError, Dataset, OpenOptions, Source, SourceKind, find_images, sample};
use tempfile::TempDir;

/// A folder with empty files at these paths: opening lists files without reading images.
fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        write(dir.path(), file, "");
    }
    dir
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn open(dir: &Path) -> Result<Source, DataError> {
    Source::open(dir, &OpenOptions::default())
}

fn message(dir: &Path) -> String {
    open(dir).unwrap_err().to_string()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(name)
}

#[test]
fn folder_classes_are_sorted_and_files_found_in_depth() {
    let dir =
        tree(&["dog/a.JPG", "cat/deep/er/b.png", "cat/notes.txt", "Zebra/c.webp", ".git/x.png", "readme.md"]);
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Folder);
    assert_eq!(source.classes, ["Zebra", "cat", "dog"]);
    let found: Vec<_> = source.train.iter().map(|s| (s.id.as_str(), s.label)).collect();
    assert_eq!(found, [("Zebra/c.webp", 0), ("cat/deep/er/b.png", 1), ("dog/a.JPG", 2)]);
    assert_eq!(source.ignored, 2);
}

#[test]
fn given_parts_share_the_class_map_of_train() {
    for valid in ["val", "valid", "validation", "Val"] {
        let files =
            ["train/a/1.jpg", "train/b/2.jpg", "train/c/3.jpg", &format!("{valid}/b/4.jpg"), "test/c/5.jpg"];
        let dir = tree(&files);
        let source = open(dir.path()).unwrap();
        assert_eq!(source.classes, ["a", "b", "c"]);
        assert_eq!(source.train.len(), 3);
        assert_eq!(source.valid.as_ref().unwrap()[0].label, 1);
        assert_eq!(source.test.as_ref().unwrap()[0].label, 2);
        assert_eq!(source.evaluation().samples[0].id, "test/c/5.jpg");
        assert_eq!(source.everything().len(), 5);
    }
}

#[test]
fn a_class_may_be_called_test() {
    let dir = tree(&["test/1.jpg", "exam/2.jpg"]);
    assert_eq!(open(dir.path()).unwrap().classes, ["exam", "test"]);
}

#[test]
fn bad_folders_are_explained() {
    let dir = tree(&["a/1.jpg", "b/notes.txt", "c/2.jpg"]);
    let text = message(dir.path());
    assert!(
        text.contains("/b' holds no images (1 other files ignored)") && text.contains("remove it"),
        "{text}"
    );

    let dir = tree(&["only/1.jpg", "only/2.jpg"]);
    let text = message(dir.path());
    assert!(text.contains("only one class, 'only'"), "{text}");

    let dir = tree(&["1.jpg", "2.jpg"]);
    assert!(message(dir.path()).contains("2 images but no class folders"));

    let dir = tree(&["notes.txt"]);
    assert!(message(dir.path()).contains("holds no images (1 other files ignored)"));

    let dir = tree(&["train/a/1.jpg", "train/b/2.jpg", "test/c/3.jpg"]);
    let text = message(dir.path());
    assert!(text.contains("/test'") && text.contains("class 'c' that is not among the 2 known"), "{text}");

    let dir = tree(&["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "valid/a/4.jpg"]);
    assert!(matches!(open(dir.path()), Err(DataError::AmbiguousSplit { part: "validation", .. })));

    let dir = tree(&["test/a/1.jpg", "test/b/2.jpg"]);
    let error = open(dir.path()).unwrap().split(&Default::default(), 0).unwrap_err();
    assert!(error.to_string().contains("no train/ folder beside its test/"), "{error}");

    let missing = dir.path().join("nowhere");
    assert!(message(&missing).contains("nowhere' does not exist"));
    assert!(message(&data("CLP_Micro/info.json")).contains("neither a folder nor a .csv"));
}

#[test]
fn a_models_classes_can_be_imposed() {
    let dir = tree(&["dog/1.jpg"]);
    let classes = |names: &[&str]| OpenOptions {
        classes: Some(names.iter().map(ToString::to_string).collect()),
        ..OpenOptions::default()
    };
    let source = Source::open(dir.path(), &classes(&["ant", "bee", "dog"])).unwrap();
    assert_eq!((source.train[0].label, source.classes.len()), (2, 3));
    let error = Source::open(dir.path(), &classes(&["ant", "bee"])).unwrap_err();
    assert!(matches!(error, DataError::UnknownClass { class, known: 2, .. } if class == "dog"));
}

#[test]
fn meta_album_numbers_classes_by_first_appearance() {
    for (name, classes) in [("CLP_Micro", 20), ("FSH_Micro", 10)] {
        let source = open(&data(name)).unwrap();
        assert_eq!((source.kind, source.name.as_str()), (SourceKind::MetaAlbum, name));
        assert_eq!((source.classes.len(), source.train.len()), (classes, fs_count(&data(name))));
        assert_eq!(source.train[0].label, 0);
    }
    assert_eq!(open(&data("CLP_Micro")).unwrap().classes[..2], ["desserts", "sports"]);
}

fn fs_count(set: &Path) -> usize {
    fs::read_dir(set.join("images")).unwrap().count()
}

/// A Meta-Album set of four images.
fn album(info: &str, labels: &str) -> TempDir {
    let dir = tree(&["images/1.jpg", "images/2.jpg", "images/3.jpg", "images/4.jpg"]);
    write(dir.path(), "info.json", info);
    write(dir.path(), "labels.csv", labels);
    dir
}

#[test]
fn meta_album_columns_come_from_its_info() {
    let info = r#"{"image_column_name": "IMG", "category_column_name": "KIND"}"#;
    let dir = album(info, "KIND,IMG\nz,1.jpg\na,2.jpg\nz,3.jpg\n");
    let source = open(dir.path()).unwrap();
    assert_eq!(source.classes, ["z", "a"]);
    assert_eq!(source.train.iter().map(|s| s.label).collect::<Vec<_>>(), [0, 1, 0]);

    let dir = album(info, "FILE_NAME,CATEGORY\n1.jpg,a\n");
    let text = message(dir.path());
    assert!(text.ends_with("labels.csv' has no column 'IMG'; its columns are FILE_NAME, CATEGORY"), "{text}");

    let dir = album("{", "FILE_NAME,CATEGORY\n1.jpg,a\n");
    assert!(message(dir.path()).contains("not a valid Meta-Album info.json"));
}

#[test]
fn bad_rows_are_named_by_line() {
    let cases = [
        (
            "FILE_NAME,CATEGORY\n1.jpg,a\n9.jpg,b\n8.jpg,b\n",
            "line 3 names '9.jpg', which does not exist (2 of its 3",
        ),
        ("FILE_NAME,CATEGORY\n1.jpg,a\n2.jpg,b\n1.jpg,b\n", "line 4 names '1.jpg' again (first on line 2)"),
        (
            "FILE_NAME,CATEGORY\n1.jpg,a\n2.jpg\n",
            "line 3: has 1 cell, cell 2 is needed; separate them by commas",
        ),
        ("FILE_NAME,CATEGORY\n1.jpg,a\n2.jpg,\n", "line 3: cell 2 is empty"),
        ("FILE_NAME,CATEGORY\n1.jpg,a\n2.jpg,a\n", "only one class, 'a'"),
        ("FILE_NAME,CATEGORY\n", "labels.csv' has no rows; give an image path and a label"),
        ("", "labels.csv' has no rows"),
        ("a b\n1.jpg a\n", "no column 'FILE_NAME'"),
    ];
    for (labels, expected) in cases {
        let text = message(album("{}", labels).path());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn tables_with_and_without_header() {
    let dir = tree(&["x/1.jpg", "2.jpg", "3.jpg"]);
    let cases = [
        ("t.csv", "x/1.jpg,dog\n2.jpg,cat\n3.jpg,dog\n"),
        ("t.csv", "\u{feff}label,path\ndog,x/1.jpg\ncat,2.jpg\ndog,3.jpg\n"),
        ("t.tsv", "path\tlabel\nx/1.jpg\tdog\n2.jpg\tcat\n3.jpg\tdog\n"),
        ("t.csv", "something,else\n x/1.jpg , dog\n2.jpg,cat\n\n3.jpg,dog\n"),
    ];
    for (name, text) in cases {
        write(dir.path(), name, text);
        let source = open(&dir.path().join(name)).unwrap();
        assert_eq!(source.classes, ["cat", "dog"], "{text}");
        assert_eq!(source.train.iter().map(|s| s.label).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(source.train[0].path, dir.path().join("x/1.jpg"));
    }
    write(dir.path(), "n.csv", "2.jpg,10\nx/1.jpg,9\n");
    assert_eq!(open(&dir.path().join("n.csv")).unwrap().classes, ["9", "10"]);

    write(dir.path(), "c.csv", "id,where,what\n0,2.jpg,a\n1,3.jpg,b\n");
    let columns = |image: &str| OpenOptions {
        image_column: Some(image.into()),
        label_column: Some("what".into()),
        ..OpenOptions::default()
    };
    let path = dir.path().join("c.csv");
    assert_eq!(Source::open(&path, &columns("where")).unwrap().train.len(), 2);
    let error = Source::open(&path, &columns("file")).unwrap_err().to_string();
    assert!(error.contains("no column 'file'; its columns are id, where, what"), "{error}");
}

/// Images and the note about the first of each kind of file that was left out.
fn found(dir: &Path) -> (Vec<String>, Vec<String>) {
    let source = open(dir).unwrap();
    (source.train.into_iter().map(|s| s.id).collect(), source.notes)
}

#[test]
fn images_of_other_formats_are_counted_in_a_note() {
    let dir = tree(&["a/0.png", "a/1.TIFF", "a/in/2.avif", "b/0.png", "b/1.heic", "c.psd"]);
    for usual in
        ["README", "labels.txt", "info.json", "a/Thumbs.db", "a/.DS_Store", "b/.x.tiff", "b/notes.md"]
    {
        write(dir.path(), usual, "");
    }
    let (images, notes) = found(dir.path());
    assert_eq!(images, ["a/0.png", "b/0.png"]);
    assert_eq!(notes, ["left out 4 files that are not JPEG, PNG, WebP, GIF or BMP, such as c.psd"]);
    assert_eq!(open(dir.path()).unwrap().ignored, 4 + 5);
    let notes = find_images(&[dir.path().join("a")]).unwrap().notes;
    let first = dir.path().join("a/1.TIFF").display().to_string();
    assert_eq!(
        notes,
        [format!("left out 2 files that are not JPEG, PNG, WebP, GIF or BMP, such as {first}")]
    );
    let (_, notes) = Dataset::unlabelled(&dir.path().join("b"), vec!["x".into()]).unwrap();
    assert!(notes[0].starts_with("left out 1 file that is not JPEG, PNG, WebP, GIF or BMP: "), "{notes:?}");
    assert!(notes[0].ends_with("b/1.heic"), "{notes:?}");
    // A model's class may be empty, and then nothing else tells.
    let dir = tree(&["a/0.png", "b/1.tif"]);
    let classes = Some(vec!["a".into(), "b".into()]);
    let source = Source::open(dir.path(), &OpenOptions { classes, ..OpenOptions::default() }).unwrap();
    assert_eq!(source.notes, ["left out 1 file that is not JPEG, PNG, WebP, GIF or BMP: b/1.tif"]);
    assert!(message(dir.path()).contains("/b' holds no images (1 other files ignored); add JPEG, PNG,"));
}

#[test]
fn images_beside_class_folders_are_counted_in_a_note() {
    let note = |files: &[&str]| found(tree(files).path()).1;
    assert_eq!(note(&["a/0.png", "b/0.png", "c.png"]), ["left out 1 image beside the class folders: c.png"]);
    let parts = ["train/a/0.png", "train/b/0.png", "train/1.png", "2.png"];
    assert_eq!(note(&parts), ["left out 2 images beside the class folders, such as 2.png"]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_or_in_circles_spoil_nothing() {
    use std::os::unix::fs::symlink;
    let dir = tree(&["a/0.png", "a/in/1.png", "b/0.png"]);
    let link = |to: &str, from: &str| symlink(to, dir.path().join(from)).unwrap();
    link("nothing", "a/dead.png");
    link("self.png", "b/self.png");
    let images = ["a/0.png", "a/dead.png", "a/in/1.png", "b/0.png", "b/self.png"];
    assert_eq!(found(dir.path()), (images.map(String::from).to_vec(), vec![]));

    link("..", "a/up");
    link("../..", "a/in/up");
    link("../../..", "b/out");
    link(".", "c");
    link("nothing", "d");
    let (found_images, notes) = found(dir.path());
    assert_eq!(found_images, images);
    let expected = [
        "left out 1 link that leads nowhere: d",
        "left out 4 links to folders that contain them or are read already, such as a/in/up",
    ];
    assert_eq!(notes, expected);
    assert_eq!(open(dir.path()).unwrap().classes, ["a", "b"]);
    let found = find_images(&[dir.path().to_owned()]).unwrap();
    assert_eq!(found.images.len(), 5);
    assert_eq!(found.notes.len(), 2);

    // Another folder is a part of the class that links to it, once.
    let others = tree(&["x/7.png"]);
    for name in ["a/more", "a/once_more"] {
        symlink(others.path().join("x"), dir.path().join(name)).unwrap();
    }
    let ids: Vec<_> = open(dir.path()).unwrap().train.into_iter().map(|s| s.id).collect();
    assert_eq!(ids, ["a/0.png", "a/dead.png", "a/in/1.png", "a/more/7.png", "b/0.png", "b/self.png"]);
}

#[cfg(unix)]
#[test]
fn sockets_named_like_images_are_left_out() {
    let dir = tree(&["a/0.png", "b/0.png"]);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("a/f.png")).unwrap();
    let (images, notes) = found(dir.path());
    assert_eq!(images, ["a/0.png", "b/0.png"]);
    assert_eq!(notes, ["left out 1 file that is not a regular file: a/f.png"]);
    write(dir.path(), "t.csv", "a/0.png,a\nb/0.png,b\na/f.png,a\n");
    assert!(
        message(&dir.path().join("t.csv")).contains("t.csv' line 3: names 'a/f.png', which is not a regular")
    );
}

#[test]
fn quotes_that_are_not_closed_are_named_by_line() {
    let dir = tree(&["1.jpg", "2.jpg", "3.jpg", "4.jpg"]);
    let path = dir.path().join("t.csv");
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        message(&path)
    };
    let unclosed = "a cell begins with a quote that is not closed; close it or remove it";
    let cases = [
        ("path,label,note\n1.jpg,a,x\n2.jpg,b,\"y\n3.jpg,a,z\n4.jpg,b,z\n", 3),
        ("path,label\n1.jpg,a\n2.jpg,\"b\n3.jpg,a\n4.jpg,b\n", 3),
        ("path,label\r\n\r\n\"1.jpg,a\r\n2.jpg,b\r\n", 3),
        // The next cell with a quote seems to end it.
        ("path,label,note\n1.jpg,a,\"x\n2.jpg,b,y\n3.jpg,a,\"z\"\n4.jpg,b,z\n", 2),
        ("\u{feff}\"path,label\n1.jpg,a\n2.jpg,b\n", 1),
        ("1.jpg;a\n2.jpg;\"b\n", 2),
    ];
    for (text, line) in cases {
        let text = refused(text);
        assert!(text.ends_with(&format!("t.csv' line {line}: {unclosed}")), "{text}");
    }
    let text = refused("path,label\n1.jpg,a\n2.jpg,\"b\n3.jpg,\",a\n4.jpg,b\n");
    assert!(
        text.ends_with("line 3: cell 2 goes on to the next line; close its quote or remove it"),
        "{text}"
    );

    let fine = "path,label,note\n\"1.jpg\",a,\"say \"\"so\"\"\",\n\n2.jpg,b,\"two\nlines\"\n3.jpg,a,\"\"\n4.jpg,b,5\" wide\n";
    fs::write(&path, fine).unwrap();
    assert_eq!(open(&path).unwrap().train.len(), 4);
}

#[test]
fn tables_may_have_semicolons() {
    let dir = tree(&["1.jpg", "2.jpg", "3,5.jpg"]);
    let path = dir.path().join("t.csv");
    for text in ["label;path\nb;1.jpg\na;2.jpg\nb;3,5.jpg\n", "1.jpg;b\n2.jpg;a\n3,5.jpg;b\n"] {
        fs::write(&path, text).unwrap();
        let source = open(&path).unwrap();
        assert_eq!((source.classes, source.train.len()), (vec!["a".into(), "b".into()], 3), "{text}");
    }
    fs::write(&path, "path;label\n1.jpg;a\n2.jpg\n").unwrap();
    let text = message(&path);
    assert!(text.ends_with("line 3: has 1 cell, cell 2 is needed; separate them by semicolons"), "{text}");
    fs::write(&path, "path,label;x\n1.jpg,a;b\n2.jpg,c\n").unwrap();
    assert_eq!(open(&path).unwrap().classes, ["a;b", "c"]);
}

#[test]
fn tables_without_rows_say_so() {
    let dir = tree(&[]);
    for text in ["", "\n\n", "path,label\n"] {
        write(dir.path(), "t.csv", text);
        let text = message(&dir.path().join("t.csv"));
        assert!(text.ends_with("t.csv' has no rows; give an image path and a label on each line"), "{text}");
    }
}

#[test]
fn find_images_expands_folders() {
    let dir = tree(&["b/2.png", "a/1.jpg", "notes.txt"]);
    let explicit = dir.path().join("notes.txt");
    let found = find_images(&[explicit.clone(), dir.path().to_owned()]).unwrap();
    assert_eq!(found.images, [explicit, dir.path().join("a/1.jpg"), dir.path().join("b/2.png")]);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let missing = find_images(&[dir.path().join("nothere.png")]).unwrap_err().to_string();
    assert!(
        missing.ends_with("nothere.png' does not exist; give image files or folders of images"),
        "{missing}"
    );
    let empty = tree(&["x.txt"]);
    assert!(matches!(find_images(&[empty.path().to_owned()]), Err(DataError::NoImages { ignored: 1, .. })));
}

#[test]
fn folders_without_labels_become_datasets() {
    let dir = tree(&["b/2.png", "1.jpg", "notes.txt"]);
    let (found, notes) = Dataset::unlabelled(dir.path(), vec!["x".into(), "y".into()]).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let ids: Vec<_> = found.samples.iter().map(|s| (s.id.as_str(), s.label)).collect();
    assert_eq!((ids, found.classes.len()), (vec![("1.jpg", 0), ("b/2.png", 0)], 2));
    let not = |path: &Path| Dataset::unlabelled(path, vec!["x".into()]).unwrap_err();
    assert!(matches!(not(&dir.path().join("1.jpg")), DataError::NotAFolder { .. }));
    assert!(not(&dir.path().join("missing")).to_string().contains("missing' is no folder"));
    assert!(matches!(not(tree(&["x.txt"]).path()), DataError::NoImages { .. }));
}

#[test]
fn the_bundled_sample_is_the_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let root = sample::write_clp(dir.path()).unwrap();
    let (ours, original) = (open(&root).unwrap(), open(&data("CLP_Micro")).unwrap());
    assert_eq!(ours.classes, original.classes);
    assert_eq!(ours.train.len(), original.train.len());
    for (a, b) in ours.train.iter().zip(&original.train) {
        assert_eq!((&a.id, a.label), (&b.id, b.label));
    }
    let first = &ours.train[0].path;
    assert_eq!(fs::read(first).unwrap(), fs::read(&original.train[0].path).unwrap());
    fs::write(first, "cut").unwrap();
    sample::write_clp(dir.path()).unwrap();
    assert_eq!(fs::read(first).unwrap(), fs::read(&original.train[0].path).unwrap());
    assert_eq!(fs_count(&root), fs_count(&data("CLP_Micro")), "no temporary files stay");
}
