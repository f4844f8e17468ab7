//! Bounds-checked reading of a pickle's bytes.

use super::{PickleError, damaged};

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let rest = &self.bytes[self.at..];
        match rest.get(..count) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => damaged(format!("the pickle ends at byte {} in the middle of a value", self.bytes.len())),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn length_u32(&mut self) -> Result<usize, PickleError> {
        length(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn length_i32(&mut self) -> Result<usize, PickleError> {
        length(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn length_u64(&mut self) -> Result<usize, PickleError> {
        length(u64::from_le_bytes(self.array()?))
    }

    /// Text up to a newline, which is consumed.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            return damaged("the pickle ends in the middle of a name");
        };
        self.at += end + 1;
        match std::str::from_utf8(&rest[..end]) {
            Ok(line) => Ok(line),
            Err(_) => damaged("the pickle imports a name that is not text"),
        }
    }
}

fn length(value: impl TryInto<usize>) -> Result<usize, PickleError> {
    value.try_into().or_else(|_| damaged("the pickle has a value of impossible length"))
}
