use super::Caption;
use super::builder::{Frame, Svg};
use super::scale::{Scale, Unit};
use crate::metrics::CalibrationBin;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 290.0;

/// Draws a reliability diagram: the accuracy of every confidence bin as a level, and its gap to the bin's mean
/// confidence.
///
/// With perfect calibration every level lies on the dashed diagonal.
pub fn reliability_diagram(bins: &[CalibrationBin], caption: Caption<'_>) -> String {
    let frame = Frame { left: 52.0, top: 32.0, right: WIDTH - 14.0, bottom: HEIGHT - 40.0 };
    let x = Scale::new((0.0, 1.0), (frame.left, frame.right));
    let y = Scale::new((0.0, 1.0), (frame.bottom, frame.top));

    let mut svg = Svg::new(WIDTH, HEIGHT, caption);
    svg.y_axis(frame, &y, Unit::Percent, 5);
    svg.x_axis(frame, &x, Unit::Percent, 5, false);
    for bin in bins {
        let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.confidence) else { continue };
        let (left, right) = (x.at(bin.low) + 1.0, x.at(bin.high) - 1.0);
        let confidence = confidence.clamp(0.0, 1.0);
        let (top, ideal) = (y.at(accuracy), y.at(confidence));
        let hover = format!(
            "confidence {}, accuracy {}, {} images",
            Unit::Percent.value(confidence),
            Unit::Percent.value(accuracy),
            bin.count
        );
        let (lower, upper) = (top.max(ideal), top.min(ideal));
        svg.rect("class=\"bar strong\"", (left, lower), (right - left, frame.bottom - lower), &hover);
        svg.rect("class=\"gap\"", (left, upper), (right - left, lower - upper), &hover);
        svg.line("level", (left, top), (right, top));
    }
    svg.line("axis", (frame.left, frame.bottom), (frame.right, frame.bottom));
    svg.line("reference", (frame.left, frame.bottom), (frame.right, frame.top));
    svg.line("level", (frame.left, 14.0), (frame.left + 18.0, 14.0));
    svg.text((frame.left + 24.0, 18.0), "label", "start", "accuracy");
    svg.rect("class=\"gap\"", (frame.left + 92.0, 8.0), (12.0, 12.0), "");
    svg.text((frame.left + 110.0, 18.0), "label", "start", "gap to confidence");
    svg.text(((frame.left + frame.right) / 2.0, HEIGHT - 6.0), "label", "middle", "confidence");
    svg.finish()
}
