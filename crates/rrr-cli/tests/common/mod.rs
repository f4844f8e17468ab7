//! The real binary on a tiny world.

#![allow(dead_code, reason = "every test binary uses a part of it")]

#[path = "../../../rrrnet/tests/common/mod.rs"]
mod world;

pub use world::*;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// What a command did.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn rrr() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rrr"));
    command.env("HF_HUB_OFFLINE", "1").env_remove("NO_COLOR");
    command
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    said(rrr().args(args).output().unwrap())
}

/// `rrr train` with everything small; `more` comes last.
pub fn train_args(world: &World, data: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let text = |p: &Path| p.display().to_string();
    let mut args = vec!["train".into(), text(data), "--out".into(), text(out)];
    let small = [
        "--epochs",
        "1",
        "--batch-size",
        "5",
        "--image-size",
        "32",
        "--threads",
        "1",
        "--checkpoint-every",
        "1",
    ];
    args.extend(small.map(String::from));
    if !more.contains(&"--backbone") {
        args.extend(["--backbone".into(), text(&world.backbone())]);
    }
    args.extend(more.iter().map(ToString::to_string));
    args
}

/// Checks for a single clear error: exit code 1, one `error:` line that has all `parts`, and no panic.
pub fn assert_fails(said: &Said, parts: &[&str]) {
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert_eq!(said.err.matches("error:").count(), 1, "{}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    for part in parts {
        assert!(said.err.contains(part), "no `{part}` in: {}", said.err);
    }
}
