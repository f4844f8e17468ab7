//! Weights inside a Python wheel, which pip downloads.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use zip::ZipArchive;

use crate::cache;
use crate::catalog::Wheel;
use crate::error::Error;
use crate::pull::Progress;

/// Ways to start pip, in the order they are tried.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Downloads the wheel into `folder`, verifies it, and returns the path of the member, verified and extracted there.
pub(crate) fn fetch(
    wheel: &Wheel,
    folder: &Path,
    looked: &Path,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, Error> {
    let requirement = wheel.requirement();
    progress(Progress::Pip { requirement: requirement.clone() });
    let fail =
        |reason: String| Error::Pip { requirement: requirement.clone(), reason, looked: looked.into() };
    download(&PIPS, &requirement, folder).map_err(fail)?;
    let path = find_wheel(folder)?.ok_or_else(|| fail("it succeeded but left no wheel".into()))?;
    progress(Progress::Verifying { name: requirement.clone() });
    cache::check_sha256(&path, wheel.wheel_sha256)?;
    let member = folder.join("member");
    extract(&path, wheel.member, &member)?;
    cache::remove(&path)?;
    cache::check_sha256(&member, wheel.member_sha256)?;
    Ok(member)
}

/// Runs the first pip that there is. Only wheels: a source package would run its build script.
fn download(pips: &[&[&str]], requirement: &str, folder: &Path) -> Result<(), String> {
    const FLAGS: [&str; 12] = [
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "--retries=2",
        "--timeout=15",
        "--progress-bar=off",
        "--dest",
    ];
    for pip in pips {
        let command =
            Command::new(pip[0]).args(&pip[1..]).args(FLAGS).arg(folder).arg("--").arg(requirement).output();
        let output = match command {
            Ok(output) => output,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(format!("{} cannot be started ({e})", pip.join(" "))),
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("No module named pip") {
            continue;
        }
        let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let last = lines.clone().rfind(|line| line.starts_with("ERROR")).or_else(|| lines.next_back());
        return Err(format!("`{} download` failed: {}", pip.join(" "), last.unwrap_or("it did not say why")));
    }
    Err("there is no pip on this machine\nhint: install Python with pip".into())
}

fn find_wheel(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let fail = |e| Error::io("list", folder, e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn extract(wheel: &Path, member: &str, target: &Path) -> Result<(), Error> {
    let bad = |e: zip::result::ZipError| Error::damaged(wheel, format!("its {member} cannot be read ({e})"));
    let file = File::open(wheel).map_err(|e| Error::io("read", wheel, e))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let mut entry = archive.by_name(member).map_err(bad)?;
    let write = |e| Error::io("write", target, e);
    let mut out = BufWriter::new(File::create(target).map_err(write)?);
    io::copy(&mut entry, &mut out).and_then(|_| out.flush()).map_err(write)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn try_pips(pips: &[&[&str]]) -> Result<(), String> {
        download(pips, "rrr-test==1", Path::new("."))
    }

    #[test]
    fn pip_is_looked_for_and_its_last_error_is_passed_on() {
        let absent: &[&str] = &["rrr-no-such-program"];
        let without_pip: &[&str] =
            &["sh", "-c", "echo '/usr/bin/python3: No module named pip' >&2; exit 1", "sh"];
        let failing: &[&str] =
            &["sh", "-c", "echo 'ERROR: no such version' >&2; echo hint >&2; exit 1", "sh"];
        let working: &[&str] = &["true"];
        assert!(try_pips(&[absent, without_pip]).unwrap_err().contains("no pip on this machine"));
        assert!(try_pips(&[absent, failing]).unwrap_err().ends_with("ERROR: no such version"));
        assert_eq!(try_pips(&[absent, without_pip, working]), Ok(()));
    }
}
