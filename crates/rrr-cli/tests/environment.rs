//! What the environment and the command line ask for, before any work is done.

mod common;

use common::{World, assert_fails, rrr, run, said, train_args};
use std::fs;

/// `rrr plan` with an instruction set: its exit code and what it says.
fn plan_on(isa: &str) -> (Option<i32>, String) {
    let said = said(rrr().arg("plan").env("RRR_ISA", isa).output().unwrap());
    (said.code, said.err)
}

#[test]
fn instruction_sets_are_checked_first() {
    for isa in ["", "portable", "PORTABLE"] {
        assert_eq!(plan_on(isa).0, Some(0), "{isa}");
    }
    let lacking = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for (isa, what) in [("bogus", "is no instruction set"), (lacking, "which this CPU lacks")] {
        let (code, err) = plan_on(isa);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(isa) && err.contains(what) && err.contains("portable, tiles"), "{err}");
    }
}

#[test]
fn absurd_numbers_meet_their_limits() {
    let limits: [(&[&str], &str); 4] = [
        (&["predict", "m", "i", "--threads", "20000"], "at most 1024"),
        (&["bench", "m", "--batch", "100000000"], "at most 65536"),
        (&["bench", "m", "--seconds", "-1"], "above 0"),
        (&["train", "d", "--out", "o", "--seed", "-1"], "invalid digit"),
    ];
    for (args, limit) in limits {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(limit), "{}", said.err);
    }
}

#[test]
fn results_that_cannot_be_written_are_known_at_once() {
    let world = World::new();
    let nowhere = world.path("nowhere/small.st").display().to_string();
    let backbone = world.backbone().display().to_string();
    let said = run(["reduce", "--backbone", &backbone, "--out", &nowhere]);
    assert_fails(&said, &["cannot write", "nowhere/small.st", "its folder does not exist"]);
    assert!(!said.err.contains("reading the backbone"), "{}", said.err);
    fs::write(world.path("file"), "x").unwrap();
    for out in ["file", "file/run"] {
        let said = run(train_args(&world, &world.photos(), &world.path(out), &[]));
        assert_fails(&said, &["cannot write to", out, ": a file is where a folder would be\n"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_named() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = rrr().arg("plan").stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("cannot write to standard output"), "{err}");
}
