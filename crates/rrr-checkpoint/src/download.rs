//! Downloading over HTTP, with resuming and verification.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

use crate::cache;
use crate::digest::Digest;
use crate::error::Error;
use crate::pull::Progress;

/// Tries of one file, each going on where the one before broke off.
const TRIES: usize = 3;
const MAX_REDIRECTS: usize = 5;
/// Cards are a few hundred bytes.
const MAX_SMALL: u64 = 1 << 20;

/// Downloads files of one backbone; `looked` is the cached file that was not there.
pub(crate) struct Downloader<'a> {
    pub(crate) name: &'a str,
    pub(crate) looked: &'a Path,
    pub(crate) progress: &'a dyn Fn(Progress),
    agent: Agent,
}

impl<'a> Downloader<'a> {
    pub(crate) fn new(name: &'a str, looked: &'a Path, progress: &'a dyn Fn(Progress)) -> Self {
        // Short to connect, so that an unreachable server costs seconds; patient with a slow one.
        let agent = Agent::config_builder()
            .timeout_resolve(Some(Duration::from_secs(5)))
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .user_agent(concat!("rrrnet/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { name, looked, progress, agent }
    }

    /// The whole of a small file.
    pub(crate) fn small(&self, url: &str) -> Result<Vec<u8>, Error> {
        let response = self.agent.get(url).call().map_err(|e| self.unreachable(url, e))?;
        self.accept(url, &response, &[StatusCode::OK])?;
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(MAX_SMALL);
        body.read_to_end(&mut bytes).map_err(|e| self.unreachable(url, e))?;
        Ok(bytes)
    }

    /// The SHA-256 that the hub publishes for a large file, in the answer that redirects to its storage.
    pub(crate) fn published_sha256(&self, url: &str) -> Result<Option<String>, Error> {
        let mut at = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let request = self.agent.head(&at).header(header::ACCEPT_ENCODING, "identity");
            let response =
                request.config().max_redirects(0).build().call().map_err(|e| self.unreachable(&at, e))?;
            let field = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
            let tag = field("x-linked-etag")
                .or(field("etag"))
                .map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
            if let Some(tag) = tag.filter(|t| t.len() == 64 && t.bytes().all(|b| b.is_ascii_hexdigit())) {
                return Ok(Some(tag.to_ascii_lowercase()));
            }
            // A renamed repository redirects within the server; any other redirect leads to storage.
            match field("location") {
                Some(path) if response.status().is_redirection() && path.starts_with('/') => {
                    at = join(&at, path)
                }
                _ if response.status().is_redirection() => return Ok(None),
                _ => return self.accept(&at, &response, &[StatusCode::OK]).map(|()| None),
            }
        }
        Ok(None)
    }

    /// Downloads `url` to `target` and returns its SHA-256, which is `expected` if that is known: then by way of a `.part`
    /// file that a later call resumes.
    pub(crate) fn file(&self, url: &str, target: &Path, expected: Option<&str>) -> Result<String, Error> {
        let part = part_path(target, expected);
        let mut resumed = match expected {
            Some(_) => self.complete(url, &part)?,
            None => self.complete_anew(url, &part)?,
        };
        loop {
            (self.progress)(Progress::Verifying { name: self.name.into() });
            let found = Digest::of_file(&part)?;
            match expected {
                Some(expected) if expected != found => {
                    cache::remove(&part)?;
                    // Old bytes may belong to an old file: one fresh start is fair.
                    if resumed {
                        resumed = self.complete(url, &part)?;
                        continue;
                    }
                    return Err(Error::WrongHash { path: url.into(), expected: expected.into(), found });
                }
                _ => {
                    fs::rename(&part, target).map_err(|e| Error::io("write", target, e))?;
                    return Ok(found);
                }
            }
        }
    }

    /// As [`complete`](Self::complete), without a trace of other calls: nothing would tell whether their bytes belong to
    /// the same version of the file.
    fn complete_anew(&self, url: &str, part: &Path) -> Result<bool, Error> {
        cache::remove(part)?;
        self.complete(url, part).or_else(|e| {
            cache::remove(part)?;
            Err(match e {
                Error::Interrupted { url, reason, received, .. } => {
                    self.unreachable(&url, format!("it broke off after {received} bytes: {reason}"))
                }
                other => other,
            })
        })
    }

    /// Brings the `.part` file to its full length; says whether bytes of an earlier call are in it.
    fn complete(&self, url: &str, part: &Path) -> Result<bool, Error> {
        let fail = |e| Error::io("write", part, e);
        let mut file = File::options().create(true).append(true).open(part).map_err(fail)?;
        let earlier = file.metadata().map_err(fail)?.len();
        let mut tries = 1;
        loop {
            match self.append(url, part, &mut file) {
                Ok(from) => {
                    file.sync_all().map_err(fail)?;
                    return Ok(earlier > 0 && from > 0);
                }
                Err(Error::Interrupted { .. }) if tries < TRIES => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// One request for what is missing; returns the length it went on from.
    fn append(&self, url: &str, part: &Path, file: &mut File) -> Result<u64, Error> {
        let fail = |e| Error::io("write", part, e);
        let mut done = file.metadata().map_err(fail)?.len();
        let mut request = self.agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if done > 0 {
            request = request.header(header::RANGE, format!("bytes={done}-"));
        }
        let response = request.call().map_err(|e| self.unreachable(url, e))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, done) => {}
            StatusCode::RANGE_NOT_SATISFIABLE if done > 0 && complete_length(&response) == Some(done) => {
                return Ok(done);
            }
            // The server sends the whole file again, or has a shorter one.
            StatusCode::OK => {
                file.set_len(0).map_err(fail)?;
                done = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if done > 0 => {
                file.set_len(0).map_err(fail)?;
                return self.append(url, part, file);
            }
            _ => self.accept(url, &response, &[StatusCode::OK])?,
        }
        let from = done;
        let length =
            response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let total = length.map(|length| done + length);
        let interrupted = |done: u64, reason: String| Error::Interrupted {
            url: url.into(),
            reason,
            received: done,
            part: part.into(),
        };
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            (self.progress)(Progress::Downloading { name: self.name.into(), done, total });
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&buffer[..n]).map_err(fail)?;
                    done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(interrupted(done, e.to_string())),
            }
        }
        match total {
            Some(total) if done < total => {
                Err(interrupted(done, format!("{} bytes are missing", total - done)))
            }
            _ => Ok(from),
        }
    }

