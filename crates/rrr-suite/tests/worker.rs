//! Suites whose workers were stopped, and whose files were moved or damaged meanwhile.

#[path = "../../rrrnet/tests/common/mod.rs"]
mod world;

use rrr_suite::db::{Database, Row, State};
use rrr_suite::matrix::{PlanningOptions, Task, tasks};
use rrr_suite::spec::{self, Suite};
use rrr_suite::worker::{Ended, Keep, News, RunOptions, run};
use rrrnet::train::Event;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use world::World;

const PROBE: &str = "[[method]]\nname = \"A\"\nmethod = \"probe\"\n";
const TAUGHT: &str = "\n[[method]]\nname = \"T\"\nbranches = 2\nteacher = \"A\"\n";

/// A suite of three epochs over the photos.
struct Bench {
    world: World,
    data: PathBuf,
    backbone: PathBuf,
    db: PathBuf,
    top: String,
    methods: String,
}

impl Bench {
    fn new(methods: &str) -> Self {
        let world = World::new();
        let (data, backbone, db) = (world.photos(), world.backbone(), world.path("results.db"));
        Self { world, data, backbone, db, top: String::new(), methods: methods.into() }
    }

    fn plan(&self) -> (Result<Vec<Task>, String>, Suite) {
        let file = self.world.path("suite.toml");
        let text = format!(
            "name = \"bench\"\nseeds = [1]\n{}\n[datasets]\npaths = [{:?}]\n[common]\nbackbone = {:?}\nrecipe = \"fast\"\n\
             epochs = 3\nwarm_passes = 1\nbatch_size = 5\nimage_size = 32\n{}",
            self.top, self.data, self.backbone, self.methods
        );
        fs::write(&file, text).unwrap();
        let suite = spec::read(&file).unwrap();
        let planning = PlanningOptions { threads: 1, offline: true, root: None };
        (tasks(&suite, &planning).map_err(|e| e.to_string()), suite)
    }

    /// Runs the suite, until `stop` says so of some news; what was said, and the rows.
    fn run_until(&self, keep: Keep, stop: impl Fn(&News<'_>) -> bool) -> (Ended, Vec<String>, Vec<Row>) {
        let (tasks, suite) = self.plan();
        let tasks = tasks.unwrap();
        let mut db = Database::open_or_create(&self.db).unwrap();
        db.register(&suite, &tasks).unwrap();
        db.retry_failed("bench").unwrap();
        let interrupt = AtomicBool::new(false);
        let lease = Duration::from_secs(60);
        let options =
            RunOptions { threads: 1, offline: true, keep, lease, no_wait: true, interrupt: &interrupt };
        let mut said = Vec::new();
        let mut news = |news: &News<'_>| {
            if let News::Training(Event::Note(note)) = news {
                said.push(note.clone());
            }
            if stop(news) {
                interrupt.store(true, Ordering::SeqCst);
            }
        };
        let ended = run(&mut db, "bench", &tasks, &options, &mut news).unwrap();
        (ended, said, db.rows("bench").unwrap())
    }

    fn run(&self) -> (Ended, Vec<String>, Vec<Row>) {
        self.run_until(Keep::default(), |_| false)
    }

    /// Stops the last method within its second epoch.
    fn interrupt(&self) -> PathBuf {
        let last = if self.methods.contains("\"T\"") { "T" } else { "A" };
        let current = std::cell::RefCell::new(String::new());
        let (ended, _, rows) = self.run_until(Keep::default(), |news| {
            if let News::Begun { task } = news {
                *current.borrow_mut() = task.cell.method.clone();
            }
            let within = matches!(news, News::Training(Event::Step(s)) if s.done > s.total / 3);
            within && *current.borrow() == last
        });
        assert_eq!(ended, Ended::Interrupted);
        let run = self.run_of(&rows.last().unwrap().hash);
        assert!(run.join("checkpoint/last.safetensors").is_file());
        run
    }

    fn run_of(&self, hash: &str) -> PathBuf {
        Database::open(&self.db).unwrap().run_of(hash)
    }

    fn rename(&self, from: &Path, to: &str) -> PathBuf {
        let to = self.world.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(from, &to).unwrap();
        to
    }
}

fn models(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|r| r.result.as_ref().expect("done").model_sha256.clone()).collect()
}

