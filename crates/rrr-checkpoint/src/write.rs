//! Atomic writing of files, and the safetensors writer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, shape as shape_text};

/// A tensor to be written: f32, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Extents, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// As many values as the shape says.
    pub data: &'a [f32],
}

/// Writes `bytes` to `path` so that at every moment the old file or the whole new one is there: into a temporary file
/// in the same folder, synced, then renamed.
///
/// # Errors
/// If the folder is missing or read-only, or the disk is full; the old file, if any, is then untouched.
pub fn atomic_write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), Error> {
    atomically(path.as_ref(), |file| file.write_all(bytes))
}

/// Writes a safetensors file atomically (see [`atomic_write`]).
///
/// The bytes depend only on the content: tensors are sorted by name and so is `metadata`, which any reader of the
/// format sees as the header's `__metadata__`, and [`Checkpoint::metadata`](crate::Checkpoint::metadata) gives back.
///
/// # Errors
/// If a name comes twice or is reserved, a shape and its data differ in size, or the file cannot be written.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[TensorRef<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let path = path.as_ref();
    let bad = |what: String| Error::BadTensor { path: path.into(), what };
    let mut sorted = BTreeMap::new();
    for tensor in tensors {
        let numel = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if numel != Some(tensor.data.len()) {
            let (shape, held) = (shape_text(tensor.shape), tensor.data.len());
            return Err(bad(format!("tensor {} of shape {shape} comes with {held} values", tensor.name)));
        }
        if tensor.name == METADATA {
            return Err(bad(format!("{METADATA} is no name for a tensor")));
        }
        if sorted.insert(tensor.name, tensor).is_some() {
            return Err(bad(format!("tensor {} comes twice", tensor.name)));
        }
    }
    let header = header(sorted.values().copied(), metadata);
    atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(4 * CHUNK);
        for chunk in sorted.values().flat_map(|tensor| tensor.data.chunks(CHUNK)) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

const METADATA: &str = "__metadata__";
/// Values converted at a time.
const CHUNK: usize = 1 << 14;

/// The JSON header, padded with spaces so that the data begin at a multiple of eight bytes.
fn header<'a>(
    tensors: impl Iterator<Item = &'a TensorRef<'a>>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    // `serde_json::Map` keeps its keys sorted.
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0usize;
    for tensor in tensors {
        let end = start + 4 * tensor.data.len();
        entries.insert(
            tensor.name.into(),
            json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// Runs `write` on a temporary file beside `path` and puts it in its place.
pub(crate) fn atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), Error> {
    let fail = |e: io::Error| Error::io("write", path, e);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // What a plain `File::create` asks for; the umask applies, unlike to tempfile's own 0600.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.prefix(".rrr-").suffix(".tmp").tempfile_in(folder).map_err(fail)?;
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(fail)?;
    drop(buffered);
    temporary.as_file().sync_all().map_err(fail)?;
    temporary.persist(path).map_err(|e| fail(e.error))?;
    sync_folder(folder).map_err(fail)
}

/// Makes the renaming itself durable, where the system allows to sync a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        match File::open(folder)?.sync_all() {
            // Some network and virtual file systems cannot.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    } else {
        Ok(())
    }
}
