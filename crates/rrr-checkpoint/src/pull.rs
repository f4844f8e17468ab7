//! Getting a backbone by name: from the cache, the Hugging Face hub, or a wheel.

use std::env;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::{self, Lock, WEIGHTS, cache_dir};
use crate::card::{Card, ColorOrder, Interpolation};
use crate::catalog::{CatalogEntry, Source, Wheel, catalog, lookup, suggestions};
use crate::checkpoint::Checkpoint;
use crate::convert::{ConvertOptions, convert};
use crate::download::Downloader;
use crate::error::Error;
use crate::wheel;

/// News from a download.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A server is asked.
    Connecting {
        /// The address.
        url: String,
    },
    /// Bytes have come in.
    Downloading {
        /// The backbone.
        name: String,
        /// Bytes so far, earlier calls' included.
        done: u64,
        /// Bytes of the whole file, if the server says so.
        total: Option<u64>,
    },
    /// pip downloads; it does not say how far it is.
    Pip {
        /// The requirement, such as `resmem==1.1.6`.
        requirement: String,
    },
    /// The checksum is computed.
    Verifying {
        /// The backbone or requirement.
        name: String,
    },
    /// Weights are written in another format.
    Converting {
        /// The backbone.
        name: String,
    },
    /// Another process is downloading the same backbone.
    Waiting {
        /// The backbone.
        name: String,
    },
    /// Something the user should know, in a sentence.
    Note(String),
}

/// How [`pull`] and [`resolve`] work.
pub struct PullOptions<'a> {
    /// Forbids the network (as the environment variable `HF_HUB_OFFLINE` does).
    pub offline: bool,
    /// The cache folder; [`cache_dir`] if `None`.
    pub cache: Option<PathBuf>,
    /// Base address of the Hugging Face hub; the environment variable `HF_ENDPOINT` or the public one if `None`.
    pub endpoint: Option<String>,
    /// Told what happens.
    pub progress: &'a dyn Fn(Progress),
}

impl Default for PullOptions<'_> {
    fn default() -> Self {
        Self { offline: false, cache: None, endpoint: None, progress: &|_| {} }
    }
}

impl PullOptions<'_> {
    fn cache(&self) -> Result<PathBuf, Error> {
        self.cache.clone().map_or_else(cache_dir, Ok)
    }

    fn endpoint(&self) -> String {
        let chosen = self.endpoint.clone().or_else(|| env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty()));
        chosen.unwrap_or_else(|| "https://huggingface.co".into()).trim_end_matches('/').into()
    }

    /// What forbids the network, if anything.
    fn offline(&self) -> Option<&'static str> {
        let set = |name| {
            env::var(name).is_ok_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()))
        };
        match () {
            () if self.offline => Some("--offline forbids downloading it"),
            () if set("HF_HUB_OFFLINE") => Some("HF_HUB_OFFLINE forbids downloading it"),
            () => None,
        }
    }
}

/// A backbone on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct BackboneFiles {
    /// The catalog's name of what was got, which may differ from an alias asked for.
    pub name: String,
    /// The safetensors file, its tensors without prefix.
    pub weights: PathBuf,
    /// Its card.
    pub card: Card,
    /// What the user should know, such as why an alias led to its second choice.
    pub notes: Vec<String>,
}

/// A backbone given as a name, file or folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The catalog's name, or the path as given.
    pub name: String,
    /// The checkpoint's file.
    pub weights: PathBuf,
    /// Its card; `None` if a local file has none.
    pub card: Option<Card>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Resolved {
    /// The card, which must be there.
    ///
    /// # Errors
    /// [`Error::NoCard`] or [`Error::WrongCard`] with what to do.
    pub fn require_card(&self) -> Result<&Card, Error> {
        self.card.as_ref().ok_or_else(|| match self.notes.first() {
            Some(wrong) => Error::WrongCard(wrong.clone()),
            None => Error::NoCard { weights: self.weights.clone() },
        })
    }
}

