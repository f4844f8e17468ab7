//! Downloads from a small HTTP server in a thread.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rrr_checkpoint::{
    BackboneFiles, Checkpoint, Error, Progress, PullOptions, TensorRef, list, pull, resolve,
    write_safetensors,
};
use sha2::{Digest, Sha256};

const NAME: &str = "resnet50.tv_in1k";
const CARD: &str = r#"{"architecture": "resnet50", "num_classes": 1000, "pretrained_cfg": {"mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "input_size": [3, 224, 224]}}"#;

/// How the server answers requests for the weights.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    /// Closes the connection after so many bytes.
    CutAfter(usize),
    /// Ignores ranges.
    NoRanges,
    /// Publishes a wrong hash.
    WrongHash,
    /// Publishes none.
    NoHash,
    /// Publishes none, and closes the connection after so many bytes.
    NoHashCutAfter(usize),
    NotFound,
}

struct Server {
    address: String,
    mood: Arc<Mutex<Mood>>,
    /// Method, path and range of every request.
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(weights: Vec<u8>, mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (mood, log) = (Arc::new(Mutex::new(mood)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { address, mood: mood.clone(), log: log.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mood = *mood.lock().unwrap();
                // A client that hangs up is no failure of the server.
                let _ = answer(stream.unwrap(), &weights, mood, &log);
            }
        });
        server
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn answer(
    mut stream: TcpStream,
    weights: &[u8],
    mood: Mood,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut from = 0;
    for line in lines {
        let line = line?.to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push(format!("{} {from}", first.trim_end_matches(" HTTP/1.1")));
    let head =
        |status: &str, fields: String| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{fields}\r\n");
    let path = first.split(' ').nth(1).unwrap_or_default();
    if path.ends_with("/config.json") && mood != Mood::NotFound {
        return write!(stream, "{}{CARD}", head("200 OK", format!("Content-Length: {}\r\n", CARD.len())));
    }
    if mood == Mood::NotFound {
        return write!(stream, "{}", head("404 Not Found", "Content-Length: 0\r\n".into()));
    }
    if first.starts_with("HEAD") {
        let hash = match mood {
            Mood::WrongHash => "0".repeat(64),
            _ => Sha256::digest(weights).iter().map(|b| format!("{b:02x}")).collect(),
        };
        let tag = match mood {
            Mood::NoHash | Mood::NoHashCutAfter(_) => String::new(),
            _ => format!("X-Linked-Etag: \"{hash}\"\r\n"),
        };
        return write!(
            stream,
            "{}",
            head("302 Found", format!("{tag}Location: /storage\r\nContent-Length: 0\r\n"))
        );
    }
    if mood == Mood::NoRanges {
        from = 0;
    }
    if from >= weights.len() && from > 0 {
        let fields = format!("Content-Range: bytes */{}\r\nContent-Length: 0\r\n", weights.len());
        return write!(stream, "{}", head("416 Range Not Satisfiable", fields));
    }
    let body = &weights[from..];
    let (status, range) = match from {
        0 => ("200 OK", String::new()),
        _ => {
            let (last, total) = (weights.len() - 1, weights.len());
            ("206 Partial Content", format!("Content-Range: bytes {from}-{last}/{total}\r\n"))
        }
    };
    write!(stream, "{}", head(status, format!("{range}Content-Length: {}\r\n", body.len())))?;
    let sent = match mood {
        Mood::CutAfter(bytes) | Mood::NoHashCutAfter(bytes) => bytes.min(body.len()),
        _ => body.len(),
    };
    stream.write_all(&body[..sent])
}

fn weights(folder: &Path) -> Vec<u8> {
    let data: Vec<f32> = (0..5000).map(|x| x as f32).collect();
    let path = folder.join("weights");
    write_safetensors(&path, &[TensorRef { name: "w", shape: &[5000], data: &data }], &BTreeMap::new())
        .unwrap();
    std::fs::read(path).unwrap()
}

struct Setup {
    folder: tempfile::TempDir,
    server: Server,
    length: usize,
}

impl Setup {
    fn new(mood: Mood) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let weights = weights(folder.path());
        let length = weights.len();
        Self { folder, server: Server::start(weights, mood), length }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn pull(&self) -> Result<BackboneFiles, Error> {
        self.pull_with(false, &|_| {})
    }

    fn pull_with(&self, offline: bool, progress: &dyn Fn(Progress)) -> Result<BackboneFiles, Error> {
        let endpoint = Some(self.server.address.clone());
        pull(NAME, &PullOptions { offline, cache: Some(self.cache()), endpoint, progress })
    }

    fn entry(&self) -> PathBuf {
        self.cache().join("backbones").join(NAME)
    }

    /// Unfinished downloads.
    fn parts(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.entry()).unwrap().map(|e| e.unwrap().path());
        files.filter(|p| p.extension().is_some_and(|e| e == "part")).collect()
    }
}

#[test]
fn downloads_once_then_uses_the_cache() {
    let setup = Setup::new(Mood::Good);
    let last = Mutex::new(None);
    let files = setup.pull_with(false, &|p| *last.lock().unwrap() = Some(p)).unwrap();
    assert_eq!(Checkpoint::open(&files.weights).unwrap().read_f32("w").unwrap()[4999], 4999.0);
    assert_eq!(files.card.mean, [0.5; 3]);
    assert_eq!(files.card.license.as_deref(), Some("bsd-3-clause"));
    assert_eq!(files.card.sha256.as_deref().map(str::len), Some(64));
    assert!(files.card.source.as_deref().unwrap().contains(NAME) && files.notes.is_empty());
    assert_eq!(*last.lock().unwrap(), Some(Progress::Verifying { name: NAME.into() }));
    assert_eq!(setup.server.requests().len(), 3);

    assert_eq!(setup.pull_with(true, &|_| {}).unwrap(), files);
    assert!(setup.server.requests().is_empty() && setup.parts().is_empty());
    let listed = list(Some(&setup.cache())).unwrap();
    let cached: Vec<_> = listed.iter().filter(|e| e.cached.is_some()).collect();
    assert_eq!((cached.len(), cached[0].entry.name, cached[0].bytes), (1, NAME, Some(setup.length as u64)));
    // The folder in the cache is as good as any local one.
    let local = resolve(files.weights.parent().unwrap().to_str().unwrap(), &PullOptions::default()).unwrap();
    assert_eq!(local.require_card().unwrap(), &files.card);
    // Another tool's config.json counts as no card, and that is said.
    std::fs::write(files.weights.with_file_name("config.json"), r#"{"hidden_size": 3}"#).unwrap();
    let local = resolve(files.weights.to_str().unwrap(), &PullOptions::default()).unwrap();
    assert!(local.notes[0].contains("has no mean"), "{:?}", local.notes);
    assert!(local.require_card().unwrap_err().to_string().contains("has no mean"));
}

#[test]
fn goes_on_where_the_connection_broke_off() {
    let setup = Setup::new(Mood::CutAfter(3000));
    let error = setup.pull().unwrap_err();
    assert!(matches!(&error, Error::Interrupted { received: 9000, .. }), "{error}");
    assert!(error.to_string().contains("run it again"), "{error}");
    let ranges = |log: Vec<String>| -> Vec<usize> {
        let gets = log.iter().filter(|l| l.starts_with("GET") && l.contains("model.safetensors"));
        gets.map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(ranges(setup.server.requests()), [0, 3000, 6000]);
    setup.server.set(Mood::Good);
    let files = setup.pull().unwrap();
    assert_eq!(ranges(setup.server.requests()), [9000]);
    assert_eq!(Checkpoint::open(&files.weights).unwrap().tensors().len(), 1);
    assert!(setup.parts().is_empty());
}

#[test]
fn starts_afresh_where_ranges_are_ignored_or_the_part_is_wrong() {
    let setup = Setup::new(Mood::CutAfter(1000));
    setup.pull().unwrap_err();
    setup.server.set(Mood::NoRanges);
    setup.pull().unwrap();

    let setup = Setup::new(Mood::CutAfter(1000));
    setup.pull().unwrap_err();
    let part = setup.parts().remove(0);
    std::fs::write(&part, vec![7; 500]).unwrap();
    setup.server.set(Mood::Good);
    setup.pull().unwrap();

    // A part as long as the file, then one that is longer.
    for longer in [0, 10] {
        let setup = Setup::new(Mood::CutAfter(1000));
        setup.pull().unwrap_err();
        std::fs::write(setup.parts().remove(0), vec![7; setup.length + longer]).unwrap();
        setup.server.set(Mood::Good);
        setup.pull().unwrap();
    }
}

#[test]
fn a_wrong_hash_is_an_error_and_leaves_nothing() {
    let setup = Setup::new(Mood::WrongHash);
    let error = setup.pull().unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error}");
    assert!(setup.parts().is_empty() && !setup.entry().join("model.safetensors").exists());
}

#[test]
fn a_missing_hash_is_said() {
    let files = Setup::new(Mood::NoHash).pull().unwrap();
    assert!(files.notes[0].contains("published no checksum"), "{:?}", files.notes);
    assert!(files.card.sha256.is_some());
}

#[test]
fn without_a_hash_nothing_of_another_call_is_used() {
    let setup = Setup::new(Mood::NoHashCutAfter(1000));
    let error = setup.pull().unwrap_err().to_string();
    assert!(error.contains("broke off after 3000 bytes") && !error.contains("run it again"), "{error}");
    assert!(setup.parts().is_empty());

    // What a killed process leaves, of a version that was as long.
    std::fs::write(setup.entry().join("model.safetensors.part"), vec![7; setup.length - 500]).unwrap();
    setup.server.set(Mood::NoHash);
    let files = setup.pull().unwrap();
    let values = Checkpoint::open(&files.weights).unwrap().read_f32("w").unwrap();
    assert!(values.iter().enumerate().all(|(i, v)| *v == i as f32));
    assert!(setup.parts().is_empty());
}

#[test]
fn failures_say_where_they_looked() {
    let setup = Setup::new(Mood::NotFound);
    let error = setup.pull().unwrap_err().to_string();
    let entry = setup.entry().display().to_string();
    assert!(error.contains("404") && error.contains("/config.json") && error.contains(&entry), "{error}");

    let error = setup.pull_with(true, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("--offline") && error.contains(&entry), "{error}");

    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let options = PullOptions { endpoint, cache: Some(setup.cache()), ..PullOptions::default() };
    let error = pull(NAME, &options).unwrap_err().to_string();
    assert!(error.contains("cannot download http://127.0.0.1:1/timm/"), "{error}");
}

#[test]
fn unknown_names_get_suggestions() {
    let message = |name| pull(name, &PullOptions::default()).unwrap_err().to_string();
    assert!(message("resnet50.foo").contains("resnet50.a1h_in1k"));
    assert!(message("vgg16").contains("rrr backbone list"));
    let error = resolve("no/such/file.pt", &PullOptions::default()).unwrap_err().to_string();
    assert!(error.contains("neither a file or folder nor a name in the catalog"), "{error}");
}

#[test]
fn an_alias_prefers_what_is_cached() {
    let setup = Setup::new(Mood::Good);
    let files = setup.pull().unwrap();
    let other = setup.cache().join("backbones/resnet152.resmem");
    std::fs::create_dir_all(&other).unwrap();
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(files.weights.with_file_name(file), other.join(file)).unwrap();
    }
    let options = PullOptions { offline: true, cache: Some(setup.cache()), ..PullOptions::default() };
    let found = pull("resnet152", &options).unwrap();
    assert_eq!(found.name, "resnet152.resmem");
    assert!(found.notes[0].contains("non-commercial") && found.notes[0].contains("resnet152.a1h_in1k"));
}

#[test]
fn two_pulls_at_once_download_once() {
    let setup = Setup::new(Mood::Good);
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| setup.pull().unwrap())).collect();
        pulls.into_iter().for_each(|p| drop(p.join().unwrap()));
    });
    assert_eq!(setup.server.requests().len(), 3);
}
