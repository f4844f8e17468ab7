//! PyTorch's zip format: `NAME/data.pkl`, a pickle of the state dict, and one stored entry per storage,
//! `NAME/data/KEY`, which is read in place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use crate::checkpoint::Contents;
use crate::error::Error;
use crate::pickle::{self, Arena, Object, PickleError, TensorRef, Value};
use crate::tensor::{Placement, Slot, TensorInfo};

/// Dicts that training scripts wrap a state dict in, in the order of preference.
const WRAPPERS: [&str; 12] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "module",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
];

const MAX_DEPTH: usize = 16;
const MAX_TENSORS: usize = 1 << 18;
const MAX_NAME: usize = 1024;
/// Bytes of all names, shapes and strides: dicts may be shared, and so may the tensors in them.
const MAX_LISTED: usize = 64 << 20;
/// All tensors together may be so many times as large as the file, or [`SMALL`] bytes: they may share a storage, or repeat
/// a value, and each is bounded only by itself.
const MAX_UNFOLDED: usize = 16;
const SMALL: usize = 256 << 20;
/// Values looked at while flattening; dicts may be shared, so their tree can be far larger than the pickle.
const MAX_VISITS: usize = 1 << 23;

/// Lists the tensors of a PyTorch zip file.
pub(crate) fn read(path: &Path, file: &[u8]) -> Result<Contents, Error> {
    let archive = Archive::read(path, file)?;
    let (arena, top) = pickle::interpret(archive.pickle).map_err(|e| match e {
        PickleError::Damaged(what) => Error::damaged(path, what),
        PickleError::Refused(what) => Error::Refused { path: path.into(), what },
    })?;
    let (state, wrapper) = unwrap(&arena, top);
    let mut flat = Flat { arena: &arena, tensors: Vec::new(), names: BTreeSet::new(), visits: 0, listed: 0 };
    flat.dict(state, "", 0).map_err(|what| Error::damaged(path, what))?;
    if flat.tensors.is_empty() {
        let what =
            "its pickle holds no tensors by name\nhint: save torch.save(model.state_dict(), ...)".into();
        return Err(Error::Refused { path: path.into(), what });
    }
    let slots = flat
        .tensors
        .into_iter()
        .map(|(name, tensor)| slot(&archive, &arena, name, tensor, file.len()))
        .collect::<Result<Vec<_>, String>>()
        .map_err(|what| Error::damaged(path, what))?;
    check_unfolded(path, &slots, file.len())?;
    Ok(Contents { slots, metadata: BTreeMap::new(), wrapper })
}

fn check_unfolded(path: &Path, slots: &[Slot], file_bytes: usize) -> Result<(), Error> {
    let bytes = slots.iter().map(|s| s.info.numel() * s.info.dtype.size()).fold(0, usize::saturating_add);
    if bytes <= file_bytes.saturating_mul(MAX_UNFOLDED).max(SMALL) {
        return Ok(());
    }
    let what = format!(
        "its tensors share so much that they would take {} MiB instead of its {}\nhint: save clones of those you need",
        bytes >> 20,
        file_bytes >> 20
    );
    Err(Error::Refused { path: path.into(), what })
}

fn slot(
    archive: &Archive<'_>,
    arena: &Arena,
    name: String,
    tensor: &TensorRef,
    file_bytes: usize,
) -> Result<Slot, String> {
    let key = arena.text(tensor.storage.key).unwrap_or_default();
    let &(start, bytes) = archive
        .storages
        .get(key)
        .ok_or_else(|| format!("tensor {name} refers to a storage that is not there"))?;
    let element = tensor.storage.dtype.map_or(1, |dtype| dtype.size());
    if tensor.storage.numel.checked_mul(element).is_none_or(|claimed| claimed > bytes) {
        return Err(format!("the storage of tensor {name} holds {bytes} bytes, fewer than it says"));
    }
    let info = TensorInfo { name, dtype: tensor.dtype, shape: tensor.shape.clone() };
    let place = Placement {
        storage_start: start,
        storage_bytes: bytes,
        offset: tensor.offset,
        strides: Some(&tensor.strides),
    };
    Slot::new(info, &place, file_bytes)
}

/// Goes down through the wrappers of training scripts to the state dict.
fn unwrap(arena: &Arena, top: Value) -> (Value, Option<String>) {
    let mut at = top;
    let mut path: Vec<&str> = Vec::new();
    while path.len() < 4 {
        let Some(dict) = arena.dict(at) else { break };
        if dict.iter().any(|&(_, v)| matches!(arena.get(v), Some(Object::Tensor(_)))) {
            break;
        }
        let inner = WRAPPERS.iter().find_map(|&wrapper| {
            let &(_, value) = dict.iter().find(|&&(key, _)| arena.text(key) == Some(wrapper))?;
            arena.dict(value).filter(|inner| !inner.is_empty()).map(|_| (wrapper, value))
        });
        let Some((wrapper, value)) = inner else { break };
        path.push(wrapper);
        at = value;
    }
    (at, (!path.is_empty()).then(|| path.join(".")))
}

