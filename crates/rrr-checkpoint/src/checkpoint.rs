//! An opened checkpoint of any supported format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rrr_kernels::mmap::MappedFile;
use serde::Serialize;

use crate::error::Error;
use crate::tensor::{Slot, TensorInfo};
use crate::{pytorch, safe};

/// The format of a checkpoint's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Safetensors.
    Safetensors,
    /// PyTorch's zip of a pickle and storages (`torch.save` since PyTorch 1.6).
    PyTorch,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "PyTorch",
        })
    }
}

/// What a format's reader found in a file.
pub(crate) struct Contents {
    pub(crate) slots: Vec<Slot>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) wrapper: Option<String>,
}

/// A checkpoint, opened and checked: its tensors can be listed and read by name.
///
/// The file is memory-mapped and must not be shortened while this lives. Nothing in the file is ever executed.
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    file: MappedFile,
    tensors: Vec<TensorInfo>,
    slots: Vec<Slot>,
    index: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
    wrapper: Option<String>,
}

impl Checkpoint {
    /// Opens the checkpoint at `path`: a safetensors file, a PyTorch zip file, or a folder with one of them. The format
    /// is told by the content, never by the name.
    ///
    /// # Errors
    /// If there is none, it is of another format (with what it looks like), damaged, or its pickle asks for anything
    /// but tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut path = path.as_ref().to_path_buf();
        if path.is_dir() {
            path = find_in_folder(&path)?;
        }
        let file = MappedFile::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let format = detect(&path, &file)?;
        let Contents { slots, metadata, wrapper } = match format {
            Format::Safetensors => safe::read(&path, &file)?,
            Format::PyTorch => pytorch::read(&path, &file)?,
        };
        let tensors: Vec<TensorInfo> = slots.iter().map(|s| s.info.clone()).collect();
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { path, format, file, tensors, slots, index, metadata, wrapper })
    }

    /// The file that was opened (inside the folder, if a folder was given).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> usize {
        self.file.len()
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Name, type and shape of one tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The header's metadata (safetensors only; empty otherwise).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The nested dict that the tensors were found in, such as `state_dict`; it is not part of their names.
    pub fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
    }

    /// Reads one tensor into row-major order, converted to f32 from whatever type it has (f64 and integers rounded to
    /// nearest, bool to 0 and 1).
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.view_f32(name).map(Cow::into_owned)
    }

    /// As [`Checkpoint::read_f32`], but in the mapped file itself where that holds the values just so: for what is used at
    /// once, since the file may be changed by others.
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn view_f32(&self, name: &str) -> Result<Cow<'_, [f32]>, Error> {
        match self.index.get(name) {
            Some(&i) => Ok(self.slots[i].view_f32(&self.file)),
            None => Err(Error::NoTensor { path: self.path.clone(), name: name.into() }),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Names that the usual tools give to weights, in the order of preference.
const USUAL: [&str; 4] = ["model.safetensors", "pytorch_model.bin", "model.pt", "model.pth"];

fn find_in_folder(folder: &Path) -> Result<PathBuf, Error> {
    if let Some(path) = USUAL.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let complain = |what: String| Error::Folder { path: folder.into(), what };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let path = entry.map_err(|e| Error::io("list", folder, e))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_file() && ["safetensors", "pth", "pt", "bin"].contains(&extension) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] if folder.join("model.safetensors.index.json").is_file() => {
            Err(complain("holds sharded weights, which are not supported; save them as one file".into()))
        }
        [] => Err(complain(
            "no checkpoint in this folder (model.safetensors, pytorch_model.bin, *.pth, *.pt)".into(),
        )),
        [first, second, ..] => Err(complain(format!(
            "holds {} checkpoints ({}, {}, ...); name the file itself",
            found.len(),
            first.file_name().unwrap_or_default().to_string_lossy(),
            second.file_name().unwrap_or_default().to_string_lossy()
        ))),
    }
}

/// What the legacy format's first pickle, a magic number, looks like (protocol 2, as PyTorch writes it).
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fn detect(path: &Path, file: &[u8]) -> Result<Format, Error> {
    let unknown = |found: &str| Err(Error::UnknownFormat { path: path.into(), found: found.into() });
    let legacy = |kind| Err(Error::LegacyPyTorch { path: path.into(), kind });
    if file.is_empty() {
        return unknown("it is empty");
    }
    if file.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    if file.starts_with(b"PK\x03\x04") {
        return Ok(Format::PyTorch);
    }
    if file.starts_with(LEGACY_MAGIC) {
        return legacy("pickle");
    }
    if file.get(257..262) == Some(b"ustar") {
        return legacy("tar");
    }
    match file {
        [0x80, 2..=5, ..] => unknown("it is a plain pickle, not saved by torch.save"),
        [0x89, b'H', b'D', b'F', ..] => {
            unknown("it is an HDF5 file (Keras?)\nhint: use a PyTorch or safetensors file")
        }
        [0x1f, 0x8b, ..] => unknown("it is compressed with gzip\nhint: unpack it first"),
        [0x93, b'N', b'U', b'M', ..] => unknown("it is a NumPy array"),
        _ if file.starts_with(b"version https://git-lfs") => unknown(
            "it is a Git LFS pointer instead of the weights\nhint: run `git lfs pull` in its repository",
        ),
        _ if file.trim_ascii_start().starts_with(b"<") => unknown("it is a web page, not weights"),
        _ if file.len() < 9 => unknown("it is too short"),
        _ => unknown("neither safetensors nor a PyTorch zip file"),
    }
}
