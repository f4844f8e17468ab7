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

/// As [`prefetch`], of a line that will be written, into the first-level cache.
#[inline(always)]
pub fn prefetch_to_write(line: *const impl Sized) {
    // SAFETY: a hint, which changes nothing; x86-64 CPUs that do not know it pass over it.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags))
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = line;
}