/// A catalog entry and what of it is in the cache.
#[derive(Clone, Debug, Serialize)]
pub struct ListEntry {
    /// The entry.
    #[serde(flatten)]
    pub entry: CatalogEntry,
    /// Where it is downloaded from.
    pub origin: String,
    /// The cached weights, if they are there.
    #[serde(serialize_with = "crate::lossy::option")]
    pub cached: Option<PathBuf>,
    /// Bytes of the cached weights.
    pub bytes: Option<u64>,
}

/// The catalog with what is in the cache (`None`: [`cache_dir`]).
///
/// # Errors
/// If there is no cache folder to look into.
pub fn list(cache: Option<&Path>) -> Result<Vec<ListEntry>, Error> {
    let cache = cache.map_or_else(cache_dir, |c| Ok(c.into()))?;
    let with_state = |entry: &CatalogEntry| {
        let weights = cache::folder(&cache, entry.name).join(WEIGHTS);
        let bytes = weights.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
        ListEntry { entry: *entry, origin: entry.origin(), cached: bytes.map(|_| weights), bytes }
    };
    Ok(catalog().iter().map(with_state).collect())
}

/// Gets the backbone `name`, an entry or alias of the catalog: from the cache if it is there, else by downloading.
///
/// An alias takes the first of its entries that is cached; if none is, the first whose server can be reached, with a
/// note when that is not its first choice.
///
/// # Errors
/// If the name is unknown, nothing can be reached, the network is forbidden and nothing cached, the checksum is wrong,
/// or the cache cannot be written. The message says where it looked.
pub fn pull(name: &str, options: &PullOptions<'_>) -> Result<BackboneFiles, Error> {
    let entries = lookup(name);
    let Some(&first) = entries.first() else {
        return Err(Error::UnknownBackbone { name: name.into(), hint: suggestions(name) });
    };
    let cache = options.cache()?;
    for &entry in &entries {
        if let Some(mut files) = cached(&cache, entry)? {
            if entry.name != first.name {
                let note = format!(
                    "using {} from the cache for {name} (licence: {}); its first choice is {}",
                    entry.name, entry.license, first.name
                );
                (options.progress)(Progress::Note(note.clone()));
                files.notes.push(note);
            }
            return Ok(files);
        }
    }
    if let Some(why) = options.offline() {
        let looked = cache::folder(&cache, first.name).join(WEIGHTS);
        return Err(Error::Offline { name: name.into(), looked, why });
    }
    let mut attempts = Vec::new();
    for &entry in &entries {
        if !attempts.is_empty() {
            let note = format!("getting {} instead (licence: {})", entry.name, entry.license);
            (options.progress)(Progress::Note(note.clone()));
            attempts.push(note);
        }
        match download(entry, &cache, options) {
            Ok(mut files) => {
                files.notes.splice(0..0, attempts);
                return Ok(files);
            }
            Err(e) if entries.len() > 1 && is_unreachable(&e) => {
                let note = format!("{}: {e}", entry.name);
                (options.progress)(Progress::Note(note.clone()));
                attempts.push(note);
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::NoSource { name: name.into(), attempts })
}

/// Finds what `spec` means: an existing file or folder, or else a name in the catalog, which is pulled.
///
/// # Errors
/// As [`pull`], and if a file or folder holds no checkpoint. A local card that is wrong counts as none, with a note.
pub fn resolve(spec: &str, options: &PullOptions<'_>) -> Result<Resolved, Error> {
    let path = Path::new(spec);
    if path.exists() {
        let weights = Checkpoint::open(path)?.path().to_path_buf();
        // Another tool's config.json must not keep somebody who gives --mean and --std from using the weights.
        let (card, notes) = match Card::beside(&weights) {
            Ok(card) => (card, Vec::new()),
            Err(e @ Error::BadCard { .. }) => (None, vec![e.to_string()]),
            Err(e) => return Err(e),
        };
        return Ok(Resolved { name: spec.into(), weights, card, notes });
    }
    let BackboneFiles { name, weights, card, notes } = pull(spec, options)?;
    Ok(Resolved { name, weights, card: Some(card), notes })
}

/// Whether another source may help.
fn is_unreachable(error: &Error) -> bool {
    matches!(error, Error::Download { .. } | Error::HttpStatus { .. } | Error::Pip { .. })
}

fn cached(cache: &Path, entry: &CatalogEntry) -> Result<Option<BackboneFiles>, Error> {
    let weights = cache::folder(cache, entry.name).join(WEIGHTS);
    // The card is written last, so both are whole if it is there.
    let card = if weights.is_file() { Card::beside(&weights)? } else { None };
    Ok(card.map(|card| BackboneFiles { name: entry.name.into(), weights, card, notes: Vec::new() }))
}

fn download(entry: &CatalogEntry, cache: &Path, options: &PullOptions<'_>) -> Result<BackboneFiles, Error> {
    let folder = cache::folder(cache, entry.name);
    cache::create_dir(&folder)?;
    let _lock = Lock::acquire(&folder, entry.name, options.progress)?;
    if let Some(files) = cached(cache, entry)? {
        return Ok(files);
    }
    let weights = folder.join(WEIGHTS);
    match entry.source {
        Source::Hub => from_hub(entry, &weights, options),
        Source::Wheel(wheel) => from_wheel(entry, wheel, &folder, options),
    }
}

fn from_hub(entry: &CatalogEntry, weights: &Path, options: &PullOptions<'_>) -> Result<BackboneFiles, Error> {
    let base = format!("{}/timm/{}/resolve/main", options.endpoint(), entry.name);
    let (card_url, weights_url) = (format!("{base}/config.json"), format!("{base}/{WEIGHTS}"));
    (options.progress)(Progress::Connecting { url: card_url.clone() });
    let server = Downloader::new(entry.name, weights, options.progress);
    let bytes = server.small(&card_url)?;
    let mut card = Card::parse(&bytes).map_err(|what| Error::BadCard { path: card_url.into(), what })?;
    let published = server.published_sha256(&weights_url)?;
    let found = server.file(&weights_url, weights, published.as_deref())?;
    let mut notes = Vec::new();
    if published.is_none() {
        let note =
            format!("the server published no checksum for {}; recorded {found} as received", entry.name);
        (options.progress)(Progress::Note(note.clone()));
        notes.push(note);
    }
    // Whatever the server sent must at least be weights, before anything says that it is here.
    if let Err(e) = Checkpoint::open(weights) {
        cache::remove(weights)?;
        return Err(e);
    }
    card.source = Some(entry.origin());
    card.license.get_or_insert_with(|| entry.license.into());
    card.sha256 = Some(found);
    card.write(&Card::path_beside(weights))?;
    Ok(BackboneFiles { name: entry.name.into(), weights: weights.into(), card, notes })
}

fn from_wheel(
    entry: &CatalogEntry,
    wheel: &Wheel,
    folder: &Path,
    options: &PullOptions<'_>,
) -> Result<BackboneFiles, Error> {
    let weights = folder.join(WEIGHTS);
    let scratch = tempfile::Builder::new().prefix("wheel-").tempdir_in(folder);
    let scratch = scratch.map_err(|e| Error::io("create a folder in", folder, e))?;
    let member = wheel::fetch(wheel, scratch.path(), &weights, options.progress)?;
    (options.progress)(Progress::Converting { name: entry.name.into() });
    // Images were only scaled to 0..=1 (torchvision's ToTensor), resized to 256 and cropped to 227.
    let card = Card {
        architecture: entry.architecture().into(),
        num_classes: None,
        mean: [0.0; 3],
        std: [1.0; 3],
        interpolation: Interpolation::Bilinear,
        crop_pct: Some(227.0 / 256.0),
        input_size: Some([3, 227, 227]),
        color_order: ColorOrder::Rgb,
        license: Some(entry.license.into()),
        source: Some(entry.origin()),
        sha256: None,
    };
    let options = ConvertOptions { card: Some(card), prefix: Some(wheel.prefix.into()) };
    let report = convert(&member, &weights, &options)?;
    let card = report.card.ok_or_else(|| Error::NoCard { weights: weights.clone() })?;
    Ok(BackboneFiles { name: entry.name.into(), weights, card, notes: Vec::new() })
}
