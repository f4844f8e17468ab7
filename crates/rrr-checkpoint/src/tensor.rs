//! Where a tensor lies in a file, checked once so that reading it cannot fail.

use std::borrow::Cow;

use rrr_kernels::mmap::as_f32;

use crate::dtype::Dtype;
use crate::error::shape as shape_text;

/// Elements that a broadcast tensor (stride 0) may unfold to beyond its storage.
const MAX_BROADCAST: usize = 1 << 24;

/// Name, type and shape of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file, prefix included; names inside nested dicts are joined with dots.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor and the bytes it lives in.
///
/// Invariants, established by [`Slot::new`]: every element that `shape` and `strides` can address lies inside
/// `start..start + len`, which lies inside the file, and the number of elements fits memory.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) info: TensorInfo,
    /// First byte of the first element.
    start: usize,
    /// In elements.
    strides: Vec<usize>,
}

/// The bytes of a file that hold a run of elements, and a tensor's place among them (offset and strides in elements).
pub(crate) struct Placement<'a> {
    pub(crate) storage_start: usize,
    pub(crate) storage_bytes: usize,
    pub(crate) offset: usize,
    pub(crate) strides: Option<&'a [usize]>,
}

impl Slot {
    /// Checks that the tensor lies inside its storage and the storage inside a file of `file_bytes`.
    pub(crate) fn new(info: TensorInfo, place: &Placement<'_>, file_bytes: usize) -> Result<Self, String> {
        let describe = || format!("tensor {} ({} {})", info.name, info.dtype, shape_text(&info.shape));
        let huge = || format!("{} is too large to exist", describe());
        let numel = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(huge)?;
        numel.checked_mul(8).filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(huge)?;
        let strides = match place.strides {
            // The stride of an axis of extent 1 addresses nothing and may be anything.
            Some(strides) if strides.len() == info.shape.len() => {
                strides.iter().zip(&info.shape).map(|(&s, &d)| if d > 1 { s } else { 0 }).collect()
            }
            Some(_) => return Err(format!("{} has a different number of strides", describe())),
            None => contiguous(&info.shape),
        };
        let end = place.storage_start.checked_add(place.storage_bytes).ok_or_else(huge)?;
        if end > file_bytes {
            return Err(format!("the storage of {} ends behind the end of the file", describe()));
        }
        let capacity = place.storage_bytes / info.dtype.size();
        if numel > 0 {
            let last = info
                .shape
                .iter()
                .zip(&strides)
                .try_fold(place.offset, |sum, (&d, &s)| sum.checked_add((d - 1).checked_mul(s)?));
            if last.is_none_or(|last| last >= capacity) {
                return Err(format!("{} does not fit its storage of {capacity} elements", describe()));
            }
            if numel > capacity.max(MAX_BROADCAST) {
                return Err(format!("{} repeats a storage of only {capacity} elements", describe()));
            }
        }
        let start = if numel == 0 {
            place.storage_start
        } else {
            place.storage_start + place.offset * info.dtype.size()
        };
        Ok(Self { info, start, strides })
    }

    /// The elements in row-major order; where they lie, if the file holds them just so.
    pub(crate) fn view_f32<'a>(&self, file: &'a [u8]) -> Cow<'a, [f32]> {
        let (size, shape) = (self.info.dtype.size(), &self.info.shape);
        let numel = self.info.numel();
        if numel == 0 {
            return Cow::Owned(Vec::new());
        }
        if self.is_contiguous() {
            let bytes = &file[self.start..self.start + numel * size];
            return match as_f32(bytes) {
                Some(values) if self.info.dtype == Dtype::F32 => Cow::Borrowed(values),
                _ => Cow::Owned(self.info.dtype.to_f32(bytes.chunks_exact(size))),
            };
        }
        // An odometer over the shape; `at` is the element that the digits address.
        let mut digits = vec![0usize; shape.len()];
        let mut at = 0usize;
        let elements = (0..numel).map(|_| {
            let here = self.start + at * size;
            for axis in (0..shape.len()).rev() {
                digits[axis] += 1;
                at += self.strides[axis];
                if digits[axis] < shape[axis] {
                    break;
                }
                at -= self.strides[axis] * shape[axis];
                digits[axis] = 0;
            }
            &file[here..here + size]
        });
        Cow::Owned(self.info.dtype.to_f32(elements))
    }

    fn is_contiguous(&self) -> bool {
        let expected = contiguous(&self.info.shape);
        self.info.shape.iter().zip(self.strides.iter().zip(&expected)).all(|(&d, (s, e))| d == 1 || s == e)
    }
}

/// Row-major strides in elements. The product of the extents must not overflow.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}