#[test]
fn a_run_that_cannot_go_on_starts_anew() {
    let whole = models(&Bench::new(&format!("{PROBE}{TAUGHT}")).run().2);
    type Change = fn(&mut Bench, &Path);
    let changes: [(&str, Change); 6] = [
        ("does not exist", |bench, _| bench.data = bench.rename(&bench.data, "elsewhere/photos")),
        ("is damaged", |_, run| fs::write(run.join("metrics.jsonl"), "no record\n").unwrap()),
        ("is damaged", |_, run| {
            let last = run.join("checkpoint/last.safetensors");
            fs::write(&last, &fs::read(&last).unwrap()[..1000]).unwrap();
        }),
        ("header does not describe", |bench, run| {
            let last = run.join("checkpoint/last.safetensors");
            fs::copy(bench.backbone.join("model.safetensors"), last).unwrap();
        }),
        ("no backbone", |bench, run| {
            bench.backbone = bench.rename(&bench.backbone, "elsewhere/backbone");
            fs::remove_file(run.join("checkpoint/last.safetensors")).unwrap();
        }),
        // The teacher's model lies beside the database.
        ("model.safetensors", |bench, _| {
            bench.rename(&bench.world.path("results-runs"), "moved-runs");
            bench.db = bench.rename(&bench.db, "moved.db");
        }),
    ];
    for (reason, change) in changes {
        let mut bench = Bench::new(&format!("{PROBE}{TAUGHT}"));
        let run = bench.interrupt();
        change(&mut bench, &run);
        let (ended, said, rows) = bench.run();
        assert_eq!(ended, Ended::Complete { done: 2, failed: 0, left: 0 }, "{reason}: {:?}", rows[1].message);
        assert!(
            said.iter().any(|s| s.starts_with("the run starts from the beginning") && s.contains(reason)),
            "{reason}: {said:?}"
        );
        assert_eq!(models(&rows), whole, "{reason}");
    }
}

#[test]
fn images_out_of_reach_cost_no_run() {
    let bench = Bench::new(PROBE);
    let run = bench.interrupt();
    let away = bench.world.path("away");
    // They vanish between the planning and the task.
    let (_, _, rows) = bench.run_until(Keep::default(), |news| {
        if matches!(news, News::Begun { .. }) {
            fs::rename(&bench.data, &away).unwrap();
        }
        false
    });
    assert_eq!(rows[0].state, State::Failed);
    assert!(run.join("checkpoint/last.safetensors").is_file());
    fs::rename(&away, &bench.data).unwrap();
    let (_, said, rows) = bench.run();
    assert_eq!(rows[0].state, State::Done);
    assert!(!said.iter().any(|s| s.contains("from the beginning")), "{said:?}");
}

#[test]
fn what_a_killed_worker_had_left_to_tidy_is_tidied() {
    let bench = Bench::new(PROBE);
    let (_, _, rows) = bench.run_until(Keep::All, |_| false);
    let run = bench.run_of(&rows[0].hash);
    let beside = |extension| run.with_extension(extension);
    let (model, checkpoint) = (run.join("model.safetensors"), run.join("checkpoint"));
    let there = || [model.exists(), checkpoint.exists(), beside("tidy").exists(), beside("lock").exists()];
    assert_eq!(there(), [true, true, false, false]);

    // A later run keeps what an earlier one was told to keep.
    bench.run();
    assert_eq!(there(), [true, true, false, false]);
    for (noted, left) in [("models", [true, false, false, false]), ("reports", [false; 4])] {
        fs::create_dir_all(&checkpoint).unwrap();
        fs::write(beside("tidy"), noted).unwrap();
        fs::write(beside("lock"), "").unwrap();
        bench.run();
        assert_eq!(there(), left, "{noted}");
    }
    fs::write(beside("lock"), "").unwrap();
    bench.run();
    assert!(run.join("config.toml").is_file() && !beside("lock").exists());
}

#[test]
fn chains_start_from_the_weights_before_whoever_teaches() {
    let mut bench = Bench::new("[[method]]\nname = \"C\"\nmethod = \"reduced\"\nteacher = \"auto\"\n");
    bench.top =
        "kind = \"forward-blocks\"\nforward-blocks = { from = [1, 1, 1, 1], to = [1, 1, 2, 1] }".into();
    let (ended, _, rows) = bench.run();
    assert_eq!(ended, Ended::Complete { done: 2, failed: 0, left: 0 }, "{:?}", rows[0].message);
    let config = fs::read_to_string(bench.run_of(&rows[1].hash).join("config.toml")).unwrap();
    assert!(config.contains("teacher = \"auto\"") && config.contains("init = "), "{config}");

    bench.methods = bench.methods.replace("auto", "B");
    let error = bench.plan().0.unwrap_err();
    assert!(error.contains("line 17: teacher: there is no method `B` above"), "{error}");
}
