//! The few imports and calls of a state dict, each of which only builds a value.

use super::value::{Arena, Global, Object, StorageRef, TensorRef, Value};
use super::{PickleError, damaged, refused};
use crate::dtype::Dtype;

const MAX_ARGUMENTS: usize = 16;
const MAX_RANK: usize = 64;

/// Looks an import up in the list of allowed ones.
pub(super) fn global(module: &str, name: &str) -> Result<Global, PickleError> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "Size") | ("builtins" | "__builtin__", "tuple" | "list" | "set" | "frozenset") => {
            Global::Sequence
        }
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch" | "torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("torch" | "torch.cuda", storage) if storage.ends_with("Storage") => match storage_dtype(storage) {
            Some(dtype) => Global::Storage(dtype),
            None => {
                return refused(format!(
                    "its pickle holds a {module}.{name}, an element type that is not supported"
                ));
            }
        },
        ("torch", name) if dtype(name).is_some() => dtype(name).map_or(Global::Inert, Global::Dtype),
        ("torch", "Tensor" | "device" | "complex64" | "complex128")
        | ("torch.nn.parameter", "Parameter" | "Buffer")
        | ("argparse", "Namespace")
        | ("_codecs", "encode")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct") => Global::Inert,
        _ => {
            let hint = match module.split('.').next() {
                // What a pickle of code needs, as opposed to one of a whole model.
                Some(
                    "os" | "posix" | "nt" | "subprocess" | "sys" | "builtins" | "__builtin__" | "socket"
                    | "shutil",
                ) => "a checkpoint of tensors never needs that, so do not trust this file",
                _ => {
                    "this is a whole object rather than a state dict; save torch.save(model.state_dict(), ...) instead"
                }
            };
            return refused(format!("its pickle wants to import `{module}.{name}`\nhint: {hint}"));
        }
    })
}

fn storage_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" | "double" => Dtype::F64,
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "int64" | "long" => Dtype::I64,
        "int32" | "int" => Dtype::I32,
        "int16" | "short" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}

/// What `function(*arguments)` builds.
pub(super) fn call(arena: &mut Arena, function: Value, arguments: Value) -> Result<Value, PickleError> {
    let function = match function {
        Value::Global(global) => global,
        Value::Opaque => return Ok(Value::Opaque),
        _ => return damaged("the pickle calls something that is not a function"),
    };
    let arguments = match arena.items(arguments) {
        Some(arguments) if arguments.len() <= MAX_ARGUMENTS => arguments.to_vec(),
        _ => return damaged("the pickle calls a function without a short tuple of arguments"),
    };
    match (function, arguments.as_slice()) {
        (Global::Inert, _) => Ok(Value::Opaque),
        (Global::OrderedDict, []) => Ok(arena.add(Object::Dict(Vec::new()))),
        (Global::OrderedDict, &[pairs]) => ordered_dict(arena, pairs),
        (Global::Sequence, []) => Ok(arena.add(Object::List(Vec::new()))),
        (Global::Sequence, &[sequence]) if arena.items(sequence).is_some() => Ok(sequence),
        (Global::RebuildParameter, &[data, ..]) => match arena.get(data) {
            Some(Object::Tensor(_)) => Ok(data),
            _ => damaged("the pickle makes a parameter of something that is not a tensor"),
        },
        // (storage, offset, size, stride, ...)
        (Global::RebuildTensor, &[storage, offset, size, stride, ..]) => {
            tensor(arena, storage, [offset, size, stride], None)
        }
        // (storage, offset, size, stride, requires_grad, hooks, dtype, ...)
        (
            Global::RebuildTensorV3,
            &[storage, offset, size, stride, _, _, Value::Global(Global::Dtype(dtype)), ..],
        ) => tensor(arena, storage, [offset, size, stride], Some(dtype)),
        // (function, type, arguments, state); the function is one of the three above, so this ends.
        (Global::RebuildFromType, &[inner @ Value::Global(global), _, arguments, ..])
            if global != Global::RebuildFromType =>
        {
            call(arena, inner, arguments)
        }
        _ => damaged("the pickle calls a function with arguments that do not belong to it"),
    }
}

/// Python 2 pickles an `OrderedDict` as a list of pairs.
fn ordered_dict(arena: &mut Arena, pairs: Value) -> Result<Value, PickleError> {
    let items = arena.items(pairs).unwrap_or_default();
    let pairs: Option<Vec<_>> = items
        .iter()
        .map(|&pair| match arena.items(pair) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        })
        .collect();
    match pairs {
        Some(pairs) => {
            arena.charge(pairs.len());
            Ok(arena.add(Object::Dict(pairs)))
        }
        None => damaged("the pickle makes a dict of something that is not pairs"),
    }
}

/// The storage that `("storage", type, key, location, numel)` names.
pub(super) fn persistent(arena: &mut Arena, id: Value) -> Result<Value, PickleError> {
    let Some(&[tag, kind, key, _location, Value::Int(numel), ..]) = arena.items(id) else {
        return damaged("the pickle refers to something outside that is not a storage");
    };
    let dtype = match kind {
        Value::Global(Global::Storage(dtype)) => Some(dtype),
        Value::Global(Global::UntypedStorage) => None,
        _ => return damaged("the pickle has a storage of unknown type"),
    };
    match (arena.text(tag), arena.text(key), usize::try_from(numel)) {
        (Some("storage"), Some(_), Ok(numel)) => {
            Ok(arena.add(Object::Storage(StorageRef { dtype, key, numel })))
        }
        _ => damaged("the pickle has a storage without a name or size"),
    }
}

fn tensor(
    arena: &mut Arena,
    storage: Value,
    [offset, size, stride]: [Value; 3],
    dtype: Option<Dtype>,
) -> Result<Value, PickleError> {
    let Some(&Object::Storage(storage)) = arena.get(storage) else {
        return damaged("the pickle has a tensor without a storage");
    };
    let Some(dtype) = dtype.or(storage.dtype) else {
        return damaged("the pickle has a tensor without an element type");
    };
    match (extent(offset), extents(arena, size), extents(arena, stride)) {
        (Some(offset), Some(shape), Some(strides)) => {
            arena.charge(shape.len() + strides.len());
            Ok(arena.add(Object::Tensor(Box::new(TensorRef { storage, dtype, offset, shape, strides }))))
        }
        _ => damaged("the pickle has a tensor with an impossible shape, stride or offset"),
    }
}

fn extent(value: Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

fn extents(arena: &Arena, value: Value) -> Option<Vec<usize>> {
    let items = arena.items(value).filter(|items| items.len() <= MAX_RANK)?;
    items.iter().map(|&v| extent(v)).collect()
}
