//! The values that a pickle can build.

use crate::dtype::Dtype;

/// Index of an object in its [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u32);

/// A value: small ones in place, the others in the arena.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Global(Global),
    Object(Id),
    /// Something harmless that nobody needs: byte strings, numpy scalars, `argparse.Namespace`.
    Opaque,
}

/// What a pickle may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    /// `torch.Size`, `tuple`, `list` and `set`: a sequence made of its one argument.
    Sequence,
    RebuildTensor,
    RebuildTensorV3,
    RebuildFromType,
    RebuildParameter,
    /// A typed storage; the type of the elements.
    Storage(Dtype),
    /// `torch.UntypedStorage`: bytes, whose type the tensor gives.
    UntypedStorage,
    /// `torch.float32` and the like.
    Dtype(Dtype),
    /// Builds an [`Value::Opaque`] whatever it is called with.
    Inert,
}

/// A value with parts.
#[derive(Debug)]
pub(crate) enum Object {
    Text(String),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(StorageRef),
    Tensor(Box<TensorRef>),
}

/// A storage by name; the bytes lie elsewhere in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageRef {
    /// `None` for an untyped storage.
    pub(crate) dtype: Option<Dtype>,
    /// A text.
    pub(crate) key: Value,
    /// Elements (bytes if untyped), as the pickle claims.
    pub(crate) numel: usize,
}

/// A tensor: a view of a storage. Offset and strides count elements.
#[derive(Clone, Debug)]
pub(crate) struct TensorRef {
    pub(crate) storage: StorageRef,
    pub(crate) dtype: Dtype,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// Holds the objects of one pickle.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    objects: Vec<Object>,
    /// Values copied from object to object, which cost memory without costing input.
    copied: usize,
}

impl Arena {
    /// Objects made and values copied so far.
    pub(crate) fn cost(&self) -> usize {
        self.objects.len().saturating_add(self.copied)
    }

    pub(crate) fn charge(&mut self, copied: usize) {
        self.copied = self.copied.saturating_add(copied);
    }

    pub(crate) fn add(&mut self, object: Object) -> Value {
        // The interpreter stops long before 2^32 objects.
        let id = Id(self.objects.len() as u32);
        self.objects.push(object);
        Value::Object(id)
    }

    pub(crate) fn get(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(Id(id)) => self.objects.get(id as usize),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Object(Id(id)) => self.objects.get_mut(id as usize),
            _ => None,
        }
    }

    pub(crate) fn text(&self, value: Value) -> Option<&str> {
        match self.get(value) {
            Some(Object::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub(crate) fn items(&self, value: Value) -> Option<&[Value]> {
        match self.get(value) {
            Some(Object::List(items) | Object::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.get(value) {
            Some(Object::Dict(pairs)) => Some(pairs),
            _ => None,
        }
    }
}
