//! What the tests of bf16 share.

use rrr_kernels::{Bf16Activation, Isa};

/// Instruction sets of this machine for products of tiles. Miri, which takes long for each one in plain Rust, interprets
/// those in `bf16.rs`.
pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| !(cfg!(miri) && *isa == Isa::Portable))
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
