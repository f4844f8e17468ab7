use super::Caption;
use super::builder::{Frame, Svg};
use super::scale::{Scale, Unit};
use super::text::{shorten, width};

/// One bar.
#[derive(Debug, Clone, Copy)]
pub struct Bar<'a> {
    /// Label on the left.
    pub label: &'a str,
    /// Length.
    pub value: f64,
    /// Ends of an error bar.
    pub interval: Option<(f64, f64)>,
    /// Drawn in the accent colour.
    pub strong: bool,
}

/// Horizontal bars from zero.
#[derive(Debug, Clone)]
pub struct BarChart<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// The bars, from top to bottom.
    pub bars: &'a [Bar<'a>],
    /// How values are written.
    pub unit: Unit,
    /// End of the value axis; the largest value, rounded up, when none.
    pub max: Option<f64>,
    /// Where a dashed vertical line is drawn for comparison.
    pub reference: Option<f64>,
}

const WIDTH: f64 = 440.0;
const MAX_LABEL: usize = 24;

/// Draws a bar chart.
pub fn bar_chart(chart: &BarChart<'_>) -> String {
    let pitch = match chart.bars.len() {
        0..=12 => 24.0,
        13..=40 => 18.0,
        _ => 14.0,
    };
    let labels: Vec<_> = chart.bars.iter().map(|bar| shorten(bar.label, MAX_LABEL)).collect();
    let label_width = labels.iter().map(|label| width(label, 11.5)).fold(20.0, f64::max);
    let frame = Frame {
        left: label_width + 12.0,
        top: 8.0,
        right: WIDTH - 54.0,
        bottom: 8.0 + pitch * chart.bars.len() as f64,
    };
    let pixels = (frame.left, frame.right);
    let longest = chart.bars.iter().map(|bar| bar.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let x = match chart.max {
        Some(max) => Scale::new((0.0, max), pixels),
        None => Scale::rounded_up((0.0, if longest > 0.0 { longest } else { 1.0 }), pixels, 5),
    };

    let mut svg = Svg::new(WIDTH, frame.bottom + 24.0, chart.caption);
    svg.x_axis(frame, &x, chart.unit, 5, true);
    for (index, (bar, label)) in chart.bars.iter().zip(&labels).enumerate() {
        let middle = frame.top + pitch * (index as f64 + 0.5);
        let thickness = (pitch * 0.66).round();
        let class = if bar.strong { "class=\"bar strong\" rx=\"2\"" } else { "class=\"bar\" rx=\"2\"" };
        let value = if bar.value.is_finite() { bar.value.clamp(0.0, x.high) } else { 0.0 };
        let mut hover = format!("{}: {}", bar.label, chart.unit.value(bar.value));
        if let Some((low, high)) = bar.interval {
            hover.push_str(&format!(" ({} to {})", chart.unit.value(low), chart.unit.value(high)));
        }
        let (top, length) = (middle - thickness / 2.0, x.at(value) - frame.left);
        svg.rect(class, (frame.left, top), (length, thickness), &hover);
        if let Some((low, high)) = bar.interval {
            let (low, high) = (x.at(low), x.at(high));
            svg.line("whisker", (low, middle), (high, middle));
            for end in [low, high] {
                svg.line("whisker", (end, middle - 4.0), (end, middle + 4.0));
            }
        }
        svg.text((frame.left - 8.0, middle + 4.0), "label", "end", label);
        svg.text((WIDTH - 4.0, middle + 4.0), "tick", "end", &chart.unit.value(bar.value));
    }
    svg.line("axis", (frame.left, frame.top), (frame.left, frame.bottom));
    if let Some(reference) = chart.reference {
        svg.line("reference", (x.at(reference), frame.top), (x.at(reference), frame.bottom));
    }
    svg.finish()
}
