//! What can go wrong, one variant per cause.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Every message names the file or the backbone it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk (or the user's share of it) is full.
    #[error("cannot write {}: the disk is full\nhint: free some space or choose another folder", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// The content is no checkpoint format that we read.
    #[error("{} is not a checkpoint that can be read: {found}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the content looks like, and what to do.
        found: String,
    },
    /// A PyTorch file from before the zip format (PyTorch 1.6).
    #[error(
        "{} is in PyTorch's legacy {kind} format\nhint: load it in PyTorch 1.6 or newer and save it again: \
         torch.save(torch.load(\"old.pth\", map_location=\"cpu\", weights_only=True), \"new.pth\")",
        path.display()
    )]
    LegacyPyTorch {
        /// The file.
        path: PathBuf,
        /// `pickle` or `tar`.
        kind: &'static str,
    },
    /// The structure of the file contradicts itself or is cut off.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The pickle inside asks for something that a state dict does not need.
    #[error("{}: refused: {what}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it asks for, and what to do.
        what: String,
    },
    /// A folder without, or with more than one, checkpoint.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        what: String,
    },
    /// There is no tensor of that name.
    #[error("{} has no tensor {name}", path.display())]
    NoTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },
    /// The tensors do not fit the network that is to be filled.
    #[error("{} does not fit the network: {}", path.display(), mismatch(missing, misshapen, extra))]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// Expected tensors that are not there.
        missing: Vec<String>,
        /// Tensors of another shape.
        misshapen: Vec<Misshapen>,
        /// Tensors nobody expects, where that is an error.
        extra: Vec<String>,
    },
    /// The weights are not those of a bottleneck ResNet.
    #[error("{} is not a bottleneck ResNet: {reason}", path.display())]
    NotAResNet {
        /// The checkpoint.
        path: PathBuf,
        /// What speaks against it.
        reason: String,
    },
    /// No card lies beside the weights.
    #[error(
        "{} has no card (config.json) that says how its images are normalised\n\
         hint: give --mean and --std, or put a config.json in timm's format beside it",
        weights.display()
    )]
    NoCard {
        /// The weights.
        weights: PathBuf,
    },
    /// The card beside the weights cannot be used; what is wrong with it.
    #[error("{0}\nhint: repair it, or give --mean and --std")]
    WrongCard(String),
    /// The card lacks a field or holds a value that makes no sense.
    #[error("the card {}: {what}", path.display())]
    BadCard {
        /// The card.
        path: PathBuf,
        /// The field and what is wrong with it.
        what: String,
    },
    /// A card would overwrite the card of other weights.
    #[error(
        "cannot write the card of {}: {} is there already and belongs to other weights\nhint: choose an empty folder",
        weights.display(), card.display()
    )]
    ForeignCard {
        /// The card that is there.
        card: PathBuf,
        /// The weights to be written.
        weights: PathBuf,
    },
    /// The name is neither in the catalog nor a local file or folder.
    #[error("no backbone `{name}`: neither a file or folder nor a name in the catalog\nhint: {hint}")]
    UnknownBackbone {
        /// The name asked for.
        name: String,
        /// Names that exist.
        hint: String,
    },
    /// There is no home folder to put the cache into.
    #[error("no folder for downloads\nhint: set RRR_CACHE to a folder, or HOME")]
    NoCacheFolder,
    /// Offline, and not in the cache.
    #[error(
        "backbone {name} is not in the cache ({}) and {why}\nhint: run `rrr backbone pull {name}` once with a network",
        looked.display()
    )]
    Offline {
        /// The backbone.
        name: String,
        /// Where it would be.
        looked: PathBuf,
        /// Which switch forbids the network.
        why: &'static str,
    },
    /// A server could not be reached or broke off.
    #[error("cannot download {url}: {reason} (looked in the cache first: {})", looked.display())]
    Download {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
        /// The cached file that would have been used.
        looked: PathBuf,
    },
    /// A server answered with an error status.
    #[error("cannot download {url}: the server answered {status} (looked in the cache first: {})", looked.display())]
    HttpStatus {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The cached file that would have been used.
        looked: PathBuf,
    },
    /// A download broke off and can be resumed.
    #[error(
        "the download of {url} broke off after {received} bytes: {reason}\nhint: run it again, it goes on from {}",
        part.display()
    )]
    Interrupted {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
        /// Bytes that are there.
        received: u64,
        /// The unfinished file.
        part: PathBuf,
    },
    /// pip is missing or failed.
    #[error("cannot get {requirement} with pip: {reason} (looked in the cache first: {})", looked.display())]
    Pip {
        /// The requirement, such as `resmem==1.1.6`.
        requirement: String,
        /// What happened.
        reason: String,
        /// The cached file that would have been used.
        looked: PathBuf,
    },
    /// A file has another SHA-256 than published.
    #[error("{} has the SHA-256 {found}, expected {expected}: it is damaged or was replaced", path.display())]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// The published hash.
        expected: String,
        /// Its hash.
        found: String,
    },
    /// None of the sources of an alias could be had.
    #[error("no source of {name} could be reached:{}", attempts.iter().map(|a| format!("\n  {a}")).collect::<String>())]
    NoSource {
        /// The alias.
        name: String,
        /// One line per source.
        attempts: Vec<String>,
    },
    /// A tensor to be written has another number of values than its shape says, or comes twice.
    #[error("cannot write {}: {what}", path.display())]
    BadTensor {
        /// The file to be written.
        path: PathBuf,
        /// Which tensor, and what is wrong with it.
        what: String,
    },
}

/// A tensor whose shape differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Name of the tensor.
    pub name: String,
    /// Its shape in the file.
    pub found: Vec<usize>,
    /// The shape that the network needs.
    pub expected: Vec<usize>,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), what: what.into() }
    }
}

/// How many names a message shows before it only counts.
const SHOWN: usize = 8;

fn mismatch(missing: &[String], misshapen: &[Misshapen], extra: &[String]) -> String {
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("{} missing ({})", missing.len(), listed(missing.iter().cloned())));
    }
    if !misshapen.is_empty() {
        let each = misshapen
            .iter()
            .map(|m| format!("{} is {} instead of {}", m.name, shape(&m.found), shape(&m.expected)));
        parts.push(format!("{} misshapen ({})", misshapen.len(), listed(each)));
    }
    if !extra.is_empty() {
        parts.push(format!("{} unexpected ({})", extra.len(), listed(extra.iter().cloned())));
    }
    parts.join("; ")
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    text
}

/// A shape as people write it: `64x3x7x7`, `scalar` for rank 0.
pub(crate) fn shape(dims: &[usize]) -> String {
    if dims.is_empty() {
        return "scalar".into();
    }
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = Error::io("write", "a/file", io::ErrorKind::StorageFull.into());
        assert!(full.to_string().starts_with("cannot write a/file: the disk is full\nhint: "));
        let denied = Error::io("write", "a/file", io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.to_string(), "cannot write a/file: permission denied");
    }

    #[test]
    fn long_lists_are_cut() {
        let missing = (0..10).map(|i| format!("t{i}")).collect::<Vec<_>>();
        let text = mismatch(&missing, &[], &[]);
        assert_eq!(text, "10 missing (t0, t1, t2, t3, t4, t5, t6, t7, and 2 more)");
    }
}