/// Nested dicts laid out flat, their keys joined with dots.
struct Flat<'a> {
    arena: &'a Arena,
    tensors: Vec<(String, &'a TensorRef)>,
    names: BTreeSet<String>,
    visits: usize,
    /// Bytes of names, shapes and strides.
    listed: usize,
}

impl Flat<'_> {
    fn dict(&mut self, dict: Value, prefix: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("its dicts are nested more than {MAX_DEPTH} deep"));
        }
        let arena = self.arena;
        for &(key, value) in arena.dict(dict).unwrap_or_default() {
            self.visits += 1;
            if self.visits > MAX_VISITS {
                return Err("its dicts hold too many values".into());
            }
            let object = arena.get(value);
            if !matches!(object, Some(Object::Tensor(_) | Object::Dict(_))) {
                continue;
            }
            let name = match (arena.text(key), key) {
                (Some(text), _) if text.len() <= MAX_NAME => format!("{prefix}{text}"),
                (_, Value::Int(number)) => format!("{prefix}{number}"),
                _ => continue,
            };
            if name.len() > MAX_NAME {
                return Err(format!("a tensor's name is longer than {MAX_NAME} bytes"));
            }
            match object {
                Some(Object::Tensor(tensor)) => {
                    self.listed +=
                        name.len() + size_of::<usize>() * (tensor.shape.len() + tensor.strides.len());
                    if self.listed > MAX_LISTED {
                        return Err(format!(
                            "its tensors' names and shapes take more than {} MiB",
                            MAX_LISTED >> 20
                        ));
                    }
                    if !self.names.insert(name.clone()) {
                        return Err(format!("tensor {name} comes twice"));
                    }
                    self.tensors.push((name, tensor));
                }
                _ => self.dict(value, &format!("{name}."), depth + 1)?,
            }
            if self.tensors.len() > MAX_TENSORS {
                return Err(format!("it holds more than {MAX_TENSORS} tensors"));
            }
        }
        Ok(())
    }
}

/// The parts of the zip file that matter: the pickle and where each storage lies (first byte, bytes).
struct Archive<'a> {
    pickle: &'a [u8],
    storages: BTreeMap<String, (usize, usize)>,
}

impl<'a> Archive<'a> {
    fn read(path: &Path, file: &'a [u8]) -> Result<Self, Error> {
        let bad = |e: zip::result::ZipError| {
            Error::damaged(path, format!("its zip directory cannot be read ({e})"))
        };
        let mut zip = ZipArchive::new(Cursor::new(file)).map_err(bad)?;
        let mut members = BTreeMap::new();
        let mut root = None;
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(bad)?;
            let name = entry.name().map_err(bad)?.into_owned();
            let stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
            if let Some(folder) = name.strip_suffix("data.pkl")
                && (folder.is_empty() || folder.ends_with('/'))
                && root.is_none()
            {
                root = Some(folder.to_owned());
            }
            let place = (entry.data_start(), entry.size(), stored);
            members.insert(name, place);
        }
        let Some(root) = root else {
            let found = "a zip file without PyTorch's data.pkl (a wheel or another archive?)".into();
            return Err(Error::UnknownFormat { path: path.into(), found });
        };
        if members.contains_key(&format!("{root}constants.pkl")) {
            let what = "it is a TorchScript archive, which holds code\n\
                        hint: save torch.save(torch.jit.load(path).state_dict(), ...)";
            return Err(Error::Refused { path: path.into(), what: what.into() });
        }
        let locate = |name: &str| -> Result<Option<(usize, usize)>, Error> {
            let Some(&(start, size, stored)) = members.get(name) else { return Ok(None) };
            if !stored {
                return Err(Error::damaged(
                    path,
                    format!("its entry {name} is compressed, which PyTorch never does"),
                ));
            }
            let place = start.and_then(|s| usize::try_from(s).ok()).zip(usize::try_from(size).ok());
            match place {
                Some((s, n)) if s.checked_add(n).is_some_and(|end| end <= file.len()) => Ok(Some((s, n))),
                _ => Err(Error::damaged(path, format!("its entry {name} ends behind the end of the file"))),
            }
        };
        if let Some((start, size)) = locate(&format!("{root}byteorder"))?
            && &file[start..start + size] != b"little"
        {
            let what =
                "it was written on a big-endian machine\nhint: save it again on a little-endian one".into();
            return Err(Error::Refused { path: path.into(), what });
        }
        let (start, size) = locate(&format!("{root}data.pkl"))?
            .ok_or_else(|| Error::damaged(path, "its pickle is not where its directory says"))?;
        let folder = format!("{root}data/");
        let mut storages = BTreeMap::new();
        for name in members.keys() {
            if let (Some(key), Some(place)) = (name.strip_prefix(&folder), locate(name)?) {
                storages.insert(key.to_owned(), place);
            }
        }
        Ok(Self { pickle: &file[start..start + size], storages })
    }
}
