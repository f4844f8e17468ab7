//! Benchmark suites end to end, with real processes that are killed, interrupted and run side by side.

mod common;

use common::{Said, World, assert_fails, rrr, said, write_photos};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SMALL: &str = "recipe = \"fast\"\nepochs = 2\nwarm_passes = 1\nbatch_size = 5\nimage_size = 32\n";

/// A world with a second dataset and a suite over both.
struct Bench {
    world: World,
    file: PathBuf,
    db: PathBuf,
}

impl Bench {
    fn new(common: &str, methods: &str) -> Self {
        let world = World::new();
        write_photos(&world.path("more/second"));
        let bench = Self { file: world.path("suite.toml"), db: world.path("results.db"), world };
        bench.write("kind = \"matrix\"", common, methods);
        bench
    }

    fn write(&self, top: &str, common: &str, methods: &str) {
        let text = format!(
            "name = \"bench\"\nseeds = [1]\n{top}\n\n[datasets]\npaths = [\"photos\", \"more/*\"]\n\n\
             [common]\nbackbone = \"{}\"\n{common}\n{methods}",
            self.world.backbone().display()
        );
        fs::write(&self.file, text).unwrap();
    }

    fn command(&self, db: &Path, more: &[&str]) -> Command {
        let mut command = rrr();
        command.args(["suite", "run"]).arg(&self.file).arg("--db").arg(db).args(more);
        if !more.contains(&"--threads") {
            command.args(["--threads", "1"]);
        }
        command
    }

