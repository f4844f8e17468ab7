//! Asking for what will be read soon.

/// Into the first-level cache: the numbers are x86's hints.
pub const NEAR: i32 = 3;
/// Into the second-level cache.
pub const FAR: i32 = 2;

/// Asks for the line of an address, which may be any; does nothing on CPUs other than x86.
#[inline(always)]
pub fn prefetch<const HINT: i32>(line: *const impl Sized) {
    // SAFETY: a hint, which reads nothing; every x86-64 has it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(line.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