    fn accept<T>(&self, url: &str, response: &Response<T>, good: &[StatusCode]) -> Result<(), Error> {
        if good.contains(&response.status()) {
            return Ok(());
        }
        Err(Error::HttpStatus {
            url: url.into(),
            status: response.status().as_u16(),
            looked: self.looked.into(),
        })
    }

    fn unreachable(&self, url: &str, reason: impl ToString) -> Error {
        Error::Download { url: url.into(), reason: reason.to_string(), looked: self.looked.into() }
    }
}

/// Unfinished downloads of another version of the file must not be mixed in.
fn part_path(target: &Path, expected: Option<&str>) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    if let Some(version) = expected.and_then(|hash| hash.get(..8)) {
        name.push(format!(".{version}"));
    }
    name.push(".part");
    target.with_file_name(name)
}

fn content_range<T>(response: &Response<T>) -> Option<&str> {
    response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")
}

/// Whether `Content-Range: bytes FROM-TO/TOTAL` continues where we are.
fn starts_at<T>(response: &Response<T>, from: u64) -> bool {
    content_range(response).and_then(|range| range.split('-').next()?.parse().ok()) == Some(from)
}

/// The total of `Content-Range: bytes */TOTAL`.
fn complete_length<T>(response: &Response<T>) -> Option<u64> {
    content_range(response)?.rsplit('/').next()?.parse().ok()
}

/// `path` on the server of `url`.
fn join(url: &str, path: &str) -> String {
    let host = url.find("://").map_or(0, |i| i + 3);
    let end = url[host..].find('/').map_or(url.len(), |i| host + i);
    format!("{}{path}", &url[..end])
}
