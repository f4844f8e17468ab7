//! Element types and their conversion to f32.

use std::fmt;

use serde::Serialize;

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, zero or not.
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether weights come in this type (counters and indices come in the others).
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// The field's name of the type, such as `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// Converts little-endian elements, in the order of `chunks`, rounding to nearest where f32 is too narrow.
    /// Every chunk is exactly [`Dtype::size`] bytes.
    pub(crate) fn to_f32<'a>(self, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<f32> {
        /// Reads a chunk as an array; its length was fixed by whoever cut the chunks.
        fn array<const N: usize>(chunk: &[u8]) -> [u8; N] {
            let mut bytes = [0; N];
            bytes.copy_from_slice(chunk);
            bytes
        }
        match self {
            Self::F64 => chunks.map(|c| f64::from_le_bytes(array(c)) as f32).collect(),
            Self::F32 => chunks.map(|c| f32::from_le_bytes(array(c))).collect(),
            Self::F16 => chunks.map(|c| half::f16::from_le_bytes(array(c)).to_f32()).collect(),
            Self::Bf16 => chunks.map(|c| half::bf16::from_le_bytes(array(c)).to_f32()).collect(),
            Self::I64 => chunks.map(|c| i64::from_le_bytes(array(c)) as f32).collect(),
            Self::I32 => chunks.map(|c| i32::from_le_bytes(array(c)) as f32).collect(),
            Self::I16 => chunks.map(|c| f32::from(i16::from_le_bytes(array(c)))).collect(),
            Self::I8 => chunks.map(|c| f32::from(i8::from_le_bytes(array(c)))).collect(),
            Self::U64 => chunks.map(|c| u64::from_le_bytes(array(c)) as f32).collect(),
            Self::U32 => chunks.map(|c| u32::from_le_bytes(array(c)) as f32).collect(),
            Self::U16 => chunks.map(|c| f32::from(u16::from_le_bytes(array(c)))).collect(),
            Self::U8 => chunks.map(|c| f32::from(c[0])).collect(),
            Self::Bool => chunks.map(|c| f32::from(u8::from(c[0] != 0))).collect(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
