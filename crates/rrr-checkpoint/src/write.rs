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

/// A tensor to be written: signed bytes, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Int8Ref<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Extents, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// As many values as the shape says.
    pub data: &'a [i8],
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
    write_safetensors_with_int8(path, tensors, &[], metadata)
}

/// [`write_safetensors`] with tensors of bytes among them.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_safetensors_with_int8(
    path: impl AsRef<Path>,
    tensors: &[TensorRef<'_>],
    int8: &[Int8Ref<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let path = path.as_ref();
    let bad = |what: String| Error::BadTensor { path: path.into(), what };
    let floats = tensors.iter().map(|t| Entry { name: t.name, shape: t.shape, data: Data::F32(t.data) });
    let bytes = int8.iter().map(|t| Entry { name: t.name, shape: t.shape, data: Data::I8(t.data) });
    let mut sorted = BTreeMap::new();
    for tensor in floats.chain(bytes) {
        let numel = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let held = tensor.data.len();
        if numel != Some(held) {
            let shape = shape_text(tensor.shape);
            return Err(bad(format!("tensor {} of shape {shape} comes with {held} values", tensor.name)));
        }
        if tensor.name == METADATA {
            return Err(bad(format!("{METADATA} is no name for a tensor")));
        }
        let name = tensor.name;
        if sorted.insert(name, tensor).is_some() {
            return Err(bad(format!("tensor {name} comes twice")));
        }
    }
    let header = header(sorted.values(), metadata);
    atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        sorted.values().try_for_each(|tensor| tensor.data.write(file))
    })
}

/// A tensor of either type.
struct Entry<'a> {
    name: &'a str,
    shape: &'a [usize],
    data: Data<'a>,
}

enum Data<'a> {
    F32(&'a [f32]),
    I8(&'a [i8]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I8(values) => values.len(),
        }
    }

    /// The format's name of the type, and its size in bytes.
    fn dtype(&self) -> (&'static str, usize) {
        match self {
            Self::F32(_) => ("F32", 4),
            Self::I8(_) => ("I8", 1),
        }
    }

    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(4 * CHUNK.min(self.len()));
        let mut put = |chunk: &mut dyn Iterator<Item = u8>| {
            bytes.clear();
            bytes.extend(chunk);
            file.write_all(&bytes)
        };
        match self {
            Self::F32(values) => values
                .chunks(CHUNK)
                .try_for_each(|chunk| put(&mut chunk.iter().flat_map(|x| x.to_le_bytes()))),
            Self::I8(values) => {
                values.chunks(CHUNK).try_for_each(|chunk| put(&mut chunk.iter().map(|x| x.cast_unsigned())))
            }
        }
    }
}

const METADATA: &str = "__metadata__";
/// Values converted at a time.
const CHUNK: usize = 1 << 14;

/// The JSON header, padded with spaces so that the data begin at a multiple of eight bytes.
fn header<'a>(tensors: impl Iterator<Item = &'a Entry<'a>>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    // `serde_json::Map` keeps its keys sorted.
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0usize;
    for tensor in tensors {
        let (dtype, size) = tensor.data.dtype();
        let end = start + size * tensor.data.len();
        entries.insert(
            tensor.name.into(),
            json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] }),
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
    let fail = |e: io::Error| not_written(path, &e);
    let folder = folder_of(path);
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

/// Checks that `path` can be written, before long work for it.
///
/// # Errors
/// If its folder is missing or read-only.
pub fn check_writable(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let made = tempfile::Builder::new().prefix(".rrr-").suffix(".tmp").tempfile_in(folder_of(path));
    made.map(drop).map_err(|e| not_written(path, &e))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn not_written(path: &Path, e: &io::Error) -> Error {
    let reason = match e.kind() {
        io::ErrorKind::NotFound => "its folder does not exist".into(),
        _ => plain(e),
    };
    Error::io("write", path, io::Error::new(e.kind(), reason))
}

/// The system's words for what it does not do with a file or folder, the usual suspects put plainly, without the name of
/// a temporary file.
pub fn plain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is where a folder would be".into()
        }
        io::ErrorKind::IsADirectory => "a folder is in its place".into(),
        _ => e
            .raw_os_error()
            .map_or_else(|| e.to_string(), |code| io::Error::from_raw_os_error(code).to_string()),
    }
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