    fn run(&self, more: &[&str]) -> Said {
        said(self.command(&self.db, more).output().unwrap())
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut command = self.command(&self.db, more);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn rows(&self, db: &Path) -> Vec<Value> {
        let args = ["suite", "status", "--tasks", "--format", "json", "--db"];
        let said = said(rrr().args(args).arg(db).output().unwrap());
        assert_eq!(said.code, Some(0), "{}", said.err);
        let status: Value = serde_json::from_str(&said.out).unwrap();
        status["tasks"].as_array().unwrap().clone()
    }

    /// Everything of the results that does not depend on the clock or the machine.
    fn results(&self, db: &Path) -> Vec<String> {
        let timeless = |row: &Value| {
            let r = &row["result"];
            format!(
                "{} {} {} {} {}",
                row["hash"], row["state"], r["test"], r["train_loss"], r["model_sha256"]
            )
        };
        self.rows(db).iter().map(timeless).collect()
    }

    /// Whether a run has a checkpoint, which it has from its first until it is done.
    fn has_checkpoint(&self) -> bool {
        let mut runs = fs::read_dir(self.world.path("results-runs")).into_iter().flatten().flatten();
        runs.any(|r| r.path().join("checkpoint/last.safetensors").exists())
    }

    fn wait_for_a_checkpoint(&self) {
        let started = Instant::now();
        while !self.has_checkpoint() {
            assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint has come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const PROBE: &str = "[[method]]\nname = \"A\"\nmethod = \"probe\"\n";
const TWO: &str = "[[method]]\nname = \"A\"\nmethod = \"probe\"\n\n\
                   [[method]]\nname = \"D\"\nmethod = \"rrr\"\nbranches = 2\n";

#[test]
fn done_tasks_are_never_run_again_and_changed_ones_are() {
    let bench = Bench::new(SMALL, TWO);
    let first = bench.run(&[]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let before = bench.rows(&bench.db);
    assert_eq!(before.len(), 4);
    assert!(before.iter().all(|r| r["state"] == "done" && r["attempts"] == 1));

    assert_eq!(bench.run(&[]).code, Some(0));
    let again = bench.rows(&bench.db);
    assert!(before.iter().zip(&again).all(|(a, b)| a["finished"] == b["finished"]));

    // Another label in one dataset, another option in one method: three of four tasks are new.
    let photo = bench.world.path("more/second/red/0.jpg");
    fs::copy(bench.world.path("more/second/blue/0.jpg"), &photo).unwrap();
    bench.write("", SMALL, &TWO.replace("branches = 2", "branches = 1"));
    assert_eq!(bench.run(&[]).code, Some(0));
    let changed = bench.rows(&bench.db);
    let same = changed.iter().filter(|r| before.iter().any(|b| b["hash"] == r["hash"])).count();
    assert_eq!((changed.len(), same), (4, 1));

    // Neither the order of methods, nor their names, nor threads and checkpoints make a task another one.
    bench.write("", &format!("{SMALL}checkpoint_every = 2\n"), &TWO.replace("name = \"A\"", "name = \"Z\""));
    let renamed = bench.run(&["--threads", "2"]);
    assert_eq!(renamed.code, Some(0), "{}", renamed.err);
    let renamed = bench.rows(&bench.db);
    assert!(renamed.iter().all(|r| r["attempts"] == 1));
    assert_eq!(renamed.iter().filter(|r| before.iter().any(|b| b["hash"] == r["hash"])).count(), 2);
}

#[test]
fn killed_and_interrupted_workers_change_no_bit_of_the_results() {
    let common = SMALL.replace("epochs = 2", "epochs = 40");
    let bench = Bench::new(&common, TWO);
    let whole = bench.world.path("whole.db");
    assert_eq!(said(bench.command(&whole, &[]).output().unwrap()).code, Some(0));

    let mut killed = bench.start(&[]);
    bench.wait_for_a_checkpoint();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = bench.rows(&bench.db);
    assert!(left.iter().any(|r| r["state"] == "running"), "nothing was running when it was killed");

    // The lease of the dead worker lasts a minute; its lock tells that it is gone.
    let mut interrupted = bench.start(&[]);
    std::thread::sleep(Duration::from_millis(100));
    bench.wait_for_a_checkpoint();
    let pid = interrupted.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let code = interrupted.wait().unwrap().code();
    assert_eq!(code, Some(130));
    assert!(bench.rows(&bench.db).iter().all(|r| r["state"] != "running"), "a lease was not given back");

    // The signal may have come between two tasks.
    let was_begun = bench.has_checkpoint();
    let last = bench.run(&[]);
    assert_eq!(last.code, Some(0), "{}", last.err);
    assert_eq!(last.err.contains("going on after"), was_begun, "{}", last.err);
    assert_eq!(bench.results(&bench.db), bench.results(&whole));
}

#[test]
fn several_workers_share_a_suite() {
    let bench = Bench::new(&SMALL.replace("epochs = 2", "epochs = 10"), TWO);
    let start =
        |_| bench.command(&bench.db, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let workers: Vec<Child> = (0..3).map(start).collect();
    for worker in workers {
        let worker = said(worker.wait_with_output().unwrap());
        assert_eq!(worker.code, Some(0), "{}", worker.err);
    }
    let rows = bench.rows(&bench.db);
    assert!(rows.iter().all(|r| r["state"] == "done" && r["attempts"] == 1), "{rows:?}");
    let alone = bench.world.path("alone.db");
    assert_eq!(said(bench.command(&alone, &[]).output().unwrap()).code, Some(0));
    assert_eq!(bench.results(&bench.db), bench.results(&alone));
}

#[test]
fn a_failed_task_says_why_and_stops_nothing() {
    let methods = format!("[[method]]\nname = \"X\"\nmethod = \"probe\"\nselect = \"best\"\n\n{TWO}");
    let bench = Bench::new(SMALL, &methods);
    assert_fails(&bench.run(&[]), &["2 of 6 tasks have failed", "4 are done"]);
    let rows = bench.rows(&bench.db);
    let failed: Vec<&Value> = rows.iter().filter(|r| r["state"] == "failed").collect();
    assert!(
        failed.len() == 2 && failed.iter().all(|r| r["message"].as_str().unwrap().contains("validation"))
    );
    // They are not tried again unless asked for.
    assert_fails(&bench.run(&[]), &["2 of 6"]);
    assert_fails(&bench.run(&["--retry-failed"]), &["2 of 6"]);
}

#[test]
fn chains_start_from_the_weights_before() {
    let bench = Bench::new(SMALL, "[[method]]\nname = \"C\"\nmethod = \"reduced\"\nsplit = \"layer1.0\"\n");
    let top =
        "kind = \"forward-blocks\"\nforward-blocks = { from = [1,1,1,1], to = [1,1,2,1], control = true }";
    bench.write(top, SMALL, "[[method]]\nname = \"C\"\nmethod = \"reduced\"\nsplit = \"layer1.0\"\n");
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let rows = bench.rows(&bench.db);
    assert_eq!(rows.len(), 8);
    let find = |series: &str, step: u64| {
        rows.iter().find(|r| r["series"] == series && r["step"] == step && r["dataset"] == "photos").unwrap()
    };
    assert_eq!(find("forward", 1)["hash"], find("control", 1)["hash"]);
    assert_eq!(find("forward", 2)["after"], find("forward", 1)["hash"]);
    assert_eq!(find("forward", 2)["result"]["blocks"], 6);
    assert_eq!(find("control", 2)["result"]["blocks"], 5);
    // Models are gone once nothing starts from them.
    let runs = fs::read_dir(bench.world.path("results-runs")).unwrap().flatten();
    assert!(runs.map(|r| r.path()).all(|p| !p.join("model.safetensors").exists()));

    let out = bench.world.path("report");
    let report =
        said(rrr().args(["suite", "report", "--db"]).arg(&bench.db).arg("--out").arg(&out).output().unwrap());
    assert_eq!(report.code, Some(0), "{}", report.err);
    assert!(out.join("figures/accuracy-by-blocks.svg").exists());
}

#[test]
fn a_method_teaches_another() {
    let taught = format!("{TWO}\n[[method]]\nname = \"T\"\nbranches = 2\nteacher = \"A\"\n");
    let bench = Bench::new(SMALL, &taught);
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let rows = bench.rows(&bench.db);
    let find = |method: &str| {
        rows.iter().find(|r| r["method"] == method && r["dataset"] == "photos").unwrap().clone()
    };
    let [teacher, alone, taught] = ["A", "D", "T"].map(find);
    assert_eq!(taught["after"], teacher["hash"]);
    assert_ne!(taught["result"]["model_sha256"], alone["result"]["model_sha256"]);
    let runs = fs::read_dir(bench.world.path("results-runs")).unwrap().flatten();
    assert!(runs.map(|r| r.path()).all(|p| !p.join("model.safetensors").exists()));

    bench.write("kind = \"matrix\"", SMALL, "[[method]]\nname = \"T\"\nbranches = 2\nteacher = \"A\"\n");
    assert_fails(&bench.run(&[]), &["suite.toml, line 19", "no method `A` above"]);
}

#[test]
fn exports_and_reports_are_whole() {
    let methods =
        format!("{TWO}\n[[method]]\nname = \"V\"\nmethod = \"rrr\"\nvary = {{ branches = [1, 2] }}\n");
    let bench = Bench::new(SMALL, &methods);
    assert_eq!(bench.run(&[]).code, Some(0));
    let export = |format: &str, file: &str| {
        let out = bench.world.path(file);
        let args = ["suite", "export", "--format", format, "--db"];
        assert!(rrr().args(args).arg(&bench.db).arg("--out").arg(&out).status().unwrap().success());
        fs::read(out).unwrap()
    };
    let csv = String::from_utf8(export("csv", "r.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 8);
    let json: Value = serde_json::from_slice(&export("json", "r.json")).unwrap();
    assert_eq!(json[0]["method"], "A");
    assert_eq!(json[7]["branches"], "2");
    let parquet = export("parquet", "r.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));

    let hash = json[0]["hash"].as_str().unwrap();
    let show = said(rrr().args(["suite", "show", &hash[..8], "--db"]).arg(&bench.db).output().unwrap());
    assert!(show.out.contains("state     done") && show.out.contains("method = \"probe\""), "{}", show.out);

    let out = bench.world.path("report");
    let report = || rrr().args(["suite", "report", "--db"]).arg(&bench.db).arg("--out").arg(&out).output();
    assert_eq!(said(report().unwrap()).code, Some(0));
    let html = fs::read_to_string(out.join("index.html")).unwrap();
    for part in ["Friedman", "critical difference", "Wilcoxon", "V branches=2", "multiply-adds"] {
        assert!(html.contains(part), "no {part}");
    }
    assert!(
        !html.contains("http://")
            || html.matches("http://").count() == html.matches("http://www.w3.org/2000/svg").count()
    );
    let files = || {
        let mut all: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for dir in [out.clone(), out.join("figures")] {
            let paths = fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_file());
            all.extend(paths.map(|p| (p.clone(), fs::read(p).unwrap())));
        }
        all.sort();
        all
    };
    let once = files();
    report().unwrap();
    assert!(once == files(), "the same results gave another report");
    assert!(once.len() > 15);
}

#[test]
fn a_report_replaces_nothing_but_a_report() {
    let bench = Bench::new(SMALL, PROBE);
    assert_eq!(bench.run(&[]).code, Some(0));
    let out = bench.world.path("notes");
    let report = |more: &[&str]| {
        let mut command = rrr();
        command.args(["suite", "report", "--db"]).arg(&bench.db).arg("--out").arg(&out).args(more);
        said(command.output().unwrap())
    };
    let mine = "{\"suite\": \"mine\"}";
    for name in ["report.md", "report.json", "figures/accuracy.csv"] {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(out.join("figures")).unwrap();
        fs::write(out.join(name), mine).unwrap();
        assert_fails(&report(&[]), &[name, "--overwrite"]);
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), mine);
        assert!(!out.join("index.html").exists(), "something was written");
    }
    assert_eq!(report(&["--overwrite"]).code, Some(0));
    let again = report(&[]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    let html = fs::read_to_string(out.join("index.html")).unwrap();

    // What a kill after the first file leaves is a report still.
    for name in ["index.html", "report.md", "tables.tex", "results.csv"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    assert_eq!(report(&[]).code, Some(0));
    assert_eq!(fs::read_to_string(out.join("index.html")).unwrap(), html);
}

#[cfg(unix)]
#[test]
fn unreadable_images_are_left_out_if_that_is_asked_for() {
    let bench = Bench::new(&format!("{SMALL}skip_bad = true\n"), PROBE);
    let (dead, target) = (bench.world.photos().join("red/dead.jpg"), bench.world.path("target.jpg"));
    std::os::unix::fs::symlink(&target, &dead).unwrap();
    let ran = bench.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("red/dead.jpg: cannot be read: "), "{}", ran.err);
    let hashes = || -> Vec<String> { bench.rows(&bench.db).iter().map(|r| r["hash"].to_string()).collect() };
    let before = hashes();

    // With another image where the link leads to, it is another dataset.
    fs::copy(bench.world.photos().join("red/0.jpg"), &target).unwrap();
    assert_eq!(bench.run(&[]).code, Some(0));
    let after = hashes();
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");

    fs::remove_file(&target).unwrap();
    bench.write("", SMALL, PROBE);
    assert_fails(&bench.run(&[]), &["red/dead.jpg"]);
}

#[test]
fn what_a_file_cannot_mean_is_named_with_its_line() {
    let bench = Bench::new(SMALL, TWO);
    let text = fs::read_to_string(&bench.file).unwrap();
    let refuse = |from: &str, to: &str, parts: &[&str]| {
        assert!(text.contains(from), "{from}");
        fs::write(&bench.file, text.replacen(from, to, 1)).unwrap();
        assert_fails(&bench.run(&[]), parts);
        assert!(!bench.db.exists(), "something was written");
    };
    refuse("epochs = 2", "epoch = 2", &["suite.toml, line 11", "epoch"]);
    refuse("epochs = 2", "epochs = 0", &["suite.toml, line 11", "epochs = 0", "at least 1"]);
    refuse("seeds = [1]", "seeds = [1, 1]", &["line 2", "seeds"]);
    refuse("name = \"D\"", "name = \"A\"", &["line 20", "two methods `A`"]);
    refuse("branches = 2", "branches = 900", &["line 20", "900"]);
    refuse("branches = 2", "branches = 2\nseed = 3", &["line 24", "seed", "seeds"]);
    refuse("method = \"probe\"", "method = \"probe\"\nbranches = 4", &["line 19", "branches has no meaning"]);
    refuse("\"photos\"", "\"fotos\"", &["line 5", "fotos"]);
    refuse("name = \"bench\"", "name = bench", &["line 1"]);
    refuse("paths = [\"photos\", \"more/*\"]", "names = [\"photos\"]", &["--root", "RRR_ALBUM"]);
}

#[test]
fn init_writes_suites_that_can_be_read() {
    let world = World::new();
    for flag in ["--paper", "--branches", "--blocks", "--fge"] {
        let file = world.path(&format!("{}.toml", &flag[2..]));
        assert!(rrr().args(["suite", "init", flag]).arg(&file).status().unwrap().success());
        let again = said(rrr().args(["suite", "init", flag]).arg(&file).output().unwrap());
        assert_fails(&again, &["exists", "--force"]);
        rrr_suite::spec::read(&file).unwrap();
    }
    let blocks = rrr_suite::spec::read(&world.path("blocks.toml")).unwrap();
    let steps = blocks.forward.unwrap().steps();
    assert_eq!((steps.len(), steps[1], steps[46]), (47, [2, 1, 1, 1], [3, 8, 36, 3]));
}
