//! Memory for activations, weights and gradients.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const ALIGN: usize = 64;

/// Plain numbers of which all bits zero is one.
pub trait Element: Copy + Send + Sync + private::Sealed {}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
}

impl Element for f32 {}
impl Element for u32 {}

/// A zero-initialised `[T]` that begins on a cache line.
pub struct Aligned<T: Element> {
    /// What was allocated, up to a cache line before the elements.
    base: NonNull<u8>,
    ptr: NonNull<T>,
    len: usize,
}

/// A zero-initialised `[f32]` that begins on a cache line.
pub type Buffer = Aligned<f32>;

impl<T: Element> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { base: NonNull::dangling(), ptr: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a non-zero size.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: there is room for `len` elements behind the first cache line that begins in the allocation.
        let ptr = unsafe { base.add(base.align_offset(ALIGN)) }.cast::<T>();
        Self { base, ptr, len }
    }

    /// The memory as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: elements are plain numbers, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().cast(), self.len * size_of::<T>()) }
    }

    /// The memory as bytes.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`; every byte pattern is an element, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().cast(), self.len * size_of::<T>()) }
    }

    /// The alignment is the allocator's usual one: asked for more, it would write the zeros itself, where fresh memory
    /// comes zeroed from the system and is touched first by whoever uses it.
    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(ALIGN));
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, align_of::<T>()).ok());
        layout.expect("buffer size overflows")
    }
}

impl<T: Element> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: Element> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Drop for Aligned<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `zeros` with the same layout.
            unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) }
        }
    }
}

impl<T: Element> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `ptr` is valid for `len` initialised elements (dangling but aligned when `len` is 0).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

// SAFETY: an `Aligned` owns its memory, as a `Vec` does.
unsafe impl<T: Element> Send for Aligned<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Element> Sync for Aligned<T> {}
