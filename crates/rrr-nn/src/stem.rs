//! A stem that is not trained, in inference form.

use crate::Images;
use crate::folded::{self, Folded, Input};
use crate::input::PaddedImages;
use crate::network;
use crate::plans::{Plans, Workspace};
use rrr_kernels::Activation;

/// The stem's output; `padded` is memory for images.
pub(crate) fn run(
    stem: &Folded,
    images: &Images<'_>,
    padded: &mut PaddedImages,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    padded.load(images, plans.compute());
    let mut output: Option<Vec<Activation>> = None;
    for part in network::parts(images.n, (images.height, images.width)) {
        let input = Input::Images(padded.some(part.clone()));
        let mut pass = folded::Pass { plans, workspace, observer: None };
        let y = folded::run(std::slice::from_ref(stem), input, &mut pass);
        if part.len() == images.n {
            return y;
        }
        let (channels, size) = (y[0].channels(), (y[0].height(), y[0].width()));
        let whole = output.get_or_insert_with(|| workspace.take_many(1, channels, size, images.n));
        whole[0].put(part.start, &y[0], plans.compute().pool());
        workspace.give(y);
    }
    output.expect("a batch has images")
}
