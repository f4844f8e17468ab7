//! What the tests of bf16 share.

#![allow(dead_code, reason = "not every test program needs all of it")]

use rrr_kernels::{Bf16Activation, Isa};

/// Instruction sets of this machine for products of tiles. Miri, which takes long for each one in plain Rust, interprets
/// those in `bf16.rs`.
pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| !(cfg!(miri) && *isa == Isa::Portable))
}

/// Whether an instruction set's sums are those of AMX, to the bit.
pub fn has_bits_of_amx(isa: Isa) -> bool {
    isa != Isa::Avx512Bf16
}

/// Whether sums differ by no more than another order of their terms makes them, of values that are partly rounded to bf16.
pub fn are_close(a: &[f32], b: &[f32]) -> bool {
    let most = b.iter().fold(0.0f32, |most, b| most.max(b.abs()));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 128.0 + most * 1e-4;
    a.len() == b.len() && a.iter().zip(b).all(close)
}

/// All values, `[group][n][channels][height][width]`.
pub fn values_of(a: &Bf16Activation) -> Vec<f32> {
    let pixels = a.size().0 * a.size().1;
    let mut values = Vec::new();
    for group in 0..a.groups() {
        for image in 0..a.n() {
            for channel in 0..a.channels() {
                values.extend((0..pixels).map(|pixel| a.get(group, image, channel, pixel)));
            }
        }
    }
    values
}
