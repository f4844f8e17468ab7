//! Intel AMX: tiles in registers, and whether there are any.
//!
//! Rust has no intrinsics for AMX, so these are assembly; every block loads, computes and stores its tiles
//! itself. See the Intel 64 and IA-32 Architectures Software Developer's Manual, "AMX".

mod finishing;
mod peak;
mod product;
mod rows;

pub(crate) use finishing::product_finishing;
pub(crate) use peak::{bf16_multiply_adds, int8_multiply_adds};
pub(crate) use product::{first_sum, operands_of_step, product};
pub(crate) use rows::row_tiles;

use super::{ROW_BYTES, Registers, Step, TILE_BYTES};
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;
use std::sync::OnceLock;

/// Whether the CPU has AMX tiles of bf16 and int8, and the system lets this process use them. Taken for granted in builds
/// for tests that bring AMX in software (`.ci/amx`).
pub fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| cfg!(emulated_amx) || has_tiles() && system_saves_tiles() && request_permission())
}

fn has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE | INT8) == BF16 | TILE | INT8
}

/// Whether the operating system has enabled the tile state.
fn system_saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: the caller has checked OSXSAVE.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: OSXSAVE says that XGETBV can be used.
    __cpuid(1).ecx & OSXSAVE != 0 && unsafe { xcr0() } & TILE_STATE == TILE_STATE
}

/// Asks Linux to let this process use tile data: its state is large, so it must be asked for
/// (`Documentation/arch/x86/xstate.rst`).
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const SYS_ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = SYS_ARCH_PRCTL as isize;
    // SAFETY: this system call touches no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// The tile registers of this thread, configured as eight whole tiles; released when dropped, so that the
/// system need not save them any more.
pub struct Amx(());

#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    const EIGHT_WHOLE: TileConfig = {
        let mut config =
            TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            config.row_bytes[tile] = ROW_BYTES as u16;
            config.rows[tile] = 16;
            tile += 1;
        }
        config
    };
}

impl Amx {
    /// Stores the sums of a product of `m` tiles of rows: two tiles of each.
    ///
    /// # Safety
    /// `sums` must have room for them.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, sums: *mut u32, m: usize) {
        // SAFETY: by the caller; a value exists only where AMX is usable.
        unsafe {
            asm!(
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "cmp {m}, 1",
                "je 2f",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                "2:",
                sums = in(reg) sums,
                row = in(reg) ROW_BYTES,
                m = in(reg) m,
                options(nostack),
            );
        }
    }
}

impl Drop for Amx {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a value exists only where AMX is usable.
        unsafe { asm!("tilerelease", options(nostack)) }
    }
}

impl Registers for Amx {
    #[inline(always)]
    unsafe fn new() -> Self {
        static CONFIG: TileConfig = TileConfig::EIGHT_WHOLE;
        // SAFETY: AMX is usable, by the caller; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
        Self(())
    }
}

/// What a product needs to know of an outcome whose sums it finishes: registers of its assembly.
pub struct Operands {
    pub a: *const f32,
    pub s: *const f32,
    pub b: f32,
}

impl Operands {
    /// Of no outcome.
    pub const NONE: Operands = Operands { a: std::ptr::null(), s: std::ptr::null(), b: 0.0 };
}

// What the assembly takes for granted.
const _: () = {
    assert!(TILE_BYTES == 1 << 10 && size_of::<Step>() == 32);
    assert!(offset_of!(Step, a) == 0 && offset_of!(Step, stride) == 16 && offset_of!(Step, b) == 24);
};
