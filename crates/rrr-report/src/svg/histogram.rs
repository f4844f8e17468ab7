use super::Caption;
use super::builder::{Frame, Svg};
use super::scale::{Scale, Unit};

/// Counts in adjoining bins.
#[derive(Debug, Clone)]
pub struct Histogram<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// What the x axis measures.
    pub x_label: &'a str,
    /// Lower edge, upper edge and count of every bin, by rising edge.
    pub bins: &'a [(f64, f64, usize)],
    /// How edges are written.
    pub unit: Unit,
    /// A position marked with a dashed vertical line, with its name.
    pub mark: Option<(f64, &'a str)>,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 290.0;

/// Draws a histogram.
pub fn histogram(chart: &Histogram<'_>) -> String {
    let frame = Frame { left: 52.0, top: 32.0, right: WIDTH - 14.0, bottom: HEIGHT - 40.0 };
    let edges = (chart.bins.first().map_or(0.0, |bin| bin.0), chart.bins.last().map_or(1.0, |bin| bin.1));
    let most = chart.bins.iter().map(|bin| bin.2).max().unwrap_or(0).max(1) as f64;
    let x = Scale::new(edges, (frame.left, frame.right));
    // Counts are whole numbers, so a small maximum must not be divided further.
    let targets = (most as usize).min(5);
    let y = Scale::rounded_up((0.0, most), (frame.bottom, frame.top), targets);

    let mut svg = Svg::new(WIDTH, HEIGHT, chart.caption);
    svg.y_axis(frame, &y, Unit::Number, targets);
    svg.x_axis(frame, &x, chart.unit, 5, false);
    for &(low, high, count) in chart.bins {
        let (left, right, top) = (x.at(low) + 1.0, x.at(high) - 1.0, y.at(count as f64));
        let hover = format!("{} to {}: {count}", chart.unit.value(low), chart.unit.value(high));
        svg.rect("class=\"bar strong\"", (left, top), (right - left, frame.bottom - top), &hover);
    }
    svg.line("axis", (frame.left, frame.bottom), (frame.right, frame.bottom));
    if let Some((at, name)) = chart.mark {
        let at = x.at(at);
        svg.line("reference", (at, frame.top - 8.0), (at, frame.bottom));
        let anchor = if at > (frame.left + frame.right) / 2.0 { "end" } else { "start" };
        svg.text((at, frame.top - 14.0), "label", anchor, name);
    }
    svg.text(((frame.left + frame.right) / 2.0, HEIGHT - 6.0), "label", "middle", chart.x_label);
    svg.finish()
}
