//! Slices that tasks write to at the same time, each at places of its own.

use std::marker::PhantomData;

/// An exclusive slice, as a pointer that tasks share.
pub(crate) struct SharedMut<'a, T = f32> {
    ptr: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<'a, T> SharedMut<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_ptr(&self) -> *mut T {
        self.ptr
    }

    /// `len` elements from `start` on.
    ///
    /// # Panics
    /// If there are fewer.
    ///
    /// # Safety
    /// No other part that overlaps them may be alive.
    #[allow(clippy::mut_from_ref, reason = "the parts do not overlap, by the caller's promise")]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part outside of its slice");
        // SAFETY: within the slice, which is borrowed exclusively; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
}

// SAFETY: it stands for an exclusive slice, and its accessors leave it to the caller that parts are disjoint.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as for `&mut [T]`.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
