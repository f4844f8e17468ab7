use super::Caption;
use super::builder::{Frame, Svg, number};
use super::scale::{Scale, Unit};
use super::text::{escape, shorten, width};

/// A value with the ends of its interval.
#[derive(Debug, Clone, Copy)]
pub struct Interval<'a> {
    /// Label on the left.
    pub label: &'a str,
    /// The value.
    pub value: f64,
    /// Lower and upper end.
    pub ends: (f64, f64),
}

/// Intervals one below the other, with a line at zero.
#[derive(Debug, Clone)]
pub struct Intervals<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// What the x axis measures.
    pub x_label: &'a str,
    /// The intervals, from top to bottom.
    pub rows: &'a [Interval<'a>],
}

const WIDTH: f64 = 440.0;
const ROW: f64 = 24.0;
const MAX_LABEL: usize = 24;

/// Draws intervals; those away from zero in the accent colour.
pub fn intervals(chart: &Intervals<'_>) -> String {
    let labels: Vec<_> = chart.rows.iter().map(|row| shorten(row.label, MAX_LABEL)).collect();
    let label_width = labels.iter().map(|label| width(label, 11.5)).fold(20.0, f64::max);
    let bottom = 8.0 + ROW * chart.rows.len() as f64;
    let frame = Frame { left: label_width + 16.0, top: 8.0, right: WIDTH - 16.0, bottom };
    let ends = || chart.rows.iter().flat_map(|r| [r.ends.0, r.ends.1]).filter(|x| x.is_finite());
    let (low, high) = (ends().fold(0.0, f64::min), ends().fold(0.0, f64::max));
    let pad = 0.05 * (high - low);
    let x = Scale::new((low - pad, high + pad), (frame.left, frame.right));

    let mut svg = Svg::new(WIDTH, bottom + 42.0, chart.caption);
    svg.x_axis(frame, &x, Unit::Number, 6, true);
    svg.line("reference", (x.at(0.0), frame.top), (x.at(0.0), frame.bottom));
    svg.text(((frame.left + frame.right) / 2.0, bottom + 36.0), "label", "middle", chart.x_label);
    for (index, (row, label)) in chart.rows.iter().zip(&labels).enumerate() {
        let y = frame.top + ROW * (index as f64 + 0.5);
        let (low, high) = row.ends;
        let class = if low > 0.0 || high < 0.0 { "s0" } else { "s2" };
        svg.line(&format!("series {class}"), (x.at(low), y), (x.at(high), y));
        let value = |v| Unit::Number.value(v);
        let hover = format!("{}: {} ({} to {})", row.label, value(row.value), value(low), value(high));
        svg.push(&format!(
            "<circle class=\"dot {class}\" cx=\"{}\" cy=\"{}\" r=\"4\"><title>{}</title></circle>",
            number(x.at(row.value)),
            number(y),
            escape(&hover)
        ));
        svg.text((frame.left - 8.0, y + 4.0), "label", "end", label);
    }
    svg.finish()
}
