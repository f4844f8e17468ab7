//! A stem that is not trained, in inference form.

use crate::Images;
use crate::folded::{self, Folded, Input, Place};
use crate::input::PaddedImages;
use crate::network;
use crate::plans::{Plans, Workspace};
use crate::profile::timed;
use rrr_kernels::Activation;

/// The stem's output; `padded` is memory for images.
pub(crate) fn run(
    stem: &Folded,
    images: &Images<'_>,
    padded: &mut PaddedImages,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let (compute, profile) = plans.compute_and_profile();
    timed(profile, || "images".into(), 0, || padded.load(images, compute));
    let (size, stem) = ((images.height, images.width), std::slice::from_ref(stem));
    if stem[0].blocks.is_empty() {
        let mut pass = folded::Pass { place: "stem", plans, workspace, observer: None };
        return folded::run(stem, Input::Images(padded.all()), &mut pass);
    }
    let (channels, output) = stem[0].output(size);
    let mut whole = workspace.take_many(1, channels, output, images.n);
    for part in network::stem_parts(images.n, size, true) {
        let input = Input::Images(padded.some(part.clone()));
        let place = Place { whole: &mut whole, images: part };
        let mut pass = folded::Pass { place: "stem", plans, workspace, observer: None };
        folded::run_into(stem, input, place, &mut pass);
    }
    whole
}
