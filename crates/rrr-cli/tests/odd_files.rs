//! Folders with more in them than images: other formats, links, pipes, strange names.

mod common;

use common::{World, assert_fails, run, train_args};
use std::fs;
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
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
