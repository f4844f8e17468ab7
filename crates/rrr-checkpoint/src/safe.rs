//! Safetensors: a JSON header and the tensors' bytes after it.

use std::path::Path;

use safetensors::{Dtype as Stored, SafeTensors};

use crate::checkpoint::Contents;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::tensor::{Placement, Slot, TensorInfo};

/// Lists the tensors of a safetensors file, in the order of their data.
pub(crate) fn read(path: &Path, file: &[u8]) -> Result<Contents, Error> {
    let bad = |what: String| Error::damaged(path, what);
    // The library says "header too large" of any wrong length; a file cut short deserves plainer words.
    let length = file.first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes));
    let held = file.len().saturating_sub(8) as u64;
    if length > held {
        return Err(bad(format!("its header should be {length} bytes long, but only {held} are there")));
    }
    let (header, metadata) = SafeTensors::read_metadata(file)
        .map_err(|e| bad(format!("its safetensors header is wrong ({e})")))?;
    let data_start = header + 8;
    if data_start.checked_add(metadata.data_len()) != Some(file.len()) {
        let (have, want) = (file.len() - data_start.min(file.len()), metadata.data_len());
        return Err(bad(format!("it holds {have} bytes of tensors instead of {want}")));
    }
    let mut slots = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let Some(dtype) = dtype(info.dtype) else {
            return Err(bad(format!(
                "tensor {name} has the element type {:?}, which is not supported",
                info.dtype
            )));
        };
        let (start, end) = info.data_offsets;
        let info = TensorInfo { name, dtype, shape: info.shape.clone() };
        let place = Placement {
            storage_start: data_start.saturating_add(start),
            storage_bytes: end.saturating_sub(start),
            offset: 0,
            strides: None,
        };
        slots.push(Slot::new(info, &place, file.len()).map_err(bad)?);
    }
    let metadata = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Contents { slots, metadata, wrapper: None })
}

fn dtype(stored: Stored) -> Option<Dtype> {
    Some(match stored {
        Stored::F64 => Dtype::F64,
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::Bf16,
        Stored::I64 => Dtype::I64,
        Stored::I32 => Dtype::I32,
        Stored::I16 => Dtype::I16,
        Stored::I8 => Dtype::I8,
        Stored::U64 => Dtype::U64,
        Stored::U32 => Dtype::U32,
        Stored::U16 => Dtype::U16,
        Stored::U8 => Dtype::U8,
        Stored::BOOL => Dtype::Bool,
        _ => return None,
    })
}
